/** What was exported from one machine becomes a part of a cluster with its objects on S3, beside what the cluster has already. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type NodeSpec, TestCluster } from '../support/cluster.ts';
import { PgClient } from '../support/pg-client.ts';
import { eventually, signal } from '../support/processes.ts';
import { newBucket, radosgw } from '../support/radosgw.ts';
import { TestSystem } from '../support/system.ts';

const LIMIT = { timeoutMs: 120_000 };
const SUM = "select count(*) || ' ' || sum(hashtext(n::text)) from numbers";
const NODES: NodeSpec[] = [
  { name: 'a', zone: 'z1', roles: 'safekeeper,pageserver,compute,gateway,control' },
  { name: 'b', zone: 'z2', roles: 'safekeeper' },
  { name: 'c', zone: 'z3', roles: 'safekeeper' },
];

describe('palimpsest import into a cluster', () => {
  const folder = mkdtempSync(join(tmpdir(), 'palimpsest-into-cluster-'));
  const exported = join(folder, 'exported');
  const old = new TestSystem({ dataDir: join(folder, 'old') });
  let cluster: TestCluster;
  let objects: string[];
  let before = '';
  let after = '';
  let lsn = '';

  beforeAll(async () => {
    const { bucket, prefix, endpoint } = await newBucket(await radosgw());
    objects = ['--objects', `s3://${bucket}/${prefix}`, '--s3-endpoint', endpoint!];
    cluster = await TestCluster.start(NODES, { objects });
    const client = await cluster.client();
    await eventually('all nodes are there', async () => (await client.nodes()).length === NODES.length);
    await client.createProject('other');
  });
  afterAll(async () => {
    await cluster?.stop();
    await old.destroy();
    rmSync(folder, { recursive: true, force: true });
  });

  async function value(branch: string, sql: string): Promise<string> {
    const connection = await PgClient.connect(await cluster.url(branch));
    try {
      return await connection.value(sql);
    } finally {
      await connection.close();
    }
  }

  it('brings projects with branches and history up to the last commit, also of a machine that was killed', async () => {
    await old.start();
    await old.with('main', async (client) => {
      await client.query('create table numbers as select n from generate_series(1, 5000) n');
      before = await client.value(SUM);
      lsn = await client.value('select pg_current_wal_lsn()');
    });
    await old.createBranch('dev');
    await old.with('dev', (client) => client.query('delete from numbers where n > 10'));
    await old.with('main', async (client) => {
      await client.query('insert into numbers select n from generate_series(5001, 6000) n');
      after = await client.value(SUM);
      for (const { pid } of old.processes()) signal(pid, 'SIGKILL');
    });
    await old.stop();
    const done = await old.run(['export', exported], LIMIT);
    expect(done.code, done.stderr).toBe(0);
    const result = await cluster.cli('import', exported, ...objects, '--json');
    expect(result.code, result.stdout + result.stderr).toBe(0);
    const { branches } = JSON.parse(result.stdout) as { branches: Record<string, unknown>[] };
    expect(branches.map(({ branch, outcome, complete }) => [branch, outcome, complete]).sort()).toEqual([
      ['dev', 'recovered', true],
      ['main', 'recovered', true],
    ]);
    expect(await value('main', SUM)).toBe(after);
    expect(await value('dev', 'select count(*) from numbers')).toBe('10');
  });

  it('makes it the cluster’s own: it is written to, branched, and found again by who controls next', async () => {
    const client = await cluster.client();
    await client.createBranch('past', { at: { lsn } });
    expect(await value('past', SUM)).toBe(before);
    await value('main', 'insert into numbers values (0) returning n');
    const { projects } = await client.placement();
    expect(projects.map(({ name, safekeepers }) => [name, safekeepers.toSorted()]).sort()).toEqual([
      ['default', ['a', 'b', 'c']],
      ['other', ['a', 'b', 'c']],
    ]);
    await cluster.node('a').stop();
    await cluster.node('a').start();
    await eventually('it is controlled again', async () => (await client.projects()).length === 2);
    expect(await value('main', 'select count(*) from numbers')).toBe('6001');
    expect((await client.projects()).map(({ name }) => name).sort()).toEqual(['default', 'other']);
  });

  it('overwrites nothing, and says what is in the way', async () => {
    const again = await cluster.cli('import', exported, ...objects);
    expect([again.code, again.stderr]).toEqual([5, expect.stringMatching(/project "default" already/)]);
    const elsewhere = await cluster.cli('import', exported, '--objects', join(folder, 'elsewhere'));
    expect([elsewhere.code, elsewhere.stderr]).toEqual([4, expect.stringMatching(/no objects of a cluster/)]);
  });
});
