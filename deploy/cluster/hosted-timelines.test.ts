/** What pageservers serve and should not: it has moved, or was deleted while they could not be reached. */
import { describe, expect, it } from 'vitest';
import type { TimelineStatus } from '../../actors/timeline/events.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { serveCommands } from '../../runtime/bus/command.ts';
import { MemoryBus } from '../../runtime/bus/memory-bus.ts';
import type { Log } from '../../runtime/ports/log.ts';
import { detachStrays, hostedTimelines, ownersOf } from './hosted-timelines.ts';

const MOVED = 'a'.repeat(32);
const KEPT = 'b'.repeat(32);
const GONE = 'c'.repeat(32);
const PLACING = 'd'.repeat(32);
const SPLIT = 'e'.repeat(32);
const SPLITTING = 'f'.repeat(32);
const SHARDS = { stripeBlocks: 8, pageservers: ['ps-b', 'ps-a'] };
const ONE = { stripeBlocks: 8, pageservers: ['ps-b'] };

describe('what a pageserver should not serve', () => {
  it('is detached; of what nobody knows any more its files go, too', async () => {
    const bus = new MemoryBus({ clock: new SystemClock() });
    const told: unknown[] = [];
    const list: Record<string, string[]> = {
      'ps-a': [MOVED, KEPT, GONE, `${GONE}-1of2`, PLACING],
      'ps-b': [MOVED, 'something else', SPLIT, `${SPLIT}-0of2`, `${SPLITTING}`],
    };
    for (const node of Object.keys(list)) {
      serveCommands(bus, 'pageserver-node', node, async (command) => {
        if (command.type === 'list') return list[node];
        told.push({ node, ...command });
        return {};
      });
    }
    const statuses = [
      { timeline: MOVED, pageserver: 'ps-b' },
      { timeline: KEPT, pageserver: 'ps-a' },
      { timeline: SPLIT, tenant: 't', pageserver: 'ps-b', shards: SHARDS },
      { timeline: SPLITTING, tenant: 't', pageserver: 'ps-b', shards: SHARDS, retiringShards: ONE },
    ] as TimelineStatus[];
    const nodes = ['a', 'b'].map((name) => ({ name, alive: true, pageserverLife: '1' }));
    const hosted = await hostedTimelines(bus, nodes);
    expect(hosted).toHaveLength(10);
    await detachStrays(
      hosted,
      ownersOf({ timelineStatuses: () => statuses, hasTimeline: (id) => id !== GONE }),
      { bus, log: { warn: () => {} } as unknown as Log },
    );
    expect(told).toEqual([
      { node: 'ps-a', type: 'detach', timeline: MOVED },
      { node: 'ps-a', type: 'detach', timeline: GONE, dropLocal: true },
      {
        node: 'ps-a',
        type: 'detach',
        timeline: GONE,
        shard: { number: 1, count: 2, stripeBlocks: expect.any(Number) },
        dropLocal: true,
      },
      // Of a layout that is over: with what it has stored since.
      { node: 'ps-b', type: 'delete-shard', tenant: 't', timeline: SPLIT },
      { node: 'ps-b', type: 'detach', timeline: SPLITTING },
    ]);
  });
});
