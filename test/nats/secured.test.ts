/**
 * A secured cluster: three NATS servers and six nodes on addresses of their own, most with credentials for one role only. Tokens
 * live for two seconds, so that they are renewed many times.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { hostCredentials } from '../../deploy/cluster/security/host-credentials.ts';
import { ClusterAccess } from '../../deploy/node/cluster-access.ts';
import { natsOptions } from '../../deploy/node/join-bus.ts';
import { openSubject } from '../../protocols/subjects.ts';
import { ALL_RIGHTS, RIGHT_GET_PAGE, RIGHT_READ_WAL } from '../../protocols/tokens.ts';
import {
  type ChannelIdentity,
  type NatsLogin,
  parseCredentials,
  readCredentials,
} from '../../runtime/adapters/credentials.ts';
import { NatsBus } from '../../runtime/adapters/nats-bus.ts';
import { NatsConnection } from '../../runtime/adapters/nats-connection.ts';
import { SocketChannelNetwork } from '../../runtime/adapters/socket-channel.ts';
import { sendCommand, unpackMessage } from '../../runtime/bus/command.ts';
import { openChannel } from '../../runtime/channels/door.ts';
import { type NodeSpec, TestCluster } from '../support/cluster.ts';
import { ClusterLedger } from '../support/cluster-ledger.ts';
import { PgClient } from '../support/pg-client.ts';
import { eventually, pause } from '../support/processes.ts';
import { run } from '../support/programs.ts';
import { ROOT } from '../support/source-files.ts';
import { clock, silent } from './world.ts';

const TOKEN_LIFE_MS = 2_000;
const TIMEOUT = { timeoutMs: 5_000 };
const LIMIT = { limitMs: 20_000 };

const NODES: NodeSpec[] = [
  { name: 'a', zone: 'z1', roles: 'control,gateway,safekeeper', host: '127.0.0.11' },
  { name: 'b', zone: 'z2', roles: 'safekeeper', host: '127.0.0.12', credentials: 'safekeeper' },
  { name: 'c', zone: 'z3', roles: 'safekeeper', host: '127.0.0.13', credentials: 'safekeeper' },
  { name: 'd', zone: 'z1', roles: 'pageserver', host: '127.0.0.14', credentials: 'pageserver' },
  { name: 'e', zone: 'z2', roles: 'compute', host: '127.0.0.15', credentials: 'compute' },
  { name: 'f', zone: 'z3', roles: 'pageserver', host: '127.0.0.16', credentials: 'pageserver' },
];

let cluster: TestCluster;
let url: string;
let ledger: ClusterLedger;
let control: ClusterAccess;
let bus: NatsBus;
/** As a compute host: it may ask where channels are. */
let hostBus: NatsBus;
let scope: { tenant: string; timeline: string };

beforeAll(async () => {
  cluster = await TestCluster.start(NODES, {
    secured: true,
    nodeArguments: ['--token-life', `${TOKEN_LIFE_MS / 1_000}s`],
  });
  control = new ClusterAccess(readCredentials(cluster.credentials('control')!), clock);
  bus = await busAs(control.credentials.nats);
  const node = readCredentials(cluster.credentials('compute')!);
  hostBus = await busAs(parseCredentials(await hostCredentials(node)('h-test'), 'a test').nats);
});
afterAll(async () => {
  await ledger?.stop();
  await bus?.close();
  await hostBus?.close();
  await cluster?.stop();
});

async function busAs(login: NatsLogin): Promise<NatsBus> {
  const options = natsOptions({ servers: cluster.nats.url }, login);
  return new NatsBus(await NatsConnection.connect({ ...options, name: 'test', clock, log: silent }), clock);
}

/** A token of the branch as control signs it, with changes. */
function token(changes: { timeline?: string; tenant?: string; rights?: number; lifeMs?: number } = {}) {
  const grant = { ...scope, bearer: 'a test', rights: ALL_RIGHTS, lifeMs: 60_000, ...changes };
  return control.issuer()!.issue(grant);
}

