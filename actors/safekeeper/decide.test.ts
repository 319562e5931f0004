/** Each rule of the acceptor, by what it answers and what becomes durable. */
import { describe, expect, it } from 'vitest';
import { type AnyMachineSnapshot, initialTransition, transition } from 'xstate';
import type { TermStart } from '../../protocols/consensus/history.ts';
import type { VoteResponse } from '../../protocols/consensus/messages.ts';
import type { NodeId, Term } from '../../protocols/ids.ts';
import { type Lsn, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import {
  type AppendView,
  decideSafekeeper,
  judgeAppend,
  planElected,
  planFollowPeer,
  type SafekeeperCommand,
} from './decide.ts';
import type { SafekeeperEvent } from './events.ts';
import { type SafekeeperSnapshot, safekeeperMachine } from './machine.ts';

const START = 1000 as Lsn;
const lsn = (value: number) => value as Lsn;
const term = (value: number) => value as Term;
const history = (...entries: [number, number][]): TermStart[] =>
  entries.map(([t, l]) => ({ term: term(t), lsn: lsn(l) }));

const CREATE: SafekeeperCommand = {
  type: 'create',
  tenant: 'ten',
  timeline: 'tl',
  node: 'sk1' as NodeId,
  pgVersion: 17,
  systemId: '42',
  startLsn: START,
  members: ['sk1', 'sk2', 'sk3'] as NodeId[],
};

/** A replica in memory: decides, folds, and remembers what became durable. */
class Acceptor {
  #snapshot: AnyMachineSnapshot = initialTransition(safekeeperMachine)[0];
  events: SafekeeperEvent[] = [];
  flushLsn = START;
  commitLsn = START;

  get snapshot(): SafekeeperSnapshot {
    return this.#snapshot as SafekeeperSnapshot;
  }

  send(command: SafekeeperCommand): { reply?: unknown; reject?: { code: string; message: string } } {
    const decision = decideSafekeeper(this.snapshot, command);
    if ('reject' in decision) return { reject: decision.reject };
    for (const event of decision.events) {
      expect(this.#snapshot.can(event)).toBe(true);
      [this.#snapshot] = transition(safekeeperMachine, this.#snapshot as never, event);
      this.events.push(event);
    }
    return { reply: decision.reply };
  }

  vote(asked: number, generation = 1): VoteResponse {
    const { flushLsn, commitLsn } = this;
    const { reply } = this.send({
      type: 'vote',
      request: { generation, term: term(asked) },
      flushLsn,
      commitLsn,
    });
    return reply as VoteResponse;
  }

  elect(elected: number, entries: TermStart[], startStreamingAt: number) {
    const message = {
      generation: 1,
      term: term(elected),
      startStreamingAt: lsn(startStreamingAt),
      history: entries,
    };
    const plan = planElected(this.snapshot.context, message, this);
    if (plan.status === 'refused') return plan.error;
    const truncatedFrom = this.flushLsn;
    this.flushLsn = plan.truncateTo;
    const { flushLsn, commitLsn } = this;
    return this.send({ type: 'elected', message, truncatedFrom, flushLsn, commitLsn }).reject;
  }
}

function created(): Acceptor {
  const acceptor = new Acceptor();
  acceptor.send(CREATE);
  acceptor.events = [];
  return acceptor;
}

describe('creation', () => {
  it('happens once and is refused for another identity', () => {
    const acceptor = created();
    expect(acceptor.send(CREATE).reject).toBeUndefined();
    expect(acceptor.events).toEqual([]);
    expect(acceptor.send({ ...CREATE, startLsn: lsn(8) } as SafekeeperCommand).reject?.code).toBe('conflict');
  });

  it('is refused to a node that is no member', () => {
    const members = ['sk2', 'sk3'] as NodeId[];
    const answer = new Acceptor().send({ ...CREATE, members } as SafekeeperCommand);
    expect(answer.reject?.code).toBe('invalid-argument');
  });

  it('is refused for ever after a removal', () => {
    const acceptor = created();
    acceptor.send({ type: 'remove' });
    expect(acceptor.snapshot.value).toBe('removed');
    expect(acceptor.send(CREATE).reject?.code).toBe('conflict');
    expect(acceptor.send({ type: 'adopt-term', term: term(9), reason: 'peer' }).reject?.code).toBe(
      'not-found',
    );
  });
});

describe('a replica that comes back', () => {
  const restored = {
    lsn: lsn(5000),
    term: term(7),
    history: history([3, 1000], [6, 4000]),
    backupLsn: START,
    expiredLsn: START,
    partials: [],
  };

  it('has the term, log and generation that it was given, and votes only above', () => {
    const acceptor = new Acceptor();
    acceptor.send({ ...CREATE, restored, generation: 4 } as SafekeeperCommand);
    const { context, value } = acceptor.snapshot;
    expect(value).toBe('waiting');
    expect(context).toMatchObject({ term: 7, commitLsn: 5000, history: restored.history });
    acceptor.flushLsn = acceptor.commitLsn = lsn(5000);
    expect(acceptor.vote(7, 4).granted).toBe(false);
    expect(acceptor.vote(8, 4).granted).toBe(true);
  });

  it('fences the others: nothing of the generation before is obeyed, and none comes again', () => {
    const acceptor = created();
    acceptor.send({ type: 'fence', generation: 2 });
    expect(acceptor.events.map(({ type }) => type)).toEqual(['membership.changed']);
    const request = { generation: 1, term: term(9) };
    const vote = { type: 'vote' as const, request, flushLsn: START, commitLsn: START };
    expect(acceptor.send(vote).reject?.code).toBe('conflict');
    expect(acceptor.send({ type: 'fence', generation: 1 }).reject?.code).toBe('conflict');
    expect(acceptor.send({ type: 'fence', generation: 2 })).toEqual({ reply: undefined });
    // That of a configuration with other members, perhaps, is not taken over with these.
    expect(acceptor.send({ type: 'fence', generation: 100_001 }).reject?.code).toBe('conflict');
    const membership = { generation: 1, members: [...acceptor.snapshot.context.membership.members] };
    expect(acceptor.send({ type: 'configure', membership })).toEqual({ reply: undefined });
  });
});

describe('a greeting', () => {
  const greeting = {
    tenant: 'ten',
    timeline: 'tl',
    membership: { generation: 1, members: ['sk1', 'sk2', 'sk3'] as NodeId[] },
    pgVersion: 17,
    systemId: '42',
    segmentBytes: WAL_SEGMENT_BYTES,
  };

  it.each([
    { tenant: 'other' },
    { timeline: 'other' },
    { pgVersion: 16 },
    { systemId: '43' },
    { segmentBytes: 1 << 20 },
  ])('with %o is refused', (difference) => {
    const answer = created().send({ type: 'greet', greeting: { ...greeting, ...difference } });
    expect(answer.reject?.code).toBe('invalid-argument');
  });

  it('brings a newer membership, unless that leaves this replica out', () => {
    const acceptor = created();
    const without = { generation: 2, members: ['sk2', 'sk3', 'sk4'] as NodeId[] };
    expect(
      acceptor.send({ type: 'greet', greeting: { ...greeting, membership: without } }).reply,
    ).toMatchObject({
      membership: { generation: 1 },
    });
    const within = { generation: 2, members: ['sk1', 'sk3', 'sk4'] as NodeId[] };
    expect(
      acceptor.send({ type: 'greet', greeting: { ...greeting, membership: within } }).reply,
    ).toMatchObject({
      membership: within,
    });
    expect(acceptor.vote(1, 1)).toBeUndefined();
    expect(acceptor.vote(1, 2).granted).toBe(true);
  });
});

describe('a vote', () => {
  it('is given once per term and only above every term seen', () => {
    const acceptor = created();
    expect(acceptor.vote(3)).toMatchObject({ granted: true, term: 3 });
    expect(acceptor.events).toEqual([{ type: 'term.adopted', term: 3, reason: 'vote' }]);
    expect(acceptor.vote(3)).toMatchObject({ granted: false, term: 3 });
    expect(acceptor.vote(2)).toMatchObject({ granted: false, term: 3 });
    expect(acceptor.vote(4)).toMatchObject({ granted: true, term: 4 });
  });

  it('of another membership generation is refused', () => {
    const { flushLsn, commitLsn } = created();
    const request = { generation: 2, term: term(1) };
    expect(created().send({ type: 'vote', request, flushLsn, commitLsn }).reject?.code).toBe('conflict');
  });

  it('tells the history only as far as the log reaches', () => {
    const acceptor = created();
    acceptor.elect(1, history([1, START]), START);
    acceptor.elect(2, history([1, START], [2, 5000]), START);
    acceptor.flushLsn = lsn(4000);
    expect(acceptor.vote(3).history).toEqual(history([1, START]));
    acceptor.flushLsn = lsn(5000);
    expect(acceptor.vote(4).history).toEqual(history([1, START], [2, 5000]));
  });
});

describe('an election', () => {
  it('is followed at the common point, after cutting what is beyond it', () => {
    const acceptor = created();
    acceptor.elect(1, history([1, START]), START);
    acceptor.flushLsn = lsn(3000);
    acceptor.events = [];
    expect(acceptor.elect(2, history([1, START], [2, 2000]), 2000)).toBeUndefined();
    expect(acceptor.events).toEqual([
      { type: 'term.adopted', term: 2, reason: 'elected' },
      { type: 'wal.truncated', from: 2000, to: 3000 },
      { type: 'history.replaced', term: 2, history: history([1, START], [2, 2000]) },
    ]);
    expect(acceptor.snapshot.value).toBe('following');
  });

  it('of a lower term is refused', () => {
    const acceptor = created();
    acceptor.vote(5);
    expect(acceptor.elect(4, history([4, START]), START)?.code).toBe('deposed');
  });

  it('is refused when the proposer reckons another common point', () => {
    const acceptor = created();
    acceptor.elect(1, history([1, START]), START);
    acceptor.flushLsn = lsn(3000);
    expect(acceptor.elect(2, history([1, START], [2, 2000]), 2500)?.code).toBe('conflict');
  });

  it('never cuts below what is committed', () => {
    const acceptor = created();
    acceptor.elect(1, history([1, START]), START);
    acceptor.flushLsn = lsn(3000);
    acceptor.commitLsn = lsn(2500);
    expect(acceptor.elect(2, history([1, START], [2, 2000]), 2000)?.code).toBe('corrupt');
    expect(acceptor.snapshot.context.term).toBe(1);
  });

  it('with a history that is wrong or lacks its own term is refused', () => {
    expect(created().elect(2, history([2, START], [1, 2000]), START)?.code).toBe('invalid-argument');
    expect(created().elect(2, history([1, START]), START)?.code).toBe('invalid-argument');
  });

  it('ends when a higher term is adopted', () => {
    const acceptor = created();
    acceptor.elect(1, history([1, START]), START);
    acceptor.vote(2);
    expect(acceptor.snapshot.value).toBe('waiting');
  });
});

describe('a peer’s committed log', () => {
  const peer = (commitLsn: number, entries: TermStart[]) => ({
    node: 'sk2' as NodeId,
    term: term(9),
    flushLsn: lsn(commitLsn + 500),
    commitLsn: lsn(commitLsn),
    startLsn: START,
    termHistory: entries,
  });

  it('is taken over when this log is a prefix of it, with the terms that were committed only', () => {
    const acceptor = created();
    const status = peer(4000, history([1, START], [2, 2000], [9, 4200]));
    const { flushLsn, commitLsn } = acceptor;
    acceptor.send({ type: 'follow-peer', peer: status, truncatedFrom: flushLsn, flushLsn, commitLsn });
    expect(acceptor.snapshot.context).toMatchObject({ term: 2, history: history([1, START], [2, 2000]) });
  });

  it('cuts an uncommitted tail that it contradicts', () => {
    const acceptor = created();
    acceptor.elect(1, history([1, START]), START);
    acceptor.flushLsn = lsn(3000);
    const plan = planFollowPeer(
      acceptor.snapshot.context,
      peer(4000, history([1, START], [2, 2000])),
      acceptor,
    );
    expect(plan).toEqual({ status: 'ok', truncateTo: 2000 });
  });

  it('never cuts a tail that may be newer than it', () => {
    const acceptor = created();
    acceptor.elect(1, history([1, START]), START);
    acceptor.flushLsn = lsn(3000);
    acceptor.elect(2, history([1, START], [2, 3000]), 3000);
    acceptor.flushLsn = lsn(5000);
    const plan = planFollowPeer(acceptor.snapshot.context, peer(2500, history([1, START])), acceptor);
    expect(plan).toEqual({ status: 'contained' });
  });
});

describe('an append', () => {
  const view: AppendView = { generation: 1, term: term(3), following: true };
  const header = { generation: 1, term: term(3), beginLsn: lsn(2000), commitLsn: START, truncateLsn: START };
  const at = { walBytes: 100, writeLsn: lsn(2000), sentByElected: true };

  it('is taken from the elected proposer at exactly the log’s end', () => {
    expect(judgeAppend(view, header, at)).toBe('accept');
  });

  it('of an older term is answered with the term only', () => {
    expect(judgeAppend({ ...view, term: term(4) }, header, at)).toBe('stale-term');
  });

  it.each([
    ['before its election', { ...view, term: term(2) }, at],
    ['while no elected proposer is followed', { ...view, following: false }, at],
    ['on another channel than its election', view, { ...at, sentByElected: false }],
    ['of a newer configuration that is not known here', { ...view, generation: 0 }, at],
    ['with a gap', view, { ...at, writeLsn: lsn(1999) }],
    ['that rewrites', view, { ...at, writeLsn: lsn(2001) }],
  ])('%s is refused', (_name, otherView, otherAt) => {
    expect(judgeAppend(otherView, header, otherAt)).toMatchObject({ code: 'conflict' });
  });
});
