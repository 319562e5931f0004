/**
 * The bytes of layers: from files on the local disk, which are a cache of object storage, or by ranges out of objects.
 *
 * 1. A local file may go only when object storage has the layer (`mayEvict`). Above the disk budget the least recently
 *    used of those go first; files that are being read stay.
 * 2. A layer that is not there is fetched once, whoever asks for it meanwhile waits for that; few are fetched at a time.
 * 3. With a budget, a layer that went is first read by ranges: each costs about what RANGE_COST_BYTES of a download do. When
 *    the ranges have cost as much as the whole layer, it is downloaded: so reading never costs more than twice the best.
 * 4. A damaged local file is fetched again once.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { corruptLayer } from '../../protocols/layers/errors.ts';
import type { Disk, DiskFile } from '../../runtime/ports/disk.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { Objects } from '../../runtime/ports/objects.ts';
import { Turns } from '../safekeeper/turns.ts';
import type { LayerDescriptor } from './layer-descriptor.ts';

const OPEN_FILES_MAX = 128;
const DOWNLOADS_MAX = 4;
const RANGE_COST_BYTES = 256 * 1024;
/** A layer that is not larger is always fetched whole. */
const SMALL_LAYER_BYTES = 512 * 1024;

export interface LocalLayersOptions {
  disk: Disk;
  objects: Objects;
  log: Log;
  /** Folder of layer files, below the disk's root. */
  folder: string;
  /** Bytes that local files may take; without it all that is fetched stays. */
  diskBytesMax?: number | undefined;
}

interface OpenFile {
  file: DiskFile;
  users: number;
  doomed: boolean;
}

interface LocalFile {
  bytes: number;
  mayGo: boolean;
}

export class LocalLayers {
  readonly #options: LocalLayersOptions;
  /** Open files, least recently used first. */
  readonly #open = new Map<string, OpenFile>();
  readonly #opening = new Map<string, Promise<void>>();
  /** Files that are known to be there, least recently used first. */
  readonly #files = new Map<string, LocalFile>();
  /** What reading by ranges has cost of layers that are not there. */
  readonly #rangeCosts = new Map<string, number>();
  readonly #fetching = new Map<string, Promise<void>>();
  readonly #downloadTurns = new Turns(DOWNLOADS_MAX);
  /** Layers whose local file was found damaged. */
  readonly #mending = new Map<string, Promise<void>>();
  #bytes = 0;
  #evicting: Promise<void> | undefined;
  downloads = 0;
  rangedReads = 0;
  evictions = 0;

  constructor(options: LocalLayersOptions) {
    this.#options = options;
  }

  /** Bytes of the local files that are known. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Where a layer's local file is, below the disk's root. */
  pathOf(key: string): string {
    return `${this.#options.folder}/${key}`;
  }

  async isLocal(descriptor: LayerDescriptor): Promise<boolean> {
    return this.#options.disk.exists(this.pathOf(descriptor.key));
  }

