/**
 * Layer files on the local disk: a cache of object storage. Opens, checks and reads them, fetches a missing one from
 * objects, and keeps the number of open files and the memory of cached indexes bounded.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { FOOTER_BYTES, type LayerFooter } from '../../protocols/layers/format.ts';
import { corruptLayer, decodeFooter, LayerIndex } from '../../protocols/layers/reader.ts';
import { crc32c } from '../../protocols/postgres/crc32c.ts';
import type { Disk, DiskFile } from '../../runtime/ports/disk.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { Objects } from '../../runtime/ports/objects.ts';
import type { FileLayer, LayerDescriptor, ReadContext } from './file-layer.ts';

const OPEN_FILES_MAX = 128;
/** Blocks with a smaller gap between them are fetched by one read. */
const READ_GAP_BYTES_MAX = 16 * 1024;
const READ_BYTES_MAX = 1024 * 1024;

export interface LayerStoreOptions {
  disk: Disk;
  objects: Objects;
  log: Log;
  /** Folder of layer files, below the disk's root. */
  folder: string;
  /** Memory for cached indexes. */
  indexBytesMax: number;
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
  readonly #indexed = new Map<FileLayer, LayerIndex>();
  readonly #loading = new Map<FileLayer, Promise<LayerIndex>>();
  /** Layers whose local file was found damaged: each is fetched again once. */
  readonly #mending = new Map<string, Promise<void>>();
  #indexBytes = 0;
  downloads = 0;

  constructor(options: LayerStoreOptions) {
    this.#options = options;
  }

  /** Where a layer's local file is, below the disk's root. */
  pathOf(key: string): string {
    return `${this.#options.folder}/${key}`;
  }

  /** Fetches everything that `context` lacks. Throws `corrupt`, `not-found` or `unavailable`. */
  async supply(context: ReadContext): Promise<void> {
    const work: Promise<void>[] = [];
    for (const layer of context.missingIndexes) {
      work.push(this.loadIndex(layer).then((index) => context.giveIndex(layer, index)));
    }
    for (const [layer, entries] of context.missingBlocks)
      work.push(this.#supplyBlocks(layer, entries, context));
    context.clearMisses();
    const results = await Promise.allSettled(work);
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }

  /** The layer's index, from memory or from its file. */
  async loadIndex(layer: FileLayer): Promise<LayerIndex> {
    const cached = this.#indexed.get(layer);
    if (cached) {
      this.#indexed.delete(layer);
      this.#indexed.set(layer, cached);
      return cached;
    }
    let loading = this.#loading.get(layer);
    if (!loading) {
      loading = this.#mended(layer.descriptor, () => this.#readIndex(layer.descriptor))
        .then((index) => {
          this.#keepIndex(layer, index);
          return index;
        })
        .finally(() => this.#loading.delete(layer));
      this.#loading.set(layer, loading);
    }
    return loading;
  }

  /** Whether the layer's local file is there. */
  async isLocal(descriptor: LayerDescriptor): Promise<boolean> {
    return this.#options.disk.exists(this.pathOf(descriptor.key));
  }

  /** Forgets a layer and removes its local file. */
  async remove(layer: FileLayer): Promise<void> {
    this.#dropIndex(layer);
    this.#doom(layer.descriptor.key);
    const path = this.pathOf(layer.descriptor.key);
    if (await this.#options.disk.exists(path)) await this.#options.disk.remove(path);
  }

  /** Forgets a layer; its file stays. */
  forget(layer: FileLayer): void {
    this.#dropIndex(layer);
    this.#doom(layer.descriptor.key);
  }

  async close(): Promise<void> {
    for (const key of [...this.#files.keys()]) this.#doom(key);
  }

  async #readIndex(descriptor: LayerDescriptor): Promise<LayerIndex> {
    const name = this.pathOf(descriptor.key);
    return this.#withFile(descriptor, async (file) => {
      const size = await file.size();
      if (size < FOOTER_BYTES) throw corruptLayer(name, 'the footer (file too short)');
      const footer: LayerFooter = decodeFooter(
        name,
        await readExactly(file, name, size - FOOTER_BYTES, FOOTER_BYTES),
      );
      const first = footer.sections[0]!.offset;
      return new LayerIndex(name, footer, await readExactly(file, name, first, size - FOOTER_BYTES - first));
    });
  }

  async #supplyBlocks(layer: FileLayer, entries: Set<number>, context: ReadContext): Promise<void> {
    const index = layer.index ?? (await this.loadIndex(layer));
    const sorted = [...entries].sort((a, b) => index.entryOffset[a]! - index.entryOffset[b]!);
    const reads: Promise<void>[] = [];
    for (let i = 0; i < sorted.length; ) {
      const from = index.entryOffset[sorted[i]!]!;
      let to = from;
      let j = i;
      for (; j < sorted.length; j++) {
        const start = index.entryOffset[sorted[j]!]!;
        const end = start + index.entryLength[sorted[j]!]!;
        if (j > i && (start - to > READ_GAP_BYTES_MAX || end - from > READ_BYTES_MAX)) break;
        to = end;
      }
      const span = { layer, index, entries: sorted.slice(i, j), from, to };
      reads.push(this.#mended(layer.descriptor, () => this.#readBlocks(span, context)));
      i = j;
    }
    await Promise.all(reads);
  }

  async #readBlocks(
    span: { layer: FileLayer; index: LayerIndex; entries: number[]; from: number; to: number },
    context: ReadContext,
  ): Promise<void> {
    const { layer, index, from } = span;
    const name = this.pathOf(layer.descriptor.key);
    const bytes = await this.#withFile(layer.descriptor, (file) =>
      readExactly(file, name, from, span.to - from),
    );
    for (const entry of span.entries) {
      const offset = index.entryOffset[entry]! - from;
      const end = offset + index.entryLength[entry]!;
      if (crc32c(bytes, offset, end) !== index.entryCrc[entry]!) {
        throw corruptLayer(name, `the data of block ${index.entryBlock[entry]} at offset ${from + offset}`);
      }
      context.giveBlock(layer, entry, bytes.subarray(offset, end));
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

  #keepIndex(layer: FileLayer, index: LayerIndex): void {
    layer.index = index;
    this.#indexed.set(layer, index);
    this.#indexBytes += index.bytes;
    for (const oldest of this.#indexed.keys()) {
      if (this.#indexBytes <= this.#options.indexBytesMax) break;
      if (oldest !== layer) this.#dropIndex(oldest);
    }
  }

  #dropIndex(layer: FileLayer): void {
    const index = this.#indexed.get(layer);
    if (!index) return;
    this.#indexed.delete(layer);
    this.#indexBytes -= index.bytes;
    layer.index = undefined;
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
