/**
 * The walproposer: the compute's side of the consensus. It wins an election, brings the safekeepers to one log, then
 * sends them the WAL that Postgres writes and learns what is committed.
 *
 *   elect()    greet a quorum, win its votes, take over the donor's log up to its last whole record, bring a quorum
 *              there (the others follow in the background), answer where Postgres may begin
 *   append()   copies the bytes once; all appends of one turn of the event loop leave as one frame to each member
 *   committed  the end of the last record that a quorum has on its disks
 *
 * A newer configuration of the members is taken over as soon as one tells of it; a leader goes on in its term.
 *
 * A member that comes back later is greeted, elected and brought up to date like any other: from the window of recent
 * WAL, or from a member that has what the window has lost. A higher term seen anywhere deposes this proposer for good.
 */
import { everyMember, type Membership, membershipFrom } from '../../protocols/consensus/membership.ts';
import type {
  AcceptorGreeting,
  AppendResponse,
  ProposerGreeting,
  VoteResponse,
} from '../../protocols/consensus/messages.ts';
import { READ_WAL_BYTES_MAX } from '../../protocols/consensus/wal-frames.ts';
import { PalimpsestError, type WireError } from '../../protocols/errors.ts';
import type { NodeId, Term } from '../../protocols/ids.ts';
import { formatLsn, type Lsn, WAL_SEGMENT_BYTES, ZERO_LSN } from '../../protocols/lsn.ts';
import { RecordBoundaries } from '../../protocols/postgres/wal/boundaries.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import type { Clock, Timer } from '../../runtime/ports/clock.ts';
import type { Log } from '../../runtime/ports/log.ts';
import { MemberLink } from './member-link.ts';
import { noQuorum, notCommitted } from './member-report.ts';
import { type Donor, ProposerState } from './proposer.ts';
import { WaitList } from './wait-list.ts';
import { newWindow, WalDistributor } from './wal-distributor.ts';
import type { WalWindow } from './wal-window.ts';

const ELECTION_ATTEMPTS_MAX = 20;

export interface WalproposerSpec {
  tenant: string;
  timeline: string;
  members: NodeId[];
  /** Of the configuration; 1 as a timeline is created. */
  generation?: number;
  /** Set while the configuration is joint. */
  newMembers?: NodeId[] | undefined;
  pgVersion: number;
  systemId: bigint;
  /** Where the timeline's own WAL begins. */
  startLsn: Lsn;
}

export interface WalproposerOptions {
  clock: Clock;
  log: Log;
  dial: (node: NodeId) => Promise<Channel>;
  spec: WalproposerSpec;
  /** Members beyond the quorum are sent WAL up to this much later, in fewer and larger frames. */
  lagMs?: number;
}

export class Walproposer {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #options: WalproposerOptions;
  /** What every link says first. */
  readonly #greeting: ProposerGreeting;
  readonly #distributor: WalDistributor;
  readonly #state: ProposerState;
  /** The distributor holds the same array. */
  readonly #links: MemberLink[];
  readonly #commitWaiters: WaitList;
  readonly #roomWaiters: WaitList;
  #attempts = 0;
  /** Set while elect() waits. */
  #election: { resolve: () => void; reject: (error: Error) => void } | undefined;
  #onPosition: ((lsn: Lsn) => void) | undefined;
  #takingOver = false;
  #commitListeners: ((commitLsn: Lsn) => void)[] = [];
  #deposedListeners: ((reason: string) => void)[] = [];
  #over: PalimpsestError | undefined;
  #attemptTimer: Timer | undefined;

