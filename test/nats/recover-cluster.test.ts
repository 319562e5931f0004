/**
 * A cluster is lost with its NATS servers, and comes back on one machine: from its objects and what its safekeepers had, with the pages of a
 * project that was spread over shards. From there it goes on into a new cluster.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type NodeSpec, TestCluster } from '../support/cluster.ts';
import { PgClient } from '../support/pg-client.ts';
import { eventually } from '../support/processes.ts';
import { TestSystem } from '../support/system.ts';

const NODES: NodeSpec[] = [
  { name: 'a', zone: 'z1', roles: 'safekeeper,control,gateway,compute' },
  { name: 'b', zone: 'z2', roles: 'safekeeper,pageserver' },
  { name: 'c', zone: 'z3', roles: 'safekeeper,pageserver' },
];
const ROWS = 60_000;
const SUM = `select count(*) || ':' || sum(hashtext(t::text)::bigint) from big t`;

interface Report {
  branches: { project: string; branch: string; outcome: string; complete?: boolean; reason?: string }[];
}

describe('palimpsest recover, of a cluster', () => {
  let cluster: TestCluster;
  let found: TestSystem;
  const expected = new Map<string, string>();

  beforeAll(async () => {
    cluster = await TestCluster.start(NODES);
    found = new TestSystem({ dataDir: join(cluster.folder, 'found') });
    const client = await cluster.client();
    await eventually('all nodes are there', async () => (await client.nodes()).length === NODES.length);
    await client.createProject('default');
    await client.createProject('wide', { shards: 2 });
  });
  afterAll(async () => {
    await found?.destroy();
    await cluster?.stop();
  });

  it('brings all projects back, with everything that was acknowledged', async () => {
    const client = await cluster.client();
    for (const project of ['default', 'wide']) {
      const session = await PgClient.connect(await client.url('main', { project }));
      await session.query('create table big(id int primary key, filler text)');
      await session.query(
        `insert into big select i, repeat(md5(i::text), 4) from generate_series(1, ${ROWS}) i`,
      );
      await client.createBranch('dev', { project });
      const dev = await PgClient.connect(await client.url('dev', { project }));
      await dev.query('delete from big where id % 3 = 0');
      expected.set(`${project}/dev`, await dev.value(SUM));
      await dev.close();
      await session.query('update big set filler = md5(filler) where id % 10 = 0');
      expected.set(`${project}/main`, await session.value(SUM));
      await session.close();
    }
    for (const node of cluster.nodes.values()) await node.kill();
    const objects = join(cluster.folder, 'objects');
    const folders = NODES.map(({ name }) => join(cluster.folder, name));
    const { branches } = await found.json<Report>(
      ['recover', '--objects', objects, '--safekeepers', ...folders],
      { timeoutMs: 120_000 },
    );
    const outcomes = branches.map((each) => [`${each.project}/${each.branch}`, each.outcome, each.complete]);
    expect(outcomes.sort()).toEqual([...expected.keys()].sort().map((name) => [name, 'recovered', true]));
  });

  it('serves them on one machine, which they can be changed on', async () => {
    await found.start();
    await found.withClient(async (client) => {
      for (const [name, sum] of expected) {
        const [project, branch] = name.split('/') as [string, string];
        const session = await PgClient.connect(await client.url(branch, { project }));
        expect(await session.value(SUM), name).toBe(sum);
        await session.query("insert into big values (0, 'here')");
        await session.close();
        await client.createBranch(`${branch}-again`, { project, from: branch });
        await client.suspend(branch, { project });
        const again = await PgClient.connect(await client.url(`${branch}-again`, { project }));
        expect(await again.value('select filler from big where id = 0')).toBe('here');
        await again.close();
      }
    });
    expect(await found.stop()).toBe(0);
    const scrub = await cluster.cliAlone('scrub', '--deep', '--objects', join(cluster.folder, 'objects'));
    expect(scrub.stdout + scrub.stderr).toContain('clean');
  });

  it('keeps the cluster from coming back', async () => {
    const before = readdirSync(join(cluster.folder, 'objects'), { recursive: true }).length;
    await expect(cluster.node('a').start()).rejects.toThrow(/were recovered into another data directory/);
    expect(readdirSync(join(cluster.folder, 'objects'), { recursive: true }).length).toBe(before);
  });

  it('goes on into a new cluster, where its shards are on different nodes', async () => {
    const exported = join(cluster.folder, 'exported');
    const done = await found.run(['export', exported], { timeoutMs: 60_000 });
    expect(done.code, done.stderr).toBe(0);
    const other = await TestCluster.start(NODES);
    try {
      const client = await other.client();
      await eventually('all nodes are there', async () => (await client.nodes()).length === NODES.length);
      const result = await other.cli('import', exported, '--objects', join(other.folder, 'objects'));
      expect(result.code, result.stdout + result.stderr).toBe(0);
      const { projects } = await client.placement();
      const shards = projects.find(({ name }) => name === 'wide')?.shards ?? [];
      expect(new Set(shards.map(({ node }) => node))).toEqual(new Set(['b', 'c']));
      const session = await PgClient.connect(await client.url('main', { project: 'wide' }));
      await session.query('delete from big where id = 0');
      expect(await session.value(SUM)).toBe(expected.get('wide/main'));
      await session.close();
    } finally {
      await other.stop();
    }
  });
});
