/**
 * WAL that is old lies in objects only: safekeepers give it up, and everything that needs it again gets it from there, also
 * when their files of it and the whole pageserver are lost.
 */
import { readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { eventually } from '../support/processes.ts';
import { TestSystem } from '../support/system.ts';

const ROWS = 12_000;
const ROUNDS = 5;
const LIMIT = { limitMs: 60_000, everyMs: 200 };

const system = new TestSystem();
/** An LSN after each round, with what the table held then. */
const moments: { lsn: string; count: string }[] = [];

beforeAll(async () => {
  await system.start();
  await system.with('main', async (client) => {
    await client.query('create table letters (id int, body text)');
    for (let round = 0; round < ROUNDS; round++) {
      // About 16 MiB of WAL each, hardly to be compressed.
      await client.query(
        `insert into letters select i, (select string_agg(md5(i || ':' || k || ':${round}'), '') from generate_series(1, 38) k)
         from generate_series(1, ${ROWS}) i`,
      );
      const count = await client.value('select count(*) from letters');
      moments.push({ lsn: await client.value('select pg_current_wal_lsn()'), count });
    }
  });
}, 120_000);
afterAll(() => system.destroy());

it('is given up by all safekeepers once objects hold it and the pageserver can do without it', async () => {
  await eventually('three segments in objects', () => walObjects().length >= 3, LIMIT);
  for (const node of ['sk1', 'sk2', 'sk3']) {
    await eventually(`${node} to give up old WAL`, () => localSegments(node)[0]! > walObjects()[0]!, LIMIT);
  }
  const offloaded = walObjects();
  for (const node of ['sk1', 'sk2', 'sk3']) {
    const missing = localSegments(node)[0]!;
    expect(offloaded.some((name) => name < missing)).toBe(true);
  }
  // All of it was stored once: by one safekeeper for all.
  expect(new Set(offloaded).size).toBe(offloaded.length);
});

it('is read from objects by branches of the past, after the rest of it and all pages were lost locally', async () => {
  const before = await contents('main');
  await system.crash();
  const newest = walObjects().at(-1)!;
  for (const node of ['sk1', 'sk2']) {
    for (const name of localSegments(node)) if (name <= newest) rmSync(join(walFolder(node), name));
  }
  for (const folder of ['pageserver', 'computes']) rmSync(join(system.dataDir, folder), { recursive: true });
  await system.start();
  expect(await contents('main')).toEqual(before);
  for (const [at, { lsn, count }] of moments.entries()) {
    if (at % 2 === 1) continue;
    await system.createBranch(`past${at}`, { at: lsn });
    expect(await system.with(`past${at}`, (client) => client.value('select count(*) from letters'))).toBe(
      count,
    );
  }
}, 120_000);

it('goes on from there', async () => {
  await system.with('main', (client) => client.query("insert into letters values (0, 'the last')"));
  await system.suspend('main');
  expect(await system.with('main', (client) => client.value('select body from letters where id = 0'))).toBe(
    'the last',
  );
});

it('and all that is committed comes back to a safekeeper that lost its disk', async () => {
  const before = await contents('main');
  await system.crash();
  rmSync(join(system.dataDir, 'safekeepers', 'sk3'), { recursive: true });
  await system.start();
  await eventually('sk3 to join its timelines again', () => hasReplica('sk3'), LIMIT);
  // A compute that was running is over: it had been promised things by replicas of the time before.
  await eventually(
    'a commit',
    async () => {
      try {
        await system.with('main', (client) => client.query('create table later ()'));
        return true;
      } catch {
        return false;
      }
    },
    LIMIT,
  );
  expect(await contents('main')).toEqual(before);
  const { stdout } = await system.run(['events', '--since', '5m', 'safekeeper.*']);
  expect(stdout).toContain('safekeeper.restored');
}, 120_000);

function hasReplica(node: string): boolean {
  try {
    return localSegments(node).length > 0;
  } catch {
    return false;
  }
}

function contents(branch: string): Promise<unknown> {
  const sql = "select count(*), md5(string_agg(body, '' order by id, body)) as sum from letters";
  return system.with(branch, async (client) => (await client.query(sql)).rows[0]);
}

/** The timeline that has most WAL: that of branch main. */
function timeline(): string {
  const root = join(system.dataDir, 'safekeepers', 'sk1', 'timelines');
  return readdirSync(root)
    .sort((a, b) => statSync(join(root, b)).mtimeMs - statSync(join(root, a)).mtimeMs)
    .at(-1)!;
}

function walFolder(node: string): string {
  return join(system.dataDir, 'safekeepers', node, 'timelines', timeline(), 'wal');
}

function localSegments(node: string): string[] {
  return readdirSync(walFolder(node)).sort();
}

/** Names of whole segments in objects. */
function walObjects(): string[] {
  const tenants = join(system.dataDir, 'objects', 'tenants');
  const folder = join(tenants, readdirSync(tenants)[0]!, 'timelines', timeline(), 'wal');
  try {
    return readdirSync(folder)
      .filter((name) => !name.endsWith('.partial'))
      .sort();
  } catch {
    return [];
  }
}
