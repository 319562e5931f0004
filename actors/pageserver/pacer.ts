/**
 * Lets background work take turns with reads and ingest: after each slice of it the event loop is free for others, and
 * when they have work to do, for as long as the slice took; a slice that took long because the machine was busy counts only so far,
 * or a merge would stand still on a busy machine.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Clock } from '../../runtime/ports/clock.ts';

const SLICE_MS = 4;
const PAUSE_MAX_MS = 2 * SLICE_MS;
/** Where the clock stands still during work (in the simulator), turns are counted. */
const TURNS_MAX = 256;

export class Pacer {
  readonly #clock: Clock;
  readonly #isUrgent: () => boolean;
  #since: number;
  #turns = 0;
  #isStopped = false;

  /** While `isUrgent`, the work does not wait longer than it must. */
  constructor(clock: Clock, isUrgent: () => boolean) {
    this.#clock = clock;
    this.#isUrgent = isUrgent;
    this.#since = clock.monotonic();
  }

  /** Ends the work at its next rest, which throws. */
  stop(): void {
    this.#isStopped = true;
  }

  /** To be called after each small piece of work; waits when a slice is over. */
  rest(): Promise<void> | undefined {
    if (this.#isStopped) throw new PalimpsestError('unavailable', 'the pageserver is stopping');
    const worked = this.#clock.monotonic() - this.#since;
    if (worked < SLICE_MS && ++this.#turns < TURNS_MAX) return undefined;
    this.#turns = 0;
    return this.#wait(this.#isUrgent() ? 0 : Math.min(worked, PAUSE_MAX_MS));
  }

  async #wait(ms: number): Promise<void> {
    await this.#clock.sleep(ms);
    this.#since = this.#clock.monotonic();
  }
}
