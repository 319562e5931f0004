/** The proposer's rules, without any channel. */
import { describe, expect, it } from 'vitest';
import type { TermStart } from '../../protocols/consensus/history.ts';
import type { VoteResponse } from '../../protocols/consensus/messages.ts';
import type { NodeId, Term } from '../../protocols/ids.ts';
import type { Lsn } from '../../protocols/lsn.ts';
import { ProposerState } from './proposer.ts';

const lsn = (value: number) => value as Lsn;
const term = (value: number) => value as Term;
const [A, B, C] = ['sk1', 'sk2', 'sk3'] as [NodeId, NodeId, NodeId];
const history = (...entries: [number, number][]): TermStart[] =>
  entries.map(([t, l]) => ({ term: term(t), lsn: lsn(l) }));

function vote(
  at: number,
  flushLsn: number,
  entries: TermStart[],
  options: Partial<VoteResponse> = {},
): VoteResponse {
  return {
    generation: 1,
    term: term(at),
    granted: true,
    flushLsn: lsn(flushLsn),
    commitLsn: lsn(100),
    truncateLsn: lsn(100),
    history: entries,
    ...options,
  };
}

/** Greeted by all, at terms given, and asking for votes. */
function voting(...terms: number[]): ProposerState {
  const state = new ProposerState({ generation: 1, members: [A, B, C] }, lsn(100));
  terms.forEach((t, i) => {
    if (state.greeted([A, B, C][i]!, term(t))) state.startVote();
  });
  return state;
}

describe('an election', () => {
  it('waits for a quorum and asks for a term above all that it heard', () => {
    const state = new ProposerState({ generation: 1, members: [A, B, C] }, lsn(100));
    expect(state.greeted(A, term(4))).toBe(false);
    expect(state.greeted(A, term(4))).toBe(false);
    expect(state.greeted(B, term(7))).toBe(true);
    expect(state.startVote()).toBe(8);
  });

  it.each([
    [1, 1],
    [3, 2],
    [5, 3],
  ])('of %i members needs %i', (members, quorum) => {
    const nodes = Array.from({ length: members }, (_, i) => `sk${i}` as NodeId);
    expect(new ProposerState({ generation: 1, members: nodes }, lsn(100)).quorum).toBe(quorum);
  });

  it('counts each voter once, and only votes for its own term', () => {
    const state = voting(1, 1);
    expect(state.voted(A, vote(2, 100, []))).toBe('waiting');
    expect(state.voted(A, vote(2, 100, []))).toBe('waiting');
    expect(state.voted(B, vote(1, 100, []))).toBe('waiting');
    expect(state.voted(B, vote(2, 100, []))).toBe('won');
  });

  it('is lost to a higher term, or to a rival of the same term', () => {
    expect(voting(1, 1).voted(A, vote(3, 100, [], { granted: false }))).toBe('lost');
    expect(voting(1, 1).voted(A, vote(2, 100, [], { granted: false }))).toBe('lost');
  });

  it('asks again above the term that beat it', () => {
    const state = voting(1, 1);
    state.voted(A, vote(6, 100, [], { granted: false }));
    expect(state.isOutbid).toBe(true);
    expect(state.startVote()).toBe(7);
  });

  it('takes as donor the highest last term, then the longest log', () => {
    const state = voting(3, 3);
    state.voted(A, vote(4, 900, history([1, 100])));
    state.voted(B, vote(4, 300, history([1, 100], [2, 250])));
    expect(state.donor().node).toBe(B);
    const other = voting(3, 3);
    other.voted(A, vote(4, 900, history([1, 100])));
    other.voted(B, vote(4, 950, history([1, 100])));
    expect(other.donor().node).toBe(B);
  });
});

/** Leads term 4 from `start` on the donor's log of term 1. */
function leading(start: number): ProposerState {
  const state = voting(3, 3, 3);
  state.voted(A, vote(4, start, history([1, 100])));
  state.voted(B, vote(4, start, history([1, 100])));
  state.lead(state.donor(), lsn(start));
  return state;
}

