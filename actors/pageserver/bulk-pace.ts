/**
 * Leaves the processor to a bulk load. While WAL comes in bulk, ingest takes only a little of it now and then and falls behind, up to a
 * bound; the rest of the WAL waits on safekeepers. It goes at full speed as soon as the load rests, a request waits for WAL that is
 * not taken yet, or the bound is reached.
 *
 *   bulk     BULK_BYTES or more were committed within REST_MS; it is over when that has not been so for REST_MS
 *   behind   committed - taken; the bound lies below what slows writers down (walproposer/commit-throttle.ts)
 */
import type { Clock, Timer } from '../../runtime/ports/clock.ts';

const MIB = 1024 * 1024;
export const BULK_BYTES = 24 * MIB;
export const REST_MS = 1_000;
export const BEHIND_BYTES_MAX = 224 * MIB;
/** Between two small pieces of WAL during a load; each tells how far the load is. */
export const STEP_MS = 50;

export class BulkPace {
  readonly #clock: Clock;
  /** Where the current stretch of commits began, and when. */
  #fromLsn = 0;
  #fromMs = 0;
  #bulkUntilMs = 0;
  #step: { timer: Timer; resolve: () => void } | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** WAL up to `takenLsn` was taken, of what is committed up to `commitLsn`. A promise says when to take more. */
  taken(takenLsn: number, commitLsn: number, isAwaited: boolean): Promise<void> | undefined {
    const now = this.#clock.monotonic();
    this.#note(commitLsn, now);
    const behind = commitLsn - takenLsn;
    if (now >= this.#bulkUntilMs || behind <= 0 || behind >= BEHIND_BYTES_MAX || isAwaited) return undefined;
    return new Promise((resolve) => {
      this.#step = { resolve, timer: this.#clock.setTimer(STEP_MS, () => this.hurry()) };
    });
  }

  /** Ends the pause that is under way: somebody waits. */
  hurry(): void {
    const step = this.#step;
    this.#step = undefined;
    step?.timer.cancel();
    step?.resolve();
  }

  #note(commitLsn: number, now: number): void {
    const isBulk = this.#fromLsn > 0 && commitLsn - this.#fromLsn >= BULK_BYTES;
    if (isBulk && now - this.#fromMs <= REST_MS) this.#bulkUntilMs = now + REST_MS;
    if (isBulk || this.#fromLsn === 0 || now - this.#fromMs > REST_MS) {
      this.#fromLsn = commitLsn;
      this.#fromMs = now;
    }
  }
}
