/**
 * WAL segments that were fetched from object storage, as files: a bounded cache of a node. It begins empty at every start, so
 * nothing in it needs to be synced or checked again.
 */
import type { Lsn } from '../../protocols/lsn.ts';
import type { Disk, DiskFile } from '../../runtime/ports/disk.ts';
import { Turns } from './turns.ts';

/** Fetched at the same time; a node serves commits beside it. */
const FETCHES_MAX = 2;

interface Entry {
  path: string;
  file: DiskFile;
  /** The WAL that the file holds, from its first byte on. */
  from: Lsn;
  to: Lsn;
  /** Reads under way: a file is removed only when there are none. */
  users: number;
  isDropped: boolean;
}

/** Writes an object's WAL by `put`; resolves with the stretch that it is. */
export type FetchSegment = (
  put: (block: Uint8Array, at: Lsn, from: Lsn) => Promise<void>,
) => Promise<{ from: Lsn; to: Lsn }>;

export interface SegmentCacheOptions {
  disk: Disk;
  folder: string;
  /** Each is at most 16 MiB. */
  segmentsMax: number;
}

export class SegmentCache {
  readonly #options: SegmentCacheOptions;
  /** By key of the object, most recently used last. Promises, so that one segment is fetched once. */
  readonly #entries = new Map<string, Promise<Entry>>();
  readonly #gate = new Turns(FETCHES_MAX);
  #files = 0;
  #ready: Promise<void> | undefined;
  fetches = 0;

  constructor(options: SegmentCacheOptions) {
    this.#options = options;
  }

  /** Reads into `into` from `from` on; returns how many bytes the object has there. */
  async read(key: string, from: Lsn, into: Uint8Array, download: FetchSegment): Promise<number> {
    const entry = await this.#entry(key, download);
    entry.users++;
    try {
      const length = Math.min(into.length, entry.to - from);
      if (from < entry.from || length <= 0) return 0;
      return await entry.file.read(into.subarray(0, length), from - entry.from);
    } finally {
      entry.users--;
      if (entry.isDropped && entry.users === 0) await this.#remove(entry);
    }
  }

  /** Forgets everything whose key begins with `prefix`. */
  async forget(prefix: string): Promise<void> {
    const keys = [...this.#entries.keys()].filter((key) => key.startsWith(prefix));
    await Promise.all(keys.map((key) => this.#drop(key)));
  }

  #entry(key: string, download: FetchSegment): Promise<Entry> {
    const known = this.#entries.get(key);
    const entry = known ?? this.#gate.run(() => this.#fetch(download));
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    if (!known) {
      entry.catch(() => this.#entries.delete(key));
      if (this.#entries.size > this.#options.segmentsMax) {
        void this.#drop(this.#entries.keys().next().value!).catch(() => {});
      }
    }
    return entry;
  }

  async #fetch(download: FetchSegment): Promise<Entry> {
    const { disk, folder } = this.#options;
    this.#ready ??= this.#prepare();
    await this.#ready.catch((error) => {
      this.#ready = undefined;
      throw error;
    });
    this.fetches++;
    const path = `${folder}/${this.#files++}`;
    const file = await disk.open(path, { create: true, exclusive: true });
    const entry: Entry = { path, file, from: 0 as Lsn, to: 0 as Lsn, users: 0, isDropped: false };
    try {
      const { from, to } = await download((block, at, first) => file.write([block], at - first));
      return Object.assign(entry, { from, to });
    } catch (error) {
      await this.#remove(entry).catch(() => {});
      throw error;
    }
  }

  async #prepare(): Promise<void> {
    const { disk, folder } = this.#options;
    await disk.removeTree(folder);
    await disk.makeDirectory(folder);
  }

  async #drop(key: string): Promise<void> {
    const opening = this.#entries.get(key);
    this.#entries.delete(key);
    const entry = await opening?.catch(() => undefined);
    if (!entry) return;
    entry.isDropped = true;
    if (entry.users === 0) await this.#remove(entry);
  }

  async #remove(entry: Entry): Promise<void> {
    await entry.file.close();
    await this.#options.disk.remove(entry.path);
  }
}
