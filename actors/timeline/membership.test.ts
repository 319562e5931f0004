/** How a timeline's safekeepers change: what is decided when, and that each step can be taken again. */
import { describe, expect, it } from 'vitest';
import type { Membership } from '../../protocols/consensus/membership.ts';
import type { ReplicaStatus } from '../../protocols/consensus/wal-frames.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { NodeId, Term } from '../../protocols/ids.ts';
import type { Lsn } from '../../protocols/lsn.ts';
import type { EffectContext } from '../../runtime/host/definition.ts';
import { initialStep, step } from '../../runtime/host/machine.ts';
import type { Send } from './branch-point.ts';
import { decideTimeline, timelineStatus } from './decide.ts';
import type { TimelineCommand, TimelineEvent, TimelineSpec } from './events.ts';
import { type TimelineContext, timelineMachine } from './machine.ts';
import { canSettle, hasReached, markOf, membershipOf } from './membership.ts';
import { bringUp, installJoint } from './membership-effects.ts';

const [A, B, C, D] = ['sk1', 'sk2', 'sk3', 'sk4'] as [NodeId, NodeId, NodeId, NodeId];
const SPEC: TimelineSpec = {
  tenant: 'p',
  pgVersion: 17,
  systemId: '1',
  members: [A, B, C],
  pageserver: 'ps1',
  origin: { kind: 'template', key: 't', startLsn: 100 },
};
const ACTIVE: TimelineEvent[] = [
  { type: 'timeline.requested', spec: SPEC, timeMs: 1 },
  { type: 'timeline.resolved', startLsn: 100 },
  { type: 'timeline.activated', missing: [C] },
];
const REQUESTED: TimelineEvent = {
  type: 'membership.change-requested',
  generation: 100_000,
  members: [A, B, D],
  why: 'gone',
};
const INSTALLED: TimelineEvent = {
  type: 'membership.joint-installed',
  generation: 100_000,
  term: 5,
  logTerm: 5,
  flushLsn: 900,
};
const JOINT: Membership = { generation: 100_000, members: [A, B, C], newMembers: [A, B, D] };

function fold(events: TimelineEvent[]) {
  const first = initialStep(timelineMachine, { id: 'line' });
  let snapshot = first.snapshot;
  let actions = first.actions;
  for (const event of events) ({ snapshot, actions } = step(timelineMachine, snapshot, event));
  return { snapshot, actions: actions.map(({ type }) => type) };
}

const decide = (events: TimelineEvent[], command: TimelineCommand) =>
  decideTimeline(fold(events).snapshot, command, { id: 'line', now: 1, random: undefined as never });

function status(node: NodeId, more: Partial<ReplicaStatus> = {}): ReplicaStatus {
  return {
    node,
    generation: 100_000,
    term: 5 as Term,
    flushLsn: 900 as Lsn,
    commitLsn: 900 as Lsn,
    startLsn: 100 as Lsn,
    termHistory: [{ term: 5 as Term, lsn: 100 as Lsn }],
    ...more,
  };
}

