/** A timeline's decisions, where a branch point lies, and how its effects treat safekeepers that do not answer. */

import { describe, expect, it } from 'vitest';
import { type AnyMachineSnapshot, initialTransition, transition } from 'xstate';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import { resolveBranchPoint, type Send } from './branch-point.ts';
import { decideTimeline, timelineStatus } from './decide.ts';
import { timelineEffects } from './effects.ts';
import type { TimelineCommand, TimelineEvent, TimelineSpec, TimelineStatus } from './events.ts';
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

  it('that is just being placed goes elsewhere when that is asked, and is not attached twice', () => {
    const { snapshot } = fold(ACTIVE.slice(0, 2));
    const attach = (pageserver: string) =>
      decideTimeline(snapshot, { type: 'attach', pageserver }, environment);
    expect(attach('ps1')).toEqual({ events: [] });
    expect(attach('ps2')).toEqual({
      events: [{ type: 'attach.requested', generation: 2, pageserver: 'ps2' }],
    });
  });

  it('creates the replicas that were missing when it became active', () => {
    const { effects } = fold([...ACTIVE.slice(0, 2), { type: 'timeline.activated', missing: ['sk3'] }]);
    expect(effects.at(-1)).toBe('completeReplicas');
  });

  it('knows that no replica is missing any more also when they were completed while it was archived', () => {
    const missing: TimelineEvent[] = [
      ...ACTIVE.slice(0, 2),
      { type: 'timeline.activated', missing: ['sk3'] },
    ];
    const archived: TimelineEvent[] = [{ type: 'timeline.archive-requested' }, { type: 'timeline.archived' }];
    for (const until of [0, 1, 2]) {
      const events = [
        ...missing,
        ...archived.slice(0, until),
        { type: 'replicas.completed' } as TimelineEvent,
      ];
      expect(timelineStatus(fold(events).snapshot).missing).toEqual([]);
    }
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

  /**
   * A world of two timelines whose safekeepers answer with these commit and flush LSNs, call by call. Beyond the commit LSN there is
   * a whole record that ends at `recordEnd`, or none.
   */
  function world(
    replicas: Record<string, { commitLsn: number; flushLsn: number }[] | 'down'>,
    recordEnd?: number,
  ): Send {
    return async (kind, id, command) => {
      if (kind === 'timeline')
        return { state: 'active', members: SPEC.members, cutoffLsn: 0, cutoffTimeMs: 0, ...statuses[id] };
      if (kind === 'compute') return { socketDir: '/run/x', port: 5432 };
      if (kind === 'pageserver' && command.type === 'resolve') return { lsn: (command.lsn as number) - 3 };
      if (kind === 'pageserver') return { lsn: 450, commitTimeMs: 5 };
      if (command.type === 'record-end') return { lsn: recordEnd ?? command.from };
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

  it('at the head waits until safekeepers that were started again know what may have been acknowledged', async () => {
    const lost = { commitLsn: 700, flushLsn: 900 };
    const restarted = () => [...Array(12).fill(lost), { commitLsn: 900, flushLsn: 900 }];
    const send = world({ sk1: restarted(), sk2: restarted(), sk3: 'down' }, 900);
    expect((await ask(send, { kind: 'head' })).lsn).toBe(900);
    const cutOff = world({ sk1: [lost], sk2: [lost], sk3: 'down' }, 900);
    await expect(ask(cutOff, { kind: 'head' })).rejects.toThrow(/in touch with the compute/);
    // Whatever the third one has: one disk alone acknowledges nothing.
    const one = world({ sk1: [{ commitLsn: 700, flushLsn: 900 }], sk2: level(700), sk3: level(700) }, 900);
    expect((await ask(one, { kind: 'head' })).lsn).toBe(700);
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

  it('before the window is refused, saying where it begins, unless somebody keeps exactly that point', async () => {
    const window = { cutoffLsn: 600, cutoffTimeMs: 7_000, held: { other: 550 } };
    const send: Send = async (kind, id, command, options) => {
      const answer = (await world(all)(kind, id, command, options)) as object;
      return kind === 'timeline' && id === 'parent' ? { ...answer, ...window } : answer;
    };
    const begins = /window, which begins at 0\/258 \(1970-01-01T00:00:07.000Z\)/;
    await expect(ask(send, { kind: 'lsn', lsn: 599 })).rejects.toThrow(begins);
    await expect(ask(send, { kind: 'time', timeMs: 6_000 })).rejects.toThrow(begins);
    expect(await ask(send, { kind: 'lsn', lsn: 550 })).toEqual({ timeline: 'parent', lsn: 550 });
    expect((await ask(send, { kind: 'lsn', lsn: 603 })).lsn).toBe(600);
  });

  it('is refused in the future and before all history', async () => {
    await expect(ask(world(all), { kind: 'lsn', lsn: 901 })).rejects.toThrow(/in the future/);
    await expect(ask(world(all), { kind: 'lsn', lsn: 99 })).rejects.toThrow(/before the beginning/);
    await expect(ask(world(all), { kind: 'time', timeMs: 9_000_000 })).rejects.toThrow(/in the future/);
  });
});

describe('what a timeline keeps', () => {
  const HOUR = 3_600_000;
  /** Decides and folds one command after the other at a time; the last answer. */
  function run(commands: [number, TimelineCommand][]) {
    const events = [...ACTIVE];
    let reply: unknown;
    for (const [now, command] of commands) {
      const decision = decideTimeline(fold(events).snapshot, command, { ...environment, now });
      if ('reject' in decision) throw PalimpsestError.fromWire(decision.reject);
      events.push(...decision.events);
      reply = decision.reply;
    }
    return { events: events.slice(ACTIVE.length), reply, status: timelineStatus(fold(events).snapshot) };
  }
  const cutoff = (lsn: number): TimelineCommand => ({
    type: 'advance-cutoff',
    cutoffLsn: lsn,
    cutoffTimeMs: 5,
  });
  const hold = (child: string, lsn: number): TimelineCommand => ({ type: 'hold-branch-point', child, lsn });
  const lease = (name: string, lsn: number): TimelineCommand => ({
    type: 'lease',
    lease: name,
    lsn,
    ttlMs: HOUR,
  });

  it('is everything from the cutoff on, and below it the branch points and leases that were there before', () => {
    const { reply } = run([
      [0, hold('a', 900)],
      [0, hold('b', 2000)],
      [0, lease('reader', 950)],
      [0, lease('again', 950)],
      [1, cutoff(1500)],
    ]);
    expect(reply).toEqual({ cutoffLsn: 1500, retained: [900, 950] });
  });

  it('never moves back, and begins no earlier than the timeline', () => {
    expect(run([[0, cutoff(700)]]).events).toEqual([]);
    const { events, reply } = run([
      [0, cutoff(1500)],
      [0, cutoff(1200)],
    ]);
    expect(events).toHaveLength(1);
    expect(reply).toEqual({ cutoffLsn: 1500, retained: [] });
  });

  it('takes no new point below the cutoff, except where one is kept', () => {
    expect(() =>
      run([
        [0, cutoff(1500)],
        [0, hold('a', 1499)],
      ]),
    ).toThrow(/history window, which begins at 0\/5DC \(1970-01-01T00:00:00.005Z\)/);
    expect(() =>
      run([
        [0, cutoff(1500)],
        [0, lease('r', 1499)],
      ]),
    ).toThrow(/history window/);
    const { status } = run([
      [0, hold('a', 900)],
      [0, cutoff(1500)],
      [0, lease('r', 900)],
      [0, hold('b', 900)],
      [0, { type: 'release-branch-point', child: 'a' }],
    ]);
    expect(status.held).toEqual({ b: 900 });
  });

  it('of a branch that asks again is its newer point', () => {
    const { status } = run([
      [0, hold('a', 900)],
      [0, hold('a', 1000)],
      [0, hold('a', 1000)],
    ]);
    expect(status.held).toEqual({ a: 1000 });
  });

  it('for a lease lasts at least as long as asked, with an event for every second renewal at most', () => {
    const { events, reply } = run([
      [0, lease('r', 900)],
      [HOUR * 0.5, lease('r', 900)],
      [HOUR, lease('r', 900)],
      [HOUR * 1.5, lease('r', 900)],
    ]);
    expect(events.map(({ type }) => type)).toEqual(['lease.granted', 'lease.granted']);
    expect(reply).toEqual({ untilMs: HOUR * 3.5 });
  });

  it('is given up when a lease has run out or was released, at the next move of the cutoff', () => {
    const { events, reply, status } = run([
      [0, lease('gone', 900)],
      [0, lease('released', 910)],
      [HOUR, lease('live', 920)],
      [HOUR, { type: 'release-lease', lease: 'released' }],
      [HOUR * 2.5, cutoff(1500)],
    ]);
    expect(events).toContainEqual({ type: 'lease.expired', leases: ['gone'] });
    expect(reply).toEqual({ cutoffLsn: 1500, retained: [920] });
    expect(Object.keys(status.leases)).toEqual(['live']);
  });

  it('is refused to leases before its start, and to ones that last too short or too long', () => {
    expect(() => run([[0, lease('r', 799)]])).toThrow(/before the timeline's own start/);
    expect(() => run([[0, { type: 'lease', lease: 'r', lsn: 900, ttlMs: 10 }]])).toThrow(/from 1 s to 24 h/);
  });
});

describe('resolving where a timeline starts', () => {
  /** The last byte before 900 is of term 3: an election at 900 wrote nothing before it. */
  const TERMS = [
    { term: 1, lsn: 500 },
    { term: 3, lsn: 700 },
    { term: 4, lsn: 900 },
  ];
  const { snapshot } = fold(ACTIVE.slice(0, 1));

  function resolve(hold: () => Promise<unknown>) {
    const sent: Record<string, unknown>[] = [];
    const send: Send = async (kind, id, command) => {
      if (kind === 'timeline' && command.type !== 'status') {
        sent.push({ id, ...command });
        return command.type === 'hold-branch-point' ? hold() : {};
      }
      if (kind === 'timeline')
        return { timeline: id, state: 'active', members: ['sk1'], startLsn: 500, cutoffLsn: 0 };
      if (command.type === 'note-commit') sent.push({ id, ...command });
      return { commitLsn: 900, flushLsn: 900, termHistory: TERMS };
    };
    const effects = timelineEffects({ send, attached: async () => {}, pageserverReady: async () => {} });
    const context = { id: 'child', clock: testClock(), snapshot: () => snapshot } as never;
    return { sent, events: effects.resolve!({ context: snapshot.context }, context) };
  }

  it('has it remembered as committed and held in the ancestor before anybody hears of it', async () => {
    const { sent, events } = resolve(async () => ({}));
    expect(await events).toMatchObject([{ type: 'timeline.resolved', startLsn: 900 }]);
    expect(sent).toHaveLength(2);
    expect(sent).toContainEqual({
      id: 'parent-sk1',
      type: 'note-commit',
      lsn: 900,
      term: 3,
      storedBy: 'sk1',
    });
    expect(sent).toContainEqual({ id: 'parent', type: 'hold-branch-point', child: 'child', lsn: 900 });
  });

  it('is refused when the cutoff has passed the point meanwhile, and holds nothing', async () => {
    const { sent, events } = resolve(() => {
      throw new PalimpsestError('invalid-argument', 'before the history window');
    });
    expect(await events).toMatchObject([{ type: 'timeline.rejected' }]);
    expect(sent.at(-1)).toEqual({ id: 'parent', type: 'release-branch-point', child: 'child' });
  });
});

describe('placing a timeline', () => {
  let { snapshot } = fold(ACTIVE.slice(0, 2));
  const context = snapshot.context;
  const effect = { clock: testClock(), snapshot: () => snapshot } as never;
  const effectsWith = (send: Send) =>
    timelineEffects({ send, attached: async () => {}, pageserverReady: async () => {} });

  function place(send: Send) {
    return effectsWith(send).place!({ context }, effect);
  }

  it('goes where the timeline is to be now, and tells under which generation', async () => {
    const asked: TimelineCommand = { type: 'attach', pageserver: 'ps2' };
    const decision = decideTimeline(snapshot, asked, environment);
    expect(decision).toEqual({ events: [{ type: 'attach.requested', generation: 2, pageserver: 'ps2' }] });
    const before = snapshot;
    ({ snapshot } = fold([...ACTIVE.slice(0, 2), ...('events' in decision ? decision.events : [])]));
    const sent: string[] = [];
    const events = await place(async (kind, id, { generation }) => {
      if (kind === 'pageserver-node') sent.push(`${id} ${generation}`);
      return {};
    });
    snapshot = before;
    expect(sent).toEqual(['ps2 2']);
    expect(events).toEqual([{ type: 'timeline.activated', missing: [], generation: 2 }]);
    const late = fold([...ACTIVE.slice(0, 2), { type: 'attach.requested', generation: 2 }, ACTIVE[2]!]);
    expect(timelineStatus(late.snapshot)).toMatchObject({ state: 'active', attached: true });
    const stale: TimelineEvent = { type: 'timeline.activated', missing: [], generation: 1 };
    const moved = fold([...ACTIVE.slice(0, 2), { type: 'attach.requested', generation: 2 }, stale]);
    expect(timelineStatus(moved.snapshot)).toMatchObject({ state: 'active', attached: false });
  });

  it('is over before the timeline is taken apart, and does not begin again', async () => {
    const sent: string[] = [];
    const attaching = Promise.withResolvers<object>();
    const effects = effectsWith(async (kind, id, { type }) => {
      sent.push(`${kind} ${id} ${type}`);
      return type === 'attach' ? attaching.promise : {};
    });
    const before = snapshot;
    const placing = effects.place!({ context }, effect);
    ({ snapshot } = fold([...ACTIVE.slice(0, 2), { type: 'timeline.delete-requested' }]));
    const dismantling = effects.dismantle!({ context: snapshot.context }, effect);
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(sent.filter((each) => each.endsWith('delete'))).toEqual([]);
    attaching.resolve({});
    expect(await placing).toEqual([]);
    expect(await dismantling).toEqual([{ type: 'timeline.deleted' }]);
    expect(sent.filter((each) => each.endsWith('delete'))).toHaveLength(4);
    const count = sent.length;
    expect(await effects.place!({ context }, effect)).toEqual([]);
    expect(sent).toHaveLength(count);
    snapshot = before;
  });

  it('needs only a quorum of safekeepers and names the rest', async () => {
    const sent: string[] = [];
    const events = await place(async (kind, id) => {
      if (id === 'sk2') throw new PalimpsestError('unavailable', 'sk2 does not run');
      sent.push(`${kind} ${id}`);
      return {};
    });
    expect(events).toEqual([{ type: 'timeline.activated', missing: ['sk2'], generation: 1 }]);
    expect(sent).toContain('pageserver-node ps1');
  });

  it('has those that were missing join: one may have been made, and have voted, before its disk was lost', async () => {
    const { snapshot } = fold([...ACTIVE.slice(0, 2), { type: 'timeline.activated', missing: ['sk2'] }]);
    const sent: unknown[] = [];
    const effects = effectsWith(async (kind, id, command) => {
      sent.push({ kind, id, ...command });
      return {};
    });
    const effect = { snapshot: () => snapshot } as never;
    expect(await effects.completeReplicas!({ context: snapshot.context }, effect)).toEqual([
      { type: 'replicas.completed' },
    ]);
    expect(sent).toEqual([
      expect.objectContaining({ kind: 'safekeeper-node', id: 'sk2', type: 'create', rejoin: true }),
    ]);
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

describe('archiving a timeline', () => {
  it('takes it from the pageserver that has it now', async () => {
    const moved: TimelineEvent[] = [
      { type: 'attach.requested', generation: 2, pageserver: 'ps2' },
      { type: 'attach.completed', generation: 2 },
      { type: 'timeline.archive-requested' },
    ];
    const { snapshot } = fold([...ACTIVE, ...moved]);
    const sent: string[] = [];
    const send: Send = async (kind, id, { type }) => {
      sent.push(`${kind} ${id} ${type}`);
      return {};
    };
    const effects = timelineEffects({ send, attached: async () => {}, pageserverReady: async () => {} });
    const effect = { clock: testClock(), snapshot: () => snapshot } as never;
    expect(await effects.archive!({ context: snapshot.context }, effect)).toEqual([
      { type: 'timeline.archived' },
    ]);
    expect(sent).toEqual(['compute child forget', 'pageserver child flush', 'pageserver-node ps2 detach']);
  });
});