  constructor(options: WalproposerOptions) {
    const { clock, spec } = options;
    this.#clock = clock;
    this.#log = options.log;
    this.#options = options;
    const { generation = 1, members, newMembers } = spec;
    const membership = membershipFrom(generation, members, newMembers);
    this.#state = new ProposerState(membership, spec.startLsn);
    this.#commitWaiters = new WaitList(clock);
    this.#roomWaiters = new WaitList(clock);
    this.#greeting = {
      tenant: spec.tenant,
      timeline: spec.timeline,
      membership,
      pgVersion: spec.pgVersion,
      systemId: String(spec.systemId),
      segmentBytes: WAL_SEGMENT_BYTES,
    };
    this.#links = everyMember(membership).map((node) => this.#newLink(node));
    this.#distributor = new WalDistributor({
      clock,
      log: options.log,
      state: this.#state,
      links: this.#links,
      generation: () => this.#generation,
      startLsn: spec.startLsn,
      lagMs: options.lagMs ?? 0,
    });
  }

  /** The commit LSN: the end of a whole record that a quorum has durably. */
  get commitLsn(): Lsn {
    return this.#state.commitLsn;
  }

  get term(): Term {
    return this.#state.term;
  }

  /** End of what was appended. */
  get endLsn(): Lsn {
    return this.#distributor.endLsn;
  }

  /** What each member is known to have durably; 0 for a member not heard of in this term. */
  flushLsns(): Map<NodeId, Lsn> {
    return this.#state.flushLsns();
  }

  /**
   * Wins the timeline and brings a quorum to one log. Resolves with the LSN at which Postgres goes on: the end of
   * the last whole record. `onPosition` learns that LSN as soon as the vote is won, while the quorum is still being brought
   * there: it is the right one if, and only if, the election succeeds. Throws `unavailable` when no quorum answers in
   * time, `deposed` when another proposer wins.
   */
  async elect(options: {
    timeoutMs: number;
    onPosition?(lsn: Lsn): void;
  }): Promise<{ term: Term; lsn: Lsn }> {
    if (this.#over) throw this.#over;
    this.#onPosition = options.onPosition;
    let timer: Timer | undefined;
    try {
      await new Promise<void>((resolve, reject) => {
        this.#election = { resolve, reject };
        if (this.#state.commitLsn > 0) return resolve();
        timer = this.#clock.setTimer(options.timeoutMs, () =>
          reject(noQuorum(this.#links, this.#state.quorum, options.timeoutMs)),
        );
        for (const link of this.#links) link.connect();
      });
    } finally {
      timer?.cancel();
      this.#election = undefined;
    }
    return { term: this.#state.term, lsn: this.#state.termStart };
  }

  /** Sends WAL that follows what was appended before. The bytes are copied. Throws once deposed. */
  append(lsn: Lsn, bytes: Uint8Array): void {
    if (this.#over) throw this.#over;
    if (this.#state.phase !== 'leading' || lsn !== this.endLsn) {
      throw new RangeError(`append at ${formatLsn(lsn)}, expected ${formatLsn(this.endLsn)}`);
    }
    if (bytes.length > 0) this.#distributor.append(lsn, bytes);
  }

  /** Resolves when everything up to `lsn` is committed. Throws `timeout`, or `deposed`. */
  committed(lsn: Lsn, options: { timeoutMs: number }): Promise<void> {
    if (this.#over) return Promise.reject(this.#over);
    if (this.commitLsn >= lsn) return Promise.resolve();
    return this.#commitWaiters.wait(lsn, options.timeoutMs, () =>
      notCommitted(this.#links, lsn, options.timeoutMs),
    );
  }

  /** Calls back after every advance of the commit LSN. */
  onCommit(listener: (commitLsn: Lsn) => void): void {
    this.#commitListeners.push(listener);
  }

  /** Calls back once when another proposer has taken over: this compute must stop. */
  onDeposed(listener: (reason: string) => void): void {
    this.#deposedListeners.push(listener);
  }

  /** Up to here pageservers have taken the WAL, as safekeepers say: the slowest of several; undefined when none is heard of. */
  followerLsn(areSeveral = false): Lsn | undefined {
    let found = ZERO_LSN;
    for (const { followerLsn: lsn } of this.#links)
      if (lsn > 0 && (found === 0 || lsn < found === areSeveral)) found = lsn;
    return found > ZERO_LSN ? found : undefined;
  }

  /** Whether more should be appended now; if not, wait for `room`. */
  get hasRoom(): boolean {
    return this.#distributor.hasRoom;
  }

  /** Resolves when there is room again: a safekeeper has made durable most of what is held in memory. */
  room(options: { timeoutMs: number }): Promise<void> {
    if (this.#over) return Promise.reject(this.#over);
    if (this.hasRoom) return Promise.resolve();
    return this.#roomWaiters.wait(ZERO_LSN, options.timeoutMs, () =>
      notCommitted(this.#links, this.endLsn, options.timeoutMs),
    );
  }

  /** Ends all connections. What was appended but not committed may or may not survive. */
  close(): void {
    this.#finish(new PalimpsestError('unavailable', 'the walproposer was closed'));
  }

  get #generation(): number {
    return this.#state.membership.generation;
  }

  // --- election -----------------------------------------------------------------------------------------------

  #onGreeting(link: MemberLink, answer: AcceptorGreeting): void {
    const state = this.#state;
    if (this.#over) return;
    if (answer.membership.generation > this.#generation) this.#adopt(answer.membership, link);
    if (answer.membership.generation !== this.#generation) {
      this.#onRefused(link, {
        code: 'conflict',
        message: `${link.node} has membership generation ${answer.membership.generation}, not ${this.#generation}`,
      });
      return;
    }
    if (link.state !== 'greeted') {
      // It streams, or left with the configuration before.
      if (state.heardTerm(answer.term)) this.#outvoted(`${link.node} has seen term ${answer.term}`);
      return;
    }
    if (state.phase === 'greeting') {
      if (state.greeted(link.node, answer.term)) this.#startVote();
      return;
    }
    state.greeted(link.node, answer.term);
    if (answer.term > state.term) {
      this.#outvoted(`${link.node} has seen term ${answer.term}`);
      return;
    }
    link.askVote({ generation: this.#generation, term: state.term });
  }

  /** A leader goes on with a newer configuration, a candidate begins with greetings again. `teller` has it, all others are told. */
  #adopt(membership: Membership, teller: MemberLink): void {
    const state = this.#state;
    const isElected = state.phase === 'leading' || this.#takingOver;
    this.#log.info({ ...membership }, 'the configuration of the safekeepers has changed');
    this.#greeting.membership = membership;
    state.adopt(membership, { keepsVotes: isElected });
    if (!isElected) this.#cancelAttempt();
    const nodes = everyMember(membership);
    for (const link of this.#links.filter(({ node }) => !nodes.includes(node))) {
      this.#links.splice(this.#links.indexOf(link), 1);
      link.close();
    }
    for (const link of this.#links) {
      if (link === teller || link.state === 'down') continue;
      if (link.state === 'streaming') link.greetAgain();
      else if (!this.#takingOver) link.drop('the configuration has a newer generation');
    }
    for (const node of nodes) {
      if (this.#linkOf(node)) continue;
      const link = this.#newLink(node);
      this.#links.push(link);
      link.connect();
    }
  }

  #newLink(node: NodeId): MemberLink {
    const { dial, clock } = this.#options;
    return new MemberLink({
      node,
      dial,
      greeting: this.#greeting,
      clock,
      listener: {
        onGreeting: (link, answer) => this.#onGreeting(link, answer),
        onVote: (link, response) => this.#onVote(link, response),
        onAppendResponse: (link, response) => this.#onAppendResponse(link, response),
        onRefused: (link, error) => this.#onRefused(link, error),
        onDown: (link, how) => this.#onDown(link, how),
      },
    });
  }

  #startVote(): void {
    if (this.#over) return;
    if (++this.#attempts > ELECTION_ATTEMPTS_MAX) {
      this.#depose(`another proposer won ${ELECTION_ATTEMPTS_MAX} elections in a row`);
      return;
    }
    this.#cancelAttempt();
    const term = this.#state.startVote();
    for (const link of this.#links) {
      if (link.state === 'greeted' || link.state === 'voted') {
        link.askVote({ generation: this.#generation, term });
      }
    }
  }

  /** Somebody asked for a higher term, or got our voters first: a leader is over, a candidate asks once more. */
  #outvoted(reason: string): void {
    if (this.#over) return;
    if (this.#state.phase === 'leading') {
      this.#depose(reason);
      return;
    }
    this.#log.info({ term: this.#state.term }, `lost a vote: ${reason}`);
    this.#scheduleAttempt();
  }

  #scheduleAttempt(): void {
    // Rivals must not step on each other for ever: each waits longer, and not as long as the other.
    const delayMs = (5 + (this.#state.term % 7) * 3) * Math.min(8, this.#attempts);
    this.#attemptTimer ??= this.#clock.setTimer(delayMs, () => {
      this.#attemptTimer = undefined;
      if (!this.#takingOver && this.#state.phase !== 'leading') this.#startVote();
    });
  }

  #cancelAttempt(): void {
    this.#attemptTimer?.cancel();
    this.#attemptTimer = undefined;
  }

  #onVote(link: MemberLink, response: VoteResponse): void {
    const state = this.#state;
    if (this.#over) return;
    if (state.phase === 'leading') {
      if (response.term > state.term) {
        this.#depose(`${link.node} has seen term ${response.term}`);
        return;
      }
      this.#tellElected(link, response);
      return;
    }
    if (response.generation !== this.#generation) {
      link.drop('it voted in another configuration');
      return;
    }
    const outcome = state.voted(link.node, response);
    if (outcome === 'lost') {
      // It voted for a rival in this very term: should the others make this proposer the leader, it follows all the same.
      if (response.term === state.term) link.vote = response;
      this.#outvoted(`${link.node} is at term ${response.term}`);
      return;
    }
    link.vote = response;
    if (outcome === 'won' && !this.#takingOver) void this.#takeOver(state.donor());
  }

  /** The vote is won: finds the last whole record in the donor's log, then leads from there. */
  async #takeOver(donor: Donor): Promise<void> {
    this.#takingOver = true;
    this.#cancelAttempt();
    const { term } = this.#state;
    try {
      const window = await this.#readTail(donor, this.#state.knownCommit());
      const lsn = window.end;
      this.#takingOver = false;
      if (this.#over) return;
      if (this.#state.isOutbid) return this.#scheduleAttempt();
      this.#state.lead(donor, lsn);
      this.#distributor.begin(window);
      this.#log.info({ term, lsn: formatLsn(lsn), donor: donor.node }, 'elected');
      for (const link of this.#links)
        if (link.state === 'voted' && link.vote) this.#tellElected(link, link.vote);
      this.#onPosition?.(lsn);
    } catch (error) {
      this.#takingOver = false;
      if (error instanceof PalimpsestError && error.code === 'corrupt') return this.#finish(error);
      this.#log.warn(
        { term, donor: donor.node },
        `the donor's WAL could not be read: ${(error as Error).message}`,
      );
      this.#scheduleAttempt();
    }
  }

  /** Walks the donor's WAL that is not known to be committed; keeps it, for the others, up to the last whole record. */
  async #readTail(donor: Donor, commitLsn: Lsn): Promise<WalWindow> {
    const { flushLsn } = donor.response;
    if (commitLsn > flushLsn) {
      throw new PalimpsestError(
        'corrupt',
        `${donor.node} has WAL up to ${formatLsn(flushLsn)}, but ${formatLsn(commitLsn)} was committed`,
        'a safekeeper has lost durable WAL: check the disks of all safekeepers',
      );
    }
    const link = this.#linkOf(donor.node);
    if (!link) throw new PalimpsestError('unavailable', `${donor.node} has left`);
    const boundaries = new RecordBoundaries(commitLsn);
    const window = newWindow(commitLsn);
    while (boundaries.received < flushLsn) {
      const at = boundaries.received;
      const bytes = await link.readWal(at, Math.min(READ_WAL_BYTES_MAX, flushLsn - at));
      if (bytes.length === 0)
        throw new PalimpsestError('unavailable', `${donor.node} ended at ${formatLsn(at)}`);
      boundaries.feed(at, bytes);
      window.push(bytes);
      window.trim(at);
    }
    window.cut(boundaries.position);
    return window;
  }

  #tellElected(link: MemberLink, response: VoteResponse): void {
    const { term, history } = this.#state;
    let startStreamingAt: Lsn;
    try {
      startStreamingAt = this.#state.streamingStart(response);
    } catch (error) {
      this.#onRefused(link, { code: 'corrupt', message: `${link.node}: ${(error as Error).message}` });
      return;
    }
    link.tellElected({ generation: this.#generation, term, startStreamingAt, history: [...history] });
  }

  // --- streaming ----------------------------------------------------------------------------------------------

  #onAppendResponse(link: MemberLink, response: AppendResponse): void {
    const state = this.#state;
    if (state.heardTerm(response.term)) {
      this.#outvoted(`${link.node} has seen term ${response.term}`);
      return;
    }
    if (link.state !== 'streaming' || response.term !== state.term) return;
    link.followerLsn = response.followerLsn;
    const moved = state.flushed(link.node, response.flushLsn, response.generation);
    if (moved) this.#onCommitAdvance();
    this.#distributor.answered(link);
    if (!this.#roomWaiters.isEmpty && this.#distributor.hasRoomAgain) this.#roomWaiters.reached(ZERO_LSN);
  }

  #onCommitAdvance(): void {
    const { commitLsn } = this.#state;
    this.#election?.resolve();
    this.#commitWaiters.reached(commitLsn);
    for (const listener of this.#commitListeners) listener(commitLsn);
    this.#distributor.commitAdvanced();
  }

  // --- trouble ------------------------------------------------------------------------------------------------

  #onRefused(link: MemberLink, error: WireError): void {
    if (this.#over) return;
    this.#log.warn({ node: link.node, code: error.code }, `refused: ${error.message}`);
    if (error.code === 'deposed') {
      this.#outvoted(error.message);
      return;
    }
    link.lastError = error.message;
    link.drop(error.message);
  }

  #onDown(link: MemberLink, { wasStreaming }: { wasStreaming: boolean }): void {
    link.vote = undefined;
    if (this.#over) return;
    this.#log.info({ node: link.node }, `lost a safekeeper: ${link.lastError}`);
    // A candidate that lost a voter may have no quorum any more: its return brings a new greeting and vote.
    // Commits may need the others now: one that has just come back must not wait for its next try.
    if (wasStreaming) for (const other of this.#links) if (other !== link) other.connect();
  }

  #depose(reason: string): void {
    if (this.#over) return;
    this.#log.warn({ term: this.#state.term }, `deposed: ${reason}`);
    this.#finish(
      new PalimpsestError(
        'deposed',
        `another compute has taken over this branch: ${reason}`,
        'connect again',
      ),
    );
    for (const listener of this.#deposedListeners) listener(reason);
  }

  #finish(error: PalimpsestError): void {
    if (this.#over) return;
    this.#over = error;
    this.#attemptTimer?.cancel();
    this.#distributor.close();
    for (const link of this.#links) link.close();
    this.#election?.reject(error);
    this.#commitWaiters.fail(error);
    this.#roomWaiters.fail(error);
  }

  #linkOf(node: NodeId): MemberLink | undefined {
    return this.#links.find((link) => link.node === node);
  }
}
