/**
 * Keeps points of history readable for as long as somebody reads there: takes a lease of the timeline, and renews it until it is
 * given back. When this process dies, the lease runs out by itself.
 */
import type { LeaseReply } from '../../actors/timeline/events.ts';
import { toWireError } from '../../protocols/errors.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { Clock, Timer } from '../../runtime/ports/clock.ts';
import type { Log } from '../../runtime/ports/log.ts';

/** What a lease lasts at least after each renewal. */
const TTL_MS = 60_000;
/** Several renewals may fail before it runs out. */
const RENEW_MS = 15_000;
const TIMEOUT_MS = 5_000;

export interface LeasesOptions {
  bus: Bus;
  clock: Clock;
  log: Log;
}

interface Held {
  timeline: string;
  lsn: number;
  timer: Timer | undefined;
}

export class Leases {
  readonly #options: LeasesOptions;
  readonly #held = new Map<string, Held>();

  constructor(options: LeasesOptions) {
    this.#options = options;
  }

  /** Takes the lease `name`; a second call is a renewal. Throws `invalid-argument` when the point is gone already. */
  async hold(name: string, timeline: string, lsn: number): Promise<void> {
    await this.#ask(name, timeline, lsn);
    if (this.#held.has(name)) return;
    const held: Held = { timeline, lsn, timer: undefined };
    this.#held.set(name, held);
    this.#renewLater(name, held);
  }

  /** Gives it back. A failure is only told: then it runs out. */
  async release(name: string): Promise<void> {
    const held = this.#held.get(name);
    if (!held) return;
    this.#held.delete(name);
    held.timer?.cancel();
    const command = { type: 'release-lease', lease: name };
    await sendCommand(this.#options.bus, 'timeline', held.timeline, command, { timeoutMs: TIMEOUT_MS }).catch(
      (error) =>
        this.#options.log.debug({ error: toWireError(error), lease: name }, 'a lease was not given back'),
    );
  }

  #renewLater(name: string, held: Held): void {
    held.timer = this.#options.clock.setTimer(RENEW_MS, () => {
      this.#ask(name, held.timeline, held.lsn)
        .catch((error) =>
          this.#options.log.warn({ error: toWireError(error), lease: name }, 'a lease could not be renewed'),
        )
        .finally(() => {
          if (this.#held.get(name) === held) this.#renewLater(name, held);
        });
    });
  }

  #ask(lease: string, timeline: string, lsn: number): Promise<LeaseReply> {
    const command = { type: 'lease', lease, lsn, ttlMs: TTL_MS };
    return sendCommand<LeaseReply>(this.#options.bus, 'timeline', timeline, command, {
      timeoutMs: TIMEOUT_MS,
    });
  }
}
