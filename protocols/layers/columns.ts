/**
 * Growing typed arrays: how a layer's index is collected without an object per entry.
 */
export class U32Column {
  #data = new Uint32Array(1024);
  length = 0;

  push(value: number): void {
    if (this.length === this.#data.length) {
      const grown = new Uint32Array(this.#data.length * 2);
      grown.set(this.#data);
      this.#data = grown;
    }
    this.#data[this.length++] = value;
  }

  at(index: number): number {
    return this.#data[index]!;
  }

  replace(index: number, value: number): void {
    this.#data[index] = value;
  }

  /** Empties the column; its memory stays. */
  clear(): void {
    this.length = 0;
  }

  bytes(): Uint8Array {
    return new Uint8Array(this.#data.buffer, 0, this.length * 4);
  }

  /** The values, without a copy: valid until the next push. */
  values(): Uint32Array {
    return this.#data.subarray(0, this.length);
  }
}

export class F64Column {
  #data = new Float64Array(1024);
  length = 0;

  push(value: number): void {
    if (this.length === this.#data.length) {
      const grown = new Float64Array(this.#data.length * 2);
      grown.set(this.#data);
      this.#data = grown;
    }
    this.#data[this.length++] = value;
  }

  /** Empties the column; its memory stays. */
  clear(): void {
    this.length = 0;
  }

  bytes(): Uint8Array {
    return new Uint8Array(this.#data.buffer, 0, this.length * 8);
  }
}
