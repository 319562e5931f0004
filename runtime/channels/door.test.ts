import { afterEach, describe, expect, it } from 'vitest';
import { ALL_RIGHTS, RIGHT_GET_PAGE } from '../../protocols/tokens.ts';
import { ManualClock } from '../../test/support/manual-clock.ts';
import { testTokens } from '../../test/support/test-tokens.ts';
import { MemoryChannelNetwork } from '../adapters/memory-channel.ts';
import { SystemClock } from '../adapters/system-clock.ts';
import { MemoryBus } from '../bus/memory-bus.ts';
import type { Channel } from '../ports/channel.ts';
import { ChannelDoor, openChannel } from './door.ts';

const clock = new ManualClock();
const { issuer, judge } = testTokens(clock);
const SCOPE = { tenant: 'p', timeline: 't' };

const doors: ChannelDoor[] = [];
afterEach(() => Promise.all(doors.splice(0).map((door) => door.close())));

/** An actor that answers each frame, behind a door with tokens or without. */
async function serving(guarded: boolean) {
  const bus = new MemoryBus({ clock: new SystemClock() });
  const network = new MemoryChannelNetwork();
  const door = new ChannelDoor(network, 'mem:door', { bus, judge: guarded ? judge : undefined });
  doors.push(door);
  await door.listen();
  const opened: number[] = [];
  door.serve(
    'pageserver',
    't',
    (channel, rights) => {
      opened.push(rights);
      channel.onFrame((type, body) => channel.send(type + 1, body));
    },
    { ...SCOPE, rights: RIGHT_GET_PAGE },
  );
  const open = (token?: Uint8Array): Promise<Channel> =>
    openChannel(bus, network, 'pageserver', 't', {
      timeoutMs: 1_000,
      admission: token && { token, clock },
    });
  return { open, opened };
}

const token = (changes = {}) =>
  issuer.issue({ ...SCOPE, bearer: 'c', rights: ALL_RIGHTS, lifeMs: 1_000, ...changes });

function answer(channel: Channel): Promise<number> {
  return new Promise((resolve, reject) => {
    channel.onFrame((type) => resolve(type));
    channel.onClose(() => reject(new Error('closed')));
    channel.send(10, new Uint8Array(3));
  });
}

describe('a door with tokens', () => {
  it('lets a token in, with the rights that count there', async () => {
    const { open, opened } = await serving(true);
    expect(await answer(await open(token()))).toBe(11);
    expect(opened).toEqual([RIGHT_GET_PAGE]);
  });

  it('says why it lets another one not in', async () => {
    const { open, opened } = await serving(true);
    await expect(open(token({ timeline: 'other' }))).rejects.toMatchObject({
      code: 'permission-denied',
      message: expect.stringContaining('is for timeline other'),
      hint: expect.any(String),
    });
    const late = token();
    await clock.advance(1_000);
    await expect(open(late)).rejects.toMatchObject({ message: expect.stringContaining('ended at') });
    expect(opened).toEqual([]);
  });

  it('lets nobody in without one', async () => {
    const { open, opened } = await serving(true);
    const channel = await open();
    expect(await answer(channel)).toBe(3);
    expect(opened).toEqual([]);
  });
});

describe('a door without tokens', () => {
  it('lets everybody in, also with a token', async () => {
    const { open, opened } = await serving(false);
    expect(await answer(await open())).toBe(11);
    expect(await answer(await open(token()))).toBe(11);
    expect(opened).toEqual([ALL_RIGHTS, ALL_RIGHTS]);
  });
});
