/**
 * Projects whose pages are on several pageservers: made so, and spread over more while they are written to and read. A ledger is written all
 * the while: no acknowledged commit may be lost, and no statement may fail because pages are spread.
 */
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TestCluster } from '../support/cluster.ts';
import { ClusterLedger, RECOVERY_LIMIT_MS } from '../support/cluster-ledger.ts';
import { PgClient } from '../support/pg-client.ts';
import { eventually } from '../support/processes.ts';

/** Some 50 MB: several stripes of the table and of its index. */
const ROWS = 250_000;
const SUM = `select count(*) || ':' || sum(hashtext(t::text)::bigint) from big t`;

let cluster: TestCluster;
let ledger: ClusterLedger;
let expected: string;

beforeAll(async () => {
  cluster = await TestCluster.start();
});
afterAll(() => cluster?.stop());

async function text(url: string, statement: string): Promise<string> {
  const session = await PgClient.connect(url);
  try {
    return await session.value(statement);
  } finally {
    await session.close();
  }
}

/** A branch that has never run has no page in memory. */
async function expectPages(branch: string): Promise<void> {
  const client = await cluster.client();
  await client.createBranch(branch);
  expect(await text(await cluster.url(branch), SUM)).toBe(expected);
  await client.suspend(branch);
  expect(await text(await cluster.url(branch), SUM)).toBe(expected);
}

async function shardNodes(): Promise<Record<string, string>> {
  const [project] = (await (await cluster.client()).placement()).projects;
  return Object.fromEntries((project!.shards ?? []).map(({ shard, node }) => [shard, node]));
}

async function expectCleanObjects(): Promise<void> {
  const scrub = await cluster.cliAlone('scrub', '--deep', '--objects', join(cluster.folder, 'objects'));
  expect(scrub.stdout + scrub.stderr).toContain('clean');
}

describe('pages over shards', () => {
  it('are spread over two pageservers while they are written and read', async () => {
    const client = await cluster.client();
    await eventually('all nodes are there', async () => (await client.nodes()).length === 6);
    await client.createProject('default');
    const first = await PgClient.connect(await cluster.url());
    await first.query('create table big(id int primary key, filler text)');
    await first.query(`insert into big select i, repeat(md5(i::text), 4) from generate_series(1, ${ROWS}) i`);
    await client.createBranch('before');
    await first.query('update big set filler = md5(filler) where id % 10 = 0');
    expected = await text(await cluster.url(), SUM);
    await first.close();
    ledger = await ClusterLedger.begin(cluster);
    await client.splitProject('default', 2);
    const cancelled = await cluster.cli('project', 'split', 'default', '--cancel');
    expect(cancelled.stdout + cancelled.stderr).toContain('project default has 1 shard');
    const again = await cluster.cli('project', 'split', 'default', '--cancel');
    expect(again.stderr).toContain('are not being spread over more shards');
    await expectCleanObjects();
    const split = await cluster.cli('project', 'split', 'default', '--shards', '2');
    expect(split.stdout + split.stderr).toContain('project default has 2 shards');
    const nodes = await shardNodes();
    expect(Object.keys(nodes).sort()).toEqual(['0of2', '1of2']);
    expect(new Set(Object.values(nodes))).toEqual(new Set(['d', 'e']));
    expect(ledger.errors).toBe(0);
    await ledger.untilItGoesOn('commits');
    await ledger.settled();
    await ledger.check();
    expect(await text(await cluster.url(), SUM)).toBe(expected);
    await expectPages('after-split');
    expect(await text(await cluster.url('before'), 'select count(*) from big')).toBe(String(ROWS));
    await expectCleanObjects();
  });

  it('are served by another pageserver when the node of one dies; the other shard stays', async () => {
    const before = await shardNodes();
    const node = before['0of2'] === 'd' ? '0of2' : '1of2';
    const other = node === '0of2' ? '1of2' : '0of2';
    const [project] = (await (await cluster.client()).placement()).projects;
    const secondaries = (project!.shards ?? []).map(({ shard, secondary }) => [shard, secondary]);
    expect(Object.fromEntries(secondaries)).toEqual({ [node]: 'e', [other]: 'd' });
    await ledger.untilSecondaryIsReady();
    await cluster.node('d').kill();
    await eventually('its shard is elsewhere', async () => (await shardNodes())[node] !== 'd', {
      limitMs: RECOVERY_LIMIT_MS,
    });
    expect((await shardNodes())[other]).toBe(before[other]);
    await expectPages('after-loss');
    await cluster.node('d').wipe();
    await cluster.node('d').start();
    await ledger.settled();
    await ledger.check();
  });

  it('are spread over four, although who controls it dies in the middle', async () => {
    const client = await cluster.client();
    const holder = (await client.nodes()).find(({ control }) => control)!.name;
    const { control } = await client.placement();
    const errors = ledger.errors;
    await client.splitProject('default', 4);
    await cluster.node(holder).kill();
    await eventually(
      'another node controls',
      async () => (await client.placement()).control.epoch > control.epoch,
      {
        limitMs: RECOVERY_LIMIT_MS,
      },
    );
    const project = async () => (await client.projects()).find(({ name }) => name === 'default')!;
    await eventually('there are four', async () => !(await project()).splitting, { limitMs: 120_000 });
    expect((await project()).shards).toBe(4);
    expect((await project()).splitError).toBeUndefined();
    expect(new Set(Object.values(await shardNodes()))).toEqual(new Set(['d', 'e']));
    await cluster.node(holder).start();
    expect(ledger.errors).toBe(errors);
    await ledger.settled();
    await ledger.check();
    await expectPages('after-second-split');
    const gc = await cluster.cli('gc', 'main');
    expect(gc.code, gc.stderr).toBe(0);
    await expectPages('after-gc');
    await expectCleanObjects();
  });

  it('of a project that is made with several shards are there from the beginning', async () => {
    const refused = await cluster.cli('project', 'create', 'wide', '--shards', '3');
    expect(refused.stderr).toContain('choose 1, 2, 4 or 8');
    const made = await cluster.cli('project', 'create', 'wide', '--shards', '2');
    expect(made.stderr).toBe('');
    const client = await cluster.client();
    const url = new URL(await client.url('main', { project: 'wide' }));
    url.host = new URL(await cluster.url()).host;
    expect(await text(url.href, `select count(*) from generate_series(1, 10)`)).toBe('10');
    const small = await cluster.cli('project', 'split', 'wide', '--shards', '1');
    expect(small.stderr).toContain('2 shards cannot be split into 1');
    const placement = await cluster.cli('placement');
    expect(placement.stdout).toMatch(/wide +0of2:[de],1of2:[de]/);
    await client.deleteProject('wide');
    await expectCleanObjects();
  });
});
