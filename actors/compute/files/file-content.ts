/**
 * The bytes of one file: pages written here lie in the overlay, all others come from storage.
 *
 * 1. A page that was never written here, below the file's storage size, is read at the newest LSN with
 *    `notModifiedSince` = the LSN of the start: any newer version of it would be in shared buffers or in the overlay.
 * 2. What a truncation cuts off is local for ever: it reads as zeros when the file grows again, never as an old image.
 * 3. A page leaves the overlay only when its header's LSN is committed, its file is WAL-logged, and storage knows the
 *    file; it is then read with `notModifiedSince` >= that LSN. Free space and visibility maps stay: their changes
 *    leave no (complete) trace in their LSN.
 * 4. Pages of zeros beyond the storage size need no slot.
 */
import { LATEST_LSN, type Lsn, PAGE_BYTES, WAL_SEGMENT_BYTES } from '../../../protocols/lsn.ts';
import type { ReadPoint, RelationEntry, RelationTag } from '../../../protocols/pages/types.ts';
import { PAGE_EVICTED, PAGE_UNTOUCHED, PageStates } from './page-states.ts';
import type { SlotOwner, SlotPool } from './slot-pool.ts';

/** Pages of one request to storage. */
export const FETCH_PAGES_MAX = 256;
const ZERO_PAGE = new Uint8Array(PAGE_BYTES);

/** Where pages come from. Each call ends within a time limit of its own. */
export interface PageSource {
  getPages(
    request: ReadPoint & RelationTag & { firstBlock: number; count: number },
    into?: Uint8Array,
  ): Promise<Uint8Array>;
  getDirectory(request: ReadPoint & { db: number }): Promise<RelationEntry[]>;
}

/** What all files of one mount share. */
export interface FileStorage {
  source: PageSource;
  /** The LSN of the start. */
  startLsn: Lsn;
  /** For a read-only compute: everything is read at exactly this LSN. */
  fixedLsn?: Lsn;
  /** Newest LSN that a quorum has. */
  committedLsn(): number;
  statistics: { fetchRequests: number; fetchedPages: number; overlayPages: number; writtenPages: number };
}

export interface ContentOptions {
  storage: FileStorage;
  /** Where pages lie that are written here. */
  pool: SlotPool;
  /** Where untouched pages come from; absent for files that storage does not know. */
  remote?: { tag: RelationTag; firstBlock: number; pages: number };
  /** Whether pages may be dropped once they are committed; asked at each eviction. */
  mayEvict?: () => boolean;
}

export class FileContent implements SlotOwner {
  size: number;
  readonly #storage: FileStorage;
  readonly #pool: SlotPool;
  readonly #states = new PageStates();
  readonly #tag: RelationTag | undefined;
  readonly #firstBlock: number;
  readonly #mayEvict: () => boolean;
  /** Pages below this number were in storage when the file appeared, and were not cut off since. */
  #remotePages: number;
  #evictedLsn = 0;
  /** Only versions newer than this are known to be in storage: a copied page carries its older LSN before storage has the copy. */
  readonly #evictableAfterLsn: number;

  constructor(options: ContentOptions) {
    this.#storage = options.storage;
    this.#pool = options.pool;
    this.#tag = options.remote?.tag;
    this.#firstBlock = options.remote?.firstBlock ?? 0;
    this.#remotePages = options.remote?.pages ?? 0;
    this.#mayEvict = options.mayEvict ?? (() => false);
    this.size = this.#remotePages * PAGE_BYTES;
    // Smaller LSNs are markers (index builds, unlogged relations), not positions in the WAL.
    this.#evictableAfterLsn =
      this.#remotePages > 0
        ? WAL_SEGMENT_BYTES - 1
        : Math.max(WAL_SEGMENT_BYTES - 1, options.storage.committedLsn());
  }

  /**
   * Reads up to `length` bytes. The result is a view of `scratch`, which must hold the pages around the range. When a promise
   * comes back, pages are fetched, and `scratch` belongs to this read until then.
   */
  read(offset: number, length: number, scratch: Buffer): Buffer | Promise<Buffer> {
    const end = Math.min(offset + length, this.size);
    if (end <= offset) return scratch.subarray(0, 0);
    const first = Math.floor(offset / PAGE_BYTES);
    const last = Math.ceil(end / PAGE_BYTES);
    const start = offset - first * PAGE_BYTES;
    let remote = false;
    for (let page = first; page < last && !remote; page++) remote = this.isRemote(page);
    if (!remote) {
      this.#readLocal(first, last, scratch, 0);
      return scratch.subarray(start, start + end - offset);
    }
    return this.#readMixed(first, last, scratch).then((pages) => pages.subarray(start, start + end - offset));
  }

