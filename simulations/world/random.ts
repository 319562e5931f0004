/**
 * Seeded randomness in named streams. A stream's numbers follow from (seed, name) alone: a new draw in one subsystem
 * shifts nothing in another. The generator is xoshiro128**, seeded through splitmix32.
 *
 * A run may be forked: from then on every stream goes on with other numbers, which follow from (seed, name, future).
 */
import type { Random } from '../../runtime/ports/random.ts';

/** What all streams of a run draw from. */
export interface Entropy {
  readonly seed: number;
  /** Which future the run is in; 0 is the one that belongs to the seed. */
  future: number;
}

export class SimRandom implements Random {
  readonly #entropy: Entropy;
  readonly #name: string;
  #future = 0;
  #a = 0;
  #b = 0;
  #c = 0;
  #d = 0;

  constructor(source: number | Entropy, name: string) {
    this.#entropy = typeof source === 'number' ? { seed: source, future: 0 } : source;
    this.#name = name;
    this.#begin();
  }

  #begin(): void {
    const { seed, future } = this.#entropy;
    this.#future = future;
    const name = future === 0 ? this.#name : `${this.#name}/future ${future}`;
    let state = hashText(name, (seed ^ Math.imul(Math.floor(seed / 2 ** 32), 0x9e3779b1)) >>> 0);
    const next = () => {
      state = (state + 0x9e3779b9) | 0;
      let z = state;
      z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
      z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
      return (z ^ (z >>> 16)) >>> 0;
    };
    this.#a = next();
    this.#b = next();
    this.#c = next();
    this.#d = next() | 1;
  }

  /** 32 random bits. */
  next(): number {
    if (this.#entropy.future !== this.#future) this.#begin();
    const scaled = Math.imul(this.#b, 5);
    const result = Math.imul((scaled << 7) | (scaled >>> 25), 9) >>> 0;
    const shifted = this.#b << 9;
    this.#c ^= this.#a;
    this.#d ^= this.#b;
    this.#b ^= this.#c;
    this.#a ^= this.#d;
    this.#c ^= shifted;
    this.#d = (this.#d << 11) | (this.#d >>> 21);
    return result;
  }

  float(): number {
    return this.next() / 2 ** 32;
  }

  int(bound: number): number {
    if (!Number.isSafeInteger(bound) || bound < 1) throw new RangeError(`not a bound: ${bound}`);
    return Math.floor((((this.next() & 0x1fffff) * 2 ** 32 + this.next()) / 2 ** 53) * bound);
  }

  bytes(count: number): Uint8Array {
    const out = new Uint8Array(count);
    for (let at = 0; at < count; at++) out[at] = this.next() >>> 24;
    return out;
  }

  stream(name: string): SimRandom {
    return new SimRandom(this.#entropy, `${this.#name}/${name}`);
  }

  /** A number in [low, high). */
  between(low: number, high: number): number {
    return low + this.float() * (high - low);
  }

  chance(probability: number): boolean {
    return this.float() < probability;
  }

  pick<T>(items: readonly T[]): T {
    return items[this.int(items.length)]!;
  }

  /** Mostly near `mean`, now and then far above it, as latencies are. */
  exponential(mean: number): number {
    return -Math.log(1 - this.float()) * mean;
  }
}

/** A 32-bit hash of a text, mixed with `seed`. */
export function hashText(text: string, seed = 0): number {
  let hash = (0x811c9dc5 ^ seed) | 0;
  for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x7feb352d);
  hash = Math.imul(hash ^ (hash >>> 15), 0x846ca68b);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/** A 32-bit hash of bytes; long ones are sampled, because it only has to tell two runs of one seed apart. */
export function hashBytes(bytes: Uint8Array, seed = 0): number {
  let hash = (0x811c9dc5 ^ seed ^ bytes.length) | 0;
  const step = bytes.length <= 256 ? 1 : Math.floor(bytes.length / 128);
  for (let at = 0; at < bytes.length; at += step) hash = Math.imul(hash ^ bytes[at]!, 0x01000193);
  return hash >>> 0;
}
