/**
 * Reads layer files: their indexes and small states, which are kept in a bounded part of memory, and their blocks, neighbours by
 * one read. Where the bytes come from: local-layers.ts.
 */
import { decodeFooter, type LayerFooter } from '../../protocols/layers/footer.ts';
import {
  FOOTER_BYTES,
  SECTION_CUTS,
  SECTION_RELATIONS,
  SECTION_WAYPOINTS,
} from '../../protocols/layers/format.ts';
import { LayerIndex, openIndexSections } from '../../protocols/layers/reader.ts';
import { LayerState, openStateSections } from '../../protocols/layers/state.ts';
import { openSectionsVersion1 } from '../../protocols/layers/version-1.ts';
import { shardPrefix } from '../../protocols/object-keys.ts';
import type { FileLayer, ReadContext } from './file-layer.ts';
import type { LayerDescriptor, ShardOwner } from './layer-descriptor.ts';
import { LocalLayers, type LocalLayersOptions } from './local-layers.ts';
import { ReadMemory } from './read-memory.ts';

/** Blocks with a smaller gap between them are fetched by one read. */
const READ_GAP_BYTES_MAX = 16 * 1024;
const READ_BYTES_MAX = 1024 * 1024;
/** What is read of a file's end at first: of most layers the footer and all that finds a page. */
const TAIL_BYTES = 32 * 1024;

export interface LayerStoreOptions extends LocalLayersOptions {
  /** Memory for cached indexes. */
  indexBytesMax: number;
}

/** One part of layers (their indexes, or their small states) in memory, least recently used first. */
class CachedParts<T extends { bytes: number }> {
  readonly cached = new Map<FileLayer, T>();
  readonly loading = new Map<FileLayer, Promise<T>>();
  readonly attach: (layer: FileLayer, part: T | undefined) => void;

  constructor(attach: (layer: FileLayer, part: T | undefined) => void) {
    this.attach = attach;
  }
}

