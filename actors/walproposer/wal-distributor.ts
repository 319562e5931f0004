/**
 * Sends the leader's WAL to the members: each has a position and is sent what it lacks, from the window of recent WAL, or
 * from another member when the window has lost it.
 *
 * While a quorum has not answered for what was sent last, a little more WAL waits for that answer and leaves with what comes after it:
 * sessions that commit at the same time share frames, writes and answers, which cost more processor time than the wait costs them.
 */
import type { AppendHeader } from '../../protocols/consensus/messages.ts';
import { READ_WAL_BYTES_MAX } from '../../protocols/consensus/wal-frames.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { formatLsn, type Lsn, ZERO_LSN } from '../../protocols/lsn.ts';
import { RecordBoundaries } from '../../protocols/postgres/wal/boundaries.ts';
import type { Clock, Timer } from '../../runtime/ports/clock.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { MemberLink } from './member-link.ts';
import type { ProposerState } from './proposer.ts';
import { WalWindow } from './wal-window.ts';

/** Most WAL of one AppendRequest: what a walsender sends in one message. */
const APPEND_BYTES_MAX = 128 * 1024;
/** A member whose channel holds more than this is not sent more until half of it is gone. */
const QUEUED_BYTES_MAX = 1024 * 1024;
const WINDOW_BYTES = 4 * 1024 * 1024;
/** What a slow member still lacks is kept up to here: to fetch it from another member would make that one slow as well. */
const WINDOW_FOR_STRAGGLERS_BYTES = 12 * 1024 * 1024;
/** While more is held, because no connected safekeeper has it durably, the compute should stop reading from Postgres. */
const HELD_BYTES_MAX = 16 * 1024 * 1024;
/** More WAL than this does not wait for an answer to what was sent before it. */
const GROUP_BYTES_MAX = 64 * 1024;
/** Nor does any where answers take longer than between near machines: it would make commits slower. */
const GROUP_ANSWER_MS_MAX = 2;
/** After this long without an append, members are told the commit LSN by itself. */
const IDLE_COMMIT_MS = 2;
const DONOR_RETRY_MS = 50;
/** Of the wait of members beyond the quorum: how often it is looked whether they are needed. */
const LAG_STEPS = 3;
const EMPTY = new Uint8Array(0);

export interface WalDistributorOptions {
  clock: Clock;
  log: Log;
  state: ProposerState;
  links: readonly MemberLink[];
  /** Of the membership; asked for each frame. */
  generation: () => number;
  /** Where the timeline's own WAL begins. */
  startLsn: Lsn;
  /** Members beyond the quorum are sent WAL up to this much later, in fewer and larger frames. */
  lagMs: number;
}

export class WalDistributor {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #state: ProposerState;
  readonly #links: readonly MemberLink[];
  readonly #generation: () => number;
  readonly #startLsn: Lsn;
  readonly #lagMs: number;
  #window: WalWindow;
  #boundaries: RecordBoundaries;
  #sendScheduled = false;
  /** End of what was sent to the quorum last, and when; on the monotonic clock. */
  #sentEnd = ZERO_LSN;
  #sentAtMs = 0;
  #isUnanswered = false;
  /** How long the answers to the group before took. */
  #answerMs = 0;
  /** WAL after `#sentEnd` waits for the answers to what is before it. */
  #isHeld = false;
  #lagTimer: Timer | undefined;
  #idleCommitTimer: Timer | undefined;
  #closed = false;

  constructor(options: WalDistributorOptions) {
    this.#clock = options.clock;
    this.#log = options.log;
    this.#state = options.state;
    this.#links = options.links;
    this.#generation = options.generation;
    this.#startLsn = options.startLsn;
    this.#lagMs = options.lagMs;
    this.#window = newWindow(options.startLsn);
    this.#boundaries = new RecordBoundaries(options.startLsn);
  }

  /** End of what was appended. */
  get endLsn(): Lsn {
    return this.#window.end;
  }

