/** What the NATS servers of a secured cluster let whom do: real servers, credentials of `palimpsest cluster init`. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { COMPUTE_HOST_KIND } from '../../actors/compute/host-protocol.ts';
import { RELAY_SUBJECTS } from '../../deploy/cluster/relay-over-bus.ts';
import { hostCredentials } from '../../deploy/cluster/security/host-credentials.ts';
import type { NatsServerPlace } from '../../deploy/cluster/security/nats-config.ts';
import { initCluster, issueCredentials, rotateKeys } from '../../deploy/cluster/security/operator.ts';
import { natsOptions } from '../../deploy/node/join-bus.ts';
import type { NatsLogin } from '../../runtime/adapters/credentials.ts';
import { parseCredentials, readCredentials } from '../../runtime/adapters/credentials.ts';
import { NatsBus } from '../../runtime/adapters/nats-bus.ts';
import { NatsConnection } from '../../runtime/adapters/nats-connection.ts';
import { JetStream } from '../../runtime/adapters/nats-jetstream.ts';
import { NatsJournalStore } from '../../runtime/adapters/nats-journal.ts';
import { natsLeases } from '../../runtime/adapters/nats-leases.ts';
import { prepareStreams } from '../../runtime/adapters/nats-streams.ts';
import { packMessage, sendCommand, serveCommands } from '../../runtime/bus/command.ts';
import { BusChannels } from '../../runtime/channels/bus-channels.ts';
import type { BusMessage } from '../../runtime/ports/bus.ts';
import { freePorts, NatsCluster } from '../support/nats-server.ts';
import { eventually, pause } from '../support/processes.ts';
import { clock, random, silent } from './world.ts';

const TIMEOUT = { timeoutMs: 2_000 };
const open: NatsConnection[] = [];
let folder: string;
let nats: NatsCluster;

async function newCluster(directory: string): Promise<NatsServerPlace[]> {
  const [port, routePort, monitorPort] = (await freePorts(3)) as [number, number, number];
  const servers = [{ name: 'n1', host: '127.0.0.1', port, routePort, monitorPort }];
  const storeDirectory = join(directory, 'store');
  await initCluster({ directory, servers, storeDirectory, days: 1, nowMs: clock.now() });
  return servers;
}

function login(name: string, keys = 'keys'): NatsLogin {
  return readCredentials(join(folder, keys, 'credentials', `${name}.json`)).nats;
}

async function connectAs(user: NatsLogin): Promise<NatsConnection> {
  const options = natsOptions({ servers: nats.url }, user);
  const connection = await NatsConnection.connect({ ...options, name: 'test', clock, log: silent });
  open.push(connection);
  return connection;
}

async function busAs(user: NatsLogin): Promise<NatsBus> {
  return new NatsBus(await connectAs(user), clock);
}

async function hostLogin(hostId: string): Promise<NatsLogin> {
  const node = readCredentials(join(folder, 'keys', 'credentials', 'compute.json'));
  return parseCredentials(await hostCredentials(node)(hostId), 'a test').nats;
}

/** What comes to a subscription within a moment. */
async function heard(bus: NatsBus, pattern: string, meanwhile: () => Promise<void>): Promise<BusMessage[]> {
  const messages: BusMessage[] = [];
  const subscription = bus.subscribe(pattern, (message) => messages.push(message));
  await bus.flush();
  await meanwhile();
  await bus.flush();
  subscription.unsubscribe();
  return messages;
}

async function channelsOf(user: NatsLogin, name: string, subjects?: string): Promise<BusChannels> {
  const options = { bus: await busAs(user), clock, random, name };
  return new BusChannels(subjects === undefined ? options : { ...options, subjects });
}

