/** The page service from a client's side: over a channel, with time limits, at the newest and at older LSNs. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { PageClient } from '../../actors/pageserver/page-client.ts';
import { PageService } from '../../actors/pageserver/page-service.ts';
import type { Shard } from '../../actors/pageserver/shard.ts';
import { resolveLsn, resolveTime } from '../../actors/pageserver/shard-queries.ts';
import { LATEST_LSN, type Lsn, PAGE_BYTES } from '../../protocols/lsn.ts';
import { FORK_INIT, FORK_MAIN } from '../../protocols/pages/types.ts';
import { MemoryChannelNetwork } from '../../runtime/adapters/memory-channel.ts';
import { type OracleRun, recordRun } from '../redo/cluster.ts';
import { replayReference } from './reference.ts';
import { ShardWorld } from './shard-world.ts';

const NEWEST = { lsn: LATEST_LSN, notModifiedSince: 0 as Lsn };

let recorded: OracleRun;
let world: ShardWorld;
let shard: Shard;
let client: PageClient;
let endLsn: number;
const found = { db: 0, kept: 0, unlogged: 0, times: [] as number[] };

beforeAll(async () => {
  recorded = await recordRun({ full_page_writes: 'off' }, async (postgres) => {
    const session = await postgres.connect();
    await session.query('create table kept(id int)');
    await session.query('create unlogged table quick(id int primary key)');
    await session.query('insert into kept select generate_series(1, 5000)');
    await session.query('insert into quick select generate_series(1, 5000)');
    found.times.push(await session.number('select extract(epoch from clock_timestamp()) * 1000'));
    await session.query('select pg_sleep(0.05)');
    await session.query('delete from kept');
    found.db = await session.number('select oid from pg_database where datname = current_database()');
    found.kept = await session.number("select pg_relation_filenode('kept')");
    found.unlogged = await session.number("select pg_relation_filenode('quick')");
    await session.close();
  });
  world = new ShardWorld(recorded.wal);
  await world.import(recorded.base);
  endLsn = replayReference(recorded.base, recorded.wal, world.template.startLsn, 1e9).endLsn;
  shard = await world.open(world.spec('1', { startLsn: world.template.startLsn }));
  await world.feed(shard, endLsn);
  const network = new MemoryChannelNetwork();
  await network.listen('mem:pages', (channel) => {
    new PageService(channel, { shard, tools: world.tools, waitTimeoutMs: 80 });
  });
  const channel = await network.dial('mem:pages', { timeoutMs: 1000 });
  client = new PageClient({ clock: world.tools.clock, channel, timeoutMs: 2000 });
}, 120_000);

afterAll(async () => {
  client?.close();
  await shard?.close();
  world?.destroy();
  recorded?.destroy();
});

test('a range of pages and a list of pages give the same', async () => {
  const tag = { spc: 1663, db: found.db, rel: found.kept, fork: FORK_MAIN };
  const range = await client.getPages({ ...NEWEST, ...tag, firstBlock: 3, count: 5 });
  const pages = [3, 4, 5, 6, 7].map((block) => ({ ...tag, block }));
  expect(range.length).toBe(5 * PAGE_BYTES);
  expect(Buffer.compare(range, await client.getPageList({ ...NEWEST, pages }))).toBe(0);
});

test('beyond the end of a relation, and without one, there are zeros', async () => {
  const tag = { spc: 1663, db: found.db, fork: FORK_MAIN };
  const beyond = await client.getPages({ ...NEWEST, ...tag, rel: found.kept, firstBlock: 90_000, count: 2 });
  const unknown = await client.getPages({ ...NEWEST, ...tag, rel: 999_999, firstBlock: 0, count: 2 });
  for (const pages of [beyond, unknown]) expect(pages.every((byte) => byte === 0)).toBe(true);
});

test('an unlogged relation is served from its init fork', async () => {
  const directory = await client.getDirectory({ ...NEWEST, db: found.db });
  const forks = directory.filter(({ rel }) => rel === found.unlogged);
  expect(forks.map(({ fork, blocks }) => [fork, blocks]).sort()).toEqual([
    [FORK_MAIN, 0],
    [FORK_INIT, 0],
  ]);
  const index = directory.filter(({ fork, blocks }) => fork === FORK_INIT && blocks > 0);
  expect(index.length).toBe(1);
  const tag = { spc: 1663, db: found.db, rel: index[0]!.rel };
  const [main, init] = await Promise.all(
    [FORK_MAIN, FORK_INIT].map((fork) =>
      client.getPages({ ...NEWEST, ...tag, fork, firstBlock: 0, count: 1 }),
    ),
  );
  expect(Buffer.compare(main!, init!)).toBe(0);
});

test('the shared relations have a directory of their own, without status logs', async () => {
  const shared = await client.getDirectory({ ...NEWEST, db: 0 });
  expect(shared.length).toBeGreaterThan(30);
  expect(new Set(shared.map(({ spc }) => spc))).toEqual(new Set([1664]));
});

test('a basebackup at the head is quick and whole', async () => {
  const began = performance.now();
  const basebackup = await client.getBasebackup(LATEST_LSN);
  const tookMs = performance.now() - began;
  expect(basebackup.lsn).toBe(endLsn);
  expect(basebackup.systemId).toBe(world.template.systemId);
  expect(basebackup.controlTemplate.length).toBe(PAGE_BYTES);
  const paths = basebackup.files.map(({ path }) => path);
  for (const path of ['pg_xact/0000', 'global/pg_filenode.map', `base/${found.db}/PG_VERSION`]) {
    expect(paths).toContain(path);
  }
  expect(tookMs).toBeLessThan(100);
});

test('what does not come in time is an error that says where the pageserver is', async () => {
  const tag = { spc: 1663, db: found.db, rel: found.kept, fork: FORK_MAIN };
  const future = { lsn: LATEST_LSN, notModifiedSince: (endLsn + 8000) as Lsn };
  await expect(client.getPages({ ...future, ...tag, firstBlock: 0, count: 1 })).rejects.toMatchObject({
    code: 'timeout',
    message: expect.stringContaining('did not reach'),
  });
});

test('a moment is found by LSN and by time', async () => {
  const { lsn } = await resolveLsn(shard, endLsn - 1, 50);
  expect(lsn).toBeLessThan(endLsn);
  const before = await resolveTime(shard, found.times[0]!);
  expect(before.commitTimeMs).toBeLessThanOrEqual(found.times[0]!);
  const directory = await client.getDirectory({
    lsn: before.lsn as Lsn,
    notModifiedSince: 0 as Lsn,
    db: found.db,
  });
  const kept = directory.find(({ rel, fork }) => rel === found.kept && fork === FORK_MAIN)!;
  expect(kept.blocks).toBeGreaterThan(20);
  // The rows are marked by then, but the transaction that deleted them has not committed: its status tells the moments apart.
  const [then, now] = await Promise.all([
    client.getBasebackup(before.lsn as Lsn),
    client.getBasebackup(LATEST_LSN),
  ]);
  const status = (files: typeof then.files) => files.find(({ path }) => path === 'pg_xact/0000')!.data;
  expect(Buffer.compare(status(then.files), status(now.files))).not.toBe(0);
  expect(then.lsn).toBe(before.lsn);
  expect((await resolveTime(shard, Date.now())).lsn).toBe(endLsn);
  await expect(resolveTime(shard, 1000)).rejects.toMatchObject({ code: 'not-found' });
});

test('all requests fail when the channel closes', async () => {
  const tag = { spc: 1663, db: found.db, rel: found.kept, fork: FORK_MAIN };
  const future = { lsn: LATEST_LSN, notModifiedSince: (endLsn + 8000) as Lsn };
  const waiting = client.getPages({ ...future, ...tag, firstBlock: 0, count: 1 });
  client.close();
  await expect(waiting).rejects.toMatchObject({ code: 'unavailable' });
  await expect(client.getBasebackup(LATEST_LSN)).rejects.toMatchObject({ code: 'unavailable' });
});
