/** A layer as people read it. */
import { formatLsn } from '../../protocols/lsn.ts';
import { SLRU_DB, SLRU_FOLDERS, SLRU_SPC } from '../../protocols/postgres/redo/slru.ts';
import { table } from '../cli/output.ts';
import { bytesText } from './figures.ts';
import type { LayerSummary, RelationSummary } from './layer-inspection.ts';

const FORKS = ['main', 'fsm', 'vm', 'init'];

export function layerText(name: string, layer: LayerSummary, damage: string[]): string {
  const range =
    layer.kind === 'image'
      ? `at ${formatLsn(layer.endLsn)}`
      : `${formatLsn(layer.startLsn)} to ${formatLsn(layer.endLsn)}`;
  const ratio =
    layer.dataBytes === 0 ? '' : `, ${(layer.rawDataBytes / layer.dataBytes).toFixed(2)}x compressed`;
  const lines = [
    name,
    `${layer.kind} layer of level ${layer.level}, format ${layer.version}, Postgres ${layer.pgVersion}, ${bytesText(layer.fileBytes)}`,
    `LSN   ${range}`,
    `keys  ${keyText(layer.firstKey)} to ${keyText(layer.lastKey)}`,
    `data  ${layer.blocks} blocks, ${layer.entries} entries, ${bytesText(layer.rawDataBytes)} in ${bytesText(layer.dataBytes)}${ratio}`,
    `state ${layer.sizes} sizes, ${layer.values} values, ${layer.waypoints} waypoints`,
    '',
    table(
      ['SECTION', 'STORED', 'RAW'],
      layer.sections.map(({ name: section, storedBytes, rawBytes }) => [
        section,
        bytesText(storedBytes),
        bytesText(rawBytes),
      ]),
      'no sections',
    ),
    '',
    table(
      ['RELATION', 'FORK', 'ENTRIES', 'IMAGES', 'BLOCKS', 'BYTES'],
      layer.relations.map(relationRow),
      'no pages',
    ),
    '',
    damage.length === 0
      ? 'checksums: every block, section and the footer are sound'
      : `DAMAGED: ${damage.length} of ${layer.blocks} blocks`,
    ...damage.map((text) => `  ${text}`),
  ];
  return lines.join('\n');
}

function relationRow({
  spc,
  db,
  rel,
  fork,
  entries,
  images,
  bytes,
  firstBlock,
  lastBlock,
}: RelationSummary): string[] {
  return [
    spc === SLRU_SPC && db === SLRU_DB ? (SLRU_FOLDERS[rel] ?? String(rel)) : `${spc}/${db}/${rel}`,
    FORKS[fork] ?? String(fork),
    String(entries),
    String(images),
    firstBlock === lastBlock ? String(firstBlock) : `${firstBlock}-${lastBlock}`,
    bytesText(bytes),
  ];
}

/** A key of 34 hexadecimal digits as `tablespace/database/relation.fork#block`; the ends of all keys by name. */
export function keyText(key: string): string {
  if (/^0+$/.test(key)) return 'first';
  if (/^f+$/.test(key)) return 'last';
  const part = (from: number, to: number) => Number.parseInt(key.slice(from, to), 16);
  const block = part(26, 34);
  const log = part(0, 8) === SLRU_SPC && part(8, 16) === SLRU_DB ? SLRU_FOLDERS[part(16, 24)] : undefined;
  if (log !== undefined) return `${log}#${block}`;
  return `${part(0, 8)}/${part(8, 16)}/${part(16, 24)}.${part(24, 26)}#${block === 0xffffffff ? 'end' : block}`;
}