describe('a leader', () => {
  it('continues the donor’s history with its own term', () => {
    expect(leading(500).history).toEqual(history([1, 100], [4, 500]));
  });

  it('sends a member what follows the common point', () => {
    const state = leading(500);
    expect(state.streamingStart({ history: history([1, 100]), flushLsn: lsn(450) })).toBe(450);
    expect(state.streamingStart({ history: history([1, 100], [2, 300]), flushLsn: lsn(800) })).toBe(300);
    expect(state.streamingStart({ history: history([1, 100]), flushLsn: lsn(800) })).toBe(500);
    expect(state.streamingStart({ history: [], flushLsn: lsn(100) })).toBe(100);
  });

  it('commits its start once a quorum has it', () => {
    const state = leading(500);
    expect(state.flushed(A, lsn(500))).toBe(false);
    expect(state.flushed(B, lsn(500))).toBe(true);
    expect(state.commitLsn).toBe(500);
  });

  it('never commits an older term’s entries by themselves', () => {
    // Raft's figure 8: the entries up to 490 are on all members, but not yet under this leader's term.
    const state = leading(500);
    for (const node of [A, B, C]) expect(state.flushed(node, lsn(490))).toBe(false);
    expect(state.commitLsn).toBe(0);
    state.flushed(A, lsn(500));
    expect(state.flushed(C, lsn(500))).toBe(true);
  });

  it('commits whole records only', () => {
    const state = leading(500);
    for (const node of [A, B]) state.flushed(node, lsn(500));
    state.appended(lsn(600), lsn(560));
    state.appended(lsn(700), lsn(560));
    state.appended(lsn(800), lsn(800));
    state.flushed(A, lsn(800));
    expect(state.flushed(B, lsn(599))).toBe(false);
    expect(state.flushed(B, lsn(700))).toBe(true);
    expect(state.commitLsn).toBe(560);
    expect(state.flushed(B, lsn(799))).toBe(false);
    expect(state.flushed(B, lsn(800))).toBe(true);
    expect(state.commitLsn).toBe(800);
  });

  it('keeps what is committed when a member comes back with less', () => {
    const state = leading(500);
    state.flushed(A, lsn(500));
    state.flushed(B, lsn(500));
    expect(state.flushed(B, lsn(450))).toBe(false);
    expect(state.commitLsn).toBe(500);
  });

  it('is over at any higher term', () => {
    const state = leading(500);
    expect(state.heardTerm(term(4))).toBe(false);
    expect(state.heardTerm(term(5))).toBe(true);
  });
});

describe('a newer configuration', () => {
  const D = 'sk4' as NodeId;
  const joint = { generation: 2, members: [A, B, C], newMembers: [A, D, 'sk5' as NodeId] };

  function leading(): ProposerState {
    const state = voting(1, 1);
    state.voted(A, vote(2, 100, []));
    state.voted(B, vote(2, 100, []));
    state.lead(state.donor(), lsn(100));
    state.appended(lsn(200), lsn(200));
    state.appended(lsn(300), lsn(300));
    return state;
  }

  it('makes what was acknowledged before count only when it is said again', () => {
    const state = leading();
    state.flushed(A, lsn(200));
    state.adopt(joint, { keepsVotes: false });
    expect(state.phase).toBe('leading');
    expect(state.flushed(B, lsn(200), 2)).toBe(false);
    expect(state.flushed(D, lsn(200), 2)).toBe(false);
    // An answer that was given in the configuration before.
    expect(state.flushed(A, lsn(200), 1)).toBe(false);
    expect(state.flushed(A, lsn(200), 2)).toBe(true);
    expect(state.commitLsn).toBe(200);
  });

  it('commits only what a majority of the old and of the new members has', () => {
    const state = leading();
    state.adopt(joint, { keepsVotes: false });
    for (const node of [A, B, C]) expect(state.flushed(node, lsn(300), 2)).toBe(false);
    expect(state.flushed(D, lsn(200), 2)).toBe(true);
    expect(state.commitLsn).toBe(200);
  });

  it('makes a candidate begin with greetings again', () => {
    const state = voting(1, 1);
    state.voted(A, vote(2, 100, []));
    state.adopt(joint, { keepsVotes: false });
    expect(state.phase).toBe('greeting');
    expect(state.greeted(A, term(2))).toBe(false);
    expect(state.greeted(B, term(2))).toBe(false);
    expect(state.greeted(D, term(2))).toBe(true);
    expect(state.startVote()).toBe(3);
  });
});