describe('a change of the safekeepers', () => {
  const change: TimelineCommand = { type: 'change-members', members: [A, B, D], why: 'gone' };

  it('begins with a joint configuration of a newer generation', () => {
    expect(decide(ACTIVE, change)).toEqual({ events: [REQUESTED] });
    expect(decide(ACTIVE, { ...change, above: 300_004 })).toMatchObject({
      events: [{ generation: 400_000 }],
    });
    const { snapshot, actions } = fold([...ACTIVE, REQUESTED]);
    expect(actions).toContain('installJoint');
    expect(timelineStatus(snapshot)).toMatchObject({
      members: [A, B, C],
      newMembers: [A, B, D],
      membershipGeneration: 100_000,
      changeWhy: 'gone',
    });
  });

  it('is one at a time, with as many members, and nothing when they are the same', () => {
    const under = [...ACTIVE, REQUESTED];
    expect(decide(under, change)).toEqual({ events: [] });
    expect(decide(under, { ...change, members: [A, C, D] })).toMatchObject({ reject: { code: 'conflict' } });
    expect(decide(ACTIVE, { ...change, members: [C, B, A] })).toEqual({ events: [] });
    expect(decide(ACTIVE, { ...change, members: [A, A, D] })).toHaveProperty('reject');
    expect(decide(ACTIVE, { ...change, members: [D] })).toHaveProperty('reject');
  });

  it('ends with the new members alone; nobody waits for one that left', () => {
    const settled: TimelineEvent = { type: 'membership.settled', generation: 200_000, members: [A, B, D] };
    const { snapshot, actions } = fold([...ACTIVE, REQUESTED, INSTALLED, settled]);
    expect(actions).toContain('spread');
    expect(timelineStatus(snapshot)).toMatchObject({
      members: [A, B, D],
      newMembers: undefined,
      membershipGeneration: 200_000,
      missing: [],
    });
  });

  it('can be given up until it is settled; what its steps tell afterwards counts for nothing', () => {
    const abandoned: TimelineEvent = {
      type: 'membership.change-abandoned',
      generation: 200_000,
      why: 'lost',
    };
    expect(decide([...ACTIVE, REQUESTED], { type: 'abandon-change', why: 'lost' })).toEqual({
      events: [abandoned],
    });
    const late: TimelineEvent[] = [
      INSTALLED,
      { type: 'membership.settled', generation: 200_000, members: [A, B, D] },
    ];
    const { snapshot } = fold([...ACTIVE, REQUESTED, abandoned, ...late]);
    expect(timelineStatus(snapshot)).toMatchObject({ members: [A, B, C], membershipGeneration: 200_000 });
    expect(decide([...ACTIVE, REQUESTED, abandoned], { type: 'abandon-change', why: '' })).toEqual({
      events: [],
    });
  });
});

describe('the mark', () => {
  it('is the highest term and the best log of a majority of the old members', () => {
    const history = (term: number) => [{ term: term as Term, lsn: 100 as Lsn }];
    const long = status(A, { term: 3 as Term, flushLsn: 9000 as Lsn, termHistory: history(3) });
    const newer = status(B, { term: 7 as Term, flushLsn: 500 as Lsn, termHistory: history(4) });
    expect(markOf(JOINT, [long, newer])).toEqual({ term: 7, logTerm: 4, flushLsn: 500 });
    expect(markOf(JOINT, [long])).toBeUndefined();
    expect(markOf(JOINT, [long, status(D)])).toBeUndefined();
  });

  it('leaves out what only a minority holds: that is not committed, and no election may ever bring it to others', () => {
    const history = [{ term: 3 as Term, lsn: 100 as Lsn }];
    const logs = [status(A, { flushLsn: 500 as Lsn }), status(B, { flushLsn: 700 as Lsn })];
    const all = [status(C, { flushLsn: 900 as Lsn }), ...logs].map((each) => ({
      ...each,
      termHistory: history,
    }));
    expect(markOf(JOINT, all)).toMatchObject({ logTerm: 3, flushLsn: 700 });
    // A record that is not whole is gone after a restart.
    const cut = all.map((each) => ({ ...each, recordLsn: (each.flushLsn - 50) as Lsn }));
    expect(markOf(JOINT, cut)).toMatchObject({ logTerm: 3, flushLsn: 650 });
  });

  it('must be reached by a majority of the new members, and each that is added must be there', () => {
    const mark = { term: 5, logTerm: 5, flushLsn: 900 };
    expect(hasReached(mark, 100_000, status(D))).toBe(true);
    expect(hasReached(mark, 100_000, status(D, { generation: 1 }))).toBe(false);
    // Fenced since, by one that joined anew; and of another configuration.
    expect(hasReached(mark, 100_000, status(D, { generation: 100_003 }))).toBe(true);
    expect(hasReached(mark, 100_000, status(D, { generation: 200_000 }))).toBe(false);
    expect(hasReached(mark, 100_000, status(D, { term: 4 as Term }))).toBe(false);
    expect(hasReached(mark, 100_000, status(D, { flushLsn: 899 as Lsn }))).toBe(false);
    expect(canSettle(JOINT, mark, [status(A), status(B)])).toBe(false);
    expect(canSettle(JOINT, mark, [status(A), status(D)])).toBe(true);
    expect(canSettle(JOINT, mark, [status(D), status(C)])).toBe(false);
    const late = status(D, { flushLsn: 100 as Lsn });
    expect(canSettle(JOINT, mark, [status(A), late])).toBe(false);
    expect(canSettle(JOINT, mark, [status(A), status(B), late])).toBe(true);
    expect(canSettle(JOINT, mark, [status(A), status(B), status(D, { generation: 1 })])).toBe(false);
  });
});

