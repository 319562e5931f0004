/**
 * The pageserver by itself, without sockets: how fast it ingests WAL of a stock Postgres, and how fast it serves pages from
 * memory and from layer files. `node test/bench/pageserver.ts`
 */

import type { Shard } from '../../actors/pageserver/shard.ts';
import { formatLsn, PAGE_BYTES } from '../../protocols/lsn.ts';
import { CorruptWalError } from '../../protocols/postgres/wal/errors.ts';
import { WalStreamDecoder } from '../../protocols/postgres/wal/stream-decoder.ts';
import { readWalFiles, ShardWorld } from '../pageserver/shard-world.ts';
import { recordRun } from '../redo/cluster.ts';

const ROWS = 400_000;
const UPDATES = 200_000;
const READS = 20_000;
const PIECE_BYTES = 128 * 1024;

const recorded = await recordRun({ full_page_writes: 'off' }, async (postgres) => {
  const client = await postgres.connect();
  await client.query('create table accounts(id int, balance int, filler char(84))');
  await client.query(`insert into accounts select i, 0, '' from generate_series(1, ${ROWS}) i`);
  await client.query('alter table accounts add primary key (id)');
  await client.query('create table history(id int, delta int, at timestamp)');
  for (let i = 0; i < 10; i++) {
    await client.query(
      `with touched as (update accounts set balance = balance + 1 where id % 20 = ${i} returning id)
       insert into history select id, 1, now() from touched limit ${UPDATES / 10}`,
    );
  }
  await client.close();
});
const world = new ShardWorld(recorded.wal, { pageCacheBytes: 32 * 2 ** 20 });
try {
  await world.import(recorded.base);
  const end = endOfLog(world.template.startLsn);
  const shard = await world.open(world.spec('1', { startLsn: world.template.startLsn }));
  await ingest(shard, end);
  await read(shard, 'open layer and files', 1);
  await shard.flush();
  await shard.uploaded();
  await shard.close();
  await world.restart();
  const cold = await world.open(world.spec('1', { startLsn: world.template.startLsn }));
  await read(cold, 'files, one page', 1);
  await read(cold, 'files, 64 pages', 64);
  await cold.close();
} finally {
  world.destroy();
  recorded.destroy();
}

function endOfLog(start: number): number {
  const decoder = new WalStreamDecoder(start, { pgVersion: world.template.pgVersion });
  try {
    for (;;) {
      const bytes = readWalFiles(recorded.wal, decoder.received, 2 ** 20);
      if (bytes.length === 0) return decoder.position;
      decoder.feed(decoder.received, bytes);
      while (decoder.next());
    }
  } catch (error) {
    if (error instanceof CorruptWalError) return decoder.position;
    throw error;
  }
}

async function ingest(shard: Shard, end: number): Promise<void> {
  const from = shard.lastLsn;
  const length = end - from;
  const cpu = process.cpuUsage();
  const began = performance.now();
  for (let at = 0; at < length; at += PIECE_BYTES) {
    const bytes = readWalFiles(recorded.wal, from + at, Math.min(PIECE_BYTES, length - at));
    await shard.takeWal(from + at, bytes);
  }
  const seconds = (performance.now() - began) / 1000;
  const used = process.cpuUsage(cpu);
  const mb = length / 1e6;
  console.log(
    `ingest to ${formatLsn(end)}: ${mb.toFixed(0)} MB, ${shard.recordsIngested} records, ` +
      `${(mb / seconds).toFixed(0)} MB/s, ${(mb / (used.user / 1e6)).toFixed(0)} MB per second of user CPU, ` +
      `${shard.history.files.size} layers, ${memory()}`,
  );
}

function memory(): string {
  const { rss, heapUsed, arrayBuffers } = process.memoryUsage();
  const mib = (bytes: number) => (bytes / 2 ** 20).toFixed(0);
  return `rss ${mib(rss)} MiB, heap ${mib(heapUsed)}, buffers ${mib(arrayBuffers)}, open layers ${mib(world.tools.pool.usedBytes)}`;
}

async function read(shard: Shard, what: string, count: number): Promise<void> {
  const { relations } = world.tools;
  const relation = largest(shard);
  const blocks = shard.headSizeOf(relation);
  const times: number[] = [];
  const out = new Uint8Array(count * PAGE_BYTES);
  const applied = world.tools.redo.recordsApplied;
  const reads = Math.floor(READS / count);
  const began = performance.now();
  for (let i = 0; i < reads; i++) {
    const first = Math.floor(((i * 0.618_033_988_75) % 1) * (blocks - count));
    const batch = {
      relations: new Int32Array(count).fill(relation),
      blocks: Float64Array.from({ length: count }, (_, j) => first + j),
    };
    const started = performance.now();
    await shard.reader.read(batch, shard.lastLsn, out);
    times.push(performance.now() - started);
  }
  const seconds = (performance.now() - began) / 1000;
  times.sort((a, b) => a - b);
  const at = (share: number) => `${(times[Math.floor(times.length * share)]! * 1000).toFixed(0)} us`;
  console.log(
    `${what}: p50 ${at(0.5)}, p99 ${at(0.99)}, ${((reads * count) / seconds).toFixed(0)} pages/s, ` +
      `${((world.tools.redo.recordsApplied - applied) / reads / count).toFixed(1)} records a page, ` +
      `relation ${relations.rel[relation]} of ${blocks} blocks, ${memory()}`,
  );
}

function largest(shard: Shard): number {
  let found = 0;
  for (let relation = 0; relation < world.tools.relations.count; relation++) {
    if (shard.headSizeOf(relation) > shard.headSizeOf(found)) found = relation;
  }
  return found;
}
