import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { PalimpsestError } from '../../protocols/errors.ts';
import { createLog } from '../../runtime/adapters/pino-log.ts';
import { BusHub, SocketBus } from '../../runtime/adapters/socket-bus.ts';
import { SocketChannelNetwork } from '../../runtime/adapters/socket-channel.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { sendCommand, serveCommands } from '../../runtime/bus/command.ts';
import { MemoryBus } from '../../runtime/bus/memory-bus.ts';
import { ChannelDoor, openChannel } from '../../runtime/channels/door.ts';
import { busContract } from './bus.contract.ts';

const clock = new SystemClock();
const network = new SocketChannelNetwork();
const log = createLog({ level: 'silent' });

interface System {
  memory: MemoryBus;
  hub: BusHub;
  folder: string;
  connect(): Promise<SocketBus>;
  cleanUp(): Promise<void>;
}

async function startHub(options: { queuedBytesMax?: number } = {}): Promise<System> {
  const folder = await mkdtemp(join(tmpdir(), 'pal-'));
  const memory = new MemoryBus({ clock });
  const hub = new BusHub({ bus: memory, network, log, ...options });
  const address = await hub.listen(`unix:${folder}/bus.sock`);
  const clients: SocketBus[] = [];
  return {
    memory,
    hub,
    folder,
    connect: async () => {
      const client = await SocketBus.connect({ network, address, clock });
      clients.push(client);
      return client;
    },
    cleanUp: async () => {
      for (const client of clients) await client.close();
      await hub.close();
      await memory.close();
      await rm(folder, { recursive: true });
    },
  };
}

busContract('memory', async () => {
  const bus = new MemoryBus({ clock });
  return { one: bus, other: bus, cleanUp: () => bus.close() };
});

busContract('two clients of a hub', async () => {
  const system = await startHub();
  return { one: await system.connect(), other: await system.connect(), cleanUp: system.cleanUp };
});

busContract('a client and the parent', async () => {
  const system = await startHub();
  return { one: await system.connect(), other: system.memory, cleanUp: system.cleanUp };
});

busContract('the parent and a client', async () => {
  const system = await startHub();
  return { one: system.memory, other: await system.connect(), cleanUp: system.cleanUp };
});

