/**
 * The machine's own clock. Timers are unreferenced: a process ends when its sockets and children do, not when
 * its last retry would have fired.
 */
import { performance } from 'node:perf_hooks';
import type { Clock, Timer } from '../ports/clock.ts';

/** Node fires a longer timer at once; longer waits are made of several. */
const TIMER_MS_MAX = 2 ** 31 - 1;

export class SystemClock implements Clock {
  now(): number {
    return Date.now();
  }

  monotonic(): number {
    return performance.now();
  }

  setTimer(delayMs: number, fire: () => void): Timer {
    return new SystemTimer(Math.max(0, delayMs), fire);
  }

  sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason);
        return;
      }
      const onAbort = () => {
        timer.cancel();
        reject(signal!.reason);
      };
      const timer = this.setTimer(delayMs, () => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      });
      signal?.addEventListener('abort', onAbort, { once: true });
    });
  }
}

class SystemTimer implements Timer {
  #handle: NodeJS.Timeout | undefined;

  constructor(delayMs: number, fire: () => void) {
    this.#arm(delayMs, fire);
  }

  cancel(): void {
    clearTimeout(this.#handle);
    this.#handle = undefined;
  }

  #arm(remainingMs: number, fire: () => void): void {
    if (remainingMs > TIMER_MS_MAX) {
      this.#handle = setTimeout(() => this.#arm(remainingMs - TIMER_MS_MAX, fire), TIMER_MS_MAX);
    } else {
      this.#handle = setTimeout(fire, remainingMs);
    }
    this.#handle.unref();
  }
}