export class LayerStore {
  readonly #options: LayerStoreOptions;
  /** The bytes of the layers. */
  readonly local: LocalLayers;
  /** For the blocks of requests. */
  readonly readMemory = new ReadMemory();
  readonly #indexes = new CachedParts<LayerIndex>((layer, index) => {
    layer.index = index;
  });
  readonly #states = new CachedParts<LayerState>((layer, state) => {
    layer.state = state;
  });
  #partBytes = 0;

  constructor(options: LayerStoreOptions) {
    this.#options = options;
    this.local = new LocalLayers(options);
  }

  /** Where a layer's local file is, below the disk's root. */
  pathOf(key: string): string {
    return this.local.pathOf(key);
  }

  /** The folder of a shard's local files, below the disk's root. */
  folderOf(spec: ShardOwner): string {
    return this.pathOf(shardPrefix(spec));
  }

  /** Fetches everything that `context` lacks; nothing is under way any more when it is done. Throws `corrupt`, `not-found` or `unavailable`. */
  async supply(context: ReadContext): Promise<void> {
    const work: Promise<void>[] = [];
    for (const layer of context.missingIndexes) {
      work.push(unlessRetired(layer, async () => context.giveIndex(layer, await this.loadIndex(layer))));
    }
    for (const [layer, blocks] of context.missingBlocks) {
      work.push(unlessRetired(layer, () => this.#supplyBlocks(layer, blocks, context)));
    }
    context.clearMisses();
    await allEnded(work);
  }

  /** The layer's index, from memory or from its file. */
  loadIndex(layer: FileLayer): Promise<LayerIndex> {
    return this.#load(this.#indexes, layer, (descriptor) => this.#readIndex(descriptor));
  }

  /** The small state of a layer, from memory or from its file. */
  loadState(layer: FileLayer): Promise<LayerState> {
    return this.#load(this.#states, layer, (descriptor) => this.#readState(descriptor));
  }

  async #load<T extends LayerIndex | LayerState>(
    parts: CachedParts<T>,
    layer: FileLayer,
    read: (descriptor: LayerDescriptor) => Promise<T>,
  ): Promise<T> {
    const cached = parts.cached.get(layer);
    if (cached) {
      parts.cached.delete(layer);
      parts.cached.set(layer, cached);
      return cached;
    }
    let loading = parts.loading.get(layer);
    if (!loading) {
      loading = this.local
        .mended(layer.descriptor, () => read(layer.descriptor))
        .then((part) => {
          this.#keepPart(parts, layer, part);
          return part;
        })
        .finally(() => parts.loading.delete(layer));
      parts.loading.set(layer, loading);
    }
    return loading;
  }

  /** Forgets a layer and removes its local file. */
  async remove(layer: FileLayer): Promise<void> {
    this.#dropParts(layer);
    await this.local.remove(layer.descriptor.key);
  }

  /** Forgets a layer; its file stays. */
  forget(layer: FileLayer): void {
    this.#dropParts(layer);
    this.local.closeFile(layer.descriptor.key);
  }

  async close(): Promise<void> {
    await this.local.close();
  }

  async #readIndex(layer: LayerDescriptor): Promise<LayerIndex> {
    const { footer, base, bytes } = await this.#readSections(layer, SECTION_CUTS);
    const open = footer.version === 1 ? openSectionsVersion1 : openIndexSections;
    return new LayerIndex(footer, open(this.pathOf(layer.key), footer, bytes, base));
  }

  async #readState(layer: LayerDescriptor): Promise<LayerState> {
    const { footer, base, bytes } = await this.#readSections(layer, SECTION_WAYPOINTS);
    const open = footer.version === 1 ? openSectionsVersion1 : openStateSections;
    return new LayerState(open(this.pathOf(layer.key), footer, bytes, base));
  }

  /** Reads the footer and the sections up to `last` (of version 1: all): with one read if they are at the very end. */
  async #readSections(
    layer: LayerDescriptor,
    last: number,
  ): Promise<{ footer: LayerFooter; base: number; bytes: Uint8Array }> {
    const base = Math.max(0, layer.bytes - TAIL_BYTES);
    const bytes = await this.local.read(layer, base, layer.bytes - base);
    const footer = decodeFooter(this.pathOf(layer.key), bytes.subarray(-FOOTER_BYTES));
    const first = footer.sections[SECTION_RELATIONS]!.offset;
    if (first >= base) return { footer, base, bytes };
    const { offset, storedLength } = footer.version === 1 ? footer.sections.at(-1)! : footer.sections[last]!;
    return { footer, base: first, bytes: await this.local.read(layer, first, offset + storedLength - first) };
  }

  async #supplyBlocks(layer: FileLayer, blocks: Set<number>, context: ReadContext): Promise<void> {
    const index = layer.index ?? (await this.loadIndex(layer));
    const sorted = [...blocks].sort((a, b) => a - b);
    const reads: Promise<void>[] = [];
    for (let i = 0; i < sorted.length; ) {
      const from = index.blockOffset[sorted[i]!]!;
      let to = from;
      let j = i;
      for (; j < sorted.length; j++) {
        const start = index.blockOffset[sorted[j]!]!;
        const end = start + index.blockStored[sorted[j]!]!;
        if (j > i && (start - to > READ_GAP_BYTES_MAX || end - from > READ_BYTES_MAX)) break;
        to = end;
      }
      const span = { layer, index, blocks: sorted.slice(i, j), from, to };
      reads.push(this.local.mended(layer.descriptor, () => this.#readBlocks(span, context)));
      i = j;
    }
    await allEnded(reads);
  }

  /** The stored bytes of the blocks from `first` up to `end`, checked. */
  async readStored(layer: FileLayer, index: LayerIndex, first: number, end: number): Promise<Uint8Array[]> {
    const name = this.pathOf(layer.descriptor.key);
    const from = index.blockOffset[first]!;
    const to = index.blockOffset[end - 1]! + index.blockStored[end - 1]!;
    return this.local.mended(layer.descriptor, async () => {
      const bytes = await this.local.read(layer.descriptor, from, to - from);
      const blocks: Uint8Array[] = [];
      for (let block = first; block < end; block++) {
        const offset = index.blockOffset[block]! - from;
        const stored = bytes.subarray(offset, offset + index.blockStored[block]!);
        index.checkBlock(name, block, stored);
        blocks.push(stored);
      }
      return blocks;
    });
  }

  async #readBlocks(
    span: { layer: FileLayer; index: LayerIndex; blocks: number[]; from: number; to: number },
    context: ReadContext,
  ): Promise<void> {
    const { layer, index, from } = span;
    const name = this.pathOf(layer.descriptor.key);
    const length = span.to - from;
    const bytes = await this.local.read(layer.descriptor, from, length, context.take(length));
    // Memory is taken once for all of them.
    const room = context.take(span.blocks.reduce((total, block) => total + index.roomOf(block), 0));
    let used = 0;
    for (const block of span.blocks) {
      const offset = index.blockOffset[block]! - from;
      const stored = bytes.subarray(offset, offset + index.blockStored[block]!);
      const own = room.subarray(used, used + index.roomOf(block));
      used += own.length;
      context.giveBlock(layer, block, index.openBlock(name, block, stored, own));
    }
  }

  #keepPart<T extends LayerIndex | LayerState>(parts: CachedParts<T>, layer: FileLayer, part: T): void {
    parts.attach(layer, part);
    parts.cached.set(layer, part);
    this.#partBytes += part.bytes;
    for (const kind of [this.#states, this.#indexes]) {
      for (const oldest of kind.cached.keys()) {
        if (this.#partBytes <= this.#options.indexBytesMax) return;
        if (oldest !== layer) this.#dropPart(kind as CachedParts<LayerIndex | LayerState>, oldest);
      }
    }
  }

  #dropParts(layer: FileLayer): void {
    this.#dropPart(this.#indexes as CachedParts<LayerIndex | LayerState>, layer);
    this.#dropPart(this.#states as CachedParts<LayerIndex | LayerState>, layer);
  }

  #dropPart(parts: CachedParts<LayerIndex | LayerState>, layer: FileLayer): void {
    const part = parts.cached.get(layer);
    if (!part) return;
    parts.cached.delete(layer);
    this.#partBytes -= part.bytes;
    parts.attach(layer, undefined);
  }
}

/** As Promise.all, but also after a failure nothing is under way any more. */
async function allEnded(work: Promise<void>[]): Promise<void> {
  for (const result of await Promise.allSettled(work)) if (result.status === 'rejected') throw result.reason;
}

/** Other layers have taken the place of a retired one: that it cannot be read any more does not matter, the reader looks again. */
async function unlessRetired(layer: FileLayer, read: () => Promise<void>): Promise<void> {
  try {
    await read();
  } catch (error) {
    if (!layer.isRetired) throw error;
  }
}
