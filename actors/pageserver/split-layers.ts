/**
 * The first layers of a shard that has part of what another shard has: copies of that one's layers, with its own pages only.
 *
 *   newest index of the shard before -> its layers, read, and written again without the pages of others -> objects -> an index
 *
 * 1. The index is stored last: until then nothing was done, and once it is there nothing is done again. So this may be repeated after any
 *    crash, and by two at once: the same layers give the same copies.
 * 2. What the shard before has is only read. When its layers change meanwhile (merged, or removed by garbage collection), the copy is made of
 *    those that its newer index lists; what is copied already is kept.
 * 3. The copy begins and ends where the index does that it is made of; the WAL after it is read like after any attachment.
 * 4. What is made has generation 0, which no attachment has: whoever is attached first takes all of it over, as from another node.
 * 5. An index is what remains of another attempt when its layers are not all there: that one was given up, and what it had made was deleted
 *    while it still went on. It is made anew.
 * 6. Small state is copied whole: every shard tells all sizes and values.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { shardPrefix } from '../../protocols/object-keys.ts';
import { type FileTag, ownsPage, type ShardTag } from '../../protocols/shard-layout.ts';
import type { ShardSpec } from './events.ts';
import { FileLayer } from './file-layer.ts';
import { makeIndex, newestIndex, putIndex, type ShardIndex } from './index-object.ts';
import { type LayerDescriptor, layerKey } from './layer-descriptor.ts';
import type { LayerPlace } from './layer-file-writer.ts';
import { copyChosenPages, mergeLayers } from './merge-layers.ts';
import { Pacer } from './pacer.ts';
import type { ShardTools } from './tools.ts';

const TARGET_BYTES = 64 * 1024 * 1024;
/** Of the index and layers that a split makes. */
export const SPLIT_GENERATION = 0;
/** The index before changes with each merge, which come minutes apart. */
const ATTEMPTS_MAX = 8;

export interface SplitOptions {
  /** The new shard, as it will be attached. */
  spec: ShardSpec;
  /** The shard that has its pages until now; undefined when that one has all. */
  from: ShardTag | undefined;
  tools: ShardTools;
  /** Given up: what is there stays, and no more comes. */
  signal?: AbortSignal;
}

/** What was done for a shard. */
export interface SplitReport {
  layers: number;
  bytes: number;
}

/** Resolves when objects have the new shard's layers and index. Nothing at all is done for a shard that has both. */
export async function splitLayers(options: SplitOptions): Promise<SplitReport> {
  const { from, tools, signal } = options;
  const known = await newestIndex(tools.objects, options.spec);
  if (known && (await isWhole(known, tools))) return reportOf(known.layers);
  const spec = { ...options.spec, generation: SPLIT_GENERATION };
  const copies = new Copies({ ...options, spec });
  for (let attempt = 1; ; attempt++) {
    // Without one, all that there is comes from the WAL.
    const source = await newestIndex(tools.objects, { ...spec, shard: from });
    if (!source) return { layers: 0, bytes: 0 };
    try {
      const layers = await copies.of(source);
      signal?.throwIfAborted();
      await putIndex(tools.objects, makeIndex(spec, layers, source.gcCutoff));
      return reportOf(layers);
    } catch (error) {
      const isGone = error instanceof PalimpsestError && error.code === 'not-found';
      if (signal?.aborted) throw new PalimpsestError('unavailable', 'the new shard was given up');
      if (!isGone || attempt === ATTEMPTS_MAX) throw error;
    }
  }
}

/** An index that an attachment has written since speaks for itself. */
async function isWhole({ spec, layers }: ShardIndex, { objects }: ShardTools): Promise<boolean> {
  if (spec.generation !== SPLIT_GENERATION) return true;
  const there = new Set<string>();
  for await (const { key } of objects.list(`${shardPrefix(spec)}/`)) there.add(key);
  return layers.every(({ key }) => there.has(key));
}

function reportOf(layers: readonly LayerDescriptor[]): SplitReport {
  return { layers: layers.length, bytes: layers.reduce((sum, { bytes }) => sum + bytes, 0) };
}

class Copies {
  readonly #tools: ShardTools;
  readonly #spec: ShardSpec;
  readonly #place: LayerPlace;
  readonly #pacer: Pacer;
  readonly #signal: AbortSignal | undefined;
  readonly #keeps: (relation: FileTag, block: number) => boolean;
  /** By what they are copies of. */
  readonly #made = new Map<string, LayerDescriptor[]>();
  readonly #keys = new Set<string>();

  constructor({ spec, tools, signal }: SplitOptions) {
    const { shard } = spec;
    if (!shard) throw new PalimpsestError('invalid-argument', 'only a shard of several is made by a split');
    this.#tools = tools;
    this.#spec = spec;
    this.#keeps = (relation, block) => ownsPage(shard, relation, block);
    this.#pacer = new Pacer(tools.clock, () => false);
    this.#signal = signal;
    signal?.addEventListener('abort', () => this.#pacer.stop());
    this.#place = { ...tools, spec, isTaken: (key) => this.#keys.has(key) };
  }

  /** The layers of the new shard that stand for all of an index. */
  async of(source: ShardIndex): Promise<LayerDescriptor[]> {
    const copies: LayerDescriptor[] = [];
    const open = source.layers.filter(({ kind, level }) => kind === 'delta' && level === 0);
    open.sort((a, b) => a.startLsn - b.startLsn);
    for (const layer of source.layers) {
      if (!open.includes(layer)) copies.push(...(await this.#once(layer.key, () => this.#copy(layer))));
    }
    if (open.length > 0) {
      const name = open.map(({ key }) => key).join(' ');
      copies.push(...(await this.#once(name, () => this.#merge(open))));
    }
    return copies;
  }

  async #once(name: string, make: () => Promise<LayerDescriptor[]>): Promise<LayerDescriptor[]> {
    const known = this.#made.get(name);
    if (known) return known;
    const made = await make();
    for (const layer of made) this.#keys.add(layer.key);
    for (const { key } of made) {
      this.#signal?.throwIfAborted();
      await this.#tools.objects.putFile(key, this.#tools.store.pathOf(key));
    }
    this.#made.set(name, made);
    return made;
  }

  async #copy(layer: LayerDescriptor): Promise<LayerDescriptor[]> {
    if (layer.kind === 'state') return [await this.#copyWhole(layer)];
    const options = { place: this.#place, pacer: this.#pacer, keeps: this.#keeps };
    return [await copyChosenPages(new FileLayer(layer), options)];
  }

  /** All of level 0 as one merge: what follows is newer than all of it. */
  #merge(open: LayerDescriptor[]): Promise<LayerDescriptor[]> {
    const layers = open.map((layer) => new FileLayer(layer));
    return mergeLayers(layers, {
      place: this.#place,
      pacer: this.#pacer,
      targetBytes: TARGET_BYTES,
      keeps: this.#keeps,
    });
  }

  async #copyWhole(layer: LayerDescriptor): Promise<LayerDescriptor> {
    const { disk, objects, store } = this.#tools;
    const { generation } = this.#spec;
    const key = layerKey(this.#spec, { ...layer, generation }, (name) => this.#keys.has(name));
    await disk.makeDirectory(store.folderOf(this.#spec));
    await objects.getFile(layer.key, store.pathOf(key));
    return { ...layer, key, generation };
  }
}
