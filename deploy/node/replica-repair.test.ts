/** When a safekeeper that has lost its disk is told to join its timelines again. */
import { describe, expect, it } from 'vitest';
import type { TimelineStatus } from '../../actors/timeline/events.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { serveCommands } from '../../runtime/bus/command.ts';
import { MemoryBus } from '../../runtime/bus/memory-bus.ts';
import type { Log } from '../../runtime/ports/log.ts';
import { ManualClock } from '../../test/support/manual-clock.ts';
import { ReplicaRepair } from './replica-repair.ts';

const status = { timeline: 'a', members: ['sk1', 'sk2', 'sk3'], missing: [] } as unknown as TimelineStatus;

describe('a safekeeper without its disk', () => {
  it('that cannot join again is told to again after 2, 4, 8, ... seconds, and once it has, after a minute', async () => {
    const clock = new ManualClock();
    const bus = new MemoryBus({ clock });
    const begunMs = clock.now();
    const tries: number[] = [];
    let looks = 0;
    let canJoin = false;
    let has: string[] = [];
    for (const node of status.members) {
      serveCommands(bus, 'safekeeper-node', node, async (command) => {
        if (command.type === 'list') {
          looks++;
          return node === 'sk3' ? has : ['a'];
        }
        tries.push(clock.now() - begunMs);
        if (!canJoin) throw new PalimpsestError('unavailable', 'too few answer');
        has = ['a'];
        return {};
      });
    }
    const log = { warn: () => {}, info: () => {} } as unknown as Log;
    const repair = new ReplicaRepair({
      bus,
      clock,
      log,
      safekeepers: status.members,
      timelines: () => [status],
    });
    try {
      await clock.advance(20_000);
      expect(tries).toEqual([2000, 4000, 8000, 16_000]);
      canJoin = true;
      await clock.advance(20_000);
      expect(tries).toEqual([2000, 4000, 8000, 16_000, 32_000]);
      const looked = looks;
      await clock.advance(50_000);
      expect(looks).toBe(looked);
      // Lost once more: again the first tries come soon.
      has = [];
      canJoin = false;
      await clock.advance(10_000);
      expect(tries.slice(5)).toEqual([92_000, 94_000, 98_000]);
    } finally {
      repair.stop();
    }
  });
});