/** What another compute host hears of a channel on which something is said and answered. */
async function overheard(
  { server, at, client }: { server: BusChannels; at: string; client: BusChannels },
  pattern: string,
): Promise<BusMessage[]> {
  const listener = await server.listen(at, (channel) =>
    channel.onFrame((type, body) => channel.send(type + 1, body)),
  );
  const spy = await busAs(await hostLogin('h2'));
  const answer = Promise.withResolvers<[number, string]>();
  const messages = await heard(spy, pattern, async () => {
    const channel = await client.dial(at, TIMEOUT);
    channel.onFrame((type, body) => answer.resolve([type, Buffer.from(body).toString()]));
    channel.send(1, Buffer.from('secret'));
    expect(await answer.promise).toEqual([2, 'secret']);
    channel.close();
  });
  await listener.close();
  return messages;
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pal-permissions-'));
  const places = await newCluster(join(folder, 'keys'));
  await newCluster(join(folder, 'foreign'));
  nats = await NatsCluster.fromFiles(join(folder, 'keys', 'nats'), places);
  await prepareStreams({ connection: await connectAs(login('control')), clock });
});
afterAll(async () => {
  await Promise.all(open.map((connection) => connection.close()));
  await nats?.stop();
  await rm(folder, { recursive: true, force: true });
});

describe('a compute host', () => {
  it('hears what is said to itself, and answers', async () => {
    const host = await busAs(await hostLogin('h1'));
    const node = await busAs(login('compute'));
    serveCommands(host, COMPUTE_HOST_KIND, 'h1', async () => ({ done: true }));
    await host.flush();
    expect(await sendCommand(node, COMPUTE_HOST_KIND, 'h1', { type: 'start' }, TIMEOUT)).toEqual({
      done: true,
    });
  });

  it('does not hear what is said to another, nor events, nor answers to others', async () => {
    const spy = await busAs(await hostLogin('h2'));
    const control = await busAs(login('control'));
    for (const pattern of [
      `pal.cmd.${COMPUTE_HOST_KIND}.h1`,
      `pal.cmd.${COMPUTE_HOST_KIND}.*`,
      'pal.>',
      '>',
    ]) {
      const messages = await heard(spy, pattern, async () => {
        control.publish(`pal.cmd.${COMPUTE_HOST_KIND}.h1`, packMessage({ type: 'start' }));
        control.publish('pal.evt.p.t.timeline.changed', packMessage({}));
        await control.request('pal.cmd.timeline.t', new Uint8Array(1), { timeoutMs: 50 });
        await control.flush();
      });
      expect(messages).toEqual([]);
    }
  });

  it('has channels over NATS with storage, which no other host hears', async () => {
    const storage = await channelsOf(login('safekeeper'), 'sk-a');
    const host = await channelsOf(await hostLogin('h1'), 'h1');
    expect(await overheard({ server: storage, at: 'bus:sk-a', client: host }, 'pal.channel.>')).toEqual([]);
  });

  it('hears no client that goes over NATS to a compute node', async () => {
    const node = await channelsOf(login('compute'), 'e', RELAY_SUBJECTS);
    const gateway = await channelsOf(login('gateway'), 'g', RELAY_SUBJECTS);
    expect(await overheard({ server: node, at: 'bus:e', client: gateway }, 'pal.relay.>')).toEqual([]);
  });

  it('can neither append to a journal nor command anybody: it is told so at once', async () => {
    const connection = await connectAs(await hostLogin('h3'));
    const bus = new NatsBus(connection, clock);
    const began = performance.now();
    const journals = new NatsJournalStore({
      jetstream: new JetStream(connection, clock),
      clock,
      random,
      log: silent,
    });
    const forbidden = { code: 'permission-denied', hint: expect.stringContaining('cluster issue') };
    await expect(journals.open('timeline', 'a1')).rejects.toMatchObject(forbidden);
    const forged = new JetStream(connection, clock).publish('pal.journal.0.timeline.a1', packMessage([]), {
      headers: {},
      ...TIMEOUT,
    });
    await expect(forged).rejects.toMatchObject(forbidden);
    for (const kind of ['timeline', 'tenant', 'compute', 'compute-host', 'pageserver-node', 'control']) {
      await expect(sendCommand(bus, kind, 'x', { type: 'delete' }, TIMEOUT)).rejects.toMatchObject({
        ...forbidden,
        message: expect.stringContaining(`pal.cmd.${kind}.x`),
      });
    }
    expect(performance.now() - began).toBeLessThan(TIMEOUT.timeoutMs);
  });

  it('cannot pass for a pageserver', async () => {
    const impostor = await busAs(await hostLogin('h4'));
    const other = await busAs(await hostLogin('h5'));
    impostor.subscribe('pal.open.pageserver.t', (message) =>
      message.reply(packMessage({ address: 'tcp:evil:1' })),
    );
    await impostor.flush();
    expect(await other.request('pal.open.pageserver.t', new Uint8Array(0), TIMEOUT)).toEqual({
      status: 'no-responders',
    });
  });
});

