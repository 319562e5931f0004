/**
 * Redo beside stock Postgres: the WAL of one pgbench run without page images, decoded, replayed, and recovered by the
 * same binaries, turn by turn; a heap page of ten records; and a heap profile of decoding and of replaying. That shows what is
 * allocated per record, and what per page: a view of each page that is read from its file, and what files and segments cost.
 */
import { Session } from 'node:inspector/promises';
import { PageStore } from '../../deploy/wal/page-store.ts';
import { Replay, readControlFile } from '../../deploy/wal/replay.ts';
import { WalFolder } from '../../deploy/wal/wal-folder.ts';
import { PAGE_BYTES, segmentNumber, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import { applyRecordToPage } from '../../protocols/postgres/redo/pages.ts';
import { stateFromControlFile } from '../../protocols/postgres/state/initial-state.ts';
import { CorruptWalError } from '../../protocols/postgres/wal/errors.ts';
import { DecodedRecord, decodeRecord } from '../../protocols/postgres/wal/record.ts';
import { RMGR_HEAP } from '../../protocols/postgres/wal/resource-managers.ts';
import { WalStreamDecoder } from '../../protocols/postgres/wal/stream-decoder.ts';
import { type OracleRun, recordRun, recoverWithStock } from '../redo/cluster.ts';
import { bench, initialise } from '../support/pgbench.ts';
import type { StockPostgres } from '../support/stock-postgres.ts';
import { type BenchOptions, type Figure, median } from './figures.ts';

const SETTINGS = { full_page_writes: 'off', shared_buffers: '512MB', synchronous_commit: 'off' };
const DECODE_ROUNDS = 7;
/** As safekeepers send it. */
const FEED_BYTES = 128 * 1024;
const ROUNDS_MAX = 60;
const PAGE_RECORDS = 10;
/** Short attempts, many of them: one that the machine did not interrupt is among them. */
const PAGE_ATTEMPTS = 500;
const PAGE_ROUNDS = 200;
const TOP_SHOWN = 3;

export async function benchRedo({ long, say }: BenchOptions): Promise<Figure[]> {
  const scale = long ? 20 : 5;
  const walBytes = long ? 150e6 : 40e6;
  say(`redo: pgbench scale ${scale}, ${walBytes / 1e6} MB of WAL`);
  const recorded = await recordRun(
    SETTINGS,
    (postgres) => writeWal(postgres, walBytes),
    (postgres) => initialise(postgres.target, scale).then(() => {}),
  );
  try {
    return await measure(recorded, long ? 5 : 3, say);
  } finally {
    recorded.destroy();
  }
}

async function writeWal(postgres: StockPostgres, bytes: number): Promise<void> {
  const client = await postgres.connect();
  const start = await client.value('select pg_current_wal_lsn()');
  const written = () => client.number(`select pg_wal_lsn_diff(pg_current_wal_lsn(), '${start}')`);
  for (let round = 0; round < ROUNDS_MAX && (await written()) < bytes; round++) {
    await bench(postgres.target, { clients: 4, seconds: 4 });
  }
  await client.close();
}

async function measure(recorded: OracleRun, rounds: number, say: (text: string) => void): Promise<Figure[]> {
  const stock: number[] = [];
  const replays: number[] = [];
  // On a machine that others use, too, only the time on a processor says something.
  const stockCpu: number[] = [];
  const replaysCpu: number[] = [];
  const decodes: number[] = [];
  const decodesCpu: number[] = [];
  const size = decodeAll(recorded);
  for (let round = 0; round < rounds; round++) {
    say(`redo: round ${round + 1} of ${rounds}`);
    const seconds = await recoverWithStock(recorded, SETTINGS, (_, log) => redoSeconds(log));
    stock.push(size.bytes / 1e6 / seconds.elapsed);
    stockCpu.push(size.bytes / 1e6 / seconds.cpu);
    const before = process.cpuUsage();
    replays.push(size.bytes / 1e6 / replayAll(recorded));
    const { user, system } = process.cpuUsage(before);
    replaysCpu.push(size.bytes / (user + system));
  }
  const segments = loadWal(recorded);
  for (let round = 0; round < DECODE_ROUNDS; round++) {
    const before = process.cpuUsage();
    decodes.push(size.bytes / 1e6 / decodeLoaded(recorded, segments));
    const { user, system } = process.cpuUsage(before);
    decodesCpu.push(size.bytes / (user + system));
  }
  const allocated = await allocatedBy(() => decodeAll(recorded));
  allocated.top = `most in ${allocated.top}`;
  const replayed = await allocatedByReplay(recorded, size.records);
  const note = `${(size.bytes / 1e6).toFixed(0)} MB, ${size.records} records of ${(size.bytes / size.records).toFixed(0)} bytes`;
  return [
    { name: 'whole replay', unit: 'MB/s', ours: median(replays), stock: median(stock), note },
    { name: 'whole replay, processor time', unit: 'MB/s', ours: median(replaysCpu), stock: median(stockCpu) },
    {
      name: 'decode with CRC',
      unit: 'MB/s',
      ours: Math.max(...decodes),
      note: `from memory, best of ${DECODE_ROUNDS}`,
    },
    {
      name: 'decode with CRC, processor time',
      unit: 'MB/s',
      ours: median(decodesCpu),
      note: 'from memory, median; includes what the engine compiles',
    },
    heapPage(recorded),
    allocationFigure('allocated by decoding, per record', allocated, size.records),
    allocationFigure('allocated by the whole replay, per record', replayed.whole, size.records),
    allocationFigure('allocated by its second half, per record', replayed.half, replayed.halfRecords),
  ];
}

interface AllocatedByReplay {
  whole: Allocated;
  half: Allocated;
  halfRecords: number;
}

/**
 * Of a whole replay, and of the second half of one. In the first half nearly every page is read from its file, which allocates a view
 * for each; what records allocate shows in the second.
 */
async function allocatedByReplay(recorded: OracleRun, records: number): Promise<AllocatedByReplay> {
  const whole = replayInParts(recorded);
  const allocated = await allocatedBy(() => whole.run(records));
  allocated.top = `${whole.pages()} pages read; most in ${allocated.top}`;
  whole.close();
  const parts = replayInParts(recorded);
  const firstRecords = Math.floor(records / 2);
  parts.run(firstRecords);
  const pagesBefore = parts.pages();
  const half = await allocatedBy(() => parts.run(records));
  half.top = `${parts.pages() - pagesBefore} pages read; most in ${half.top}`;
  parts.close();
  return { whole: allocated, half, halfRecords: records - firstRecords };
}

interface PartialReplay {
  /** Goes on until so many records, counted from the log's beginning, are replayed. */
  run(recordsMax: number): void;
  /** Pages that are in memory. */
  pages(): number;
  close(): void;
}

function replayInParts(recorded: OracleRun): PartialReplay {
  const { control, decoder, folder } = openWal(recorded);
  const store = new PageStore(recorded.base);
  const replay = new Replay(store, stateFromControlFile(control, control.checkpointLsn));
  let records = 0;
  return {
    run(recordsMax) {
      folder.readRecords(decoder, (record) => {
        replay.apply(record);
        return ++records < recordsMax;
      });
    },
    pages() {
      let count = 0;
      for (const { pages } of store.relations.values()) for (const _ of pages.entries()) count++;
      return count;
    },
    close: () => store.close(),
  };
}

function allocationFigure(name: string, allocated: Allocated, records: number): Figure {
  const note = `${(allocated.bytes / 1024).toFixed(0)} KiB in all; ${allocated.top}`;
  return { name, unit: 'bytes', ours: allocated.bytes / records, note };
}

/** `redo done at 0/… system usage: CPU: user: 1.20 s, system: 0.30 s, elapsed: 1.59 s` */
function redoSeconds(log: string): { elapsed: number; cpu: number } {
  const match = /redo done at .* user: ([\d.]+) s, system: ([\d.]+) s, elapsed: ([\d.]+) s/.exec(log);
  if (!match) throw new Error(`Postgres did not say how long its redo took: ${log}`);
  return { elapsed: Number(match[3]), cpu: Number(match[1]) + Number(match[2]) };
}

function openWal({ base, wal }: OracleRun) {
  const control = readControlFile(base);
  const decoder = new WalStreamDecoder(control.checkpointLsn, { pgVersion: control.pgVersion });
  return { control, decoder, folder: new WalFolder(wal) };
}

function decodeAll(recorded: OracleRun): { seconds: number; bytes: number; records: number } {
  const { control, decoder, folder } = openWal(recorded);
  let records = 0;
  const started = performance.now();
  const end = folder.readRecords(decoder, () => {
    records++;
  });
  return { seconds: (performance.now() - started) / 1000, bytes: end.lsn - control.checkpointLsn, records };
}

/** The segments in memory, so that reading files is not measured. */
function loadWal(recorded: OracleRun): { start: number; bytes: Uint8Array }[] {
  const { control, folder } = openWal(recorded);
  const segments: { start: number; bytes: Uint8Array }[] = [];
  for (let number = segmentNumber(control.checkpointLsn); folder.has(number); number++) {
    segments.push({ start: number * WAL_SEGMENT_BYTES, bytes: folder.read(number) });
  }
  return segments;
}

/** Seconds to decode everything. */
function decodeLoaded(recorded: OracleRun, segments: { start: number; bytes: Uint8Array }[]): number {
  const { decoder } = openWal(recorded);
  const started = performance.now();
  try {
    for (const { start, bytes } of segments) {
      for (let at = decoder.received - start; at < bytes.length; at = decoder.received - start) {
        decoder.feed(start + at, bytes.subarray(at, at + FEED_BYTES));
        while (decoder.next());
      }
    }
  } catch (error) {
    // The end of the log.
    if (!(error instanceof CorruptWalError)) throw error;
  }
  return (performance.now() - started) / 1000;
}

function replayAll(recorded: OracleRun): number {
  const started = performance.now();
  const { control, decoder, folder } = openWal(recorded);
  const store = new PageStore(recorded.base);
  const replay = new Replay(store, stateFromControlFile(control, control.checkpointLsn));
  folder.readRecords(decoder, (record) => replay.apply(record));
  store.close();
  if (replay.findings.length > 0) throw new Error(replay.findings.join('\n'));
  return (performance.now() - started) / 1000;
}

/** Microseconds for a copy of the page and ten records, decoded and applied. */
function heapPage(recorded: OracleRun): Figure {
  const { control, decoder, folder } = openWal(recorded);
  const store = new PageStore(recorded.base);
  const found = new Map<number, { bytes: Uint8Array; lsn: number; end: number }[]>();
  let rel = 0;
  let full: number | undefined;
  folder.readRecords(decoder, (record) => {
    if (record.rmid !== RMGR_HEAP || record.maxBlock !== 0 || (record.info & 0x70) !== 0x40) return true;
    // The accounts come first in each transaction.
    if (rel === 0) rel = record.rel[0]!;
    if (record.rel[0] !== rel) return true;
    const list = found.get(record.block[0]!) ?? [];
    const bytes = record.bytes.slice(record.offset, record.offset + record.length);
    list.push({ bytes, lsn: record.lsn, end: record.end });
    found.set(record.block[0]!, list);
    if (list.length === PAGE_RECORDS) full = record.block[0]!;
    return full === undefined;
  });
  if (full === undefined) throw new Error(`no page has ${PAGE_RECORDS} updates`);
  const records = found.get(full)!;
  const record = new DecodedRecord(control.pgVersion);
  record.lsn = records[0]!.lsn;
  decodeRecord(records[0]!.bytes, 0, records[0]!.bytes.length, record);
  const [spc, db] = [record.spc[0]!, record.db[0]!];
  const before = store.page(spc, db, rel, 0, full).slice();
  store.close();
  const page = new Uint8Array(PAGE_BYTES);
  const attempts: number[] = [];
  for (let attempt = 0; attempt < PAGE_ATTEMPTS; attempt++) {
    const started = performance.now();
    for (let round = 0; round < PAGE_ROUNDS; round++) {
      page.set(before);
      for (const { bytes, lsn, end } of records) {
        record.lsn = lsn;
        record.end = end;
        decodeRecord(bytes, 0, bytes.length, record);
        applyRecordToPage(record, page, spc, db, rel, 0, full);
      }
    }
    attempts.push(((performance.now() - started) * 1000) / PAGE_ROUNDS);
  }
  const note = `best of ${PAGE_ATTEMPTS}, median ${median(attempts).toFixed(2)} µs`;
  return { name: `heap page of ${PAGE_RECORDS} records`, unit: 'µs', ours: Math.min(...attempts), note };
}

interface Allocated {
  bytes: number;
  /** The functions that allocate most. */
  top: string;
}

/** Everything that V8 allocates on its heap during `run`, what is collected meanwhile included. */
async function allocatedBy(run: () => void): Promise<Allocated> {
  const session = new Session();
  session.connect();
  await session.post('HeapProfiler.startSampling', {
    samplingInterval: 1024,
    includeObjectsCollectedByMajorGC: true,
    includeObjectsCollectedByMinorGC: true,
  });
  run();
  const { profile } = await session.post('HeapProfiler.stopSampling');
  session.disconnect();
  const sums = new Map<string, number>();
  const visit = (node: typeof profile.head): void => {
    const { functionName, url } = node.callFrame;
    const key = `${functionName || '(anonymous)'} of ${url.split('/').at(-1)}`;
    sums.set(key, (sums.get(key) ?? 0) + node.selfSize);
    for (const child of node.children) visit(child);
  };
  visit(profile.head);
  const bytes = [...sums.values()].reduce((sum, value) => sum + value, 0);
  const most = [...sums].sort((a, b) => b[1] - a[1]).slice(0, TOP_SHOWN);
  return { bytes, top: most.map(([name, sum]) => `${name} ${(sum / 1024).toFixed(0)} KiB`).join(', ') };
}
