/**
 * The storage engine by itself, in this process, beside the figures to reach: ingest to layers that are flushed, pages from the cache and
 * from local layers, compaction, and what a fresh pgbench database takes in objects.
 */
import { Arena, VERSION_RECORD } from '../../actors/pageserver/arena.ts';
import { writeDelta } from '../../actors/pageserver/delta-writer.ts';
import { MemoryLayer, NODE_INITIALISES, UNKNOWN_SIZE } from '../../actors/pageserver/memory-layer.ts';
import type { PageBatch } from '../../actors/pageserver/page-reader.ts';
import type { Shard } from '../../actors/pageserver/shard.ts';
import { StateLog } from '../../actors/pageserver/state-log.ts';
import { PAGE_BYTES } from '../../protocols/lsn.ts';
import { CorruptWalError } from '../../protocols/postgres/wal/errors.ts';
import { WalStreamDecoder } from '../../protocols/postgres/wal/stream-decoder.ts';
import { readWalFiles, ShardWorld } from '../pageserver/shard-world.ts';
import { type OracleRun, recordRun } from '../redo/cluster.ts';
import type { StockPostgres } from '../support/stock-postgres.ts';
import { benchBranchS3 } from './branch-s3.ts';
import { type BenchOptions, best, type Figure, percentile } from './figures.ts';

const MIB = 2 ** 20;
const LAYER_BYTES = 24 * MIB;
const PIECE_BYTES = 128 * 1024;
const INGEST_BYTES = 96 * MIB;
const TIMELINE = '1'.repeat(32);

/** The tables of pgbench -i, filled as it does. */
async function loadPgbench(postgres: StockPostgres, scale: number, updates: number): Promise<void> {
  const client = await postgres.connect();
  for (const statement of [
    'create table pgbench_history(tid int, bid int, aid int, delta int, mtime timestamp, filler char(22))',
    'create table pgbench_tellers(tid int not null, bid int, tbalance int, filler char(84)) with (fillfactor=100)',
    'create table pgbench_accounts(aid int not null, bid int, abalance int, filler char(84)) with (fillfactor=100, autovacuum_enabled=off)',
    'create table pgbench_branches(bid int not null, bbalance int, filler char(88)) with (fillfactor=100)',
    `insert into pgbench_branches select i, 0 from generate_series(1, ${scale}) i`,
    `insert into pgbench_tellers select i, (i - 1) / 10 + 1, 0 from generate_series(1, ${scale * 10}) i`,
    `insert into pgbench_accounts select i, (i - 1) / 100000 + 1, 0, '' from generate_series(1, ${scale * 100_000}) i`,
    'alter table pgbench_branches add primary key (bid)',
    'alter table pgbench_tellers add primary key (tid)',
    'alter table pgbench_accounts add primary key (aid)',
    'vacuum analyze pgbench_accounts',
  ]) {
    await client.query(statement);
  }
  for (let i = 0; i < updates; i++) {
    await client.query(
      `update pgbench_accounts set abalance = abalance + ${i} where aid in
         (select 1 + (random() * ${scale * 100_000 - 1})::int from generate_series(1, 5000))`,
    );
  }
  await client.close();
}

export async function benchStorage(options: BenchOptions): Promise<Figure[]> {
  const scale = options.long ? 20 : 4;
  options.say(`storage: pgbench tables of scale ${scale} on stock Postgres, for their WAL`);
  const loaded = await recordRun({ full_page_writes: 'off' }, (postgres) => loadPgbench(postgres, scale, 0));
  const updated = await recordRun({ full_page_writes: 'off' }, (postgres) =>
    loadPgbench(postgres, 1, options.long ? 400 : 120),
  );
  // Timers of the system clock do not keep a process alive; waiting for compaction must.
  const alive = setInterval(() => {}, 1000);
  try {
    return [
      ...(await benchIngest(options)),
      ...(await benchLoad(loaded, options)),
      ...(await benchUpdates(updated, options)),
      ...(await benchBranchS3(options)),
    ];
  } finally {
    clearInterval(alive);
    loaded.destroy();
    updated.destroy();
  }
}

