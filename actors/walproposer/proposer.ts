/**
 * The proposer's rules, pure: who leads, from which log, and what is committed.
 *
 * 1. A term is asked for that is above every term heard from a quorum; it needs the votes of a majority: while the members
 *    change, of the old ones and of the new ones.
 * 2. The new log is that of the donor: the voter with the highest (last log term, flush LSN). It is cut to the last
 *    whole record, and the new term starts there.
 * 3. Committed is the last record's end that a quorum has durably *in this term*: positions below the term's start
 *    count as nothing, because an older term's entry must never be committed on its own (Raft's figure 8).
 * 4. A higher term seen anywhere ends this proposer.
 * 5. A newer configuration replaces the own one. What members acknowledged before belongs to the one before: it counts again
 *    only when a member says it anew, as a member of the newer one.
 */
import {
  compareLogEnds,
  extendHistory,
  highestCommonPoint,
  logEnd,
  type TermStart,
} from '../../protocols/consensus/history.ts';
import {
  everyMember,
  isQuorum,
  type Membership,
  majorityOf,
  quorumValue,
} from '../../protocols/consensus/membership.ts';
import type { VoteResponse } from '../../protocols/consensus/messages.ts';
import type { NodeId, Term } from '../../protocols/ids.ts';
import type { Lsn } from '../../protocols/lsn.ts';

export type ProposerPhase = 'greeting' | 'voting' | 'leading';

export interface Donor {
  node: NodeId;
  response: VoteResponse;
}

export class ProposerState {
  #membership: Membership;
  /** How many members are a majority of all; while they change, more than that may be needed. */
  quorum: number;
  /** Where the timeline begins: what replicas without any common term share. */
  readonly #origin: Lsn;
  #phase: ProposerPhase = 'greeting';
  #term = 0 as Term;
  #highestTermSeen = 0 as Term;
  #greeted = new Set<NodeId>();
  #votes = new Map<NodeId, VoteResponse>();
  #termStart = 0 as Lsn;
  #history: TermStart[] = [];
  /** What is known to be durable at each member, and what of it was acknowledged in the present configuration. */
  readonly #flush = new Map<NodeId, Lsn>();
  readonly #acknowledged = new Map<NodeId, Lsn>();
  #flushOfQuorum = 0 as Lsn;
  readonly #boundaries = new CommitBoundaries();
  #commitLsn = 0 as Lsn;

  constructor(membership: Membership, origin: Lsn) {
    this.#membership = membership;
    this.quorum = majorityOf(everyMember(membership));
    this.#origin = origin;
  }

  get membership(): Membership {
    return this.#membership;
  }