describe('the bus between processes', () => {
  const systems: System[] = [];
  afterEach(async () => {
    for (const system of systems.splice(0)) await system.cleanUp();
  });
  async function start(options: { queuedBytesMax?: number } = {}): Promise<System> {
    const system = await startHub(options);
    systems.push(system);
    return system;
  }

  it('forgets the subscriptions of a client that is gone', async () => {
    const system = await start();
    const client = await system.connect();
    client.subscribe('here', (message) => message.reply(new Uint8Array(1)));
    await client.flush();
    await client.close();
    await until(() => system.hub.clients === 0);
    expect(await system.memory.request('here', new Uint8Array(0), { timeoutMs: 60_000 })).toEqual({
      status: 'no-responders',
    });
  });

  it('ends a request at once when the only one who could answer is gone', async () => {
    const system = await start();
    const client = await system.connect();
    const got = new Promise<void>((resolve) => client.subscribe('slow', () => resolve()));
    await client.flush();
    const reply = system.memory.request('slow', new Uint8Array(0), { timeoutMs: 60_000 });
    await got;
    await client.close();
    expect(await reply).toEqual({ status: 'timeout' });
  });

  it('fails waiting requests when the hub is gone', async () => {
    const system = await start();
    const client = await system.connect();
    system.memory.subscribe('slow', () => {});
    const closed = new Promise<void>((resolve) => client.onClose(() => resolve()));
    const reply = client.request('slow', new Uint8Array(0), { timeoutMs: 60_000 });
    await client.flush();
    await system.hub.close();
    await expect(reply).rejects.toMatchObject({ code: 'unavailable' });
    await closed;
    await expect(client.request('slow', new Uint8Array(0), { timeoutMs: 60_000 })).rejects.toMatchObject({
      code: 'unavailable',
    });
  });

  it('disconnects a client that does not read, instead of buffering for ever', async () => {
    const system = await start({ queuedBytesMax: 4 << 20 });
    const channel = await network.dial(`unix:${system.folder}/bus.sock`, { timeoutMs: 1_000 });
    // SUBSCRIBE, subscription 1, pattern "flood"; then never reads.
    channel.send(1, Uint8Array.of(1, 0, 0, 0, 5, 0), new TextEncoder().encode('flood'));
    await until(() => system.hub.clients === 1);
    await new Promise((resolve) => setTimeout(resolve, 20));
    for (let i = 0; i < 64; i++) system.memory.publish('flood', new Uint8Array(1 << 19));
    await until(() => system.hub.clients === 0);
    channel.close();
  });

  it('disconnects a client that sends nonsense and serves the others on', async () => {
    const system = await start();
    const good = await system.connect();
    const channel = await network.dial(`unix:${system.folder}/bus.sock`, { timeoutMs: 1_000 });
    const closed = new Promise<void>((resolve) => channel.onClose(() => resolve()));
    channel.onFrame(() => {});
    channel.send(1, Uint8Array.of(1, 2));
    await closed;
    system.memory.subscribe('ok', (message) => message.reply(message.data));
    expect((await good.request('ok', new Uint8Array(3), { timeoutMs: 1_000 })).status).toBe('ok');
  });

  it('carries commands, answers and errors', async () => {
    const system = await start();
    const client = await system.connect();
    serveCommands<{ type: string; n: number }>(client, 'thing', '*', async (command, id) => {
      if (command.type === 'fail') throw new PalimpsestError('conflict', 'it is taken', 'choose another');
      if (command.type === 'huge') return new Uint8Array(2 << 20);
      if (command.type === 'bug') throw new TypeError('oops');
      return { id, n: command.n + 1, big: 2n ** 60n, nothing: null };
    });
    await client.flush();
    const send = (type: string) =>
      sendCommand(system.memory, 'thing', 'a-1', { type, n: 1 } as { type: string }, { timeoutMs: 2_000 });
    expect(await send('go')).toEqual({ id: 'a-1', n: 2, big: 2n ** 60n, nothing: null });
    await expect(send('fail')).rejects.toMatchObject({
      code: 'conflict',
      message: 'it is taken',
      hint: 'choose another',
    });
    await expect(send('huge')).rejects.toMatchObject({ code: 'internal' });
    await expect(send('bug')).rejects.toMatchObject({ code: 'internal', message: 'oops' });
    await expect(
      sendCommand(system.memory, 'other', 'a', { type: 'x' }, { timeoutMs: 2_000 }),
    ).rejects.toMatchObject({ code: 'unavailable' });
  });

  it('opens channels to actors through one door, and closes those to unknown actors', async () => {
    const system = await start();
    const host = await system.connect();
    const door = new ChannelDoor(network, `unix:${system.folder}/door.sock`, { bus: host });
    await door.listen();
    for (const id of ['a', 'b']) {
      door.serve('echo', id, (channel) =>
        channel.onFrame((type, body) => channel.send(type, new TextEncoder().encode(id), body.slice())),
      );
    }
    await host.flush();
    const ask = async (id: string) => {
      const channel = await openChannel(system.memory, network, 'echo', id, { timeoutMs: 2_000 });
      channel.send(5, new TextEncoder().encode('!'));
      const answer = await new Promise<string>((resolve) =>
        channel.onFrame((_t, body) => resolve(Buffer.from(body).toString())),
      );
      channel.close();
      return answer;
    };
    expect(await Promise.all([ask('a'), ask('b')])).toEqual(['a!', 'b!']);
    await expect(
      openChannel(system.memory, network, 'echo', 'c', { timeoutMs: 2_000 }),
    ).rejects.toMatchObject({ code: 'unavailable' });
    const stranger = await network.dial(door.address, { timeoutMs: 1_000 });
    const closed = new Promise<void>((resolve) => stranger.onClose(() => resolve()));
    stranger.onFrame(() => {});
    stranger.send(1, new Uint8Array([0xc1]));
    await closed;
    await door.close();
  });
});

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 400 && !condition(); i++) await new Promise((resolve) => setTimeout(resolve, 5));
  expect(condition()).toBe(true);
}
