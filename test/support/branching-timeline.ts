/** What tests of the timeline actor share: a timeline that branches off `parent`, and a fold without a journal. */
import { type AnyMachineSnapshot, initialTransition, transition } from 'xstate';
import type { TimelineEvent, TimelineSpec } from '../../actors/timeline/events.ts';
import { timelineMachine } from '../../actors/timeline/machine.ts';
import type { Clock } from '../../runtime/ports/clock.ts';

export const SPEC: TimelineSpec = {
  tenant: 't1',
  pgVersion: 17,
  systemId: '7',
  members: ['sk1', 'sk2', 'sk3'],
  pageserver: 'ps1',
  origin: { kind: 'branch', timeline: 'parent', point: { kind: 'head' } },
};
export const environment = { id: 'child', now: 1000, random: undefined as never };

/** Time that passes only when somebody waits. */
export function testClock(): Clock {
  let now = 0;
  return {
    now: () => 1_000_000 + now,
    monotonic: () => now,
    setTimer(delayMs, fire) {
      let live = true;
      queueMicrotask(() => {
        now += delayMs;
        if (live) fire();
      });
      return { cancel: () => (live = false) };
    },
    async sleep(delayMs) {
      now += delayMs;
    },
  };
}

export function fold(events: TimelineEvent[]): { snapshot: AnyMachineSnapshot; effects: string[] } {
  let snapshot = initialTransition(timelineMachine, { id: 'child' })[0] as AnyMachineSnapshot;
  const effects: string[] = [];
  for (const event of events) {
    const [next, actions] = transition(timelineMachine, snapshot as never, event);
    snapshot = next;
    effects.push(...actions.map(({ type }) => type).filter((type) => !type.startsWith('xstate.')));
  }
  return { snapshot, effects };
}

export const ACTIVE: TimelineEvent[] = [
  { type: 'timeline.requested', spec: SPEC, timeMs: 1 },
  { type: 'timeline.resolved', startLsn: 800, ancestor: { timeline: 'parent', lsn: 800 } },
  { type: 'timeline.activated', missing: [] },
];
