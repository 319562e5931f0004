/**
 * The warm secondary: layer files of timelines, or of their shards, that another pageserver serves, kept ready for the moment in which
 * this one takes them over. They are copies of objects and nothing depends on them.
 *
 * 1. Whoever places the pages says which timelines (`keep`), always all of them: what is not named any more is removed here.
 * 2. A timeline is looked at when it is new, when its pageserver has written an index, and now and then.
 * 3. One layer is fetched at a time, the newest first, while there is room: served timelines may use all of the disk, copies three
 *    quarters of it.
 * 4. Only files that were fetched here are removed while the timeline may be attached at the same time (`release`): what an index
 *    once listed and the newest does not is needed by nobody who attaches from now on.
 */
import { PalimpsestError, toWireError } from '../../protocols/errors.ts';
import { timelinePrefix } from '../../protocols/object-keys.ts';
import { parseShardId } from '../../protocols/shard-layout.ts';
import { eventSubject } from '../../protocols/subjects.ts';
import type { Bus, Subscription } from '../../runtime/ports/bus.ts';
import type { Clock, Timer } from '../../runtime/ports/clock.ts';
import type { Disk } from '../../runtime/ports/disk.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { Gauge, Metrics } from '../../runtime/ports/metrics.ts';
import type { Objects } from '../../runtime/ports/objects.ts';
import { PAGESERVER_KIND } from './definition.ts';
import { findIndex } from './index-object.ts';
import type { LayerDescriptor } from './layer-descriptor.ts';
import type { LocalLayers } from './local-layers.ts';

/** A pageserver has written the index of one of its timelines. */
const INDEX_EVENTS = eventSubject('*', '*', PAGESERVER_KIND, 'index.uploaded');
const TIMELINE_OF_EVENT = INDEX_EVENTS.split('.').lastIndexOf('*');
/** Indexes of every generation count: what is copied is only a guess of what will be needed. */
const ANY_GENERATION = 0xffff_ffff;
/** A timeline whose indexes come fast is looked at so often. */
const LOOK_PAUSE_MS = 2_000;
/** What was told of a new index may have been lost. */
const LOOK_AGAIN_MS = 30 * 60_000;
const RETRY_MS = 30_000;
const COPIED_SHARE_MAX = 0.75;

export interface SecondaryProject {
  tenant: string;
  /** Of a timeline with several shards: the names of those (`shardId`). */
  timelines: readonly string[];
}

export interface SecondaryLayersOptions {
  bus: Bus;
  clock: Clock;
  disk: Disk;
  objects: Objects;
  log: Log;
  local: LocalLayers;
  /** Disk budget of all layer files, if there is one. */
  diskBytesMax?: number | undefined;
  metrics?: Metrics | undefined;
  /** Whether the timeline is served here. */
  isHosted(timeline: string): boolean;
  /** Runs `work` while nothing else happens to the timeline: neither is it attached nor detached. */
  inTurn<T>(timeline: string, work: () => Promise<T>): Promise<T>;
}

interface Kept {
  tenant: string;
  /** Or the name of its shard, whose objects are in a folder of that name. */
  timeline: string;
  /** Files that were fetched here. */
  copied: Set<string>;
  /** Layers of the newest index that was seen, and how many of them are missing here; undefined before the first look. */
  layers: number | undefined;
  missing: number;
  /** What lay here before has been looked through. */
  isClean: boolean;
  /** Not before this is it looked at again; on the monotonic clock. */
  pauseUntilMs: number;
  timer: Timer | undefined;
}

/** What a pageserver keeps ready for others. */
export interface SecondaryStatus {
  timelines: number;
  /** Of them: all layers of the newest index that was seen are here. */
  ready: number;
  missingLayers: number;
}

export class SecondaryLayers {
  readonly #options: SecondaryLayersOptions;
  readonly #kept = new Map<string, Kept>();
  /** The same by timeline: events name it, and not which of its shards it was. */
  readonly #byTimeline = new Map<string, Set<Kept>>();
  readonly #due = new Set<Kept>();
  #working: Promise<void> | undefined;
  #indexEvents: Subscription | undefined;
  #closed = false;
  readonly #figures: Record<keyof SecondaryStatus, Gauge> | undefined;