describe('the steps', () => {
  /** Safekeepers that answer with these states; one without is not there until it is created. */
  function world(replicas: Map<NodeId, ReplicaStatus>, events: TimelineEvent[]) {
    const sent: string[] = [];
    const send: Send = async (kind, id, command) => {
      const node = (kind === 'safekeeper' ? id.split('-')[1]! : id) as NodeId;
      if (command.type === 'create') {
        sent.push(`create ${node}`);
        replicas.set(node, status(node));
        return { lsn: 900 };
      }
      if (command.type === 'leave') {
        sent.push(`leave ${node} ${(command.membership as Membership).generation}`);
        replicas.delete(node);
        return {};
      }
      if (kind === 'compute') return {};
      const found = replicas.get(node);
      if (!found) throw new PalimpsestError('unavailable', `${node} does not run`);
      return found;
    };
    const dispatched: TimelineCommand[] = [];
    const effect = {
      id: 'line',
      clock: { sleep: () => new Promise((resolve) => setImmediate(resolve)) },
      log: { info() {} },
      signal: new AbortController().signal,
      snapshot: () => fold(events).snapshot,
      dispatch: async (command: TimelineCommand) => {
        dispatched.push(command);
        const decision = decide(events, command);
        if ('events' in decision) events.push(...decision.events);
      },
    } as unknown as EffectContext<TimelineCommand>;
    const params = () => ({ context: fold(events).snapshot.context as TimelineContext });
    return { sent, send, effect, params, dispatched };
  }

  it('wait for a majority of the old members', async () => {
    const replicas = new Map([[A, status(A)]]);
    const { send, effect, params } = world(replicas, [...ACTIVE, REQUESTED]);
    await expect(installJoint(send, params(), effect)).rejects.toThrow(/only these answer: sk1/);
    replicas.set(B, status(B, { flushLsn: 950 as Lsn }));
    expect(await installJoint(send, params(), effect)).toEqual([{ ...INSTALLED, flushLsn: 950 }]);
  });

  it('create what is missing once, and settle when it is there', async () => {
    const replicas = new Map([A, B].map((node) => [node, status(node)]));
    const { sent, send, effect, params } = world(replicas, [...ACTIVE, REQUESTED, INSTALLED]);
    const settled = [{ type: 'membership.settled', generation: 200_000, members: [A, B, D] }];
    expect(await bringUp(send, params(), effect)).toEqual(settled);
    expect(sent).toEqual(['create sk4']);
    // After a crash the same again.
    expect(await bringUp(send, params(), effect)).toEqual(settled);
    expect(sent).toEqual(['create sk4']);
  });

  it('have one that is added join from the beginning, when it has a replica of an earlier time', async () => {
    const replicas = new Map([A, B, D].map((node) => [node, status(node)]));
    replicas.set(D, status(D, { generation: 1, flushLsn: 100 as Lsn }));
    const { sent, send, effect, params } = world(replicas, [...ACTIVE, REQUESTED, INSTALLED]);
    expect(await bringUp(send, params(), effect)).toMatchObject([{ type: 'membership.settled' }]);
    expect(sent).toEqual(['leave sk4 99999', 'create sk4']);
  });

  it('give the change up when it does not come to an end', async () => {
    const behind = [A, B, D].map((node) => [node, status(node, { flushLsn: 100 as Lsn })] as const);
    const { send, effect, params, dispatched } = world(new Map(behind), [...ACTIVE, REQUESTED, INSTALLED]);
    expect(await bringUp(send, params(), effect)).toEqual([]);
    expect(dispatched.at(-1)).toMatchObject({ type: 'abandon-change' });
  });

  it('never create a member again that was there and has lost its disk', async () => {
    const events = [...ACTIVE, REQUESTED, INSTALLED];
    events.push({ type: 'membership.joined', generation: 100_000, node: D });
    const { sent, send, effect, params } = world(new Map([A, B].map((node) => [node, status(node)])), events);
    const running = bringUp(send, params(), effect);
    await new Promise((resolve) => setImmediate(resolve));
    events.push({ type: 'membership.change-abandoned', generation: 200_000, why: 'its disk is lost' });
    expect(await running).toEqual([]);
    expect(sent).toEqual([]);
    expect(membershipOf(params().context).members).toEqual([A, B, C]);
  });
});
