/**
 * Drives garbage collection: from time to time it looks where the history window of each timeline begins now, has the timeline
 * actor decide what is kept, and then the storage remove the rest.
 *
 * 1. The cutoff and the points that stay are durable in the timeline's journal before anything is removed. A branch or lease that
 *    comes later is refused below the cutoff there, so it never counts on something that is just going away.
 * 2. Everything sent to storage may be sent again: a round that was interrupted is made good by the next one.
 */
import type { GcReport } from '../../actors/pageserver/collector.ts';
import type { HistoryWindow } from '../../actors/tenant/events.ts';
import type { CutoffReply, TimelineStatus } from '../../actors/timeline/events.ts';
import { placesOf } from '../../actors/timeline/shards.ts';
import { PalimpsestError, toWireError } from '../../protocols/errors.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { Clock, Timer } from '../../runtime/ports/clock.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { Counter, Metrics } from '../../runtime/ports/metrics.ts';
import type { Random } from '../../runtime/ports/random.ts';
import type { ControlActors } from './control-actors.ts';

export const GC_INTERVAL_MS = 60_000;
const MOVE_BYTES_MIN = 1024 * 1024;
const QUESTION_TIMEOUT_MS = 15_000;
/** Images of a large database take a while; the shard goes on by itself after this. */
const COLLECT_TIMEOUT_MS = 300_000;

export interface GarbageCollectorOptions {
  actors: ControlActors;
  bus: Bus;
  clock: Clock;
  random: Random;
  log: Log;
  metrics: Metrics;
  /** 0: only by hand. */
  intervalMs: number;
  /** A cutoff that moved by less is not worth an entry in the journals. */
  moveBytesMin?: number;
}

/** What was done for one timeline. */
export interface Collection extends GcReport, CutoffReply {
  /** The moment that the cutoff stood for; 0 when it was found by bytes alone. */
  cutoffTimeMs: number;
}

/** Where a history window begins. */
export interface WindowStart {
  lsn: number;
  timeMs: number;
}

export class GarbageCollector {
  readonly #options: GarbageCollectorOptions;
  readonly #removedLayers: Counter;
  readonly #removedBytes: Counter;
  readonly #images: Counter;
  /** What each timeline was last collected with; the same again would find nothing. */
  readonly #last = new Map<string, string>();
  /** Rounds and requests by hand on one timeline come one after the other. */
  readonly #turns = new Map<string, Promise<unknown>>();
  #timer: Timer | undefined;
  #round: Promise<void> = Promise.resolve();
  #stopped = false;

