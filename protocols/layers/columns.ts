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

  replace(index: number, value: number): void {
    this.#data[index] = value;
  }

  bytes(): Uint8Array {
    return new Uint8Array(this.#data.buffer, 0, this.length * 4);
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

  bytes(): Uint8Array {
    return new Uint8Array(this.#data.buffer, 0, this.length * 8);
  }
}
