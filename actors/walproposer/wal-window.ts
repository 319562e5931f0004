/**
 * Recent WAL in memory: what is on its way to the members, and what stragglers still need.
 *
 * Bytes are copied once into slabs, from which every member's frames are made. What a safekeeper holds durably may be
 * dropped beyond the limit: stragglers then read it from there. The slabs of what was dropped are used again.
 */
import type { Lsn } from '../../protocols/lsn.ts';

const SLAB_BYTES = 256 * 1024;

interface Slab {
  start: number;
  bytes: Uint8Array;
  used: number;
}

export class WalWindow {
  readonly #limitBytes: number;
  readonly #limitForStragglersBytes: number;
  #slabs: Slab[] = [];
  readonly #spare: Uint8Array[] = [];
  #end: Lsn;
  #held = 0;

  /** More than `limitBytes` is kept only while somebody still needs it, and up to `limitForStragglersBytes`. */
  constructor(start: Lsn, limitBytes: number, limitForStragglersBytes = limitBytes) {
    this.#end = start;
    this.#limitBytes = limitBytes;
    this.#limitForStragglersBytes = limitForStragglersBytes;
  }

  /** First LSN that is held; `end` when nothing is. */
  get start(): Lsn {
    return (this.#slabs[0]?.start ?? this.#end) as Lsn;
  }

  get end(): Lsn {
    return this.#end;
  }

  get heldBytes(): number {
    return this.#held;
  }

  get isOverLimit(): boolean {
    return this.#held > this.#limitBytes;
  }

  /** Appends a copy of `bytes` at `end`. */
  push(bytes: Uint8Array): void {
    let done = 0;
    while (done < bytes.length) {
      const slab = this.#slabWithRoom(bytes.length - done);
      const count = Math.min(bytes.length - done, slab.bytes.length - slab.used);
      slab.bytes.set(count === bytes.length ? bytes : bytes.subarray(done, done + count), slab.used);
      slab.used += count;
      this.#held += count;
      this.#end = (this.#end + count) as Lsn;
      done += count;
    }
  }

  /** A view of up to `bytesMax` bytes from `from`, which must lie in the window; valid until the next push. */
  slice(from: Lsn, bytesMax: number): Uint8Array {
    const slab = this.#slabAt(from);
    const offset = from - slab.start;
    return slab.bytes.subarray(offset, Math.min(slab.used, offset + bytesMax));
  }

  /** Forgets everything from `to` on: a partial record that the new term cuts off. */
  cut(to: Lsn): void {
    while (this.#slabs.length > 0 && this.#slabs.at(-1)!.start >= to) this.#held -= this.#slabs.pop()!.used;
    const last = this.#slabs.at(-1);
    if (last) {
      const used = Math.min(last.used, to - last.start);
      this.#held -= last.used - used;
      last.used = used;
    }
    this.#end = Math.min(this.#end, to) as Lsn;
  }

  /** Drops the oldest slabs above the limit, as far as they lie below `durableLsn`; `neededFrom` on is still to be sent. */
  trim(durableLsn: Lsn, neededFrom: Lsn = durableLsn): void {
    while (this.#held > this.#limitBytes && this.#slabs.length > 1) {
      const oldest = this.#slabs[0]!;
      const end = oldest.start + oldest.used;
      if (end > durableLsn) return;
      if (end > neededFrom && this.#held <= this.#limitForStragglersBytes) return;
      this.#slabs.shift();
      this.#held -= oldest.used;
      const keptBytes = this.#held + this.#spare.length * SLAB_BYTES;
      if (keptBytes < this.#limitForStragglersBytes) this.#spare.push(oldest.bytes);
    }
  }

  /** A message that would not fit in the last slab starts a new one, so that it stays one frame. */
  #slabWithRoom(wanted: number): Slab {
    const last = this.#slabs.at(-1);
    if (last && last.bytes.length - last.used >= Math.min(wanted, SLAB_BYTES)) return last;
    const bytes = this.#spare.pop() ?? new Uint8Array(SLAB_BYTES);
    const slab = { start: this.#end as number, bytes, used: 0 };
    this.#slabs.push(slab);
    return slab;
  }

  #slabAt(from: Lsn): Slab {
    // Nearly always the newest; stragglers walk a short list.
    for (let i = this.#slabs.length - 1; i >= 0; i--) {
      const slab = this.#slabs[i]!;
      if (slab.start <= from && from < slab.start + slab.used) return slab;
    }
    throw new RangeError(`LSN ${from} is not in the window`);
  }
}
