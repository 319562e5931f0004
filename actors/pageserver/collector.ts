/**
 * Garbage collection of one shard: what must stay readable, and the removal of layers that nothing of it needs.
 *
 * 1. What is not kept any more is refused before anything of it is removed, also to readers that are already on their way.
 * 2. Which points are kept is the timeline actor's decision; here it is only carried out. Without a decision everything is kept.
 * 3. One collection after the other; compaction may run beside it, because it takes away nothing that a plan counts on.
 * 4. A kept point costs what is needed to read at it, and nothing of what came after it: neither layers nor WAL.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { formatLsn, PAGE_BYTES } from '../../protocols/lsn.ts';
import type { TimelineStateFold } from '../../protocols/postgres/state/fold.ts';
import { encodeTimelineState } from '../../protocols/postgres/state/snapshot.ts';
import { COMPACTION } from './compaction-plan.ts';
import {
  type GcPoints,
  type GcWorth,
  imagesWanted,
  isMergeWanted,
  removableLayers,
  sparseStates,
} from './gc-plan.ts';
import type { LayerDescriptor } from './layer-descriptor.ts';
import type { StateView } from './state-history.ts';
import type { Waypoint } from './state-log.ts';

/** How much of its size a page takes in an image layer, about. */
const COMPRESSED_SHARE = 0.25;
const INGEST_TIMEOUT_MS = 10_000;

/** What a collection has done. */
export interface GcReport {
  removedLayers: number;
  removedBytes: number;
  /** Image layers that were made for it. */
  images: number;
  /** WAL before this is not needed for anything that is kept; 0: all of it is. */
  walFloorLsn: number;
}

/** What this needs of its shard. */
export interface CollectedShard {
  readonly spec: { startLsn: number; pgVersion: number };
  readonly diskConsistentLsn: number;
  waitFor(lsn: number, timeoutMs: number): Promise<void> | undefined;
  view(lsn: number): Promise<StateView>;
  foldAt(lsn: number): Promise<TimelineStateFold>;
  layerDescriptors(): LayerDescriptor[];
  createImages(lsn: number): Promise<number>;
  removeLayers(keys: string[], reason: string): Promise<void>;
  readonly layers: {
    readonly gcCutoff: number;
    advanceCutoff(cutoffLsn: number): Promise<void>;
    mergeUpTo(lsn: number): Promise<void>;
    thinStates(keys: readonly string[], moments: readonly Waypoint[]): Promise<void>;
  };
}

export interface CollectorOptions {
  /** Points that are kept below the cutoff that the journal knows. */
  retained?: readonly number[] | undefined;
  /** See CompactionOptions. */
  gcGainBytesMin?: number | undefined;
}

export class Collector {
  readonly #shard: CollectedShard;
  readonly #gainBytesMin: number;
  #retained: ReadonlySet<number>;
  #queue: Promise<unknown> = Promise.resolve();

  constructor(shard: CollectedShard, options: CollectorOptions = {}) {
    this.#shard = shard;
    this.#retained = new Set(options.retained);
    this.#gainBytesMin = options.gcGainBytesMin ?? COMPACTION.gcGainBytesMin;
  }

  /** Whether the state at exactly this LSN is kept. */
  isReadable(lsn: number): boolean {
    return lsn >= this.#shard.layers.gcCutoff || this.#retained.has(lsn);
  }

  /** Throws `invalid-argument` when it is not. */
  checkReadable(lsn: number): void {
    if (this.isReadable(lsn)) return;
    throw new PalimpsestError(
      'invalid-argument',
      `LSN ${formatLsn(lsn)} is before the history window, which begins at ${formatLsn(this.#shard.layers.gcCutoff)}`,
      'choose a later point; a reader keeps a point with a lease, a branch by starting there',
    );
  }

  /** More points are kept, all of which were readable until now. */
  retain(points: readonly number[]): void {
    this.#retained = new Set([...this.#retained, ...points]);
  }

