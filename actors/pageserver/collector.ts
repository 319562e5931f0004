/**
 * Garbage collection of one shard: what must stay readable, and the removal of layers that nothing of it needs.
 *
 * 1. What is not kept any more is refused before anything of it is removed, also to readers that are already on their way.
 * 2. Which points are kept is the timeline actor's decision; here it is only carried out. Without a decision everything is kept.
 * 3. One collection after the other; compaction may run beside it, because it takes away nothing that a plan counts on.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { formatLsn, PAGE_BYTES } from '../../protocols/lsn.ts';
import { type GcPoints, imagesWanted, removableLayers } from './gc-plan.ts';
import type { LayerDescriptor } from './layer-descriptor.ts';
import type { StateView } from './state-history.ts';

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
  readonly spec: { startLsn: number };
  readonly diskConsistentLsn: number;
  waitFor(lsn: number, timeoutMs: number): Promise<void> | undefined;
  view(lsn: number): Promise<StateView>;
  layerDescriptors(): LayerDescriptor[];
  createImages(lsn: number): Promise<number>;
  removeLayers(keys: string[], reason: string): Promise<void>;
  readonly layers: { readonly gcCutoff: number; advanceCutoff(cutoffLsn: number): Promise<void> };
}

export class Collector {
  readonly #shard: CollectedShard;
  #retained: ReadonlySet<number>;
  #queue: Promise<unknown> = Promise.resolve();

  /** `retained`: points that are kept below the cutoff that the journal knows. */
  constructor(shard: CollectedShard, retained: readonly number[] = []) {
    this.#shard = shard;
    this.#retained = new Set(retained);
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

  async #collect({ cutoffLsn, retained }: GcPoints): Promise<GcReport> {
    const shard = this.#shard;
    await shard.waitFor(cutoffLsn, INGEST_TIMEOUT_MS);
    await shard.layers.advanceCutoff(cutoffLsn);
    this.#retained = new Set(retained);
    // A decision that was sent before another one, and comes after it, takes nothing back.
    const points = { cutoffLsn: shard.layers.gcCutoff, retained };
    let images = 0;
    for (const lsn of await this.#imagesWanted(points)) images += await shard.createImages(lsn);
    const removable = removableLayers(shard.layerDescriptors(), points);
    await shard.removeLayers(
      removable.map(({ key }) => key),
      'before the history window',
    );
    return {
      removedLayers: removable.length,
      removedBytes: removable.reduce((total, { bytes }) => total + bytes, 0),
      images,
      walFloorLsn: await this.#walFloor(points),
    };
  }

  async #imagesWanted(points: GcPoints): Promise<number[]> {
    const layers = this.#shard.layerDescriptors();
    // Without level 1 deltas there is nothing that an image could replace.
    if (!layers.some(({ kind, level }) => kind === 'delta' && level > 0)) return [];
    const { startLsn } = this.#shard.spec;
    if (points.cutoffLsn <= startLsn || points.cutoffLsn > this.#shard.diskConsistentLsn) return [];
    const view = await this.#shard.view(points.cutoffLsn);
    let pages = 0;
    view.forEachSize((_, blocks) => {
      pages += Math.max(0, blocks);
    });
    return imagesWanted(layers, points, () => pages * PAGE_BYTES * COMPRESSED_SHARE);
  }

  /** The exact state at a kept point is the waypoint before it with the WAL after that. */
  async #walFloor({ cutoffLsn, retained }: GcPoints): Promise<number> {
    const { startLsn } = this.#shard.spec;
    if (cutoffLsn === 0) return 0;
    let floor = Number.POSITIVE_INFINITY;
    for (const lsn of [cutoffLsn, ...retained]) {
      const waypoint = lsn > startLsn ? (await this.#shard.view(lsn)).waypoint().lsn : startLsn;
      floor = Math.min(floor, waypoint);
    }
    return floor;
  }
}
