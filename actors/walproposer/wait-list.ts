/** Promises that wait for an LSN to be reached, each with a time limit. */
import type { Lsn } from '../../protocols/lsn.ts';
import type { Clock, Timer } from '../../runtime/ports/clock.ts';

interface Waiter {
  lsn: Lsn;
  timer: Timer;
  resolve: () => void;
  reject: (error: Error) => void;
}

export class WaitList {
  readonly #clock: Clock;
  #waiters: Waiter[] = [];

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get isEmpty(): boolean {
    return this.#waiters.length === 0;
  }

  /** Resolves when `reached` is called with `lsn` or more; rejects with `onTimeout()` after `timeoutMs`. */
  wait(lsn: Lsn, timeoutMs: number, onTimeout: () => Error): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = this.#clock.setTimer(timeoutMs, () => {
        this.#waiters = this.#waiters.filter((other) => other !== waiter);
        reject(onTimeout());
      });
      const waiter: Waiter = { lsn, timer, resolve, reject };
      this.#waiters.push(waiter);
    });
  }

  reached(lsn: Lsn): void {
    if (this.#waiters.length === 0) return;
    this.#waiters = this.#waiters.filter((waiter) => {
      if (waiter.lsn > lsn) return true;
      waiter.timer.cancel();
      waiter.resolve();
      return false;
    });
  }

  fail(error: Error): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) {
      waiter.timer.cancel();
      waiter.reject(error);
    }
  }
}
