/**
 * A hash map from (relation number, block) to a positive integer, in one typed array: a layer in memory has an entry per
 * page, and objects would cost ten times as much.
 *
 * A slot is three integers (relation, block, value), so that finding a page touches one line of the processor's cache.
 * Blocks of a group of eight are neighbours in the table, as they are mostly asked for one after another.
 */
const SLOT = 3;
const BLOCK = 1;
const VALUE = 2;
const GROUP_BITS = 3;
const GROUP_MASK = 2 ** GROUP_BITS - 1;

export class PageMap {
  /** 0 as the value marks a free slot. */
  #slots = new Int32Array(256 * SLOT);
  #mask = 255;
  #count = 0;

  get size(): number {
    return this.#count;
  }

  /** Bytes that the map holds. */
  get bytes(): number {
    return this.#slots.length * 4;
  }

  /** The value of a page, 0 when it has none. */
  get(relation: number, block: number): number {
    return this.#slots[this.#find(relation, block) + VALUE]!;
  }

  /** Sets the value of a page, which must not be 0; returns the one before, 0 when it had none. */
  exchange(relation: number, block: number, value: number): number {
    const at = this.#find(relation, block);
    const before = this.#slots[at + VALUE]!;
    this.#slots[at + VALUE] = value;
    if (before !== 0) return before;
    this.#slots[at] = relation;
    this.#slots[at + BLOCK] = block;
    this.#count++;
    if (this.#count * 2 > this.#mask) this.#grow();
    return 0;
  }

  forEach(visit: (relation: number, block: number, value: number) => void): void {
    const slots = this.#slots;
    for (let at = 0; at < slots.length; at += SLOT) {
      const value = slots[at + VALUE]!;
      if (value !== 0) visit(slots[at]! >>> 0, slots[at + BLOCK]! >>> 0, value);
    }
  }

  /** Where the page's slot is, or the free one where it belongs. */
  #find(relation: number, block: number): number {
    const slots = this.#slots;
    let h = Math.imul(block >>> GROUP_BITS, 0x9e3779b1) ^ Math.imul(relation, 0x85ebca6b);
    h ^= h >>> 15;
    for (let slot = (h << GROUP_BITS) | (block & GROUP_MASK); ; slot++) {
      const at = (slot & this.#mask) * SLOT;
      if (slots[at + VALUE] === 0) return at;
      if (slots[at + BLOCK] === (block | 0) && slots[at] === (relation | 0)) return at;
    }
  }

  #grow(): void {
    const before = this.#slots;
    this.#slots = new Int32Array(before.length * 2);
    this.#mask = this.#mask * 2 + 1;
    for (let from = 0; from < before.length; from += SLOT) {
      if (before[from + VALUE] === 0) continue;
      const at = this.#find(before[from]!, before[from + BLOCK]!);
      this.#slots[at] = before[from]!;
      this.#slots[at + BLOCK] = before[from + BLOCK]!;
      this.#slots[at + VALUE] = before[from + VALUE]!;
    }
  }
}
