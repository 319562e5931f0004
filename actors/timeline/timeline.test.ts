/** A timeline's decisions, what it keeps, and where a branch point lies. */

import { describe, expect, it } from 'vitest';
import { PalimpsestError } from '../../protocols/errors.ts';
import { ACTIVE, environment, fold, SPEC, testClock } from '../../test/support/branching-timeline.ts';
import { rememberIngested, resolveBranchPoint, type Send } from './branch-point.ts';
import { decideTimeline, timelineStatus } from './decide.ts';
import type { TimelineCommand, TimelineEvent, TimelineStatus } from './events.ts';

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

describe('what a pageserver has ingested', () => {
  const logs: Record<string, object> = {
    sk1: { flushLsn: 500, commitLsn: 200, termHistory: [{ term: 1, lsn: 0 }] },
    sk2: {
      flushLsn: 450,
      commitLsn: 200,
      termHistory: [
        { term: 1, lsn: 0 },
        { term: 3, lsn: 300 },
      ],
    },
    sk3: { flushLsn: 100, commitLsn: 100, termHistory: [{ term: 1, lsn: 0 }] },
  };

  async function remember(lsn: number) {
    const told: unknown[] = [];
    const send: Send = async (kind, id, command) => {
      if (kind === 'timeline') return { timeline: 't', startLsn: 10, members: Object.keys(logs) };
      if (command.type === 'status') return logs[id.split('-')[1]!]!;
      told.push(command);
      return {};
    };
    await rememberIngested({ send, clock: testClock() }, { timeline: 't', lsn });
    return told[0];
  }

  it('is committed, as the best log of a quorum has it, also where no safekeeper knows that', async () => {
    expect(await remember(400)).toEqual({ type: 'note-commit', lsn: 400, term: 3, storedBy: 'sk2' });
    expect(await remember(200)).toMatchObject({ lsn: 200, term: 1, storedBy: 'sk1' });
    expect(await remember(10)).toBeUndefined();
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
