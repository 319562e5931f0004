/**
 * A cluster of six nodes and three NATS servers, used as a single machine is used, while its parts die one after another.
 * A ledger is written all the while: no acknowledged commit may be lost.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TestCluster } from '../support/cluster.ts';
import { ClusterLedger, RECOVERY_LIMIT_MS } from '../support/cluster-ledger.ts';
import { PgClient } from '../support/pg-client.ts';
import { eventually, pause } from '../support/processes.ts';

/** What may pass between two commits while a safekeeper is replaced: this machine is busy with much else. */
const PAUSE_LIMIT_MS = 1_500;

/** What NATS takes to elect a leader when one is killed. */
const ELECTION_MS = 4_700;

let cluster: TestCluster;
let ledger: ClusterLedger;

beforeAll(async () => {
  cluster = await TestCluster.start();
});
afterAll(() => cluster?.stop());

describe('a cluster', () => {
  it('has projects and branches, by the same commands as a single machine', async () => {
    const client = await cluster.client();
    await eventually('all nodes are there', async () => (await client.nodes()).length === 6);
    const created = await cluster.cli('project', 'create', 'default');
    expect(created.stderr).toBe('');
    const first = await PgClient.connect(await cluster.url());
    await first.query('create table t as select generate_series(1, 1000) as n');
    await client.createBranch('dev');
    await first.query('delete from t');
    const dev = await PgClient.connect(await client.url('dev'));
    expect(await dev.number('select count(*) from t')).toBe(1000);
    expect(await first.number('select count(*) from t')).toBe(0);
    await dev.close();
    await client.suspend('dev');
    await first.close();
    const placement = await cluster.cli('placement', '--explain');
    expect(placement.stdout).toContain('everything is where it should be');
    const events = await cluster.cli('events', 'compute.*', '--json');
    const types = events.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).type);
    expect(types).toContain('compute.started');
    expect(types).toContain('compute.suspended');
    const audit = () => cluster.cli('events', 'compute.*', '--durable', 'audit', '--json');
    expect((await audit()).stdout).toContain('compute.suspended');
    expect((await audit()).stdout).not.toContain('compute.suspended');
    ledger = await ClusterLedger.begin(cluster);
  });

  it('goes on when the node that controls it is killed: no client notices, and another takes over', async () => {
    const client = await cluster.client();
    const holder = (await client.nodes()).find(({ control }) => control)!.name;
    const errors = ledger.errors;
    const epoch = (await client.placement()).control.epoch;
    await cluster.node(holder).kill();
    const began = performance.now();
    await eventually('another node controls', async () => (await client.placement()).control.epoch > epoch, {
      limitMs: RECOVERY_LIMIT_MS,
    });
    console.log(`control taken over after ${Math.round(performance.now() - began)} ms`);
    expect(ledger.errors).toBe(errors);
    await ledger.untilItGoesOn('commits');
    await cluster.node(holder).start();
    await ledger.settled();
    await ledger.check();
  });

  it('starts a compute on another node when its node dies', async () => {
    const before = await ledger.computeNode();
    await cluster.node(before).kill();
    console.log(`compute elsewhere after ${Math.round(await ledger.untilItGoesOn('commits elsewhere'))} ms`);
    expect(await ledger.computeNode()).not.toBe(before);
    await cluster.node(before).start();
    await ledger.settled();
    await ledger.check();
  });

  it('serves pages from another pageserver when the node of one dies', async () => {
    const client = await cluster.client();
    const { projects } = await client.placement();
    const { pageserver: before, secondary } = projects[0]!;
    expect(secondary).toBeDefined();
    await ledger.untilSecondaryIsReady();
    await cluster.node(before).kill();
    // A branch that is not running has no page in memory.
    console.log(`pages elsewhere after ${Math.round(await ledger.untilPagesAreRead(1000))} ms`);
    expect((await client.placement()).projects[0]!.pageserver).toBe(secondary);
    // With an empty disk: everything that it had is in objects and on the others.
    await cluster.node(before).wipe();
    await cluster.node(before).start();
    await ledger.settled();
    await ledger.check();
  });

  it('leaves a node that freezes behind, and is not harmed when it wakes', async () => {
    const name = await ledger.computeNode();
    cluster.node(name).freeze();
    console.log(`compute elsewhere after ${Math.round(await ledger.untilItGoesOnElsewhere(name))} ms`);
    console.log(`then pages after ${Math.round(await ledger.untilPagesAreRead(1000))} ms`);
    cluster.node(name).thaw();
    const runs = () => cluster.node(name).processes();
    await eventually(
      'the compute that was left behind ends',
      () => runs().every(({ command }) => !command.includes('walsender')),
      { limitMs: RECOVERY_LIMIT_MS },
    );
    await ledger.settled();
    await ledger.check();
  });

  it('goes on committing while every NATS server is down, and is controlled again afterwards', async () => {
    const client = await cluster.client();
    await ledger.untilItGoesOn('commits');
    const errors = ledger.errors;
    const before = ledger.commits;
    for (const server of cluster.nats.servers) await server.kill();
    await pause(4_000);
    const began = performance.now();
    await expect(client.nodes()).rejects.toMatchObject({ code: 'unavailable' });
    expect(performance.now() - began).toBeLessThan(3_000);
    await ledger.untilItGoesOn('commits without NATS');
    expect(ledger.errors).toBe(errors);
    console.log(`${ledger.commits - before} commits while NATS was down`);
    for (const server of cluster.nats.servers) server.start();
    await cluster.nats.ready();
    await ledger.settled();
    const [compute] = (await client.placement()).computes;
    expect(compute).toBeDefined();
    await client.createBranch('later');
    await ledger.check();
  });

  it('moves what can move away from a node that is drained', async () => {
    const client = await cluster.client();
    const before = await ledger.computeNode();
    expect((await cluster.cli('node', 'drain', before)).stdout).toContain('draining');
    await eventually('the compute has moved', async () => (await ledger.computeNode()) !== before, {
      limitMs: RECOVERY_LIMIT_MS,
    });
    await ledger.untilItGoesOn('commits elsewhere');
    await cluster.cli('node', 'drain', before, '--undo');
    await ledger.settled();
    expect((await client.nodes()).every(({ state }) => state === 'alive')).toBe(true);
    await ledger.check();
  });

  it('loses nothing while all nodes are started anew, one after another, and commits stop for no longer than an election', async () => {
    const pauses = await ledger.rollingRestart([...cluster.nodes.keys()]);
    expect(Math.max(...pauses.values())).toBeLessThan(ELECTION_MS);
    await ledger.check();
  });

  it('replaces the safekeeper of a node that is gone for good, and then another, while commits go on', async () => {
    const client = await cluster.client();
    const compute = await ledger.computeNode();
    const before = (await client.placement()).projects[0]!.safekeepers;
    // Neither the compute, nor the pages, nor the gateway are to move: only WAL is lost.
    const plain = before.filter(
      (name) => name !== compute && cluster.node(name).spec.roles === 'safekeeper,control',
    );
    const errors = ledger.errors;
    let pauseMs = 0;
    for (const gone of plain.slice(0, 1)) {
      await cluster.node(gone).kill();
      const watch = ledger.longestPause();
      const began = performance.now();
      await eventually(
        'the safekeeper is replaced',
        async () => {
          const placement = await client.placement().catch(() => undefined);
          return placement?.steps.length === 0 && !placement.projects[0]!.safekeepers.includes(gone);
        },
        { limitMs: 2 * RECOVERY_LIMIT_MS },
      );
      console.log(`safekeeper ${gone} replaced after ${Math.round(performance.now() - began)} ms`);
      pauseMs = watch.stop();
    }
    const now = (await client.placement()).projects[0]!.safekeepers;
    expect(now.length).toBe(3);
    console.log(
      `longest pause of commits meanwhile ${Math.round(pauseMs)} ms; safekeepers ${before} -> ${now}`,
    );
    expect(pauseMs).toBeLessThan(PAUSE_LIMIT_MS);
    // A second one of the old three: without the new one there is no quorum any more.
    const second = plain[1]!;
    await cluster.node(second).kill();
    await ledger.untilItGoesOn('commits with the new safekeeper');
    expect(ledger.errors).toBe(errors);
    // It comes back with all it had, and is not needed any more when it stays away long enough.
    for (const name of plain) await cluster.node(name).start();
    await ledger.settled();
    await ledger.check();
    await ledger.stop();
  });
});
