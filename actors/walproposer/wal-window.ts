/**
 * Recent WAL in memory: what is on its way to the members, and what stragglers still need.
 *
 * Bytes are copied once into slabs that are never changed afterwards, so that every member's frames can refer to them.
 * What a safekeeper holds durably may be dropped beyond the limit: stragglers then read it from there.
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
  #slabs: Slab[] = [];
  #end: Lsn;
  #held = 0;

  constructor(start: Lsn, limitBytes: number) {
    this.#end = start;
    this.#limitBytes = limitBytes;
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

  /** A view of up to `bytesMax` bytes from `from`, which must lie in the window. It stays valid and unchanged. */
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
      // The bytes after the cut may still be referred to: what follows goes to a new slab.
      this.#slabs[this.#slabs.length - 1] = { start: last.start, bytes: last.bytes.subarray(0, used), used };
    }
    this.#end = Math.min(this.#end, to) as Lsn;
  }

  /** Drops the oldest slabs above the limit, as far as they lie below `durableLsn`. */
  trim(durableLsn: Lsn): void {
    while (this.#held > this.#limitBytes && this.#slabs.length > 1) {
      const oldest = this.#slabs[0]!;
      if (oldest.start + oldest.used > durableLsn) return;
      this.#slabs.shift();
      this.#held -= oldest.used;
    }
  }

  /** A message that would not fit in the last slab starts a new one, so that it stays one frame. */
  #slabWithRoom(wanted: number): Slab {
    const last = this.#slabs.at(-1);
    if (last && last.bytes.length - last.used >= Math.min(wanted, SLAB_BYTES)) return last;
    const slab = { start: this.#end as number, bytes: new Uint8Array(SLAB_BYTES), used: 0 };
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
