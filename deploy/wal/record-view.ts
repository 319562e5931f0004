/**
 * A WAL record as `palimpsest wal dump` shows it: one line of text, or one JSON object.
 */
import { formatLsn } from '../../protocols/lsn.ts';
import { recordName, resourceManagerName } from '../../protocols/postgres/wal/names.ts';
import { BLOCK_WILL_INIT, type DecodedRecord } from '../../protocols/postgres/wal/record.ts';

const FORKS = ['main', 'fsm', 'vm', 'init'];
const HEX_BYTES_MAX = 32;

export interface BlockView {
  id: number;
  /** `tablespace/database/relation` */
  relation: string;
  fork: string;
  block: number;
  /** Bytes of the page image, with what it is for. */
  image?: { bytes: number; use: 'redo' | 'comparison' };
  dataBytes?: number;
  initialises?: true;
}

export interface RecordView {
  lsn: string;
  end: string;
  prev: string;
  resourceManager: string;
  record: string;
  xid: number;
  bytes: number;
  mainDataBytes: number;
  /** The beginning of the main data, in hexadecimal. */
  mainData: string;
  blocks: BlockView[];
}

/** What a decoded record says about itself. */
export function recordView(record: DecodedRecord): RecordView {
  const { bytes, mainOffset, mainLength } = record;
  const shown = bytes.subarray(mainOffset, mainOffset + Math.min(mainLength, HEX_BYTES_MAX));
  return {
    lsn: formatLsn(record.lsn),
    end: formatLsn(record.end),
    prev: formatLsn(record.prev),
    resourceManager: resourceManagerName(record.rmid),
    record: recordName(record.pgVersion, record.rmid, record.info),
    xid: record.xid,
    bytes: record.length,
    mainDataBytes: mainLength,
    mainData: Buffer.from(shown).toString('hex'),
    blocks: blockViews(record),
  };
}

/** One line of text. */
export function recordLine(view: RecordView): string {
  const blocks = view.blocks.map((block) => {
    const image = block.image ? ` ${block.image.bytes} bytes of image for ${block.image.use}` : '';
    const fork = block.fork === 'main' ? '' : `.${block.fork}`;
    return `; #${block.id} ${block.relation}${fork} block ${block.block}${block.initialises ? ' (new)' : ''}${image}`;
  });
  const xid = view.xid === 0 ? '-' : String(view.xid);
  return `${view.lsn.padEnd(12)} ${view.record.padEnd(30)} xid ${xid.padEnd(9)} ${String(view.bytes).padStart(6)} bytes${blocks.join('')}`;
}

function blockViews(record: DecodedRecord): BlockView[] {
  const views: BlockView[] = [];
  for (let id = 0; id <= record.maxBlock; id++) {
    if (record.inUse[id] === 0) continue;
    const imageBytes = record.imageLength[id]!;
    const dataBytes = record.dataLength[id]!;
    views.push({
      id,
      relation: `${record.spc[id]}/${record.db[id]}/${record.rel[id]}`,
      fork: FORKS[record.fork[id]!] ?? String(record.fork[id]),
      block: record.block[id]!,
      ...(imageBytes > 0
        ? { image: { bytes: imageBytes, use: record.hasAppliedImage(id) ? 'redo' : 'comparison' } }
        : {}),
      ...(dataBytes > 0 ? { dataBytes } : {}),
      ...((record.flags[id]! & BLOCK_WILL_INIT) !== 0 ? { initialises: true } : {}),
    });
  }
  return views;
}
