/**
 * A bound on how many pieces of work of one kind run at a time; the others wait in the order asked for.
 */
import { PalimpsestError } from '../../protocols/errors.ts';

export class Turns {
  readonly #max: number;
  readonly #waiting = new Set<() => void>();
  #running = 0;

  constructor(max: number) {
    this.#max = max;
  }

  /** Throws `unavailable` when `signal` aborts before its turn has come; work that has begun is not interrupted. */
  async run<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    if (this.#running >= this.#max) await this.#turn(signal);
    else this.#running++;
    try {
      return await work();
    } finally {
      const [next] = this.#waiting;
      // The turn is handed over: nobody else gets in between.
      if (next) next();
      else this.#running--;
    }
  }

  #turn(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const leave = () => {
        this.#waiting.delete(begin);
        signal?.removeEventListener('abort', giveUp);
      };
      const begin = () => {
        leave();
        resolve();
      };
      const giveUp = () => {
        leave();
        reject(new PalimpsestError('unavailable', 'it was stopped before its turn came'));
      };
      this.#waiting.add(begin);
      signal?.addEventListener('abort', giveUp);
      if (signal?.aborted) giveUp();
    });
  }
}