  /** Writes `data`; waits only when a part of a page in storage is overwritten. */
  write(offset: number, data: Uint8Array): undefined | Promise<void> {
    const end = offset + data.length;
    const first = Math.floor(offset / PAGE_BYTES);
    const last = Math.floor((end - 1) / PAGE_BYTES);
    const cutsFirst = offset % PAGE_BYTES !== 0 && this.isRemote(first);
    const cutsLast = end % PAGE_BYTES !== 0 && end < this.size && this.isRemote(last);
    if (!cutsFirst && !cutsLast) {
      this.#writePages(offset, data);
      return undefined;
    }
    const copy = Uint8Array.from(data);
    return this.#adopt(cutsFirst ? [first] : [], cutsLast ? [last] : []).then(() => {
      this.#writePages(offset, copy);
    });
  }

  /** Sets the size; false when that would cut through a page that only storage has. */
  resize(size: number): boolean {
    if (size < this.size) {
      const keptPages = Math.ceil(size / PAGE_BYTES);
      const within = size % PAGE_BYTES;
      if (within !== 0 && this.isRemote(keptPages - 1)) return false;
      this.#states.clearFrom(keptPages, (slot) => this.#pool.release(slot));
      this.#remotePages = Math.min(this.#remotePages, keptPages);
      if (within !== 0) {
        const slot = this.#states.get(keptPages - 1);
        if (slot >= 0) this.#pool.write(slot, ZERO_PAGE, 0, PAGE_BYTES - within, within);
      }
    } else {
      // A write that failed half-way may have left pages beyond the end.
      this.#states.clearFrom(Math.ceil(this.size / PAGE_BYTES), (slot) => this.#pool.release(slot));
    }
    this.size = size;
    return true;
  }

  /** Frees all slots: the file is gone. */
  discard(): void {
    this.#states.clearFrom(0, (slot) => this.#pool.release(slot));
    this.#remotePages = 0;
    this.size = 0;
  }

  /** Whether the page has to be fetched. */
  isRemote(page: number): boolean {
    const state = this.#states.get(page);
    return state === PAGE_EVICTED || (state === PAGE_UNTOUCHED && page < this.#remotePages);
  }

  evict(page: number, _slot: number, pageLsn: number): boolean {
    if (pageLsn > this.#storage.committedLsn() || pageLsn <= this.#evictableAfterLsn) return false;
    if (!this.#tag || !this.#mayEvict()) return false;
    this.#states.set(page, PAGE_EVICTED);
    this.#evictedLsn = Math.max(this.#evictedLsn, pageLsn);
    return true;
  }

  /** Calls back for each page that lies in the overlay; `page` is valid only during the call. */
  forEachWrittenPage(visit: (block: number, page: Uint8Array) => void): void {
    const page = new Uint8Array(PAGE_BYTES);
    this.#states.forEachSlot((index, slot) => {
      this.#pool.read(slot, page, 0, PAGE_BYTES);
      visit(this.#firstBlock + index, page);
    });
  }

  #readLocal(first: number, last: number, into: Uint8Array, at: number): void {
    for (let page = first; page < last; ) {
      const offset = at + (page - first) * PAGE_BYTES;
      const count = this.#runLength(page, last);
      const slot = this.#states.get(page);
      if (slot >= 0) this.#pool.read(slot, into, offset, count * PAGE_BYTES);
      else into.fill(0, offset, offset + count * PAGE_BYTES);
      page += count;
    }
    this.#storage.statistics.overlayPages += last - first;
  }

  async #readMixed(first: number, last: number, scratch: Buffer): Promise<Buffer> {
    const pages = scratch.subarray(0, (last - first) * PAGE_BYTES);
    const fetches: Promise<unknown>[] = [];
    for (let page = first; page < last; ) {
      const remote = this.isRemote(page);
      let end = page + 1;
      while (end < last && this.isRemote(end) === remote && (!remote || end - page < FETCH_PAGES_MAX)) end++;
      const at = (page - first) * PAGE_BYTES;
      if (remote) fetches.push(this.#fetch(page, pages.subarray(at, at + (end - page) * PAGE_BYTES)));
      else this.#readLocal(page, end, pages, at);
      page = end;
    }
    await Promise.all(fetches);
    return pages;
  }

  #fetch(page: number, into: Uint8Array): Promise<unknown> {
    const storage = this.#storage;
    const count = into.length / PAGE_BYTES;
    storage.statistics.fetchRequests++;
    storage.statistics.fetchedPages += count;
    const { spc, db, rel, fork } = this.#tag!;
    return storage.source.getPages(
      {
        lsn: storage.fixedLsn ?? LATEST_LSN,
        notModifiedSince: storage.fixedLsn ?? (Math.max(storage.startLsn, this.#evictedLsn) as Lsn),
        spc,
        db,
        rel,
        fork,
        firstBlock: this.#firstBlock + page,
        count,
      },
      into,
    );
  }

  /** Brings pages of storage into the overlay, so that a part of them can be overwritten. */
  async #adopt(...groups: number[][]): Promise<void> {
    for (const page of new Set(groups.flat())) {
      const content = new Uint8Array(PAGE_BYTES);
      await this.#fetch(page, content);
      if (this.isRemote(page)) this.#writePages(page * PAGE_BYTES, content);
    }
  }

  #writePages(offset: number, data: Uint8Array): void {
    let done = 0;
    while (done < data.length) {
      const page = Math.floor((offset + done) / PAGE_BYTES);
      const within = (offset + done) % PAGE_BYTES;
      const left = data.length - done;
      if (within === 0 && left >= PAGE_BYTES) {
        done += this.#writeRun(page, page + Math.floor(left / PAGE_BYTES), data, done) * PAGE_BYTES;
      } else {
        const bytes = Math.min(PAGE_BYTES - within, left);
        this.#writePart(page, within, data, done, bytes);
        done += bytes;
      }
    }
    this.size = Math.max(this.size, offset + data.length);
  }

  /** Writes the first of the whole pages `first` to `last` that can be written at once, and says how many. */
  #writeRun(first: number, last: number, data: Uint8Array, at: number): number {
    const slot = this.#states.get(first);
    const isBlank = slot === PAGE_UNTOUCHED && first >= this.#remotePages && isZeroPage(data, at);
    if (isBlank) return 1;
    let count = this.#runLength(first, last);
    if (slot >= 0) {
      this.#pool.write(slot, data, at, count * PAGE_BYTES);
      this.#notePageLsns(slot, count, data, at);
    } else {
      count = this.#writeToNewSlots(first, count, data, at);
    }
    this.#storage.statistics.writtenPages += count;
    return count;
  }

  /** Pages from `first` on that lie in slots one after the other, or that all lie in none. */
  #runLength(first: number, last: number): number {
    const slot = this.#states.get(first);
    let end = first + 1;
    if (slot >= 0) while (end < last && this.#states.get(end) === slot + end - first) end++;
    else while (end < last && this.#states.get(end) < 0) end++;
    return end - first;
  }

  /** Puts pages into slots, as many as lie together. When the disk has no room for them, everything stays as it was. */
  #writeToNewSlots(first: number, wanted: number, data: Uint8Array, at: number): number {
    const { slot, count } = this.#pool.allocate(this, first, wanted);
    try {
      this.#pool.write(slot, data, at, count * PAGE_BYTES);
    } catch (error) {
      for (let i = 0; i < count; i++) this.#pool.release(slot + i);
      throw error;
    }
    for (let i = 0; i < count; i++) this.#states.set(first + i, slot + i);
    this.#notePageLsns(slot, count, data, at);
    return count;
  }

  #notePageLsns(slot: number, count: number, data: Uint8Array, at: number): void {
    for (let i = 0; i < count; i++) {
      this.#pool.setPageLsn(slot + i, this.#tag ? pageLsn(data, at + i * PAGE_BYTES) : 0);
    }
  }

  #writePart(page: number, within: number, data: Uint8Array, at: number, bytes: number): void {
    const pool = this.#pool;
    if (this.#states.get(page) < 0) this.#writeToNewSlots(page, 1, ZERO_PAGE, 0);
    const slot = this.#states.get(page);
    pool.write(slot, data, at, bytes, within);
    pool.setPageLsn(slot, 0);
  }
}

/** The LSN in a page's header: high half first, each half little endian. */
function pageLsn(data: Uint8Array, at: number): number {
  const high = data[at]! | (data[at + 1]! << 8) | (data[at + 2]! << 16) | (data[at + 3]! << 24);
  const low = data[at + 4]! | (data[at + 5]! << 8) | (data[at + 6]! << 16) | (data[at + 7]! << 24);
  return (high >>> 0) * 0x1_0000_0000 + (low >>> 0);
}

function isZeroPage(data: Uint8Array, at: number): boolean {
  // A page in use has its free space pointers set: most pages are told apart by these bytes alone.
  for (let i = at; i < at + 24; i++) if (data[i] !== 0) return false;
  return Buffer.compare(data.subarray(at, at + PAGE_BYTES), ZERO_PAGE) === 0;
}
