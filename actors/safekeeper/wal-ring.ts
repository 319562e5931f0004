/**
 * The newest WAL of a replica in memory: what waits for the disk, and what readers that are close behind want.
 *
 * It is small after a pause and grows with what it has to hold: a node has thousands of replicas, most of which get a few commits
 * at a time, and memory that is taken anew for each of them costs more than the commit.
 */
import type { Lsn } from '../../protocols/lsn.ts';

/** Most WAL that is held. */
export const RING_BYTES_MAX = 2 * 1024 * 1024;
const RING_BYTES_MIN = 32 * 1024;

export class WalRing {
  #bytes: Uint8Array | undefined;
  /** Nothing below was put here since the memory was given back. */
  #start: Lsn;
  #end: Lsn;

  constructor(end: Lsn) {
    this.#start = this.#end = end;
  }

  /** Where the next bytes go. */
  get end(): Lsn {
    return this.#end;
  }

  /** Everything from here to the end is held. */
  get start(): Lsn {
    return Math.max(this.#start, this.#end - RING_BYTES_MAX) as Lsn;
  }

  /** Takes a copy of bytes at the end; those that then lie too far back are gone. */
  push(bytes: Uint8Array): void {
    const ring = this.#withRoomFor(bytes.length);
    const offset = this.#end % ring.length;
    const first = Math.min(bytes.length, ring.length - offset);
    ring.set(first === bytes.length ? bytes : bytes.subarray(0, first), offset);
    if (first < bytes.length) ring.set(bytes.subarray(first), 0);
    this.#end = (this.#end + bytes.length) as Lsn;
  }

  /** The bytes from `from` to `to`, in at most two views. They stay as they are until so much more was put here that they are gone. */
  parts(from: Lsn, to: Lsn): Uint8Array[] {
    if (from === to) return [];
    const ring = this.#bytes!;
    const offset = from % ring.length;
    const length = to - from;
    if (offset + length <= ring.length) return [ring.subarray(offset, offset + length)];
    return [ring.subarray(offset), ring.subarray(0, offset + length - ring.length)];
  }

  /** Copies the bytes from `from` on. */
  copy(from: Lsn, into: Uint8Array): void {
    let done = 0;
    for (const part of this.parts(from, (from + into.length) as Lsn)) {
      into.set(part, done);
      done += part.length;
    }
  }

  /** Nothing from `to` on is wanted; the next bytes go there. */
  cut(to: Lsn): void {
    this.#start = Math.min(this.start, to) as Lsn;
    this.#end = to;
  }

  /** Gives the memory back; nothing is held then. */
  release(): void {
    this.#bytes = undefined;
    this.#start = this.#end;
  }

  /** The ring, twice as large as before, or more, where what is held would not stay in it. */
  #withRoomFor(more: number): Uint8Array {
    if (more > RING_BYTES_MAX) throw new RangeError(`${more} bytes at once`);
    const old = this.#bytes;
    const needed = Math.min(this.#end - this.start + more, RING_BYTES_MAX);
    if (old && old.length >= needed) return old;
    let size = old?.length ?? RING_BYTES_MIN;
    while (size < needed) size *= 2;
    const ring = new Uint8Array(size);
    const { start } = this;
    let at: number = start;
    for (const part of old ? this.parts(start, this.#end) : []) {
      for (let done = 0; done < part.length; ) {
        const offset = at % size;
        const length = Math.min(part.length - done, size - offset);
        ring.set(part.subarray(done, done + length), offset);
        done += length;
        at += length;
      }
    }
    this.#bytes = ring;
    return ring;
  }
}
