/** Sockets first, the bus where they have no way, and sockets again as soon as they have one. */
import { expect, it } from 'vitest';
import { PalimpsestError } from '../../protocols/errors.ts';
import { ManualClock, settle } from '../../test/support/manual-clock.ts';
import { MemoryChannelNetwork } from '../adapters/memory-channel.ts';
import { createLog } from '../adapters/pino-log.ts';
import { SystemRandom } from '../adapters/system-random.ts';
import { MemoryBus } from '../bus/memory-bus.ts';
import type { Channel, ChannelNetwork } from '../ports/channel.ts';
import { BusChannels } from './bus-channels.ts';
import { FallbackNetwork } from './fallback.ts';

const LIMIT = { timeoutMs: 2_000 };

it('goes over the bus while there is no way by sockets, and leaves it when there is one', async () => {
  const clock = new ManualClock();
  const bus = new MemoryBus({ clock });
  const memory = new MemoryChannelNetwork();
  let hasWay = false;
  const sockets: ChannelNetwork = {
    listen: (address, onChannel) => memory.listen(address, onChannel),
    dial: async (address, options) => {
      if (!hasWay) throw new PalimpsestError('unavailable', `no way to ${address}`);
      return memory.dial(address, options);
    },
  };
  const networkOf = (name: string) => {
    const options = { bus, clock, random: new SystemRandom(), name, log: createLog({ level: 'silent' }) };
    return new FallbackNetwork({ ...options, sockets, overBus: new BusChannels(options) });
  };
  const server = await networkOf('there').listen('mem:there', (channel) =>
    channel.onFrame((type, body) => channel.send(type + 1, body)),
  );
  expect(server.address).toBe('mem:there|bus:there');
  const here = networkOf('here');
  const answered = (channel: Channel) =>
    new Promise<number>((resolve) => {
      channel.onFrame(resolve);
      channel.send(1);
    });
  const overBus = await here.dial(server.address, LIMIT);
  let closed = false;
  overBus.onClose(() => {
    closed = true;
  });
  expect(await answered(overBus)).toBe(2);
  await clock.advance(12_000);
  expect(closed).toBe(false);
  hasWay = true;
  await clock.advance(6_000);
  await settle();
  expect(closed).toBe(true);
  const bySocket = await here.dial(server.address, LIMIT);
  await bus.close();
  expect(await answered(bySocket)).toBe(2);
  bySocket.close();
});

it('tells why there is no way when nobody is there at all', async () => {
  const clock = new ManualClock();
  const options = { bus: new MemoryBus({ clock }), clock, random: new SystemRandom(), name: 'here' };
  const log = createLog({ level: 'silent' });
  const overBus = new BusChannels(options);
  const network = new FallbackNetwork({ ...options, sockets: new MemoryChannelNetwork(), overBus, log });
  await expect(network.dial('mem:nobody|bus:nobody', LIMIT)).rejects.toMatchObject({
    code: 'unavailable',
    message: expect.stringContaining('mem:nobody'),
  });
});
