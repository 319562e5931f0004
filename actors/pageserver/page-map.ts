/**
 * A hash map from (relation number, block) to a positive integer, in typed arrays: a layer in memory has an entry per
 * page, and objects would cost ten times as much.
 */
export class PageMap {
  #relations = new Uint32Array(256);
  #blocks = new Uint32Array(256);
  /** 0 marks a free slot. */
  #values = new Int32Array(256);
  #count = 0;

  get size(): number {
    return this.#count;
  }

  /** Bytes that the map holds. */
  get bytes(): number {
    return this.#values.length * 12;
  }

  /** The value of a page, 0 when it has none. */
  get(relation: number, block: number): number {
    return this.#values[this.#slot(relation, block)]!;
  }

  /** `value` must not be 0. */
  set(relation: number, block: number, value: number): void {
    const slot = this.#slot(relation, block);
    if (this.#values[slot] === 0) {
      this.#relations[slot] = relation;
      this.#blocks[slot] = block;
      this.#count++;
    }
    this.#values[slot] = value;
    if (this.#count * 2 > this.#values.length) this.#grow();
  }

  forEach(visit: (relation: number, block: number, value: number) => void): void {
    for (let slot = 0; slot < this.#values.length; slot++) {
      const value = this.#values[slot]!;
      if (value !== 0) visit(this.#relations[slot]!, this.#blocks[slot]!, value);
    }
  }

  #slot(relation: number, block: number): number {
    const mask = this.#values.length - 1;
    let h = Math.imul(block, 0x9e3779b1) ^ Math.imul(relation, 0x85ebca6b);
    h ^= h >>> 15;
    for (let slot = h & mask; ; slot = (slot + 1) & mask) {
      if (this.#values[slot] === 0) return slot;
      if (this.#blocks[slot] === block && this.#relations[slot] === relation) return slot;
    }
  }

  #grow(): void {
    const relations = this.#relations;
    const blocks = this.#blocks;
    const values = this.#values;
    const capacity = values.length * 2;
    this.#relations = new Uint32Array(capacity);
    this.#blocks = new Uint32Array(capacity);
    this.#values = new Int32Array(capacity);
    for (let from = 0; from < values.length; from++) {
      if (values[from] === 0) continue;
      const slot = this.#slot(relations[from]!, blocks[from]!);
      this.#relations[slot] = relations[from]!;
      this.#blocks[slot] = blocks[from]!;
      this.#values[slot] = values[from]!;
    }
  }
}
