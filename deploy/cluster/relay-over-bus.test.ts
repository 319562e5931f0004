/** A gateway's way to a compute over the bus: where sockets have none, with the right key only, and both ways at their own speed. */
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { PalimpsestError } from '../../protocols/errors.ts';
import { createLog } from '../../runtime/adapters/pino-log.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { SystemRandom } from '../../runtime/adapters/system-random.ts';
import { NodeSockets } from '../../runtime/adapters/tcp-server.ts';
import { MemoryBus } from '../../runtime/bus/memory-bus.ts';
import { BusChannels } from '../../runtime/channels/bus-channels.ts';
import type { ByteSocket, Sockets } from '../../runtime/ports/sockets.ts';
import { Relay, RelayedSockets } from './relay.ts';
import { RELAY_SUBJECTS, RelaysOverBus, SocketsOrBus } from './relay-over-bus.ts';

const LIMIT = { timeoutMs: 5_000 };
const MANY_BYTES = 8 * 1024 * 1024;

const clock = new SystemClock();
let bus: MemoryBus;
let postgres: Server;
let relay: Relay;
let overBus: { close(): void };
let gateway: SocketsOrBus;
/** Dials by sockets, and how they end. */
let dials: number;
let hasWay: boolean;

beforeEach(async () => {
  bus = new MemoryBus({ clock });
  const path = join(tmpdir(), `pal-relay-${process.pid}.sock`);
  postgres = createServer((socket) => socket.pipe(socket));
  await new Promise<void>((resolve) => postgres.listen(path, resolve));
  relay = await Relay.open('127.0.0.1', path);
  const channelsOf = (name: string) =>
    new BusChannels({ bus, clock, random: new SystemRandom(), name, subjects: RELAY_SUBJECTS });
  const sockets = new NodeSockets();
  const relays = new RelaysOverBus({ channels: channelsOf('there'), sockets, clock, node: 'there' });
  await relays.listen();
  overBus = relays.serve(relay.address, path);
  dials = 0;
  hasWay = false;
  const relayed = new RelayedSockets(sockets);
  const blocked: Sockets = {
    listen: (...args) => relayed.listen(...args),
    dial: async (...args) => {
      dials++;
      if (!hasWay) throw new PalimpsestError('timeout', 'no connection in time');
      return relayed.dial(...args);
    },
  };
  gateway = new SocketsOrBus({
    sockets: blocked,
    channels: channelsOf('here'),
    clock,
    log: createLog({ level: 'silent' }),
  });
});
afterEach(async () => {
  overBus.close();
  relay.close();
  postgres.close();
  await bus.close();
});

const dial = (changes: { key?: string; node?: string } = {}) =>
  gateway.dial({ ...relay.address, node: 'there', ...changes }, LIMIT);

/** What comes until there is so much of it. */
function received(socket: ByteSocket, bytes: number): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  let sum = 0;
  return new Promise((resolve) => {
    socket.onData((part) => {
      parts.push(part);
      sum += part.length;
      if (sum >= bytes) resolve(Buffer.concat(parts));
    });
  });
}

describe('a gateway without a way by sockets', () => {
  it('reaches the compute over the bus, and does not look again at once', async () => {
    const first = await dial();
    const text = received(first, 5);
    first.write(Buffer.from('hello'));
    expect((await text).toString()).toBe('hello');
    const second = await dial();
    expect(dials).toBe(1);
    const ended = new Promise<void>((resolve) => first.onClose(resolve));
    overBus.close();
    await ended;
    second.end();
  });

  it('passes more than fits into a channel, as fast as it is taken', async () => {
    const socket = await dial();
    const sent = Buffer.alloc(MANY_BYTES, 'palimpsest');
    const all = received(socket, MANY_BYTES);
    let from = 0;
    const write = () => {
      while (from < sent.length) {
        from += 65_536;
        if (!socket.write(sent.subarray(from - 65_536, from))) return;
      }
    };
    socket.onDrain(write);
    write();
    expect(from).toBeLessThan(sent.length);
    expect((await all).equals(sent)).toBe(true);
    socket.end();
  });

  it('is let to no compute by another key, and told why there is no way', async () => {
    await expect(dial({ key: 'ab'.repeat(32) })).rejects.toThrow('no connection in time');
    await expect(dial({ node: 'elsewhere' })).rejects.toThrow('no connection in time');
  });
});

it('goes by sockets where they have a way', async () => {
  hasWay = true;
  const socket = await dial();
  const text = received(socket, 2);
  socket.write(Buffer.from('hi'));
  expect((await text).toString()).toBe('hi');
  await bus.close();
  const more = received(socket, 2);
  socket.write(Buffer.from('on'));
  expect((await more).toString()).toBe('on');
  socket.destroy();
});
