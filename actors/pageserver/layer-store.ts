/**
 * Layer files on the local disk: a cache of object storage. Opens, checks and reads them, fetches a missing one from
 * objects, and keeps the number of open files and the memory of cached indexes bounded.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { corruptLayer } from '../../protocols/layers/errors.ts';
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
import { timelinePrefix } from '../../protocols/object-keys.ts';
import type { Disk, DiskFile } from '../../runtime/ports/disk.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { Objects } from '../../runtime/ports/objects.ts';
import type { FileLayer, ReadContext } from './file-layer.ts';
import type { LayerDescriptor } from './layer-descriptor.ts';

const OPEN_FILES_MAX = 128;
/** Blocks with a smaller gap between them are fetched by one read. */
const READ_GAP_BYTES_MAX = 16 * 1024;
const READ_BYTES_MAX = 1024 * 1024;
/** What is read of a file's end at first: of most layers the footer and all that finds a page. */
const TAIL_BYTES = 32 * 1024;

export interface LayerStoreOptions {
  disk: Disk;
  objects: Objects;
  log: Log;
  /** Folder of layer files, below the disk's root. */
  folder: string;
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

interface OpenFile {
  file: DiskFile;
  users: number;
  doomed: boolean;
}

export class LayerStore {
  readonly #options: LayerStoreOptions;
  /** Least recently used first. */
  readonly #files = new Map<string, OpenFile>();
  readonly #opening = new Map<string, Promise<void>>();
  readonly #indexes = new CachedParts<LayerIndex>((layer, index) => {
    layer.index = index;
  });
  readonly #states = new CachedParts<LayerState>((layer, state) => {
    layer.state = state;
  });
  /** Layers whose local file was found damaged: each is fetched again once. */
  readonly #mending = new Map<string, Promise<void>>();
  #partBytes = 0;
  downloads = 0;

  constructor(options: LayerStoreOptions) {
    this.#options = options;
  }

  /** Where a layer's local file is, below the disk's root. */
  pathOf(key: string): string {
    return `${this.#options.folder}/${key}`;
  }

  /** The folder of a timeline's local files, below the disk's root. */
  folderOf(spec: { tenant: string; timeline: string }): string {
    return this.pathOf(timelinePrefix(spec));
  }

  /** Fetches everything that `context` lacks. Throws `corrupt`, `not-found` or `unavailable`. */
  async supply(context: ReadContext): Promise<void> {
    const work: Promise<void>[] = [];
    for (const layer of context.missingIndexes) {
      work.push(unlessRetired(layer, async () => context.giveIndex(layer, await this.loadIndex(layer))));
    }
    for (const [layer, blocks] of context.missingBlocks) {
      work.push(unlessRetired(layer, () => this.#supplyBlocks(layer, blocks, context)));
    }
    context.clearMisses();
    const results = await Promise.allSettled(work);
    for (const result of results) if (result.status === 'rejected') throw result.reason;
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
      loading = this.#mended(layer.descriptor, () => read(layer.descriptor))
        .then((part) => {
          this.#keepPart(parts, layer, part);
          return part;
        })
        .finally(() => parts.loading.delete(layer));
      parts.loading.set(layer, loading);
    }
    return loading;
  }

  /** Whether the layer's local file is there. */
  async isLocal(descriptor: LayerDescriptor): Promise<boolean> {
    return this.#options.disk.exists(this.pathOf(descriptor.key));
  }

  /** A layer's local file is there now. */
  added(_descriptor: LayerDescriptor): void {}

  /** Object storage has the layer: its local file may go. */
  mayEvict(_descriptor: LayerDescriptor): void {}

  /** Forgets a layer and removes its local file. */
  async remove(layer: FileLayer): Promise<void> {
    this.#dropParts(layer);
    this.#doom(layer.descriptor.key);
    const path = this.pathOf(layer.descriptor.key);
    if (await this.#options.disk.exists(path)) await this.#options.disk.remove(path);
  }

  /** Forgets a layer; its file stays. */
  forget(layer: FileLayer): void {
    this.#dropParts(layer);
    this.#doom(layer.descriptor.key);
  }

  async close(): Promise<void> {
    for (const key of [...this.#files.keys()]) this.#doom(key);
  }

  async #readIndex(descriptor: LayerDescriptor): Promise<LayerIndex> {
    const name = this.pathOf(descriptor.key);
    return this.#withFile(descriptor, async (file) => {
      const tail = await this.#readTail(file, descriptor);
      const { footer } = tail;
      const last = footer.version === 1 ? footer.sections.length - 1 : SECTION_CUTS;
      const part = await this.#sectionsOf(file, tail, SECTION_RELATIONS, last, name);
      const open = footer.version === 1 ? openSectionsVersion1 : openIndexSections;
      return new LayerIndex(footer, open(name, footer, part.bytes, part.base));
    });
  }

  async #readState(descriptor: LayerDescriptor): Promise<LayerState> {
    const name = this.pathOf(descriptor.key);
    return this.#withFile(descriptor, async (file) => {
      const tail = await this.#readTail(file, descriptor);
      const { footer } = tail;
      const last = footer.version === 1 ? footer.sections.length - 1 : SECTION_WAYPOINTS;
      const part = await this.#sectionsOf(file, tail, SECTION_RELATIONS, last, name);
      const open = footer.version === 1 ? openSectionsVersion1 : openStateSections;
      return new LayerState(open(name, footer, part.bytes, part.base));
    });
  }

  async #readTail(
    file: DiskFile,
    descriptor: LayerDescriptor,
  ): Promise<{ footer: LayerFooter; base: number; bytes: Uint8Array }> {
    const name = this.pathOf(descriptor.key);
    const size = await file.size();
    if (size < FOOTER_BYTES) throw corruptLayer(name, 'the footer (file too short)');
    const base = Math.max(0, size - TAIL_BYTES);
    const bytes = await readExactly(file, name, base, size - base);
    return { footer: decodeFooter(name, bytes.subarray(-FOOTER_BYTES)), base, bytes };
  }

  /** The bytes of neighbouring sections: out of the tail if it has them. */
  async #sectionsOf(
    file: DiskFile,
    tail: { footer: LayerFooter; base: number; bytes: Uint8Array },
    first: number,
    last: number,
    name: string,
  ): Promise<{ base: number; bytes: Uint8Array }> {
    const base = tail.footer.sections[first]!.offset;
    if (base >= tail.base) return tail;
    const { offset, storedLength } = tail.footer.sections[last]!;
    return { base, bytes: await readExactly(file, name, base, offset + storedLength - base) };
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
      reads.push(this.#mended(layer.descriptor, () => this.#readBlocks(span, context)));
      i = j;
    }
    await Promise.all(reads);
  }

  /** The stored bytes of the blocks from `first` up to `end`, checked. */
  async readStored(layer: FileLayer, index: LayerIndex, first: number, end: number): Promise<Uint8Array[]> {
    const name = this.pathOf(layer.descriptor.key);
    const from = index.blockOffset[first]!;
    const to = index.blockOffset[end - 1]! + index.blockStored[end - 1]!;
    return this.#mended(layer.descriptor, async () => {
      const bytes = await this.#withFile(layer.descriptor, (file) =>
        readExactly(file, name, from, to - from),
      );
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
    const bytes = await this.#withFile(layer.descriptor, (file) =>
      readExactly(file, name, from, span.to - from),
    );
    for (const block of span.blocks) {
      const offset = index.blockOffset[block]! - from;
      const stored = bytes.subarray(offset, offset + index.blockStored[block]!);
      context.giveBlock(layer, block, index.openBlock(name, block, stored));
    }
  }

  /** Runs `read`; when the local file is damaged and object storage has the layer, fetches it and reads once more. */
  async #mended<T>(descriptor: LayerDescriptor, read: () => Promise<T>): Promise<T> {
    try {
      return await read();
    } catch (error) {
      if (!(error instanceof PalimpsestError) || error.code !== 'corrupt') throw error;
      let mending = this.#mending.get(descriptor.key);
      if (!mending) this.#mending.set(descriptor.key, (mending = this.#mend(descriptor, error)));
      await mending;
      return read();
    }
  }

  async #mend(descriptor: LayerDescriptor, damage: PalimpsestError): Promise<void> {
    const { objects, log } = this.#options;
    if (!(await objects.head(descriptor.key))) throw damage;
    log.error(
      { layer: descriptor.key, error: damage.message },
      'a local layer file is damaged: fetching it again',
    );
    this.#doom(descriptor.key);
    await this.#download(descriptor);
  }

  async #withFile<T>(descriptor: LayerDescriptor, use: (file: DiskFile) => Promise<T>): Promise<T> {
    const open = await this.#open(descriptor);
    open.users++;
    try {
      return await use(open.file);
    } finally {
      open.users--;
      if (open.doomed && open.users === 0) closeQuietly(open.file);
    }
  }

  async #open(descriptor: LayerDescriptor): Promise<OpenFile> {
    const { key } = descriptor;
    for (;;) {
      const open = this.#files.get(key);
      if (open) {
        this.#files.delete(key);
        this.#files.set(key, open);
        return open;
      }
      let opening = this.#opening.get(key);
      if (!opening) {
        opening = this.#openFile(descriptor).finally(() => this.#opening.delete(key));
        this.#opening.set(key, opening);
      }
      await opening;
    }
  }

  async #openFile(descriptor: LayerDescriptor): Promise<void> {
    const path = this.pathOf(descriptor.key);
    let file: DiskFile;
    try {
      file = await this.#options.disk.open(path, { readOnly: true });
    } catch (error) {
      if (!(error instanceof PalimpsestError) || error.code !== 'not-found') throw error;
      await this.#download(descriptor);
      file = await this.#options.disk.open(path, { readOnly: true });
    }
    this.#files.set(descriptor.key, { file, users: 0, doomed: false });
    for (const key of this.#files.keys()) {
      if (this.#files.size <= OPEN_FILES_MAX) break;
      if (key !== descriptor.key) this.#doom(key);
    }
  }

  async #download(descriptor: LayerDescriptor): Promise<void> {
    const path = this.pathOf(descriptor.key);
    this.#options.log.info(
      { layer: descriptor.key, bytes: descriptor.bytes },
      'fetching a layer from objects',
    );
    await this.#options.disk.makeDirectory(path.slice(0, path.lastIndexOf('/')));
    await this.#options.objects.getFile(descriptor.key, path);
    this.downloads++;
  }

  #doom(key: string): void {
    const open = this.#files.get(key);
    if (!open) return;
    this.#files.delete(key);
    open.doomed = true;
    if (open.users === 0) closeQuietly(open.file);
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

/** Other layers have taken the place of a retired one: that it cannot be read any more does not matter, the reader looks again. */
async function unlessRetired(layer: FileLayer, read: () => Promise<void>): Promise<void> {
  try {
    await read();
  } catch (error) {
    if (!layer.isRetired) throw error;
  }
}

/** A file that was only read has nothing to lose. */
function closeQuietly(file: DiskFile): void {
  file.close().catch(() => {});
}

async function readExactly(
  file: DiskFile,
  name: string,
  position: number,
  length: number,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  const count = await file.read(bytes, position);
  if (count !== length) throw corruptLayer(name, `a read of ${length} bytes at ${position} (file too short)`);
  return bytes;
}
