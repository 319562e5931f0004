/**
 * Small numbers for relations, one table per process: the hot paths carry a number in place of four. Numbers are
 * given once and never taken back; they mean nothing outside of the process.
 */
import type { RelationTag } from '../../protocols/pages/types.ts';

const INITIAL_SLOTS = 4096;

export class RelationTable {
  /** Tags by number. */
  spc = new Uint32Array(INITIAL_SLOTS / 2);
  db = new Uint32Array(INITIAL_SLOTS / 2);
  rel = new Uint32Array(INITIAL_SLOTS / 2);
  fork = new Uint8Array(INITIAL_SLOTS / 2);
  #count = 0;
  /** Open addressing; 0 is free, else the number plus one. */
  #slots = new Int32Array(INITIAL_SLOTS);
  #last = -1;

  get count(): number {
    return this.#count;
  }

  tag(id: number): RelationTag {
    return { spc: this.spc[id]!, db: this.db[id]!, rel: this.rel[id]!, fork: this.fork[id]! };
  }

  /** The number of a relation, or -1 when it never got one. */
  find(spc: number, db: number, rel: number, fork: number): number {
    const last = this.#last;
    if (last >= 0 && this.#is(last, spc, db, rel, fork)) return last;
    const mask = this.#slots.length - 1;
    for (let slot = hash(spc, db, rel, fork) & mask; ; slot = (slot + 1) & mask) {
      const id = this.#slots[slot]! - 1;
      if (id < 0) return -1;
      if (this.#is(id, spc, db, rel, fork)) return (this.#last = id);
    }
  }

  /** The number of a relation; a new one on first sight. */
  idOf(spc: number, db: number, rel: number, fork: number): number {
    const found = this.find(spc, db, rel, fork);
    return found >= 0 ? found : this.#add(spc, db, rel, fork);
  }

  /** Order of two relations by their tags, as layer files sort them. */
  compare(a: number, b: number): number {
    return (
      this.spc[a]! - this.spc[b]! ||
      this.db[a]! - this.db[b]! ||
      this.rel[a]! - this.rel[b]! ||
      this.fork[a]! - this.fork[b]!
    );
  }

  #is(id: number, spc: number, db: number, rel: number, fork: number): boolean {
    return this.rel[id] === rel && this.fork[id] === fork && this.db[id] === db && this.spc[id] === spc;
  }

  #add(spc: number, db: number, rel: number, fork: number): number {
    if (this.#count === this.spc.length) this.#grow();
    const id = this.#count++;
    this.spc[id] = spc;
    this.db[id] = db;
    this.rel[id] = rel;
    this.fork[id] = fork;
    this.#place(id);
    return (this.#last = id);
  }

  #place(id: number): void {
    const mask = this.#slots.length - 1;
    let slot = hash(this.spc[id]!, this.db[id]!, this.rel[id]!, this.fork[id]!) & mask;
    while (this.#slots[slot] !== 0) slot = (slot + 1) & mask;
    this.#slots[slot] = id + 1;
  }

  #grow(): void {
    const capacity = this.spc.length * 2;
    this.spc = grown(this.spc, new Uint32Array(capacity));
    this.db = grown(this.db, new Uint32Array(capacity));
    this.rel = grown(this.rel, new Uint32Array(capacity));
    this.fork = grown(this.fork, new Uint8Array(capacity));
    this.#slots = new Int32Array(capacity * 2);
    for (let id = 0; id < this.#count; id++) this.#place(id);
  }
}

function hash(spc: number, db: number, rel: number, fork: number): number {
  let h = Math.imul(rel, 0x9e3779b1) ^ Math.imul(db, 0x85ebca6b) ^ Math.imul(spc * 4 + fork, 0xc2b2ae35);
  h ^= h >>> 15;
  return h >>> 0;
}

function grown<T extends Uint32Array | Uint8Array>(from: T, to: T): T {
  to.set(from);
  return to;
}
