/**
 * Materialised pages, least recently used ones first to go (by the clock algorithm), in one slab that is allocated once.
 *
 * An entry holds the newest version that was materialised of a page, with two LSNs: `pageLsn`, of the last change that
 * it contains, and `asOf`, up to which no other change follows. It answers reads at pageLsn..asOf as it is, and is the
 * base for reads after asOf. One page of a shard has at most one entry.
 */
import { PAGE_BYTES } from '../../protocols/lsn.ts';

const NONE = -1;

export class PageCache {
  readonly capacity: number;
  readonly pageLsn: Float64Array;
  readonly asOf: Float64Array;
  readonly #slab: Uint8Array;
  readonly #sources: Uint32Array;
  readonly #relations: Uint32Array;
  readonly #blocks: Uint32Array;
  /** 0 free, 1 used, 2 used since the hand passed. */
  readonly #state: Uint8Array;
  /** Chained hashing: heads by bucket, next by slot. */
  readonly #buckets: Int32Array;
  readonly #next: Int32Array;
  #hand = 0;
  hits = 0;
  misses = 0;

  constructor(bytes: number) {
    this.capacity = Math.max(16, Math.floor(bytes / PAGE_BYTES));
    this.#slab = new Uint8Array(this.capacity * PAGE_BYTES);
    this.pageLsn = new Float64Array(this.capacity);
    this.asOf = new Float64Array(this.capacity);
    this.#sources = new Uint32Array(this.capacity);
    this.#relations = new Uint32Array(this.capacity);
    this.#blocks = new Uint32Array(this.capacity);
    this.#state = new Uint8Array(this.capacity);
    this.#next = new Int32Array(this.capacity).fill(NONE);
    this.#buckets = new Int32Array(2 ** Math.ceil(Math.log2(this.capacity * 2))).fill(NONE);
  }

  /** The slot of a page, -1 when it is not cached. */
  find(source: number, relation: number, block: number): number {
    let slot = this.#buckets[this.#bucket(source, relation, block)]!;
    while (slot !== NONE) {
      if (
        this.#blocks[slot] === block &&
        this.#relations[slot] === relation &&
        this.#sources[slot] === source
      ) {
        this.#state[slot] = 2;
        return slot;
      }
      slot = this.#next[slot]!;
    }
    return NONE;
  }

  /** Copies the page of a slot to `target`. */
  copyTo(slot: number, target: Uint8Array, offset: number): void {
    const from = slot * PAGE_BYTES;
    target.set(this.#slab.subarray(from, from + PAGE_BYTES), offset);
  }

  /** Keeps a version of a page unless a newer one is there; returns whether it was kept. */
  put(
    key: { source: number; relation: number; block: number },
    version: { pageLsn: number; asOf: number },
    page: Uint8Array,
    offset: number,
  ): boolean {
    let slot = this.find(key.source, key.relation, key.block);
    if (slot !== NONE && this.asOf[slot]! > version.asOf) return false;
    if (slot === NONE) {
      slot = this.#evict();
      this.#sources[slot] = key.source;
      this.#relations[slot] = key.relation;
      this.#blocks[slot] = key.block;
      const bucket = this.#bucket(key.source, key.relation, key.block);
      this.#next[slot] = this.#buckets[bucket]!;
      this.#buckets[bucket] = slot;
      this.#state[slot] = 1;
    }
    this.pageLsn[slot] = version.pageLsn;
    this.asOf[slot] = version.asOf;
    this.#slab.set(page.subarray(offset, offset + PAGE_BYTES), slot * PAGE_BYTES);
    return true;
  }

  /** Forgets all pages of a source: a shard that was detached. */
  forget(source: number): void {
    for (let slot = 0; slot < this.capacity; slot++) {
      if (this.#state[slot] !== 0 && this.#sources[slot] === source) this.#remove(slot);
    }
  }

  #evict(): number {
    for (;;) {
      const slot = this.#hand;
      this.#hand = slot + 1 === this.capacity ? 0 : slot + 1;
      if (this.#state[slot] === 2) {
        this.#state[slot] = 1;
        continue;
      }
      if (this.#state[slot] === 1) this.#remove(slot);
      return slot;
    }
  }

  #remove(slot: number): void {
    const bucket = this.#bucket(this.#sources[slot]!, this.#relations[slot]!, this.#blocks[slot]!);
    let at = this.#buckets[bucket]!;
    if (at === slot) this.#buckets[bucket] = this.#next[slot]!;
    else {
      while (this.#next[at] !== slot) at = this.#next[at]!;
      this.#next[at] = this.#next[slot]!;
    }
    this.#next[slot] = NONE;
    this.#state[slot] = 0;
  }

  #bucket(source: number, relation: number, block: number): number {
    let h = Math.imul(block, 0x9e3779b1) ^ Math.imul(relation, 0x85ebca6b) ^ Math.imul(source, 0xc2b2ae35);
    h ^= h >>> 15;
    return h & (this.#buckets.length - 1);
  }
}
