/** A timeline's decisions, where a branch point lies, and how its effects treat safekeepers that do not answer. */

import { describe, expect, it } from 'vitest';
import { type AnyMachineSnapshot, initialTransition, transition } from 'xstate';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import { resolveBranchPoint, type Send } from './branch-point.ts';
import { decideTimeline, timelineStatus } from './decide.ts';
import { timelineEffects } from './effects.ts';
import type { TimelineEvent, TimelineSpec, TimelineStatus } from './events.ts';
import { timelineMachine } from './machine.ts';

const SPEC: TimelineSpec = {
  tenant: 't1',
  pgVersion: 17,
  systemId: '7',
  members: ['sk1', 'sk2', 'sk3'],
  pageserver: 'ps1',
  origin: { kind: 'branch', timeline: 'parent', point: { kind: 'head' } },
};
const environment = { id: 'child', now: 1000, random: undefined as never };

/** Time that passes only when somebody waits. */
function testClock(): Clock {
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

function fold(events: TimelineEvent[]): { snapshot: AnyMachineSnapshot; effects: string[] } {
  let snapshot = initialTransition(timelineMachine, { id: 'child' })[0] as AnyMachineSnapshot;
  const effects: string[] = [];
  for (const event of events) {
    const [next, actions] = transition(timelineMachine, snapshot as never, event);
    snapshot = next;
    effects.push(...actions.map(({ type }) => type).filter((type) => !type.startsWith('xstate.')));
  }
  return { snapshot, effects };
}

const ACTIVE: TimelineEvent[] = [
  { type: 'timeline.requested', spec: SPEC, timeMs: 1 },
  { type: 'timeline.resolved', startLsn: 800, ancestor: { timeline: 'parent', lsn: 800 } },
  { type: 'timeline.activated', missing: [] },
];

describe('a timeline', () => {
  it('resolves its start, then is placed, then is active', () => {
    const { snapshot, effects } = fold(ACTIVE);
    expect(effects).toEqual(['resolve', 'place']);
    expect(timelineStatus(snapshot)).toMatchObject({
      state: 'active',
      startLsn: 800,
      generation: 1,
      attached: true,
    });
  });

  it('creates the replicas that were missing when it became active', () => {
    const { effects } = fold([...ACTIVE.slice(0, 2), { type: 'timeline.activated', missing: ['sk3'] }]);
    expect(effects.at(-1)).toBe('completeReplicas');
  });

  it('gives every attachment a newer generation, and believes only the newest completion', () => {
    const decision = decideTimeline(fold(ACTIVE).snapshot, { type: 'attach' }, environment);
    expect(decision).toEqual({ events: [{ type: 'attach.requested', generation: 2 }] });
    const asked: TimelineEvent[] = [...ACTIVE, { type: 'attach.requested', generation: 2 }];
    const stale = fold([...asked, { type: 'attach.completed', generation: 1 }]);
    expect(timelineStatus(stale.snapshot).attached).toBe(false);
    const done = fold([...asked, { type: 'attach.completed', generation: 2 }]);
    expect(timelineStatus(done.snapshot)).toMatchObject({ attached: true, generation: 2 });
  });

  it('knows why its newest attachment failed, until there is a newer one', () => {
    const error = { code: 'corrupt' as const, message: 'layer is corrupt' };
    const failed: TimelineEvent[] = [
      ...ACTIVE,
      { type: 'attach.requested', generation: 2 },
      { type: 'attach.failed', generation: 2, error },
    ];
    expect(timelineStatus(fold(failed).snapshot)).toMatchObject({ attached: false, attachError: error });
    const again = fold([...failed, { type: 'attach.requested', generation: 3 }]);
    expect(timelineStatus(again.snapshot).attachError).toBeUndefined();
  });

  it('answers a repeated creation or deletion with what it has decided before', () => {
    const { snapshot } = fold(ACTIVE);
    expect(decideTimeline(snapshot, { type: 'create', spec: SPEC }, environment)).toEqual({ events: [] });
    const gone = fold([
      ...ACTIVE,
      { type: 'timeline.delete-requested' },
      { type: 'timeline.deleted' },
    ]).snapshot;
    expect(decideTimeline(gone, { type: 'delete' }, environment)).toEqual({ events: [] });
    expect(gone.value).toBe('deleted');
  });
});

describe('a branch point', () => {
  const statuses: Record<string, Partial<TimelineStatus>> = {
    root: { timeline: 'root', startLsn: 100, ancestor: undefined },
    parent: { timeline: 'parent', startLsn: 500, ancestor: { timeline: 'root', lsn: 500 } },
  };

  /** A world of two timelines whose safekeepers answer with these commit and flush LSNs, call by call. */
  function world(replicas: Record<string, { commitLsn: number; flushLsn: number }[] | 'down'>): Send {
    return async (kind, id, command) => {
      if (kind === 'timeline') return { state: 'active', members: SPEC.members, ...statuses[id] };
      if (kind === 'compute') return { socketDir: '/run/x', port: 5432 };
      if (kind === 'pageserver' && command.type === 'resolve') return { lsn: (command.lsn as number) - 3 };
      if (kind === 'pageserver') return { lsn: 450, commitTimeMs: 5 };
      const answers = replicas[id.split('-')[1]!]!;
      if (answers === 'down') throw new PalimpsestError('unavailable', `${id} does not run`);
      return answers.length > 1 ? answers.shift() : answers[0];
    };
  }
  const level = (commitLsn: number) => [{ commitLsn, flushLsn: commitLsn }];
  const all = { sk1: level(900), sk2: level(900), sk3: level(900) };
  const ask = (send: Send, point: Parameters<typeof resolveBranchPoint>[0]['point']) =>
    resolveBranchPoint({ send, clock: testClock(), timeline: 'parent', point });

  it('at the head is the newest commit that any of a quorum knows', async () => {
    const send = world({ sk1: level(880), sk2: level(900), sk3: 'down' });
    expect(await ask(send, { kind: 'head' })).toEqual({ timeline: 'parent', lsn: 900 });
  });

  it('at the head waits for news of commits that are still on their way', async () => {
    const news = () => [
      { commitLsn: 880, flushLsn: 900 },
      { commitLsn: 900, flushLsn: 900 },
    ];
    const send = world({ sk1: news(), sk2: news(), sk3: news() });
    expect((await ask(send, { kind: 'head' })).lsn).toBe(900);
  });

  it('at the head does not wait for ever for WAL that never commits', async () => {
    const tail = [{ commitLsn: 880, flushLsn: 9000 }];
    expect((await ask(world({ sk1: [...tail], sk2: [...tail], sk3: 'down' }), { kind: 'head' })).lsn).toBe(
      880,
    );
  });

  it('at the head wakes the compute when nobody else can commit what was acknowledged', async () => {
    let woken = false;
    const tail = () => [woken ? { commitLsn: 900, flushLsn: 900 } : { commitLsn: 700, flushLsn: 900 }];
    const send: Send = async (kind, id, command) => {
      if (kind === 'compute' && command.type === 'wake') woken = true;
      return world({ sk1: tail(), sk2: tail(), sk3: 'down' })(kind, id, command, { timeoutMs: 1 });
    };
    expect((await ask(send, { kind: 'head' })).lsn).toBe(900);
  });

  it('needs a quorum', async () => {
    const send = world({ sk1: level(900), sk2: 'down', sk3: 'down' });
    await expect(ask(send, { kind: 'head' })).rejects.toThrow(/only 1 of 3 safekeepers/);
  });

  it('at an LSN is rounded down to the end of a record', async () => {
    expect(await ask(world(all), { kind: 'lsn', lsn: 800 })).toEqual({ timeline: 'parent', lsn: 797 });
  });

  it('before the own start belongs to the ancestor', async () => {
    expect(await ask(world(all), { kind: 'lsn', lsn: 300 })).toEqual({ timeline: 'root', lsn: 297 });
    expect(await ask(world(all), { kind: 'time', timeMs: 5 })).toEqual({ timeline: 'root', lsn: 447 });
  });

  it('is refused in the future and before all history', async () => {
    await expect(ask(world(all), { kind: 'lsn', lsn: 901 })).rejects.toThrow(/in the future/);
    await expect(ask(world(all), { kind: 'lsn', lsn: 99 })).rejects.toThrow(/before the beginning/);
    await expect(ask(world(all), { kind: 'time', timeMs: 9_000_000 })).rejects.toThrow(/in the future/);
  });
});

describe('placing a timeline', () => {
  const { snapshot } = fold(ACTIVE.slice(0, 2));
  const context = snapshot.context;

  function place(send: Send) {
    const effects = timelineEffects({ send, attached: async () => {}, pageserverReady: async () => {} });
    return effects.place!({ context }, { clock: testClock(), snapshot: () => snapshot } as never);
  }

  it('needs only a quorum of safekeepers and names the rest', async () => {
    const sent: string[] = [];
    const events = await place(async (kind, id) => {
      if (id === 'sk2') throw new PalimpsestError('unavailable', 'sk2 does not run');
      sent.push(`${kind} ${id}`);
      return {};
    });
    expect(events).toEqual([{ type: 'timeline.activated', missing: ['sk2'] }]);
    expect(sent).toContain('pageserver-node ps1');
  });

  it('fails, to be tried again, without a quorum', async () => {
    await expect(
      place(async (_, id) => {
        if (id === 'sk2' || id === 'sk1') throw new PalimpsestError('unavailable', `${id} does not run`);
        return {};
      }),
    ).rejects.toThrow(/does not run/);
  });
});
