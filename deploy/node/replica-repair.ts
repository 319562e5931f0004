/**
 * Notices safekeepers that have lost their disk, and has them join their timelines again.
 *
 * Now and then, and soon after a safekeeper was started again, every safekeeper is asked which timelines it has. One that lacks a
 * timeline of which it is a member, and which it was given once, has lost it. One timeline is repaired at a time; after one that did not
 * succeed the next look comes soon, and later each time. How a replica joins again without harm: actors/safekeeper/rejoin.ts.
 */
import type { TimelineStatus } from '../../actors/timeline/events.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { Clock, Timer } from '../../runtime/ports/clock.ts';
import type { Log } from '../../runtime/ports/log.ts';

const LOOK_MS = 60_000;
/** After a start: the process must open its replicas first. */
const SOON_MS = 2_000;
const LIST_TIMEOUT_MS = 5_000;
/** WAL of several segments may have to be copied. */
const REJOIN_TIMEOUT_MS = 120_000;

export interface ReplicaRepairOptions {
  bus: Bus;
  clock: Clock;
  log: Log;
  safekeepers: readonly string[];
  /** Timelines that exist. */
  timelines(): TimelineStatus[];
}

export class ReplicaRepair {
  readonly #options: ReplicaRepairOptions;
  #timer: Timer | undefined;
  #working: Promise<void> | undefined;
  /** The safekeeper that a repair is waiting for; `answerIsLost` ends the wait. */
  #waiting: { node: string; answerIsLost(): void } | undefined;
  #nextLookMs = LOOK_MS;
  /** After a look that left something to do. */
  #retryMs = SOON_MS;
  #stopped = false;

  constructor(options: ReplicaRepairOptions) {
    this.#options = options;
    this.#arm(SOON_MS);
  }

  /** A safekeeper was started again: what it was to answer, nobody answers any more. */
  safekeeperStarted(node: string): void {
    this.#nextLookMs = SOON_MS;
    if (this.#waiting?.node === node) this.#waiting.answerIsLost();
    if (!this.#working) this.#arm(SOON_MS);
  }

  /** Ends; a repair under way goes on in its safekeeper. */
  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  #arm(delayMs: number): void {
    this.#timer?.cancel();
    if (this.#stopped) return;
    this.#timer = this.#options.clock.setTimer(delayMs, () => {
      this.#nextLookMs = LOOK_MS;
      this.#working = this.#look().then((areAllWhole) => {
        this.#working = undefined;
        const retryMs = this.#retryMs;
        this.#retryMs = areAllWhole ? SOON_MS : Math.min(retryMs * 2, LOOK_MS);
        this.#arm(areAllWhole ? this.#nextLookMs : Math.min(retryMs, this.#nextLookMs));
      });
    });
  }

  /** Resolves with whether every replica that was found lost could join again. */
  async #look(): Promise<boolean> {
    const { bus, safekeepers } = this.#options;
    let areAllWhole = true;
    for (const node of safekeepers) {
      // What was created since is not taken for lost.
      const timelines = this.#options.timelines();
      let known: Set<string>;
      try {
        const options = { timeoutMs: LIST_TIMEOUT_MS };
        known = new Set(await sendCommand<string[]>(bus, 'safekeeper-node', node, { type: 'list' }, options));
      } catch {
        continue; // It does not run now.
      }
      for (const status of timelines) {
        const { timeline, members, missing } = status;
        const isLost = members.includes(node) && !missing.includes(node) && !known.has(timeline);
        if (!isLost || members.length === 1) continue;
        if (this.#stopped || !(await this.#rejoin(node, status))) areAllWhole = false;
      }
    }
    return areAllWhole;
  }

  async #rejoin(node: string, status: TimelineStatus): Promise<boolean> {
    const { bus, log } = this.#options;
    const { timeline, tenant, startLsn, pgVersion, systemId, members, membershipGeneration } = status;
    const spec = {
      tenant,
      timeline,
      startLsn,
      pgVersion,
      systemId,
      members,
      generation: membershipGeneration,
    };
    const command = { type: 'create', ...spec, rejoin: true };
    log.warn({ node, timeline }, 'a safekeeper has lost its replica of a timeline: it joins again');
    const lost = new Promise<never>((_, reject) => {
      const error = new PalimpsestError('unavailable', `safekeeper ${node} was started again`);
      this.#waiting = { node, answerIsLost: () => reject(error) };
    });
    try {
      const options = { timeoutMs: REJOIN_TIMEOUT_MS };
      await Promise.race([sendCommand(bus, 'safekeeper-node', node, command, options), lost]);
      log.info({ node, timeline }, 'the safekeeper has joined the timeline again');
      return true;
    } catch (error) {
      log.warn({ node, timeline, error }, 'the safekeeper could not join again; it will be tried again');
      return false;
    } finally {
      this.#waiting = undefined;
    }
  }
}
