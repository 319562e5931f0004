/**
 * Memory for what a request fetches from layers, used again for the next one. New memory for every block would have the garbage
 * collector go through the whole heap many times a second, and single reads wait for it.
 */

/** Sizes are powers of two between these; what is larger is not kept. */
const SMALLEST_BITS = 12;
const LARGEST_BITS = 21;
/** Memory that lies ready at most. */
const SPARE_BYTES_MAX = 8 * 1024 * 1024;

export class ReadMemory {
  readonly #spare: Uint8Array[][] = [];
  #spareBytes = 0;

  /** `bytes` bytes, aligned to 8, with anything in them. */
  take(bytes: number): Uint8Array {
    const bits = bitsOf(bytes);
    if (bits > LARGEST_BITS) return new Uint8Array(bytes);
    const spare = this.#spare[bits]?.pop();
    if (spare) this.#spareBytes -= spare.length;
    return (spare ?? new Uint8Array(2 ** bits)).subarray(0, bytes);
  }

  /** For what comes next: nobody looks at `memory`, which `take` gave, any more. */
  giveBack(memory: Uint8Array): void {
    const whole = new Uint8Array(memory.buffer);
    const bits = bitsOf(whole.length);
    if (bits > LARGEST_BITS || this.#spareBytes + whole.length > SPARE_BYTES_MAX) return;
    this.#spare[bits] ??= [];
    this.#spare[bits].push(whole);
    this.#spareBytes += whole.length;
  }
}

function bitsOf(bytes: number): number {
  return Math.max(SMALLEST_BITS, 32 - Math.clz32(bytes - 1));
}