describe('a node', () => {
  it('gives its sign of life, and cannot take the lease of control or write a journal', async () => {
    const connection = await connectAs(login('safekeeper'));
    const leases = natsLeases(new JetStream(connection, clock), clock);
    expect(await leases.acquire('node.s', 's/1', { ttlMs: 1_000, data: {} })).toBeDefined();
    await expect(leases.acquire('control', 's/1', { ttlMs: 1_000, data: {} })).rejects.toMatchObject({
      code: 'permission-denied',
    });
  });

  it('with credentials of its own cannot pass for another', async () => {
    const directory = join(folder, 'keys');
    await issueCredentials({
      directory,
      name: 'node-a',
      roles: ['safekeeper', 'compute'],
      node: 'a',
      days: 1,
      nowMs: clock.now(),
    });
    const connection = await connectAs(login('node-a'));
    const leases = natsLeases(new JetStream(connection, clock), clock);
    expect(await leases.acquire('node.a', 'a/1', { ttlMs: 1_000, data: {} })).toBeDefined();
    await expect(leases.acquire('node.b', 'a/1', { ttlMs: 1_000, data: {} })).rejects.toMatchObject({
      code: 'permission-denied',
      message: expect.stringContaining('pal.lease.node.b'),
    });
  });
});

describe('the command line', () => {
  it('commands control, and nothing behind its back', async () => {
    const client = await busAs(login('client'));
    const control = await busAs(login('control'));
    serveCommands(control, 'control', 'local', async () => ({ projects: [] }));
    await control.flush();
    expect(await sendCommand(client, 'control', 'local', { type: 'project.list' }, TIMEOUT)).toEqual({
      projects: [],
    });
    await expect(sendCommand(client, 'timeline', 'x', { type: 'delete' }, TIMEOUT)).rejects.toMatchObject({
      code: 'permission-denied',
    });
  });
});

describe('a login', () => {
  it('without credentials is refused', async () => {
    const plain = NatsConnection.connect({ servers: nats.url, name: 'test', clock, log: silent });
    await expect(plain).rejects.toMatchObject({
      code: expect.stringMatching(/permission-denied|unavailable/),
    });
  });

  it('of another cluster is refused, by its servers as by these', async () => {
    await expect(connectAs(login('control', 'foreign'))).rejects.toMatchObject({
      code: 'permission-denied',
      hint: expect.stringContaining('the same `palimpsest cluster init`'),
    });
    // Also when the foreigner trusts these servers.
    const foreign = { ...login('control', 'foreign'), ca: login('control').ca };
    await expect(connectAs(foreign)).rejects.toMatchObject({
      code: 'permission-denied',
      message: expect.stringContaining('refuses the login'),
    });
  });

  it('of before a change of the keys is refused, and the streams stay', async () => {
    const before = login('control');
    const directory = join(folder, 'keys');
    await pause(1_100);
    await rotateKeys({ directory, days: 1, nowMs: clock.now() });
    await nats.servers[0]!.kill();
    nats.servers[0]!.start();
    await nats.ready();
    const jetstream = new JetStream(await connectAs(login('control')), clock);
    await eventually('the streams are there', () => jetstream.api('STREAM.INFO.PAL_META'));
    await expect(connectAs({ ...before, ca: login('control').ca })).rejects.toMatchObject({
      code: 'permission-denied',
    });
    expect(readCredentials(join(directory, 'credentials', 'node-a.json')).roles).toEqual([
      'safekeeper',
      'compute',
    ]);
  });

  it('that has ended is refused', async () => {
    const directory = join(folder, 'keys');
    const past = clock.now() - 2 * 86_400_000;
    await issueCredentials({ directory, name: 'late', roles: ['client'], days: 1, nowMs: past });
    await expect(connectAs(login('late'))).rejects.toMatchObject({ code: 'permission-denied' });
  });
});