/** Values as records into open layers, frozen and written to durable files; as Neon's bench_ingest does it. */
async function benchIngest(options: BenchOptions): Promise<Figure[]> {
  const figures: Figure[] = [];
  const world = new ShardWorld('');
  await world.restart();
  try {
    for (const [name, bytes, isRandom, target] of [
      ['100-byte values, ascending keys', 100, false, 99],
      ['100-byte values, random keys', 100, true, 59],
      ['8 KiB values, ascending keys', 8192, false, 239],
    ] as const) {
      options.say(`storage: ingest of ${name}`);
      const rates: number[] = [];
      const cpu = process.cpuUsage();
      for (let run = 0; run < 3; run++) rates.push(await ingestValues(world, bytes, isRandom));
      const used = process.cpuUsage(cpu);
      const perCore = (3 * INGEST_BYTES) / MIB / ((used.user + used.system) / 1e6);
      const note = `target >= ${target}; ${perCore.toFixed(0)} MiB per second of a core`;
      figures.push({ name: `ingest, ${name}`, unit: 'MiB/s', ours: best(rates), note });
    }
  } finally {
    world.destroy();
  }
  return figures;
}

async function ingestValues(world: ShardWorld, bytes: number, isRandom: boolean): Promise<number> {
  const { tools } = world;
  const count = Math.floor(INGEST_BYTES / bytes);
  const relation = tools.relations.idOf(1663, 5, 16_384, 0);
  const place = {
    disk: tools.disk,
    store: tools.store,
    spec: { tenant: 'a'.repeat(32), timeline: TIMELINE, pgVersion: 17, generation: 1 },
    isTaken: () => false,
  };
  const value = new Uint8Array(bytes);
  for (let i = 0, x = 7; i < bytes; i++) {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    // As pages are: half of it says something.
    value[i] = i % 2 === 0 ? x >>> 24 : 0;
  }
  const began = performance.now();
  let lsn = 8;
  let layer = newLayer(world, lsn);
  for (let i = 0; i < count; i++) {
    const block = isRandom ? Math.floor(((i * 0.618_033_988_75) % 1) * count) : i;
    value[0] = i;
    value[2] = i >>> 8;
    const position = layer.arena.add(
      { startLsn: lsn, endLsn: lsn + 8, kind: VERSION_RECORD },
      value,
      0,
      bytes,
    );
    lsn += 8;
    layer.addVersion(relation, block, position, NODE_INITIALISES);
    layer.endLsn = lsn;
    if (layer.arena.bytes < LAYER_BYTES && i + 1 < count) continue;
    await writeDelta(layer, {
      place,
      relations: tools.relations,
      redo: tools.redo,
      readPage: () => Promise.reject(),
    });
    layer.arena.release();
    layer = newLayer(world, lsn);
  }
  const seconds = (performance.now() - began) / 1000;
  await tools.store.local.removeFolder(`tenants/${'a'.repeat(32)}`);
  return (count * bytes) / MIB / seconds;
}

function newLayer(world: ShardWorld, lsn: number): MemoryLayer {
  const state = new StateLog(new Map(), { lsn, state: new Uint8Array(64) });
  return new MemoryLayer(lsn, new Arena(world.tools.pool), new Int32Array(1).fill(UNKNOWN_SIZE), state);
}

