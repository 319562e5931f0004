/**
 * Runs an actor's effects: each until it gives its events, with growing waits between tries, a bound on their number, and a
 * bound on how many run at once. What an effect gives back is handed to the actor, which appends it as the completion.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Clock } from '../ports/clock.ts';
import type { Log } from '../ports/log.ts';
import type { Random } from '../ports/random.ts';
import type { ActorEvent } from './definition.ts';

export interface RetryLimits {
  firstDelayMs: number;
  delayMsMax: number;
  attemptsMax: number;
}

/** About half an hour of trying before the actor is restarted. */
export const EFFECT_RETRIES: RetryLimits = { firstDelayMs: 50, delayMsMax: 30_000, attemptsMax: 70 };
/** Effects of one actor that run at once; more wait in line. */
const RUNNING_MAX = 64;

export interface EffectJob {
  id: string;
  type: string;
  run(): Promise<ActorEvent[]>;
}

export interface EffectRunnerOptions {
  clock: Clock;
  random: Random;
  log: Log;
  signal: AbortSignal;
  limits: RetryLimits;
  onDone(job: EffectJob, events: ActorEvent[]): void;
  /** After the last try: the actor cannot go on. */
  onPoison(job: EffectJob, error: unknown): void;
}

export class EffectRunner {
  readonly #options: EffectRunnerOptions;
  readonly #line: EffectJob[] = [];
  #running = 0;

  constructor(options: EffectRunnerOptions) {
    this.#options = options;
  }

  start(job: EffectJob): void {
    this.#line.push(job);
    this.#next();
  }

  #next(): void {
    while (this.#running < RUNNING_MAX && this.#line.length > 0 && !this.#options.signal.aborted) {
      this.#running++;
      void this.#run(this.#line.shift()!).finally(() => {
        this.#running--;
        this.#next();
      });
    }
  }

  async #run(job: EffectJob): Promise<void> {
    const { signal, limits, log, clock } = this.#options;
    for (let attempt = 1; !signal.aborted; attempt++) {
      try {
        const events = await job.run();
        if (!signal.aborted) this.#options.onDone(job, events);
        return;
      } catch (error) {
        if (signal.aborted) return;
        if (attempt >= limits.attemptsMax) {
          this.#options.onPoison(job, error);
          return;
        }
        const delayMs = backoffMs(attempt, limits, this.#options.random);
        // A first failure is often a peer that is just starting; it is news only when it stays.
        const level = attempt < 3 && error instanceof PalimpsestError ? 'debug' : 'warn';
        log[level](
          { error, effect: job.type, effectId: job.id, attempt, delayMs },
          'an effect failed and will be tried again',
        );
        await clock.sleep(delayMs, signal).catch(() => {});
      }
    }
  }
}

/** Doubles with every attempt up to the bound; the upper half is random, so that many actors do not retry in step. */
export function backoffMs(attempt: number, limits: RetryLimits, random: Random): number {
  const full = Math.min(limits.delayMsMax, limits.firstDelayMs * 2 ** Math.min(attempt - 1, 30));
  return full / 2 + random.float() * (full / 2);
}
