/**
 * The overlay's store: one local file of page-sized slots, bounded, with eviction.
 *
 * A page that was written locally sits in a slot until storage is sure to have it. When the bound is reached, pages
 * whose owner agrees are dropped; they are asked from storage again when they are read. When nothing can be dropped
 * (commits wait, or the pages are not WAL-logged) the pool grows beyond its bound and counts that, instead of failing.
 */
import { PAGE_BYTES } from '../../../protocols/lsn.ts';

/** Slots looked at in one attempt to make room. */
const SCAN_SLOTS_MAX = 4096;
/** Pages dropped in one attempt, so that the scan's cost is shared. */
const EVICTIONS_PER_SCAN = 64;
/** Allocations without another scan after one that found nothing; fewer in a small pool. */
const SCAN_PAUSE_ALLOCATIONS = 256;

/** Synchronous page-sized reads and writes on a local file. */
export interface SlotStore {
  /** Bytes beyond the end read as zeros. */
  read(into: Uint8Array, offset: number, length: number, position: number): void;
  write(from: Uint8Array, offset: number, length: number, position: number): void;
  truncate(bytes: number): void;
}

/** A file that has pages in slots. */
export interface SlotOwner {
  /** Drops the page from the overlay when storage is sure to have this version of it; says whether it did. */
  evict(page: number, slot: number, pageLsn: number): boolean;
}

export interface SlotPoolStatistics {
  usedSlots: number;
  allocatedSlots: number;
  evictedPages: number;
  /** Slots allocated above the bound, because nothing could be evicted. */
  slotsBeyondBound: number;
}

export class SlotPool {
  readonly #store: SlotStore;
  readonly #slotsMax: number;
  #owners: (SlotOwner | undefined)[] = [];
  #pages: Int32Array;
  #lsns: Float64Array;
  #touched: Uint8Array;
  #free: number[] = [];
  #allocated = 0;
  #used = 0;
  #hand = 0;
  #scanPause = 0;
  #evicted = 0;
  #beyondBound = 0;

  constructor(store: SlotStore, bytesMax: number) {
    this.#store = store;
    this.#slotsMax = Math.max(16, Math.floor(bytesMax / PAGE_BYTES));
    this.#pages = new Int32Array(1024);
    this.#lsns = new Float64Array(1024);
    this.#touched = new Uint8Array(1024);
  }

  /**
   * Takes slots that lie one after the other for up to `wanted` pages from `page` on, at least one. Their former content is
   * undefined.
   */
  allocate(owner: SlotOwner, page: number, wanted: number): { slot: number; count: number } {
    if (this.#free.length === 0 && this.#allocated >= this.#slotsMax) this.#makeRoom();
    const run = this.#free.length > 0 ? this.#takeFree(wanted) : this.#extend(wanted);
    for (let i = 0; i < run.count; i++) {
      this.#owners[run.slot + i] = owner;
      this.#pages[run.slot + i] = page + i;
      this.#lsns[run.slot + i] = 0;
    }
    this.#used += run.count;
    return run;
  }

  release(slot: number): void {
    if (!this.#owners[slot]) throw new RangeError(`slot ${slot} is free already`);
    this.#owners[slot] = undefined;
    this.#used--;
    if (this.#used > 0) {
      this.#free.push(slot);
      return;
    }
    // Nothing is kept any more: give the disk space back.
    this.#free = [];
    this.#allocated = 0;
    this.#hand = 0;
    this.#store.truncate(0);
  }

  /** Reads `length` bytes of `slot` and those after it. */
  read(slot: number, into: Uint8Array, offset: number, length: number, within = 0): void {
    this.#touch(slot, within + length);
    this.#store.read(into, offset, length, slot * PAGE_BYTES + within);
  }

  write(slot: number, from: Uint8Array, offset: number, length: number, within = 0): void {
    this.#touch(slot, within + length);
    this.#store.write(from, offset, length, slot * PAGE_BYTES + within);
  }

  /** Remembers the LSN in the header of the page that was just written whole; 0 keeps it for ever. */
  setPageLsn(slot: number, pageLsn: number): void {
    this.#lsns[slot] = pageLsn;
  }

  statistics(): SlotPoolStatistics {
    return {
      usedSlots: this.#used,
      allocatedSlots: this.#allocated,
      evictedPages: this.#evicted,
      slotsBeyondBound: this.#beyondBound,
    };
  }

  #touch(slot: number, bytes: number): void {
    for (let at = slot, left = bytes; left > 0; at++, left -= PAGE_BYTES) this.#touched[at] = 1;
  }

  /** Takes the ascending run at the end of the list: pages that were dropped together lay together. */
  #takeFree(wanted: number): { slot: number; count: number } {
    const free = this.#free;
    let first = free.length - 1;
    while (first > 0 && free.length - first < wanted && free[first - 1] === free[first]! - 1) first--;
    const slot = free[first]!;
    const count = free.length - first;
    free.length = first;
    return { slot, count };
  }

  #extend(wanted: number): { slot: number; count: number } {
    const slot = this.#allocated;
    const count = Math.max(1, Math.min(wanted, this.#slotsMax - slot));
    if (slot >= this.#slotsMax) this.#beyondBound++;
    this.#allocated += count;
    if (this.#allocated > this.#pages.length) {
      const grown = Math.max(this.#pages.length * 2, this.#allocated);
      const pages = new Int32Array(grown);
      pages.set(this.#pages);
      this.#pages = pages;
      const lsns = new Float64Array(grown);
      lsns.set(this.#lsns);
      this.#lsns = lsns;
      const touched = new Uint8Array(grown);
      touched.set(this.#touched);
      this.#touched = touched;
    }
    return { slot, count };
  }

  /** One sweep of the clock's hand: a slot used since the last sweep gets a second chance. */
  #makeRoom(): void {
    if (this.#scanPause > 0) {
      this.#scanPause--;
      return;
    }
    const looks = Math.min(SCAN_SLOTS_MAX, this.#allocated * 2);
    let found = 0;
    for (let i = 0; i < looks && found < EVICTIONS_PER_SCAN; i++) {
      const slot = this.#hand;
      this.#hand = this.#hand + 1 >= this.#allocated ? 0 : this.#hand + 1;
      const owner = this.#owners[slot];
      if (!owner || this.#lsns[slot] === 0) continue;
      if (this.#touched[slot]) {
        this.#touched[slot] = 0;
        continue;
      }
      if (!owner.evict(this.#pages[slot]!, slot, this.#lsns[slot]!)) continue;
      this.#owners[slot] = undefined;
      this.#used--;
      this.#free.push(slot);
      this.#evicted++;
      found++;
    }
    if (found === 0) this.#scanPause = Math.min(SCAN_PAUSE_ALLOCATIONS, this.#allocated >> 4);
  }
}