/** A fresh database: ingest of its WAL, its size in objects, and reads of it. */
async function benchLoad(recorded: OracleRun, options: BenchOptions): Promise<Figure[]> {
  options.say('storage: the database in layers, and reads of it');
  const world = new ShardWorld(recorded.wal, { pageCacheBytes: 64 * MIB });
  try {
    await world.import(recorded.base);
    const spec = world.spec(TIMELINE, { startLsn: world.template.startLsn });
    const shard = await world.open(spec);
    const end = endOfLog(world, recorded.wal);
    const ingest = await feed(shard, recorded.wal, end);
    await shard.flush();
    await shard.layers.compacted();
    await shard.createImages(shard.lastLsn);
    await shard.uploaded();
    let logical = 0;
    (await shard.view(shard.lastLsn)).forEachSize((_, blocks) => {
      logical += Math.max(0, blocks) * PAGE_BYTES;
    });
    const kinds = { delta: 0, image: 0, state: 0 };
    for (const { kind, bytes } of shard.layerDescriptors()) kinds[kind] += bytes;
    const fromCache = await readCached(shard);
    await shard.close();
    await world.restart();
    const cold = await world.open(spec);
    const single = await readCold(cold, 1, 4000);
    await cold.close();
    // A cache that is full and holds nothing of what comes next, as that of a server that has run for a while.
    world.options.pageCacheBytes = 8 * MIB;
    await world.restart();
    const again = await world.open(spec);
    const passes: number[] = [];
    for (let pass = 0; pass < 3; pass++) passes.push(await readSequentially(again, 128));
    const vectored = best(passes);
    await again.close();
    return [
      { name: 'ingest of WAL of pgbench -i', unit: 'MB/s', ours: ingest },
      {
        name: 'objects / logical size after pgbench -i, images and deltas',
        unit: 'x',
        ours: (kinds.delta + kinds.image + kinds.state) / logical,
        note: `target <= 0.5; of it images ${(kinds.image / logical).toFixed(2)}`,
      },
      {
        name: 'GetPage from the page cache, one core',
        unit: 'pages/s',
        ours: fromCache,
        note: 'target >= 60000',
      },
      {
        name: 'GetPage from a local layer, p50',
        unit: 'µs',
        ours: percentile(single, 0.5),
        note: 'target <= 150',
      },
      {
        name: 'GetPage from a local layer, p99',
        unit: 'µs',
        ours: percentile(single, 0.99),
        note: 'target <= 1000',
      },
      { name: 'sequential, 128 pages a request', unit: 'MB/s', ours: vectored, note: 'target >= 300' },
    ];
  } finally {
    world.destroy();
  }
}

/** Random updates: merges, images, and how deep reads go after them. */
async function benchUpdates(recorded: OracleRun, options: BenchOptions): Promise<Figure[]> {
  options.say('storage: updates, merged');
  const world = new ShardWorld(recorded.wal, {
    pageCacheBytes: 16 * MIB,
    layerBytesMax: 4 * MIB,
    // By hand below.
    compaction: { mergeLayers: 100_000, mergeBytes: 2 ** 50 },
  });
  try {
    await world.import(recorded.base);
    const spec = world.spec(TIMELINE, { startLsn: world.template.startLsn });
    const end = endOfLog(world, recorded.wal);
    const flat = await world.open(spec);
    const ingest = await feed(flat, recorded.wal, end);
    await flat.flush();
    await flat.uploaded();
    const before = await readCold(flat, 1, 1500);
    const layers = flat.history.files.levelZero.length;
    const inputBytes = flat.layerDescriptors().reduce((total, { bytes }) => total + bytes, 0);
    await flat.close();
    await world.restart();
    world.options.compaction = { mergeLayers: 2, mergeLayersMax: 100_000 };
    const cpu = process.cpuUsage();
    const began = performance.now();
    const merging = await world.open(spec);
    await merging.layers.compacted();
    const seconds = (performance.now() - began) / 1000;
    const used = process.cpuUsage(cpu);
    const coreSeconds = (used.user + used.system) / 1e6;
    const after = await readCold(merging, 1, 1500);
    await merging.close();
    return [
      { name: 'ingest of WAL of random updates', unit: 'MB/s', ours: ingest },
      {
        name: 'compaction, level 0 bytes in, images included',
        unit: 'MB/s',
        ours: inputBytes / 1e6 / seconds,
        note: `${(inputBytes / 1e6).toFixed(0)} MB of ${layers} layers; ${(inputBytes / 1e6 / coreSeconds).toFixed(0)} MB per second of a core`,
      },
      { name: `GetPage through ${layers} layers, p50`, unit: 'µs', ours: percentile(before, 0.5) },
      { name: 'GetPage after compaction, p50', unit: 'µs', ours: percentile(after, 0.5) },
    ];
  } finally {
    world.destroy();
  }
}

