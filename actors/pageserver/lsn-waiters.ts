/**
 * Requests that wait until a shard has ingested an LSN, each with a time limit.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { formatLsn } from '../../protocols/lsn.ts';
import type { Clock, Timer } from '../../runtime/ports/clock.ts';

export const WAITERS_MAX = 20_000;

interface Waiter {
  lsn: number;
  timer: Timer;
  resolve(): void;
  reject(error: Error): void;
}

export class LsnWaiters {
  readonly #clock: Clock;
  readonly #waiters = new Set<Waiter>();
  #lowest = Number.POSITIVE_INFINITY;
  #failed: Error | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Whether nobody waits. */
  get isEmpty(): boolean {
    return this.#waiters.size === 0;
  }

  /** Resolves once `advance` has reached `lsn`; rejects with `timeout` after `timeoutMs`. */
  wait(lsn: number, current: number, timeoutMs: number): Promise<void> {
    if (this.#failed) return Promise.reject(this.#failed);
    if (this.#waiters.size >= WAITERS_MAX) {
      return Promise.reject(
        new PalimpsestError('unavailable', `${WAITERS_MAX} requests wait for WAL already`),
      );
    }
    return new Promise((resolve, reject) => {
      const timer = this.#clock.setTimer(timeoutMs, () => {
        this.#waiters.delete(waiter);
        const message = `the pageserver is at ${formatLsn(current)} and did not reach ${formatLsn(lsn)} within ${timeoutMs} ms`;
        reject(
          new PalimpsestError('timeout', message, 'Look at the safekeepers: does their commit LSN advance?'),
        );
      });
      const waiter: Waiter = { lsn, timer, resolve, reject };
      this.#waiters.add(waiter);
      this.#lowest = Math.min(this.#lowest, lsn);
    });
  }

  /** Wakes the requests that waited for `lsn` or less. */
  advance(lsn: number): void {
    if (lsn < this.#lowest) return;
    this.#lowest = Number.POSITIVE_INFINITY;
    for (const waiter of this.#waiters) {
      if (waiter.lsn > lsn) {
        this.#lowest = Math.min(this.#lowest, waiter.lsn);
        continue;
      }
      this.#waiters.delete(waiter);
      waiter.timer.cancel();
      waiter.resolve();
    }
  }

  /** Fails all requests, now and later. */
  fail(error: Error): void {
    this.#failed = error;
    for (const waiter of this.#waiters) {
      waiter.timer.cancel();
      waiter.reject(error);
    }
    this.#waiters.clear();
  }
}
