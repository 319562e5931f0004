/**
 * Slows writers down when the pageserver falls behind: commits are acknowledged to Postgres later, the further behind the more.
 *
 *   lag = committed - taken by the pageserver      up to FREE_BYTES: no delay; from there the delay grows with the square of
 *                                                  the excess, up to DELAY_MAX_MS at LIMIT_BYTES and beyond
 *
 * A delay never harms durability: what is acknowledged late has been committed long before. It always has an end: when the pageserver
 * takes nothing for STALLED_MS, or nobody hears of it, slowing writers down helps nobody, and commits are acknowledged at once.
 */
import type { Lsn } from '../../protocols/lsn.ts';
import type { Clock, Timer } from '../../runtime/ports/clock.ts';
import type { Log } from '../../runtime/ports/log.ts';

const MIB = 1024 * 1024;
export const FREE_BYTES = 256 * MIB;
export const LIMIT_BYTES = 512 * MIB;
export const DELAY_MAX_MS = 400;
export const STALLED_MS = 60_000;
/** Below this a timer costs more than it does. */
const DELAY_MIN_MS = 1;

export interface CommitThrottleOptions {
  clock: Clock;
  log: Log;
  /** Tells Postgres that everything up to here is durable. */
  acknowledge(commitLsn: Lsn): void;
}

export class CommitThrottle {
  readonly #options: CommitThrottleOptions;
  #newest = 0 as Lsn;
  #timer: Timer | undefined;
  #followerLsn = 0;
  #movedAt = 0;
  #state: 'free' | 'slow' | 'stalled' = 'free';
  #closed = false;

  constructor(options: CommitThrottleOptions) {
    this.#options = options;
  }

  /** Everything up to `commitLsn` is committed; the pageserver has taken WAL up to `followerLsn`, if it is heard of. */
  committed(commitLsn: Lsn, followerLsn: Lsn | undefined): void {
    this.#newest = commitLsn;
    const delayMs = this.#delayFor(commitLsn, followerLsn);
    if (delayMs < DELAY_MIN_MS) this.#release();
    else this.#timer ??= this.#options.clock.setTimer(delayMs, () => this.#release());
  }

  /** Acknowledges what waits, and everything after it at once. */
  close(): void {
    this.#closed = true;
    if (this.#timer) this.#release();
  }

  #release(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#options.acknowledge(this.#newest);
  }

  #delayFor(commitLsn: Lsn, followerLsn: Lsn | undefined): number {
    if (this.#closed) return 0;
    if (followerLsn === undefined || commitLsn - followerLsn <= FREE_BYTES) {
      if (this.#state !== 'free')
        this.#tell('free', 'the pageserver has caught up: commits go at full speed');
      return 0;
    }
    const now = this.#options.clock.monotonic();
    if (followerLsn > this.#followerLsn || this.#state === 'free') {
      this.#followerLsn = followerLsn;
      this.#movedAt = now;
    }
    if (now - this.#movedAt > STALLED_MS) {
      if (this.#state !== 'stalled') {
        const seconds = Math.round(STALLED_MS / 1000);
        this.#tell(
          'stalled',
          `the pageserver has taken no WAL for ${seconds} s: commits are not slowed down any more`,
        );
      }
      return 0;
    }
    if (this.#state !== 'slow') {
      this.#tell(
        'slow',
        `the pageserver is ${Math.round((commitLsn - followerLsn) / MIB)} MiB behind: commits are slowed down`,
      );
    }
    const excess = Math.min(1, (commitLsn - followerLsn - FREE_BYTES) / (LIMIT_BYTES - FREE_BYTES));
    return DELAY_MAX_MS * excess * excess;
  }

  #tell(state: 'free' | 'slow' | 'stalled', message: string): void {
    this.#state = state;
    this.#options.log.warn({}, message);
  }
}