/** Opens the page channel of the branch; closes it at once. */
async function openPages(
  bytes: Uint8Array | undefined,
  identity: ChannelIdentity | undefined = control.identity,
): Promise<string> {
  const network = new SocketChannelNetwork(identity);
  const admission = bytes && { token: bytes, clock };
  const channel = await openChannel(hostBus, network, 'pageserver', scope.timeline, {
    ...TIMEOUT,
    admission,
  });
  channel.close();
  return 'open';
}

describe('a secured cluster', () => {
  it('is used by the same commands, with credentials of the command line', async () => {
    const client = await cluster.client();
    await eventually(
      'all nodes are there',
      async () => (await client.nodes()).length === NODES.length,
      LIMIT,
    );
    const created = await cluster.cli('project', 'create', 'default');
    expect(created.stderr).toBe('');
    url = (await cluster.cli('url')).stdout.trim();
    const first = await PgClient.connect(url);
    await first.query('create table t as select generate_series(1, 1000) as n');
    await client.createBranch('dev');
    const dev = await PgClient.connect(await client.url('dev'));
    expect(await dev.number('select count(*) from t')).toBe(1000);
    await dev.close();
    await first.close();
    expect((await cluster.cli('branch', 'list')).stdout).toContain('dev');
    expect((await cluster.cli('events', 'compute.*', '--json')).stdout).toContain('compute.started');
    const [branch] = (await client.branches()).filter(({ name }) => name === 'main');
    const { timeline } = branch!;
    const command = { type: 'status' };
    const { tenant } = await sendCommand<{ tenant: string }>(bus, 'timeline', timeline, command, TIMEOUT);
    scope = { tenant, timeline };
    await sendCommand(bus, 'pageserver', timeline, { type: 'flush' }, TIMEOUT);
    await eventually(
      'what pageservers tell is kept, too',
      async () => (await cluster.cli('events', 'pageserver.>', '--json')).stdout.includes('index.uploaded'),
      LIMIT,
    );
    ledger = await ClusterLedger.begin(cluster, { writers: 4 });
  });

  it('is closed to who has no credentials, or those of another cluster', async () => {
    const nats = ['--nats', cluster.nats.url];
    const cli = `${ROOT}deploy/cli/palimpsest.js`;
    const plain = await run(process.execPath, [cli, 'project', 'list', ...nats], { cwd: ROOT });
    expect(plain.code).not.toBe(0);
    const foreign = `${cluster.folder}/foreign`;
    await run(process.execPath, [cli, 'cluster', 'init', foreign, '--servers', 'n1=127.0.0.1'], {
      cwd: ROOT,
    });
    const file = `${foreign}/credentials/client.json`;
    const login = ['--credentials', file];
    const refused = await run(process.execPath, [cli, 'project', 'list', ...nats, ...login], { cwd: ROOT });
    expect(refused.stderr).toMatch(/is not trusted.*\n.*the same `palimpsest cluster init`/);

    // A channel: its address is no secret, but nobody gets in by knowing it.
    const stranger = readCredentials(`${foreign}/credentials/node.json`);
    await expect(openPages(token(), stranger.channel)).rejects.toMatchObject({
      code: 'permission-denied',
      message: expect.stringContaining('do not trust each other'),
    });
    const foreignToken = new ClusterAccess(stranger, clock)
      .issuer()!
      .issue({ ...scope, bearer: 'a stranger', rights: ALL_RIGHTS, lifeMs: 60_000 });
    await expect(openPages(foreignToken)).rejects.toMatchObject({
      code: 'permission-denied',
      message: expect.stringContaining(`of cluster ${stranger.cluster}`),
    });
    const answer = await hostBus.request(
      openSubject('pageserver', scope.timeline),
      new Uint8Array(0),
      TIMEOUT,
    );
    expect(answer.status).toBe('ok');
    const { address } = unpackMessage<{ address: string }>((answer as { data: Uint8Array }).data);
    const unencrypted = await new SocketChannelNetwork().dial(address, TIMEOUT);
    const ended = new Promise((resolve) => unencrypted.onClose(resolve));
    unencrypted.onFrame(() => {});
    unencrypted.send(1, new Uint8Array(64));
    await ended;
  });

  it('lets a token open what it is for, for as long as it lives', async () => {
    expect(await openPages(token())).toBe('open');
    expect(await openPages(token({ rights: RIGHT_GET_PAGE }))).toBe('open');
    const refusals: [Uint8Array | undefined, string][] = [
      [token({ lifeMs: -1 }), 'ended at'],
      [token({ timeline: '0'.repeat(32) }), 'is for timeline 0000'],
      [token({ tenant: 'another' }), 'of project another'],
      [token({ rights: RIGHT_READ_WAL }), 'get pages is needed'],
      [new Uint8Array(300), 'cannot be read'],
    ];
    for (const [bytes, message] of refusals) {
      await expect(openPages(bytes)).rejects.toMatchObject({
        code: 'permission-denied',
        message: expect.stringContaining(message),
        hint: expect.any(String),
      });
    }
    // A node of another role is no pageserver, whatever it answers on NATS.
    const compute = readCredentials(cluster.credentials('compute')!);
    const impostor = await new SocketChannelNetwork(compute.channel).listen('tcp:127.0.0.1:0', () => {});
    const network = new SocketChannelNetwork(control.identity);
    await expect(network.dial(impostor.address, { ...TIMEOUT, role: 'pageserver' })).rejects.toMatchObject({
      code: 'permission-denied',
      message: expect.stringContaining('its certificate is for compute, not for pageserver'),
    });
    await impostor.close();
  });

  it('spreads the pages of a project over two pageservers, which are read with renewed tokens', async () => {
    const client = await cluster.client();
    await client.createProject('wide');
    const wideUrl = (branch: string) => client.url(branch, { project: 'wide' });
    const sum = 'select sum(n) from wide';
    const user = await PgClient.connect(await wideUrl('main'));
    await user.query('create table wide as select generate_series(1, 20000) as n');
    await client.splitProject('wide', 2);
    const project = async () => (await client.projects()).find(({ name }) => name === 'wide')!;
    await eventually('there are two', async () => !(await project()).splitting, { limitMs: 60_000 });
    expect(await project()).toMatchObject({ shards: 2 });
    expect((await project()).splitError).toBeUndefined();
    const { projects } = await client.placement();
    const shards = projects.find(({ name }) => name === 'wide')!.shards!;
    expect(new Set(shards.map(({ node }) => node))).toEqual(new Set(['d', 'f']));
    await pause(TOKEN_LIFE_MS + 500);
    await user.query('update wide set n = n + 1');
    expect(await user.number(sum)).toBe(200_030_000);
    // Starts with no page in memory.
    await client.createBranch('cold', { project: 'wide' });
    const cold = await PgClient.connect(await wideUrl('cold'));
    expect(await cold.number(sum)).toBe(200_030_000);
    await cold.close();
    await user.close();
  });

  it('goes on without NATS for longer than tokens live, and opens channels anew with tokens renewed after it', async () => {
    await ledger.untilItGoesOn('commits');
    const before = ledger.errors;
    for (const server of cluster.nats.servers) await server.kill();
    await pause(TOKEN_LIFE_MS + 500);
    await ledger.untilItGoesOn('commits without NATS');
    expect(ledger.errors).toBe(before);
    for (const server of cluster.nats.servers) server.start();
    await cluster.nats.ready();
    const client = await cluster.client();
    await eventually('control answers', async () => (await client.nodes()).length === NODES.length, LIMIT);
  });

  it('opens channels anew when a safekeeper comes back', async () => {
    await cluster.node('b').kill();
    await cluster.node('b').start();
    // Without the one that came back there is no quorum.
    await cluster.node('c').kill();
    await ledger.untilItGoesOn('commits with the safekeeper that came back');
    const reader = await PgClient.connect(url);
    expect(await reader.number('select count(*) from t')).toBe(1000);
    await reader.close();
    await ledger.check();
  });
});