  /** A layer's local file is there now. */
  added({ key, bytes }: LayerDescriptor): void {
    if (this.#files.has(key)) return;
    this.#files.set(key, { bytes, mayGo: false });
    this.#bytes += bytes;
    this.#evict();
  }

  /** Object storage has the layer: its local file may go. */
  mayEvict({ key }: LayerDescriptor): void {
    const file = this.#files.get(key);
    if (!file) return;
    file.mayGo = true;
    this.#evict();
  }

  /** Removes a layer's local file. */
  async remove(key: string): Promise<void> {
    this.#drop(key);
    await this.#options.disk.remove(this.pathOf(key)).catch(ignoreMissing);
  }

  /** Removes all local files below a folder of keys. */
  async removeFolder(prefix: string): Promise<void> {
    for (const key of [...this.#files.keys()]) if (key.startsWith(`${prefix}/`)) this.#drop(key);
    await this.#options.disk.removeTree(this.pathOf(prefix));
  }

  /** Closes a layer's file; it stays, and may go like any other. */
  closeFile(key: string): void {
    this.#doom(key);
  }

  async close(): Promise<void> {
    for (const key of [...this.#open.keys()]) this.#doom(key);
    await this.#evicting;
  }

  /** Reads bytes of a layer, perhaps into `memory` of that length. Throws `corrupt` when there are fewer, `not-found` or `unavailable`. */
  async read(
    layer: LayerDescriptor,
    position: number,
    length: number,
    memory?: Uint8Array,
  ): Promise<Uint8Array> {
    const bytes = this.#isReadByRange(layer)
      ? await this.#readRange(layer, position, length, memory)
      : await this.#readLocal(layer, position, memory ?? new Uint8Array(length));
    if (bytes.length === length) return bytes;
    throw corruptLayer(this.pathOf(layer.key), `a read of ${length} bytes at ${position} (file too short)`);
  }

  /** Downloads a layer, unless that is under way. Throws `not-found` or `unavailable`. */
  bring(layer: LayerDescriptor): Promise<void> {
    const { key } = layer;
    let fetching = this.#fetching.get(key);
    if (!fetching) {
      fetching = this.#downloadTurns
        .run(() => this.#download(layer))
        .finally(() => this.#fetching.delete(key));
      this.#fetching.set(key, fetching);
    }
    return fetching;
  }

  /** Runs `read`; when the local file is damaged and object storage has the layer, fetches it and reads once more. */
  async mended<T>(layer: LayerDescriptor, read: () => Promise<T>): Promise<T> {
    try {
      return await read();
    } catch (error) {
      if (!(error instanceof PalimpsestError) || error.code !== 'corrupt') throw error;
      let mending = this.#mending.get(layer.key);
      if (!mending) this.#mending.set(layer.key, (mending = this.#mend(layer, error)));
      await mending;
      return read();
    }
  }

  #isReadByRange({ key, bytes }: LayerDescriptor): boolean {
    const { diskBytesMax } = this.#options;
    if (diskBytesMax === undefined || this.#files.has(key)) return false;
    return bytes > SMALL_LAYER_BYTES;
  }

  async #readRange(
    layer: LayerDescriptor,
    position: number,
    length: number,
    memory?: Uint8Array,
  ): Promise<Uint8Array> {
    const cost = (this.#rangeCosts.get(layer.key) ?? 0) + Math.max(length, RANGE_COST_BYTES);
    if (cost >= layer.bytes) {
      await this.bring(layer);
      return this.#readLocal(layer, position, memory ?? new Uint8Array(length));
    }
    this.#rangeCosts.set(layer.key, cost);
    this.rangedReads++;
    return this.#options.objects.get(layer.key, { offset: position, length });
  }

  async #readLocal(layer: LayerDescriptor, position: number, bytes: Uint8Array): Promise<Uint8Array> {
    const open = await this.#openLayer(layer);
    open.users++;
    try {
      const count = await open.file.read(bytes, position);
      return bytes.subarray(0, count);
    } finally {
      open.users--;
      if (open.doomed && open.users === 0) closeQuietly(open.file);
    }
  }

  async #openLayer(layer: LayerDescriptor): Promise<OpenFile> {
    const { key } = layer;
    for (;;) {
      const open = this.#open.get(key);
      if (open) {
        touch(this.#open, key, open);
        const file = this.#files.get(key);
        if (file) touch(this.#files, key, file);
        return open;
      }
      let opening = this.#opening.get(key);
      if (!opening) {
        opening = this.#openFile(layer).finally(() => this.#opening.delete(key));
        this.#opening.set(key, opening);
      }
      await opening;
    }
  }

  async #openFile(layer: LayerDescriptor): Promise<void> {
    const path = this.pathOf(layer.key);
    let file: DiskFile;
    try {
      file = await this.#options.disk.open(path, { readOnly: true });
    } catch (error) {
      if (!(error instanceof PalimpsestError) || error.code !== 'not-found') throw error;
      await this.bring(layer);
      file = await this.#options.disk.open(path, { readOnly: true });
    }
    this.#open.set(layer.key, { file, users: 0, doomed: false });
    for (const key of this.#open.keys()) {
      if (this.#open.size <= OPEN_FILES_MAX) break;
      if (key !== layer.key) this.#doom(key);
    }
  }

  async #download(layer: LayerDescriptor): Promise<void> {
    const { disk, objects, log } = this.#options;
    const path = this.pathOf(layer.key);
    log.info({ layer: layer.key, bytes: layer.bytes }, 'fetching a layer from objects');
    await disk.makeDirectory(path.slice(0, path.lastIndexOf('/')));
    await objects.getFile(layer.key, path);
    this.downloads++;
    this.#rangeCosts.delete(layer.key);
    this.added(layer);
    this.mayEvict(layer);
  }

  async #mend(layer: LayerDescriptor, damage: PalimpsestError): Promise<void> {
    if (!(await this.#options.objects.head(layer.key))) throw damage;
    this.#options.log.error(
      { layer: layer.key, error: damage.message },
      'a local layer file is damaged: fetching it again',
    );
    this.#doom(layer.key);
    await this.bring(layer);
    // Whoever opened the file while it was being fetched holds the damaged one.
    await this.#opening.get(layer.key)?.catch(() => {});
    this.#doom(layer.key);
  }

  /** Starts to make room, if that is needed and not under way. */
  #evict(): void {
    const { diskBytesMax } = this.#options;
    if (diskBytesMax === undefined || this.#evicting || this.#bytes <= diskBytesMax) return;
    this.#evicting = this.#makeRoom(diskBytesMax).then(
      () => {
        this.#evicting = undefined;
      },
      (error) => {
        this.#evicting = undefined;
        this.#options.log.warn({ error: String(error) }, 'a layer file could not be evicted');
      },
    );
  }

  async #makeRoom(bytesMax: number): Promise<void> {
    for (const [key, file] of this.#files) {
      if (this.#bytes <= bytesMax) return;
      const isInUse = (this.#open.get(key)?.users ?? 0) > 0 || this.#opening.has(key);
      if (!file.mayGo || isInUse) continue;
      this.evictions++;
      await this.remove(key);
    }
  }

  #drop(key: string): void {
    this.#doom(key);
    const file = this.#files.get(key);
    if (!file) return;
    this.#files.delete(key);
    this.#bytes -= file.bytes;
  }

  #doom(key: string): void {
    const open = this.#open.get(key);
    if (!open) return;
    this.#open.delete(key);
    open.doomed = true;
    if (open.users === 0) closeQuietly(open.file);
  }
}

function touch<T>(map: Map<string, T>, key: string, value: T): void {
  map.delete(key);
  map.set(key, value);
}

function ignoreMissing(error: unknown): void {
  if (!(error instanceof PalimpsestError) || error.code !== 'not-found') throw error;
}

/** A file that was only read has nothing to lose. */
function closeQuietly(file: DiskFile): void {
  file.close().catch(() => {});
}
