/**
 * Randomness from the operating system. Named streams are independent of each other by nature here; the names
 * matter to the simulator, which derives each stream from its seed.
 */
import { randomFillSync } from 'node:crypto';
import type { Random } from '../ports/random.ts';

/** Drawn at once, so that a small draw costs no system call. */
const POOL_BYTES = 4096;

export class SystemRandom implements Random {
  readonly #pool = Buffer.alloc(POOL_BYTES);
  #used = POOL_BYTES;

  bytes(count: number): Uint8Array {
    const out = new Uint8Array(count);
    if (count > POOL_BYTES / 4) return randomFillSync(out);
    const from = this.#take(count);
    out.set(this.#pool.subarray(from, from + count));
    return out;
  }

  float(): number {
    const from = this.#take(7);
    // 53 bits: all that a double in [0, 1) can hold evenly.
    const high = this.#pool.readUIntLE(from, 3) & 0x1fffff;
    return (high * 2 ** 32 + this.#pool.readUInt32LE(from + 3)) / 2 ** 53;
  }

  int(bound: number): number {
    if (!Number.isSafeInteger(bound) || bound < 1) throw new RangeError(`not a bound: ${bound}`);
    return Math.floor(this.float() * bound);
  }

  stream(_name: string): Random {
    return this;
  }

  /** Position of `count` fresh bytes in the pool. */
  #take(count: number): number {
    if (this.#used + count > POOL_BYTES) {
      randomFillSync(this.#pool);
      this.#used = 0;
    }
    const from = this.#used;
    this.#used += count;
    return from;
  }
}
