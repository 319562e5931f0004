/**
 * Bounds on the wall's clock: a run that takes longer is a failure, not a wait. Work without an end is found by the simulator itself,
 * as events; this is for what hangs between two of them, or is only much too slow.
 */
import { performance } from 'node:perf_hooks';
import { takeTurns } from '../../../runtime/adapters/event-loop-turns.ts';
import { type TakeTurns, TooLong } from '../../../simulations/world/world.ts';

/** The clock is looked at every so many turns. */
const TURNS_PER_LOOK = 256;
/** Turns for one run, which ends with `TooLong` after `limitMs`. */
export function limitedTurns(limitMs: number): TakeTurns {
  const endsAt = performance.now() + limitMs;
  let turns = 0;
  return (step, onUncaught) =>
    takeTurns(() => {
      if (++turns % TURNS_PER_LOOK !== 0 || performance.now() < endsAt) return step();
      onUncaught(new TooLong(`the run took longer than ${limitMs / 1000} s`));
      return false;
    }, onUncaught);
}

/** For a process to begin with its first run, on a busy machine. */
const START_MS = 20_000;

/** Calls `onHang` when nothing was heard for `limitMs`; for the first time, somewhat later. */
export class HangWatch {
  readonly #limitMs: number;
  readonly #onHang: () => void;
  #timer: NodeJS.Timeout | undefined;

  constructor(limitMs: number, onHang: () => void) {
    this.#limitMs = limitMs;
    this.#onHang = onHang;
    this.#arm(limitMs + START_MS);
  }

  heard(): void {
    this.#arm(this.#limitMs);
  }

  stop(): void {
    clearTimeout(this.#timer);
  }

  #arm(ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(this.#onHang, ms);
  }
}
