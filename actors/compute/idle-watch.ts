/**
 * Looks at a compute's activity again and again, and tells when it becomes idle or busy.
 */
import type { Clock, Timer } from '../../runtime/ports/clock.ts';
import type { Log } from '../../runtime/ports/log.ts';
import { type Activity, IdleClock } from './activity.ts';

/** Looks that must have found nobody before it counts as idle. */
const IDLE_LOOKS_MIN = 3;

export interface IdleWatchOptions {
  clock: Clock;
  log: Log;
  /** Milliseconds between two looks. */
  intervalMs: number;
  look(): Promise<Activity>;
  /** Nobody uses it since then; undefined: somebody does. Called when that changes. */
  onIdle(sinceMs: number | undefined): void;
}

export class IdleWatch {
  readonly #options: IdleWatchOptions;
  readonly #idleClock: IdleClock;
  #timer: Timer | undefined;
  #idleSinceMs: number | undefined;
  #closed = false;

  constructor(options: IdleWatchOptions) {
    this.#options = options;
    this.#idleClock = new IdleClock(options.clock.now());
  }

  /** Begins to look again and again. */
  start(): void {
    const { clock, log, intervalMs } = this.#options;
    this.#timer = clock.setTimer(intervalMs, () => {
      this.idleSince()
        .then(
          (sinceMs) => this.#report(sinceMs),
          (error: Error) => log.debug({ err: error }, 'the activity could not be seen'),
        )
        .finally(() => {
          if (!this.#closed) this.start();
        });
    });
  }

  /** Looks now; undefined while somebody uses the compute. */
  async idleSince(): Promise<number | undefined> {
    return this.#idleClock.observe(await this.#options.look(), this.#options.clock.now());
  }

  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
  }

  /** Short pauses between statements are no idleness: each report becomes an event that is kept. */
  #report(sinceMs: number | undefined): void {
    const { clock, intervalMs, onIdle } = this.#options;
    const long = sinceMs !== undefined && clock.now() - sinceMs >= intervalMs * IDLE_LOOKS_MIN;
    const idleSinceMs = long ? sinceMs : undefined;
    if (idleSinceMs === this.#idleSinceMs || this.#closed) return;
    this.#idleSinceMs = idleSinceMs;
    onIdle(idleSinceMs);
  }
}

/** Why a compute must not be stopped as idle: somebody uses it, or nobody has for `idleMs`, which is too short. Undefined: it may be. */
export function tooEarlyToStop(
  sinceMs: number | undefined,
  ifIdleForMs: number,
  nowMs: number,
): { stopped: false; idleMs?: number } | undefined {
  if (sinceMs === undefined) return { stopped: false };
  const idleMs = nowMs - sinceMs;
  return idleMs < ifIdleForMs ? { stopped: false, idleMs } : undefined;
}
