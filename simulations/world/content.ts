/**
 * The bytes of a simulated file, in chunks: what was never written takes no memory and reads as zeros, and a copy shares its
 * chunks with the original until one of them changes.
 */
const CHUNK_BYTES = 16 * 1024;

export class Content {
  readonly #chunks: (Uint8Array | undefined)[] = [];
  /** Whether a chunk is this content's alone, so that it may be written to. */
  readonly #isOwn: boolean[] = [];
  #size = 0;

  get size(): number {
    return this.#size;
  }

  write(position: number, data: Uint8Array): void {
    for (let done = 0; done < data.length; ) {
      const at = position + done;
      const offset = at % CHUNK_BYTES;
      const length = Math.min(data.length - done, CHUNK_BYTES - offset);
      this.#own(Math.floor(at / CHUNK_BYTES)).set(data.subarray(done, done + length), offset);
      done += length;
    }
    this.#size = Math.max(this.#size, position + data.length);
  }

  /** Fills `into` from `position`; returns how many bytes there were before the end. */
  read(into: Uint8Array, position: number): number {
    const length = Math.max(0, Math.min(into.length, this.#size - position));
    for (let done = 0; done < length; ) {
      const at = position + done;
      const offset = at % CHUNK_BYTES;
      const part = Math.min(length - done, CHUNK_BYTES - offset);
      const chunk = this.#chunks[Math.floor(at / CHUNK_BYTES)];
      if (chunk) into.set(chunk.subarray(offset, offset + part), done);
      else into.fill(0, done, done + part);
      done += part;
    }
    return length;
  }

  truncate(size: number): void {
    if (size < this.#size) {
      const last = Math.floor(size / CHUNK_BYTES);
      if (this.#chunks[last]) this.#own(last).fill(0, size % CHUNK_BYTES);
      this.#chunks.length = Math.min(this.#chunks.length, last + 1);
      this.#isOwn.length = this.#chunks.length;
    }
    this.#size = size;
  }

  copyFrom(other: Content): void {
    this.#chunks.length = this.#isOwn.length = other.#chunks.length;
    for (let at = 0; at < other.#chunks.length; at++) {
      this.#chunks[at] = other.#chunks[at];
      this.#isOwn[at] = other.#isOwn[at] = false;
    }
    this.#size = other.#size;
  }

  flipBit(offset: number, bit: number): void {
    if (offset >= this.#size) return;
    this.#own(Math.floor(offset / CHUNK_BYTES))[offset % CHUNK_BYTES]! ^= 1 << bit;
  }

  #own(at: number): Uint8Array {
    const chunk = this.#chunks[at];
    if (chunk && this.#isOwn[at]) return chunk;
    const own = new Uint8Array(CHUNK_BYTES);
    if (chunk) own.set(chunk);
    // Without holes in the list: every place before it has its own `undefined`.
    while (this.#chunks.length < at) {
      this.#chunks.push(undefined);
      this.#isOwn.push(false);
    }
    this.#chunks[at] = own;
    this.#isOwn[at] = true;
    return own;
  }
}
