/**
 * Clocks of simulated machines. Each may run fast or slow, and its wall time may be wrong and jump; its monotonic time
 * never goes back. A timer fires at its own deadline by its machine's clock.
 */
import type { Clock, Timer } from '../../runtime/ports/clock.ts';
import type { EventOwner } from './event-queue.ts';
import type { World } from './world.ts';

/** Virtual time begins here: 2026-01-01. */
export const EPOCH_MS = Date.UTC(2026, 0, 1);

/** So late a timer may fire where a machine has much to do. */
const TIMER_LATE_MS_MAX = 50;

/** How wrong a machine's clock is. */
export interface ClockSkew {
  /** Milliseconds of this clock per millisecond of the world. */
  rate: number;
  /** Added to the wall time; a jump changes it. */
  offsetMs: number;
  /** The wall time swings by this much to and fro... */
  swingMs: number;
  /** ...once in this time. */
  swingPeriodMs: number;
}

export function exactClock(): ClockSkew {
  return { rate: 1, offsetMs: 0, swingMs: 0, swingPeriodMs: 60_000 };
}

export class SimClock implements Clock {
  readonly #world: World;
  readonly #owner: EventOwner | undefined;
  readonly #skew: ClockSkew;

  constructor(world: World, owner: EventOwner | undefined, skew: ClockSkew = exactClock()) {
    this.#world = world;
    this.#owner = owner;
    this.#skew = skew;
  }

  now(): number {
    const { offsetMs, swingMs, swingPeriodMs } = this.#skew;
    const swing = swingMs === 0 ? 0 : swingMs * triangle(this.#world.nowMs / swingPeriodMs);
    return Math.floor(EPOCH_MS + this.monotonic() + offsetMs + swing);
  }

  monotonic(): number {
    return this.#world.nowMs * this.#skew.rate;
  }

  setTimer(delayMs: number, fire: () => void): Timer {
    const { rare } = this.#world;
    const lateMs = rare.happens('timer-late') ? TIMER_LATE_MS_MAX * rare.amount('timer-late') : 0;
    const event = this.#world.after(delayMs / this.#skew.rate + lateMs, this.#owner, 'timer', fire);
    return { cancel: () => this.#world.cancel(event) };
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

/** A wave between -1 and 1 with period 1; unlike a sine the same to the last bit everywhere. */
function triangle(phase: number): number {
  const part = phase - Math.floor(phase);
  return part < 0.5 ? 4 * part - 1 : 3 - 4 * part;
}
