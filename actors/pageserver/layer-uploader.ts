/**
 * Brings a shard's layer files to object storage, keeps the index object, and deletes objects of layers that are gone.
 *
 * 1. A layer is in the index only after its own object is durable; the index lists all layers of the map, or of level 0
 *    the oldest. A put of the index that comes late, after it was given up, does not replace a newer one.
 * 2. An object is deleted only after an index without it is durable *and* the timeline's owner has confirmed after that that
 *    this attachment's generation is still the current one. What waits for it is in the journal, so that it survives a crash; what no
 *    journal knows (its disk was lost) is found by listing, once per attachment.
 * 3. The same confirmation comes before `remoteConsistentLsn` is told: safekeepers trim by it. A pageserver that another
 *    one has followed writes objects and indexes that nobody reads, and deletes nothing.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { shardPrefix } from '../../protocols/object-keys.ts';
import type { Timer } from '../../runtime/ports/clock.ts';
import type { ShardSpec } from './events.ts';
import type { FileLayer } from './file-layer.ts';
import { encodeIndex, indexKey, makeIndex, type ShardIndex } from './index-object.ts';
import { generationOf, type LayerDescriptor } from './layer-descriptor.ts';
import type { LayerMap } from './layer-map.ts';
import { OwnObject } from './own-object.ts';
import type { ShardJournal, ShardTools } from './tools.ts';

const RETRY_MS = 1000;
/** A generation that was not confirmed is asked about again after this. */
const STALE_RETRY_MS = 60_000;
/** While layers keep coming, the index is renewed after so many uploads. */
const UPLOADS_PER_INDEX = 8;
const DELETES_PER_EVENT = 64;

export interface LayerUploaderOptions {
  spec: ShardSpec;
  tools: ShardTools;
  journal: ShardJournal;
  layers: LayerMap;
  /** Keys of layers that object storage has. */
  uploaded: Iterable<string>;
  /** Keys of objects that wait to be deleted. */
  deletions: Iterable<string>;
  remoteConsistentLsn: number;
  /** Before this nothing needs to be readable. */
  gcCutoff: () => number;
}

export class LayerUploader {
  readonly #options: LayerUploaderOptions;
  readonly #uploaded: Set<string>;
  readonly #deletions: Set<string>;
  #running: Promise<void> | undefined;
  #retry: Timer | undefined;
  /** The map differs from what the newest index says. */
  #isDirty = false;
  #hasSwept = false;
  /** The generation for which an index was tried last. */
  #published = 0;
  /** The index object of the present generation. */
  #index: OwnObject | undefined;
  #remoteConsistentLsn: number;
  /** Resolves at the next step of that. */
  #told = Promise.withResolvers<void>();
  #closed = false;

  constructor(options: LayerUploaderOptions) {
    this.#options = options;
    this.#uploaded = new Set(options.uploaded);
    this.#deletions = new Set(options.deletions);
    this.#remoteConsistentLsn = options.remoteConsistentLsn;
    this.#isDirty = this.#deletions.size > 0;
  }

  /** Everything up to here is in objects that the index lists, and this attachment was confirmed since. */
  get remoteConsistentLsn(): number {
    return this.#remoteConsistentLsn;
  }

  /** Objects that wait to be deleted. */
  get deletions(): ReadonlySet<string> {
    return this.#deletions;
  }

  isUploaded(key: string): boolean {
    return this.#uploaded.has(key);
  }

  /** Layers were removed from the map: the next index is without them, and their objects go after it. */
  retire(layers: FileLayer[]): void {
    for (const { descriptor } of layers) {
      this.#uploaded.delete(descriptor.key);
      this.#deletions.add(descriptor.key);
    }
    if (layers.length > 0) this.#isDirty = true;
    this.kick();
  }

  /** What the index says besides layers has changed. */
  markDirty(): void {
    this.#isDirty = true;
    this.kick();
  }