  /**
   * A newer configuration. `keepsVotes`: the vote is won already, so that this proposer leads all the same. A candidate begins with
   * greetings again, because votes that were given in one configuration mean nothing in another.
   */
  adopt(membership: Membership, { keepsVotes }: { keepsVotes: boolean }): void {
    this.#membership = membership;
    this.quorum = majorityOf(everyMember(membership));
    this.#acknowledged.clear();
    if (this.#phase === 'leading' || keepsVotes) return;
    this.#phase = 'greeting';
    this.#greeted.clear();
    this.#votes.clear();
  }

  get phase(): ProposerPhase {
    return this.#phase;
  }

  get term(): Term {
    return this.#term;
  }

  get termStart(): Lsn {
    return this.#termStart;
  }

  get history(): readonly TermStart[] {
    return this.#history;
  }

  get commitLsn(): Lsn {
    return this.#commitLsn;
  }

  /** A higher term than the own was seen. */
  get isOutbid(): boolean {
    return this.#highestTermSeen > this.#term;
  }

  /** A member told its term. Returns whether votes are to be asked for now: a quorum has been heard. */
  greeted(node: NodeId, term: Term): boolean {
    this.#greeted.add(node);
    this.heardTerm(term);
    return this.#phase === 'greeting' && isQuorum(this.#membership, (member) => this.#greeted.has(member));
  }

  /** Notes a term heard from anywhere. Returns whether it ends this proposer's claim to its own. */
  heardTerm(term: Term): boolean {
    if (term > this.#highestTermSeen) this.#highestTermSeen = term;
    return this.#phase !== 'greeting' && term > this.#term;
  }

  /** Chooses a term above all that were heard; earlier votes are void. */
  startVote(): Term {
    this.#term = (Math.max(this.#highestTermSeen, this.#term) + 1) as Term;
    this.#votes.clear();
    this.#phase = 'voting';
    return this.#term;
  }

  /** A member answered the vote. */
  voted(node: NodeId, response: VoteResponse): 'waiting' | 'won' | 'lost' {
    if (this.heardTerm(response.term)) return 'lost';
    if (response.term < this.#term) return 'waiting';
    if (response.granted) this.#votes.set(node, response);
    else if (this.#phase === 'voting') return 'lost';
    if (this.#phase !== 'voting') return 'waiting';
    return isQuorum(this.#membership, (member) => this.#votes.has(member)) ? 'won' : 'waiting';
  }

  /** The voter whose log the new term goes on from. Only after the vote was won. */
  donor(): Donor {
    let best: Donor | undefined;
    for (const [node, response] of this.#votes) {
      if (!best || compareLogs(response, best.response) > 0) best = { node, response };
    }
    if (!best) throw new RangeError('no donor without votes');
    return best;
  }

  /** The highest commit LSN that a voter knew. */
  knownCommit(): Lsn {
    let commitLsn = this.#origin;
    for (const { commitLsn: known } of this.#votes.values()) if (known > commitLsn) commitLsn = known;
    return commitLsn;
  }

  /** Becomes the leader: `start` is the end of the last whole record in the donor's log. */
  lead(donor: Donor, start: Lsn): void {
    this.#phase = 'leading';
    this.#termStart = start;
    this.#history = extendHistory(donor.response.history, this.#term, start);
    this.#boundaries.add(start, start);
  }

  /** From where a member has to be sent WAL. */
  streamingStart(response: Pick<VoteResponse, 'history' | 'flushLsn'>): Lsn {
    return highestCommonPoint(this.#history, response.history, {
      replicaEnd: response.flushLsn,
      origin: this.#origin,
    });
  }

  /** WAL up to `end` was sent on its way; the last whole record in it ends at `recordEnd`. */
  appended(end: Lsn, recordEnd: Lsn): void {
    this.#boundaries.add(end, recordEnd);
  }

  /**
   * A member, elected in this term, has WAL up to `flushLsn` durably, and says so as a member of the configuration `generation`.
   * Returns whether the commit LSN moved.
   */
  flushed(node: NodeId, flushLsn: Lsn, generation = this.#membership.generation): boolean {
    this.#flush.set(node, flushLsn);
    if (generation !== this.#membership.generation) return false;
    this.#acknowledged.set(node, flushLsn);
    this.#flushOfQuorum = this.#quorumFlush();
    if (this.#flushOfQuorum < this.#termStart) return false;
    const commit = this.#boundaries.take(this.#flushOfQuorum);
    if (commit === undefined || commit <= this.#commitLsn) return false;
    this.#commitLsn = commit;
    return true;
  }

  /** What a quorum is known to have durably in this term; 0 for nothing. It may end within a record. */
  get flushOfQuorum(): Lsn {
    return this.#flushOfQuorum;
  }

  /** What each member is known to have durably in this term; 0 for nothing. */
  flushLsns(): Map<NodeId, Lsn> {
    return new Map(everyMember(this.#membership).map((node) => [node, this.flushOf(node)]));
  }

  /** What `node` is known to have durably in this term; 0 for nothing. */
  flushOf(node: NodeId): Lsn {
    return this.#flush.get(node) ?? (0 as Lsn);
  }

  #quorumFlush(): Lsn {
    return quorumValue(this.#membership, (node) => {
      const flushLsn = this.#acknowledged.get(node) ?? 0;
      return flushLsn < this.#termStart ? 0 : flushLsn;
    }) as Lsn;
  }
}

/** Positive when `a` is the better donor. */
function compareLogs(a: VoteResponse, b: VoteResponse): number {
  return compareLogEnds(logEnd(a.history, a.flushLsn), logEnd(b.history, b.flushLsn));
}

/** Which record's end is safe to commit once WAL up to some chunk's end is durable. */
class CommitBoundaries {
  #ends: Lsn[] = [];
  #recordEnds: Lsn[] = [];
  #head = 0;

  add(end: Lsn, recordEnd: Lsn): void {
    // A chunk in which no record ended moves nothing.
    if (recordEnd === this.#recordEnds.at(-1)) return;
    this.#ends.push(end);
    this.#recordEnds.push(recordEnd);
  }

  /** Drops all chunks that end at or before `flushLsn`; returns the last one's record end. */
  take(flushLsn: number): Lsn | undefined {
    let recordEnd: Lsn | undefined;
    while (this.#head < this.#ends.length && this.#ends[this.#head]! <= flushLsn) {
      recordEnd = this.#recordEnds[this.#head++];
    }
    if (this.#head > 1024 && this.#head * 2 > this.#ends.length) {
      this.#ends = this.#ends.slice(this.#head);
      this.#recordEnds = this.#recordEnds.slice(this.#head);
      this.#head = 0;
    }
    return recordEnd;
  }
}