  constructor(options: SecondaryLayersOptions) {
    this.#options = options;
    this.#figures = options.metrics && {
      timelines: options.metrics.gauge(
        'palimpsest_secondary_timelines',
        'Timelines of other pageservers whose layers are kept ready.',
      ),
      ready: options.metrics.gauge(
        'palimpsest_secondary_ready_timelines',
        'Of them: those of which every layer is here.',
      ),
      missingLayers: options.metrics.gauge(
        'palimpsest_secondary_missing_layers',
        'Layers that are not here yet, or for which there is no room.',
      ),
    };
  }

  /** From now on layers of exactly these projects' timelines are kept ready; those that are served here need not be. */
  keep(projects: readonly SecondaryProject[]): void {
    if (this.#closed) return;
    const wanted = new Map(
      projects.flatMap(({ tenant, timelines }) => timelines.map((timeline) => [timeline, tenant])),
    );
    if (wanted.size > 0) {
      this.#indexEvents ??= this.#options.bus.subscribe(INDEX_EVENTS, ({ subject }) =>
        this.#look(subject.split('.')[TIMELINE_OF_EVENT]!),
      );
    }
    for (const kept of this.#kept.values()) {
      if (wanted.has(kept.timeline)) continue;
      this.#forget(kept);
      void this.#remove(kept);
    }
    for (const [timeline, tenant] of wanted) {
      if (this.#kept.has(timeline) || this.#options.isHosted(timeline)) continue;
      const kept: Kept = {
        tenant,
        timeline,
        copied: new Set(),
        layers: undefined,
        missing: 0,
        isClean: false,
        pauseUntilMs: 0,
        timer: undefined,
      };
      this.#remember(kept);
      this.#lookAt(kept);
    }
    this.#showFigures();
  }

  /** A timeline is about to be served here: its files are that one's affair from now on. */
  release(timeline: string): void {
    const kept = this.#kept.get(timeline);
    if (!kept) return;
    this.#forget(kept);
    this.#showFigures();
  }

  status(): SecondaryStatus {
    const all = [...this.#kept.values()];
    return {
      timelines: all.length,
      ready: all.filter(({ layers, missing }) => layers !== undefined && missing === 0).length,
      missingLayers: all.reduce((sum, { missing }) => sum + missing, 0),
    };
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#indexEvents?.unsubscribe();
    for (const kept of this.#kept.values()) this.#forget(kept);
    await this.#working;
  }

  /** The index of a timeline has changed, or that of one of its shards. */
  #look(timeline: string): void {
    for (const kept of this.#byTimeline.get(timeline) ?? []) {
      const pauseMs = kept.pauseUntilMs - this.#options.clock.monotonic();
      if (pauseMs <= 0) this.#lookAt(kept);
      else this.#lookLater(kept, pauseMs);
    }
  }

  #remember(kept: Kept): void {
    this.#kept.set(kept.timeline, kept);
    const whole = timelineOf(kept);
    const shards = this.#byTimeline.get(whole) ?? new Set();
    this.#byTimeline.set(whole, shards.add(kept));
  }

  #forget(kept: Kept): void {
    this.#kept.delete(kept.timeline);
    const whole = timelineOf(kept);
    const shards = this.#byTimeline.get(whole);
    shards?.delete(kept);
    if (shards?.size === 0) this.#byTimeline.delete(whole);
    this.#due.delete(kept);
    kept.timer?.cancel();
  }

  #showFigures(): void {
    const { timelines, ready, missingLayers } = this.status();
    this.#figures?.timelines.set(timelines);
    this.#figures?.ready.set(ready);
    this.#figures?.missingLayers.set(missingLayers);
  }

  #lookAt(kept: Kept): void {
    kept.timer?.cancel();
    kept.timer = undefined;
    this.#due.add(kept);
    this.#working ??= this.#work().finally(() => {
      this.#working = undefined;
    });
  }

  #lookLater(kept: Kept, afterMs: number): void {
    kept.timer?.cancel();
    kept.timer = this.#options.clock.setTimer(afterMs, () => this.#lookAt(kept));
  }

  async #work(): Promise<void> {
    for (const kept of this.#due) {
      this.#due.delete(kept);
      kept.pauseUntilMs = this.#options.clock.monotonic() + LOOK_PAUSE_MS;
      let nextMs = LOOK_AGAIN_MS;
      try {
        await this.#copy(kept);
      } catch (error) {
        // What it listed has been merged since, or removed: there is a newer index.
        const isGone = error instanceof PalimpsestError && error.code === 'not-found';
        nextMs = isGone ? LOOK_PAUSE_MS : RETRY_MS;
        const { timeline } = kept;
        this.#options.log.warn(
          { timeline, error: toWireError(error) },
          'layers could not be kept ready here; it is tried again',
        );
      }
      this.#showFigures();
      // Its index may have changed meanwhile: then that look comes sooner.
      if (this.#isKept(kept) && !this.#due.has(kept) && !kept.timer) this.#lookLater(kept, nextMs);
    }
  }

  #isKept(kept: Kept): boolean {
    return !this.#closed && this.#kept.get(kept.timeline) === kept;
  }

  async #copy(kept: Kept): Promise<void> {
    const { objects, local } = this.#options;
    const index = await findIndex(objects, { ...kept, generation: ANY_GENERATION });
    const layers = [...(index?.layers ?? [])].sort((a, b) => b.endLsn - a.endLsn);
    const listed = new Set(layers.map(({ key }) => key));
    if (!kept.isClean) await this.#clean(kept, listed);
    for (const key of kept.copied) {
      if (!this.#isKept(kept)) return;
      if (listed.has(key)) continue;
      kept.copied.delete(key);
      await local.remove(key);
    }
    kept.layers = layers.length;
    kept.missing = layers.length;
    for (const layer of layers) {
      if (!this.#isKept(kept)) return;
      if (await this.#isHere(layer)) kept.missing--;
      else if (this.#hasRoom(layer)) {
        kept.copied.add(layer.key);
        await local.bring(layer);
        kept.missing--;
      }
    }
  }

  /** Files that lay here already are known from now on, and may go when there is no room. */
  async #isHere(layer: LayerDescriptor): Promise<boolean> {
    const { local } = this.#options;
    if (!(await local.isLocal(layer))) return false;
    local.added(layer);
    local.mayEvict(layer);
    return true;
  }

  #hasRoom({ bytes }: LayerDescriptor): boolean {
    const { local, diskBytesMax = Number.POSITIVE_INFINITY } = this.#options;
    return local.bytes + bytes <= diskBytesMax * COPIED_SHARE_MAX;
  }

  /** Removes what an earlier life of this process has left and no index lists. */
  async #clean(kept: Kept, listed: ReadonlySet<string>): Promise<void> {
    const { disk, local, isHosted, inTurn } = this.#options;
    await inTurn(kept.timeline, async () => {
      if (!this.#isKept(kept) || isHosted(kept.timeline)) return;
      const prefix = timelinePrefix(kept);
      for (const name of await disk.list(local.pathOf(prefix))) {
        const key = `${prefix}/${name}`;
        if (listed.has(key)) kept.copied.add(key);
        else await local.remove(key);
      }
      kept.isClean = true;
    });
  }

  async #remove(kept: Kept): Promise<void> {
    const { local, log, isHosted, inTurn } = this.#options;
    try {
      await inTurn(kept.timeline, async () => {
        if (this.#kept.has(kept.timeline) || isHosted(kept.timeline)) return;
        await local.removeFolder(timelinePrefix(kept));
      });
    } catch (error) {
      const { timeline } = kept;
      log.warn(
        { timeline, error: toWireError(error) },
        'layers that are not needed here could not be removed',
      );
    }
  }
}

function timelineOf({ timeline }: Kept): string {
  return parseShardId(timeline)?.timeline ?? timeline;
}