  /** Whether more should be appended now. */
  get hasRoom(): boolean {
    return this.#window.heldBytes <= HELD_BYTES_MAX;
  }

  /** Whether so much room is there again that it is worth going on after there was none. */
  get hasRoomAgain(): boolean {
    return this.#window.heldBytes <= HELD_BYTES_MAX / 2;
  }

  /** Begins a term: `window` ends where the term starts, and may hold WAL before it that stragglers lack. */
  begin(window: WalWindow): void {
    this.#window = window;
    this.#boundaries = new RecordBoundaries(window.end);
  }

  /** Takes a copy of WAL at `endLsn`; it is sent at the end of this turn of the event loop. */
  append(lsn: Lsn, bytes: Uint8Array): void {
    this.#boundaries.feed(lsn, bytes);
    this.#window.push(bytes);
    this.#state.appended(this.#window.end, this.#boundaries.position);
    if (this.#sendScheduled) return;
    this.#sendScheduled = true;
    queueMicrotask(() => this.#sendToAll());
  }

  /** A member answered: sends what it lacks if it has just joined, and what others could not get before. */
  answered(link: MemberLink): void {
    this.#trim();
    this.#quorumAnswered();
    for (const other of this.#links) {
      if (other === link ? link.commitSent === 0 : other.starved) this.#pump(other);
    }
    // One that lacks no WAL when it joins still has to learn the commit LSN, also when no more WAL comes.
    if (link.state === 'streaming' && link.commitSent < this.#state.commitLsn) this.commitAdvanced();
  }

  /** Ends; the members hear the last commit LSN, since nobody may come to tell them for long. */
  close(): void {
    this.#tellCommit({ alsoLagging: true });
    this.#closed = true;
    this.#lagTimer?.cancel();
    this.#idleCommitTimer?.cancel();
  }

  /** What one connected member has durably can come from there, so that the window need not keep it for long. */
  #trim(): void {
    if (!this.#window.isOverLimit) return;
    let safest = 0;
    let neededFrom: number = this.#window.end;
    for (const link of this.#links) {
      if (link.state !== 'streaming') continue;
      safest = Math.max(safest, this.#state.flushOf(link.node));
      neededFrom = Math.min(neededFrom, link.position);
    }
    this.#window.trim(safest as Lsn, neededFrom as Lsn);
  }

  /** Usually the next append tells the members; when none comes, this does. */
  commitAdvanced(): void {
    if (this.#idleCommitTimer) return;
    const { endLsn } = this;
    this.#idleCommitTimer = this.#clock.setTimer(IDLE_COMMIT_MS, () => {
      this.#idleCommitTimer = undefined;
      if (this.endLsn > endLsn) this.commitAdvanced();
      else this.#tellCommit({ alsoLagging: false });
    });
  }

  /** A member for whom WAL waits learns the commit LSN with it; only at the end it is told at once. */
  #tellCommit({ alsoLagging }: { alsoLagging: boolean }): void {
    for (const link of this.#links) {
      if (link.state !== 'streaming' || link.commitSent >= this.#state.commitLsn) continue;
      if (alsoLagging || link.position === this.#window.end)
        link.sendAppend(this.#header(link.position), EMPTY);
    }
  }

  #sendToAll(): void {
    this.#sendScheduled = false;
    if (this.#closed) return;
    this.#isHeld = this.#isWorthWaiting();
    if (this.#isHeld) return;
    this.#sentEnd = this.#window.end;
    this.#sentAtMs = this.#clock.monotonic();
    this.#isUnanswered = true;
    let fast = this.#state.quorum;
    for (const link of this.#links) {
      if (link.state !== 'streaming') continue;
      if (fast-- > 0 || this.#lagMs === 0) this.#pump(link);
      else this.#armLag();
    }
    this.#trim();
  }

  #isWorthWaiting(): boolean {
    if (!this.#isUnanswered || this.#answerMs > GROUP_ANSWER_MS_MAX) return false;
    if (this.#window.end - this.#sentEnd > GROUP_BYTES_MAX) return false;
    return this.#clock.monotonic() - this.#sentAtMs < GROUP_ANSWER_MS_MAX;
  }

  #quorumAnswered(): void {
    if (this.#isUnanswered && this.#state.flushOfQuorum >= this.#sentEnd) {
      this.#isUnanswered = false;
      this.#answerMs = this.#clock.monotonic() - this.#sentAtMs;
    }
    if (this.#isHeld) this.#sendToAll();
  }

  #armLag(): void {
    if (!this.#lagTimer) this.#waitLag(LAG_STEPS);
  }

  /** The wait ends early when the quorum is not as quick as usual: one of it may be gone, and then this member counts. */
  #waitLag(stepsLeft: number): void {
    const { endLsn } = this;
    this.#lagTimer = this.#clock.setTimer(this.#lagMs / LAG_STEPS, () => {
      this.#lagTimer = undefined;
      const isStuck = this.#state.flushOfQuorum < endLsn;
      if (stepsLeft > 1 && !isStuck) this.#waitLag(stepsLeft - 1);
      else for (const link of this.#links) this.#pump(link);
    });
  }

  /** Sends a member everything it lacks, as far as its channel takes it. */
  #pump(link: MemberLink): void {
    while (link.state === 'streaming' && !link.waiting && link.position < this.#window.end) {
      if (link.position < this.#window.start) {
        this.#sendFromDonor(link);
        return;
      }
      if (link.queuedBytes > QUEUED_BYTES_MAX) {
        this.#pumpWhenDrained(link);
        return;
      }
      link.sendAppend(this.#header(link.position), this.#window.slice(link.position, APPEND_BYTES_MAX));
    }
  }

  #header(beginLsn: Lsn): AppendHeader {
    return {
      generation: this.#generation(),
      term: this.#state.term,
      beginLsn,
      commitLsn: this.#state.commitLsn,
      truncateLsn: this.#startLsn,
    };
  }

  #pumpWhenDrained(link: MemberLink): void {
    link.waiting = true;
    void link.drained(QUEUED_BYTES_MAX / 2).then(() => {
      link.waiting = false;
      this.#pump(link);
    });
  }

  /** A straggler needs what the window has lost: another member has it. */
  #sendFromDonor(link: MemberLink): void {
    const from = link.position;
    const donor = this.#donorFor(from, link);
    link.starved = !donor;
    // As soon as another member streams, this is tried again.
    if (!donor) return;
    link.waiting = true;
    const length = Math.min(READ_WAL_BYTES_MAX / 2, this.#window.start - from);
    donor
      .readWal(from, length)
      .then((bytes) => {
        if (bytes.length === 0) throw new PalimpsestError('unavailable', `${donor.node} does not have it`);
        link.waiting = false;
        if (link.state !== 'streaming' || link.position !== from) return;
        link.sendAppend(this.#header(from), bytes);
        this.#pump(link);
      })
      .catch((error: Error) => {
        this.#log.warn({ node: link.node }, `WAL from ${formatLsn(from)} cannot be sent: ${error.message}`);
        this.#clock.setTimer(DONOR_RETRY_MS, () => {
          link.waiting = false;
          this.#pump(link);
        });
      });
  }

  #donorFor(from: Lsn, straggler: MemberLink): MemberLink | undefined {
    const flushOf = (link: MemberLink) => this.#state.flushOf(link.node);
    let best: MemberLink | undefined;
    for (const link of this.#links) {
      if (link === straggler || link.state !== 'streaming' || link.truncateLsn > from) continue;
      if (flushOf(link) > from && (!best || flushOf(link) > flushOf(best))) best = link;
    }
    return best;
  }
}

/** The window of recent WAL, from `start` on. */
export function newWindow(start: Lsn): WalWindow {
  return new WalWindow(start, WINDOW_BYTES, WINDOW_FOR_STRAGGLERS_BYTES);
}
