/**
 * How requests to an S3 server are made: so many at a time, each with a time limit, and again after a failure that may
 * pass, with growing pauses of random length, up to a total.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Clock } from '../ports/clock.ts';
import type { Random } from '../ports/random.ts';
import type { S3Location } from './objects-location.ts';
import { neverArrived, s3Error, sortFailure } from './s3-errors.ts';

export interface S3Limits {
  /** Requests under way at a time; the others wait. */
  requestsMax: number;
  /** Requests that wait for their turn; more are refused. */
  waitingMax: number;
  attemptsMax: number;
  /** No further attempt begins later than this after the first one. */
  operationTimeoutMs: number;
  /** Time for one attempt, beside the time for its bytes. */
  attemptTimeoutMs: number;
  firstPauseMs: number;
  pauseMaxMs: number;
}

export const S3_LIMITS: S3Limits = {
  requestsMax: 32,
  waitingMax: 10_000,
  attemptsMax: 12,
  operationTimeoutMs: 60_000,
  attemptTimeoutMs: 15_000,
  firstPauseMs: 50,
  pauseMaxMs: 5_000,
};

/** A slower network is taken for a dead one. */
const BYTES_PER_MS_MIN = 128;

export interface Attempt {
  signal: AbortSignal;
  /** An earlier attempt may have been carried out. */
  isUncertain: boolean;
}

export interface AttemptsOptions {
  location: S3Location;
  clock: Clock;
  random: Random;
  limits: S3Limits;
}

export class S3Attempts {
  readonly #options: AttemptsOptions;
  #running = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(options: AttemptsOptions) {
    this.#options = options;
  }

  /**
   * Runs `attempt` until it succeeds, fails for good, or time is up. `action` is for the error. What is thrown is the
   * last attempt's error as it was when it is one that the caller may sort (`sortFailure`), a PalimpsestError otherwise.
   */
  async run<T>(action: string, bytes: number, attempt: (about: Attempt) => Promise<T>): Promise<T> {
    const { clock, limits, location } = this.#options;
    const began = clock.monotonic();
    let isUncertain = false;
    for (let count = 1; ; count++) {
      try {
        return await this.#once(bytes, (signal) => attempt({ signal, isUncertain }));
      } catch (error) {
        const sort = sortFailure(error);
        if (sort === 'final') throw s3Error(action, location, error);
        if (sort !== 'again') throw error;
        if (!neverArrived(error)) isUncertain = true;
        const pauseMs = this.#pauseMs(count);
        const isLate = clock.monotonic() + pauseMs - began > limits.operationTimeoutMs;
        if (isLate || count >= limits.attemptsMax) throw s3Error(action, location, error);
        await clock.sleep(pauseMs);
      }
    }
  }

  async #once<T>(bytes: number, attempt: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const { clock, limits } = this.#options;
    await this.#turn();
    const controller = new AbortController();
    const timer = clock.setTimer(limits.attemptTimeoutMs + bytes / BYTES_PER_MS_MIN, () =>
      controller.abort(timedOut()),
    );
    try {
      return await attempt(controller.signal);
    } catch (error) {
      // The SDK wraps what it was aborted for.
      throw controller.signal.aborted ? timedOut() : error;
    } finally {
      timer.cancel();
      const next = this.#waiting.shift();
      if (next) next();
      else this.#running--;
    }
  }

  async #turn(): Promise<void> {
    const { limits, location } = this.#options;
    const { requestsMax, waitingMax } = limits;
    if (this.#running >= requestsMax) {
      if (this.#waiting.length >= waitingMax) {
        throw new PalimpsestError(
          'unavailable',
          `more than ${waitingMax} requests wait for bucket ${location.bucket}`,
          'the server is too slow for what is asked of it',
        );
      }
      // Whoever ends hands its place on, so that nobody who comes later slips in between.
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
      return;
    }
    this.#running++;
  }

  #pauseMs(count: number): number {
    const { firstPauseMs, pauseMaxMs } = this.#options.limits;
    const longest = Math.min(pauseMaxMs, firstPauseMs * 2 ** (count - 1));
    return longest * (0.5 + this.#options.random.float() / 2);
  }
}

function timedOut(): Error {
  return Object.assign(new Error('no answer in time'), { name: 'TimeoutError' });
}