  /** Removes what is not kept, and makes images where that lets much more go. */
  collect(points: GcPoints): Promise<GcReport> {
    const turn = this.#queue.then(() => this.#collect(points));
    this.#queue = turn.catch(() => {});
    return turn;
  }

  async #collect(decision: GcPoints): Promise<GcReport> {
    const shard = this.#shard;
    await shard.waitFor(decision.cutoffLsn, INGEST_TIMEOUT_MS);
    // A decision that was sent before another one, and comes after it, takes nothing back.
    const isLate = decision.cutoffLsn < shard.layers.gcCutoff;
    const retained = isLate ? [...this.#retained, ...decision.retained] : decision.retained;
    await shard.layers.advanceCutoff(decision.cutoffLsn);
    this.#retained = new Set(retained);
    const points = { cutoffLsn: shard.layers.gcCutoff, retained };
    const images = await this.#prepare(points);
    const removable = removableLayers(shard.layerDescriptors(), points);
    await shard.removeLayers(
      removable.map(({ key }) => key),
      'before the history window',
    );
    await this.#thinStates(points);
    return {
      removedLayers: removable.length,
      removedBytes: removable.reduce((total, { bytes }) => total + bytes, 0),
      images,
      walFloorLsn: await this.#walFloor(points),
    };
  }

  /** Merges level 0, and makes images, where that lets much more go; returns how many images. */
  async #prepare(points: GcPoints): Promise<number> {
    const shard = this.#shard;
    if (points.cutoffLsn <= shard.spec.startLsn || points.cutoffLsn > shard.diskConsistentLsn) return 0;
    if (!shard.layerDescriptors().some(({ kind }) => kind === 'delta')) return 0;
    const view = await shard.view(points.cutoffLsn);
    let known: number | undefined;
    const imageBytes = () => {
      known ??= pagesOf(view) * PAGE_BYTES * COMPRESSED_SHARE;
      return known;
    };
    const worth: GcWorth = { imageBytes, gainBytesMin: this.#gainBytesMin };
    if (isMergeWanted(shard.layerDescriptors(), points, worth)) {
      await shard.layers.mergeUpTo(points.cutoffLsn);
    }
    let images = 0;
    for (const lsn of imagesWanted(shard.layerDescriptors(), points, worth)) {
      images += await shard.createImages(lsn);
    }
    return images;
  }

  /** Makes one layer of the small states before the cutoff, when there are several or one that needs WAL to tell a kept point. */
  async #thinStates(points: GcPoints): Promise<void> {
    const shard = this.#shard;
    const { layers, retained } = sparseStates(shard.layerDescriptors(), points);
    let isExact = layers.length <= 1;
    for (const lsn of retained) isExact &&= (await shard.view(lsn)).waypoint().lsn === lsn;
    if (isExact) return;
    const moments: Waypoint[] = [];
    for (const lsn of retained) {
      moments.push({ lsn, state: encodeTimelineState(await shard.foldAt(lsn), shard.spec.pgVersion) });
    }
    await shard.layers.thinStates(
      layers.map(({ key }) => key),
      moments,
    );
  }

  /** The exact state at a kept point is the waypoint before it with the WAL after that. */
  async #walFloor({ cutoffLsn, retained }: GcPoints): Promise<number> {
    const { startLsn } = this.#shard.spec;
    if (cutoffLsn === 0) return 0;
    if (cutoffLsn <= startLsn) return startLsn;
    let floor = (await this.#shard.view(cutoffLsn)).waypoint().lsn;
    for (const lsn of retained) {
      // Up to its start the timeline's state is somebody else's.
      if (lsn <= startLsn || lsn >= cutoffLsn) continue;
      const waypoint = (await this.#shard.view(lsn)).waypoint().lsn;
      if (waypoint < lsn) floor = Math.min(floor, waypoint);
    }
    return floor;
  }
}

/** Pages that exist, of all relations. */
function pagesOf(view: StateView): number {
  let pages = 0;
  view.forEachSize((_, blocks) => {
    pages += Math.max(0, blocks);
  });
  return pages;
}