  /** Starts to bring object storage up to date, unless that is under way. */
  kick(): void {
    if (this.#closed || this.#running || !this.#hasWork()) return;
    this.#retry?.cancel();
    this.#running = this.#run().then(
      () => {
        this.#running = undefined;
        this.kick();
      },
      (error) => {
        this.#running = undefined;
        const isDeposed = error instanceof PalimpsestError && error.code === 'deposed';
        // Meanwhile this shard may have been given a newer generation.
        const isStale = isDeposed && this.#published === this.#options.spec.generation;
        this.#options.tools.log.warn({ error: String(error) }, 'upload failed, will be tried again');
        if (this.#closed) return;
        const delay = isStale ? STALE_RETRY_MS : RETRY_MS;
        this.#retry = this.#options.tools.clock.setTimer(delay, () => this.kick());
      },
    );
  }

  /**
   * Resolves when object storage is up to date, or the present attempt failed. With `upTo` already when all up to there is in objects:
   * where layers are merged all the time there is always something left to do.
   */
  async settled(upTo = Number.POSITIVE_INFINITY): Promise<void> {
    while (this.#running && this.#remoteConsistentLsn < upTo) {
      await Promise.race([this.#running, this.#told.promise]);
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#retry?.cancel();
    await this.#running;
  }

  #hasWork(): boolean {
    return this.#isDirty || this.#nextMissing() !== undefined;
  }

  async #run(): Promise<void> {
    let uploads = 0;
    for (let layer = this.#nextMissing(); layer; layer = this.#nextMissing()) {
      if (this.#closed) return;
      await this.#upload(layer);
      if (++uploads % UPLOADS_PER_INDEX === 0 && this.#publishable()) await this.#publish();
    }
    if (this.#isDirty) await this.#publish();
  }

  /** Results of compaction first: only with them can the index change to the new layers; then the oldest. */
  #nextMissing(): LayerDescriptor | undefined {
    let next: LayerDescriptor | undefined;
    for (const { descriptor } of this.#options.layers.all()) {
      if (this.#uploaded.has(descriptor.key)) continue;
      const isBefore =
        !next ||
        descriptor.level > next.level ||
        (descriptor.level === next.level && descriptor.endLsn < next.endLsn);
      if (isBefore) next = descriptor;
    }
    return next;
  }

  async #upload(layer: LayerDescriptor): Promise<void> {
    const { tools, journal, layers } = this.#options;
    try {
      await tools.objects.putFile(layer.key, tools.store.pathOf(layer.key));
    } catch (error) {
      // Its local file went with it; if an object was made, it waits among the deletions.
      if (!layers.get(layer.key)) return;
      throw error;
    }
    if (!layers.get(layer.key)) return;
    await journal.record([{ type: 'layer.uploaded', key: layer.key }]);
    if (!layers.get(layer.key)) return;
    this.#uploaded.add(layer.key);
    this.#isDirty = true;
    tools.store.local.mayEvict(layer);
  }

  /** The layers that an index may list now: of level 0 those before the first that is not uploaded; undefined: not yet. */
  #publishable(): LayerDescriptor[] | undefined {
    const { layers } = this.#options;
    const listed: LayerDescriptor[] = [];
    for (const { descriptor } of layers.all()) {
      if (descriptor.level === 0) continue;
      if (!this.#uploaded.has(descriptor.key)) return undefined;
      listed.push(descriptor);
    }
    for (const { descriptor } of layers.levelZero.toReversed()) {
      if (!this.#uploaded.has(descriptor.key)) break;
      listed.push(descriptor);
    }
    return listed.sort((a, b) => a.endLsn - b.endLsn);
  }

  async #publish(): Promise<void> {
    const { journal, spec, gcCutoff } = this.#options;
    const layers = this.#publishable();
    if (!layers) return;
    const { generation } = spec;
    this.#published = generation;
    const deletions = [...this.#deletions];
    this.#isDirty = false;
    try {
      const index = makeIndex(spec, layers, gcCutoff());
      const key = await this.#putIndex(index);
      await this.#confirm(generation);
      const remoteConsistentLsn = index.diskConsistentLsn;
      await journal.record([{ type: 'index.uploaded', key, generation, remoteConsistentLsn }]);
      this.#remoteConsistentLsn = remoteConsistentLsn;
      this.#told.resolve();
      this.#told = Promise.withResolvers();
      await this.#delete(deletions, generation);
      if (!this.#hasSwept) await this.#sweep(generation, new Set(index.layers.map((layer) => layer.key)));
    } catch (error) {
      this.#isDirty = true;
      throw error;
    }
  }

  /** Nobody else writes an index of this generation: a version that is not the last one put is one that came late. */
  async #putIndex(index: ShardIndex): Promise<string> {
    const key = indexKey(index.spec);
    if (this.#index?.key !== key) this.#index = new OwnObject(this.#options.tools.objects, key);
    await this.#index.replace(encodeIndex(index));
    return key;
  }

  /** Throws `deposed` when a newer attachment has taken this one's place. */
  async #confirm(generation: number): Promise<void> {
    const { tools, spec } = this.#options;
    if (await tools.validateGeneration(spec.timeline, generation)) return;
    throw new PalimpsestError(
      'deposed',
      `generation ${generation} of timeline ${spec.timeline} is over: nothing is deleted or told any more`,
    );
  }

  async #delete(keys: string[], generation: number): Promise<void> {
    const { tools, journal } = this.#options;
    for (let from = 0; from < keys.length; from += DELETES_PER_EVENT) {
      if (this.#closed) return;
      if (from > 0) await this.#confirm(generation);
      const batch = keys.slice(from, from + DELETES_PER_EVENT);
      for (const key of batch) await tools.objects.delete(key);
      await journal.record([{ type: 'objects.deleted', keys: batch }]);
      for (const key of batch) this.#deletions.delete(key);
    }
  }

  /**
   * Deletes layers and indexes of earlier generations that the index, which is durable now, does not list. The map alone is no
   * measure: a layer that was merged since has left it, and is still what the index counts on.
   */
  async #sweep(generation: number, listed: ReadonlySet<string>): Promise<void> {
    const { tools, spec, layers } = this.#options;
    const prefix = `${shardPrefix(spec)}/`;
    const orphans: string[] = [];
    const ownIndex = indexKey({ ...spec, generation });
    for await (const { key } of tools.objects.list(prefix)) {
      const name = key.slice(prefix.length);
      const isOldIndex = /^index-[0-9a-f]{8}$/.test(name) && key < ownIndex;
      const isOldLayer =
        !name.includes('/') &&
        name.endsWith('.layer') &&
        generationOf(key) < generation &&
        !listed.has(key) &&
        !layers.get(key);
      if (isOldIndex || isOldLayer) orphans.push(key);
    }
    if (orphans.length > 0) {
      await this.#confirm(generation);
      for (const key of orphans) {
        if (this.#closed) return;
        await tools.objects.delete(key);
      }
    }
    this.#hasSwept = true;
  }
}