  constructor(options: GarbageCollectorOptions) {
    this.#options = options;
    const { metrics } = options;
    this.#removedLayers = metrics.counter('palimpsest_gc_removed_layers', 'Layers removed from history.');
    this.#removedBytes = metrics.counter(
      'palimpsest_gc_removed_bytes',
      'Bytes of layers removed from history.',
    );
    this.#images = metrics.counter(
      'palimpsest_gc_images',
      'Image layers made so that older layers could go.',
    );
  }

  start(): void {
    const { intervalMs, clock } = this.#options;
    if (intervalMs === 0 || this.#stopped) return;
    this.#timer = clock.setTimer(intervalMs, () => {
      this.#round = this.round().finally(() => this.start());
    });
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#timer?.cancel();
    await this.#round;
  }

  /** Looks at every timeline once, one after the other. A failure of one is only told. */
  async round(): Promise<void> {
    const { actors, log } = this.#options;
    for (const project of actors.projects()) {
      if (project.state !== 'active') continue;
      for (const { timeline, state } of [...project.branches, ...project.ancestors]) {
        if (this.#stopped) return;
        if (state !== 'ready') continue;
        await this.#inTurn(timeline, () => this.#collect(timeline, project.history, false)).catch((error) =>
          log.info({ timeline, error: toWireError(error) }, 'garbage collection will be tried again'),
        );
      }
      await actors
        .sweepAncestors(project.tenant)
        .catch((error) =>
          log.info(
            { project: project.name, error: toWireError(error) },
            'ancestors are looked at again later',
          ),
        );
    }
  }

  /** Collects one timeline now, however little has changed. Throws what storage says. */
  async collect(timeline: string): Promise<Collection> {
    const { project } = this.#options.actors.timelineWithProject(timeline);
    await this.#options.actors.attachments.attached(timeline);
    if (isBeingSplit(this.#options.actors.timelineWithProject(timeline).timeline)) {
      throw new PalimpsestError(
        'conflict',
        'the pages of the branch are just being spread over more shards',
        'try again when that is done; `palimpsest project list` shows how far it is',
      );
    }
    const collection = await this.#inTurn(timeline, () => this.#collect(timeline, project.history, true));
    return collection!;
  }

  async #collect(timeline: string, window: HistoryWindow, force: boolean): Promise<Collection | undefined> {
    const { actors, moveBytesMin = MOVE_BYTES_MIN } = this.#options;
    const status = actors.timelineWithProject(timeline).timeline;
    if (!status.attached || isBeingSplit(status)) return undefined;
    const start = await this.#windowStart(status, window);
    const moves = start !== undefined && start.lsn - Math.max(status.cutoffLsn, status.startLsn);
    const decided = start && moves && moves >= (force ? 1 : moveBytesMin) ? start : undefined;
    if (!force && !decided && this.#last.get(timeline) === keptText(status)) return undefined;
    const reply = (await this.#send('timeline', timeline, {
      type: 'advance-cutoff',
      cutoffLsn: decided?.lsn ?? 0,
      cutoffTimeMs: decided?.timeMs ?? 0,
    })) as CutoffReply;
    const report = await this.#remove(status, reply);
    const now = actors.timelineWithProject(timeline).timeline;
    this.#last.set(timeline, keptText(now));
    return { ...reply, ...report, cutoffTimeMs: now.cutoffTimeMs };
  }

  async #remove(status: TimelineStatus, reply: CutoffReply): Promise<GcReport> {
    const { log } = this.#options;
    const { timeline, members } = status;
    const command = { type: 'gc', cutoffLsn: reply.cutoffLsn, retained: reply.retained };
    const reports = await Promise.all(
      shardIdsOf(status).map((id) => this.#send('pageserver', id, command, COLLECT_TIMEOUT_MS)),
    );
    const report = together(reports as GcReport[]);
    this.#removedLayers.add(report.removedLayers);
    this.#removedBytes.add(report.removedBytes);
    this.#images.add(report.images);
    if (report.removedLayers > 0) log.info({ timeline, ...report }, 'removed old layers');
    if (report.walFloorLsn > 0) {
      const expire = { type: 'expire-wal', timeline, belowLsn: report.walFloorLsn };
      // A safekeeper that does not run is asked again in the next round.
      await Promise.allSettled(members.map((member) => this.#send('safekeeper-node', member, expire)));
    }
    return report;
  }

  /** Where the window begins; undefined when it holds the whole history of the timeline. */
  async #windowStart(status: TimelineStatus, window: HistoryWindow): Promise<WindowStart | undefined> {
    const { timeline, startLsn } = status;
    const { lastLsn } = (await this.#send('pageserver', timeline, { type: 'status' })) as { lastLsn: number };
    const bytesLsn = lastLsn - window.bytes;
    if (bytesLsn <= Math.max(startLsn, status.cutoffLsn)) return undefined;
    const byTime = await this.#startByTime(status, window);
    if (byTime === undefined || byTime.lsn <= startLsn) return undefined;
    if (byTime.lsn <= bytesLsn) return byTime;
    const resolve = { type: 'resolve', lsn: bytesLsn };
    const byBytes = (await this.#send('pageserver', timeline, resolve)) as {
      lsn: number;
      commitTimeMs: number;
    };
    return { lsn: byBytes.lsn, timeMs: byBytes.commitTimeMs };
  }

  async #startByTime(status: TimelineStatus, window: HistoryWindow): Promise<WindowStart | undefined> {
    const timeMs = this.#options.clock.now() - window.ms;
    if (timeMs <= status.cutoffTimeMs) return undefined;
    try {
      const command = { type: 'resolve-time', timeMs };
      const { lsn } = (await this.#send('pageserver', status.timeline, command)) as { lsn: number };
      return { lsn, timeMs };
    } catch (error) {
      // Before the first commit, or before what a longer window than until now would begin with.
      const isBefore =
        error instanceof PalimpsestError && (error.code === 'not-found' || error.code === 'invalid-argument');
      if (isBefore) return undefined;
      throw error;
    }
  }

  #send(
    kind: string,
    id: string,
    command: { type: string } & Record<string, unknown>,
    timeoutMs = QUESTION_TIMEOUT_MS,
  ): Promise<unknown> {
    return sendCommand(this.#options.bus, kind, id, command, { timeoutMs, watch: this.#options });
  }

  async #inTurn<T>(timeline: string, work: () => Promise<T>): Promise<T> {
    const before = this.#turns.get(timeline);
    const turn = (before ?? Promise.resolve()).then(work, work);
    this.#turns.set(timeline, turn);
    try {
      return await turn;
    } finally {
      if (this.#turns.get(timeline) === turn) this.#turns.delete(timeline);
    }
  }
}

/**
 * The new shards are made of the layers that there are, and go on with the WAL after them: none of both may go meanwhile. A round that had
 * begun before knows of no later moment than the one that the layers then have all WAL of.
 */
function isBeingSplit({ nextShards, retiringShards }: TimelineStatus): boolean {
  return nextShards !== undefined || retiringShards !== undefined;
}

function shardIdsOf({ timeline, shards }: TimelineStatus): string[] {
  return shards ? placesOf(timeline, shards).map(({ id }) => id) : [timeline];
}

/** What all shards have done; WAL is needed from where the one is that needs most of it. */
function together(reports: readonly GcReport[]): GcReport {
  const sum: GcReport = {
    removedLayers: 0,
    removedBytes: 0,
    images: 0,
    walFloorLsn: Number.POSITIVE_INFINITY,
  };
  for (const { removedLayers, removedBytes, images, walFloorLsn } of reports) {
    sum.removedLayers += removedLayers;
    sum.removedBytes += removedBytes;
    sum.images += images;
    sum.walFloorLsn = Math.min(sum.walFloorLsn, walFloorLsn);
  }
  return sum;
}

/** What a timeline keeps, as one text to compare. */
function keptText({ cutoffLsn, held, leases }: TimelineStatus): string {
  const points = [...Object.values(held), ...Object.values(leases).map(({ lsn }) => lsn)];
  return [cutoffLsn, ...points.sort((a, b) => a - b)].join(' ');
}
