/** Where a project is, as a new holder of the control lease finds it. */
import { describe, expect, it } from 'vitest';
import type { TimelineStatus } from '../../actors/timeline/events.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { MemoryBus } from '../../runtime/bus/memory-bus.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { ControlActors } from '../node/control-actors.ts';
import { PageserverMoves } from './pageserver-moves.ts';

type Known = Pick<TimelineStatus, 'timeline' | 'pageserver' | 'attached'> &
  Partial<Pick<TimelineStatus, 'shards' | 'nextShards'>>;

/** What a holder that has just begun makes of these timelines of one project; they can be changed afterwards. */
async function adopted(timelines: Known[]): Promise<PageserverMoves> {
  const control = {
    timelineStatuses: () => timelines.map((each) => ({ tenant: 't', ...each })),
    activeTimelines: () => [],
    attachments: {
      epoch: new Map(),
      created: () => {},
      forget: () => {},
      attachAll: () => Promise.resolve(),
    },
  };
  const moves = new PageserverMoves({
    control: control as unknown as ControlActors,
    bus: new MemoryBus({ clock: new SystemClock() }),
    log: {} as Log,
    isRunning: () => false,
  });
  await moves.adopt([]);
  return moves;
}

describe('a project', () => {
  it('stays where it was when a branch comes back that was archived before it moved there', async () => {
    const timelines: Known[] = [{ timeline: 'main', pageserver: 'ps-b', attached: true }];
    const moves = await adopted(timelines);
    timelines.unshift({ timeline: 'archived', pageserver: 'ps-a', attached: false });
    expect(moves.movedTo('t')).toBe('ps-b');
  });

  it('of which a part has moved is where its attached timelines are', async () => {
    const moves = await adopted([
      { timeline: 'waiting', pageserver: 'ps-a', attached: false },
      { timeline: 'main', pageserver: 'ps-b', attached: true },
    ]);
    expect(moves.movedTo('t')).toBe('ps-b');
  });

  it('has each of its shards where it was', async () => {
    const shards = (...pageservers: string[]) => ({ stripeBlocks: 8, pageservers });
    const timelines: Known[] = [
      { timeline: 'main', pageserver: 'ps-a', attached: true, shards: shards('ps-b', 'ps-c') },
    ];
    const moves = await adopted(timelines);
    timelines.unshift({
      timeline: 'archived',
      pageserver: 'ps-a',
      attached: false,
      shards: shards('ps-a', 'ps-c'),
    });
    expect(moves.placesOf('t', 2)).toEqual({ pageservers: ['ps-b', 'ps-c'] });
  });

  it('does not have new shards where those were of a split that was given up', async () => {
    const to = (...pageservers: string[]) => ({ nextShards: { stripeBlocks: 8, pageservers } });
    const main = { timeline: 'main', pageserver: 'ps-a', attached: true };
    const timelines: Known[] = [{ ...main, ...to('ps-b', 'ps-c') }];
    const moves = await adopted(timelines);
    timelines[0] = main;
    expect(moves.placesOf('t', 2)).toBeUndefined();
    timelines[0] = { ...main, ...to('ps-c', 'ps-a') };
    expect(moves.placesOf('t', 2)).toEqual({ pageservers: ['ps-c', 'ps-a'] });
  });
});