function endOfLog(world: ShardWorld, wal: string): number {
  const decoder = new WalStreamDecoder(world.template.startLsn, { pgVersion: world.template.pgVersion });
  try {
    for (;;) {
      const bytes = readWalFiles(wal, decoder.received, MIB);
      if (bytes.length === 0) return decoder.position;
      decoder.feed(decoder.received, bytes);
      while (decoder.next());
    }
  } catch (error) {
    if (error instanceof CorruptWalError) return decoder.position;
    throw error;
  }
}

/** Feeds WAL up to `end`; returns MB/s. */
async function feed(shard: Shard, wal: string, end: number): Promise<number> {
  const from = shard.lastLsn;
  const began = performance.now();
  for (let at = from; at < end; at += PIECE_BYTES) {
    await shard.takeWal(at, readWalFiles(wal, at, Math.min(PIECE_BYTES, end - at)));
  }
  return (end - from) / 1e6 / ((performance.now() - began) / 1000);
}

function largest(shard: Shard): { relation: number; blocks: number } {
  const found = { relation: 0, blocks: 0 };
  for (let relation = 0; relation < 100_000; relation++) {
    const blocks = shard.headSizeOf(relation);
    if (blocks > found.blocks) Object.assign(found, { relation, blocks });
  }
  return found;
}

/** Pages per second of one core when all are cached, one page a request. */
async function readCached(shard: Shard): Promise<number> {
  const { relation, blocks } = largest(shard);
  const count = Math.min(blocks, 4000);
  const out = new Uint8Array(PAGE_BYTES);
  const batch = (block: number): PageBatch => ({
    relations: Int32Array.of(relation),
    blocks: Float64Array.of(block),
  });
  for (let block = 0; block < count; block++) await shard.reader.read(batch(block), shard.lastLsn, out);
  const reads = 300_000;
  const began = performance.now();
  for (let i = 0; i < reads; i++) {
    const waits = shard.reader.read(batch(i % count), shard.lastLsn, out);
    if (waits) await waits;
  }
  return reads / ((performance.now() - began) / 1000);
}

/** Durations in microseconds of reads at random blocks, each of which is read once. */
async function readCold(shard: Shard, count: number, reads: number): Promise<number[]> {
  const { relation, blocks } = largest(shard);
  const times: number[] = [];
  const out = new Uint8Array(count * PAGE_BYTES);
  for (let i = 0; i < Math.min(reads, blocks / count); i++) {
    const first = Math.floor(((i * 0.618_033_988_75) % 1) * (blocks - count));
    const batch = {
      relations: new Int32Array(count).fill(relation),
      blocks: Float64Array.from({ length: count }, (_, j) => first + j),
    };
    const began = performance.now();
    await shard.reader.read(batch, shard.lastLsn, out);
    times.push((performance.now() - began) * 1000);
  }
  return times;
}

async function readSequentially(shard: Shard, count: number): Promise<number> {
  const { relation, blocks } = largest(shard);
  const out = new Uint8Array(count * PAGE_BYTES);
  const began = performance.now();
  let read = 0;
  for (let first = 0; first + count <= blocks; first += count) {
    const batch = {
      relations: new Int32Array(count).fill(relation),
      blocks: Float64Array.from({ length: count }, (_, j) => first + j),
    };
    await shard.reader.read(batch, shard.lastLsn, out);
    read += count * PAGE_BYTES;
  }
  return read / 1e6 / ((performance.now() - began) / 1000);
}
