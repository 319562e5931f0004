/**
 * Framing of channels: u32 length of what follows (little endian), u8 type, body. The same on every transport.
 */
export const FRAME_HEADER_BYTES = 5;
/** A frame above this is refused: a peer that sends it is broken. */
export const FRAME_BYTES_MAX = 64 * 1024 * 1024;

const INITIAL_BYTES = 4 * 1024;

/** Returns the five bytes that come before a body of `bodyBytes`. */
export function frameHeader(type: number, bodyBytes: number): Uint8Array {
  const length = bodyBytes + 1;
  return Uint8Array.of(length, length >>> 8, length >>> 16, length >>> 24, type);
}

/**
 * Cuts a byte stream into frames. `onFrame` gets a view that is valid only during the call.
 * Throws a RangeError for a frame above the limit.
 */
export class FrameReader {
  /** What is left over of chunks; most channels never need more than a little. */
  #buffer = new Uint8Array(INITIAL_BYTES);
  #start = 0;
  #end = 0;
  readonly #onFrame: (type: number, body: Uint8Array) => void;

  constructor(onFrame: (type: number, body: Uint8Array) => void) {
    this.#onFrame = onFrame;
  }

  push(received: Uint8Array): void {
    // A Buffer's slice() is a view where everybody expects a copy: bodies must never be Buffers.
    const chunk = new Uint8Array(received.buffer, received.byteOffset, received.byteLength);
    // With nothing left over from before, whole frames are cut from the chunk itself and only its rest is copied.
    const rest = this.#start === this.#end ? this.#cut(chunk, 0, chunk.length) : 0;
    if (rest === chunk.length) return;
    const extra = chunk.length - rest;
    this.#reserve(extra);
    this.#buffer.set(rest === 0 ? chunk : chunk.subarray(rest), this.#end);
    this.#end += extra;
    if (rest > 0) return;
    this.#start = this.#cut(this.#buffer, this.#start, this.#end);
    if (this.#start === this.#end) this.#start = this.#end = 0;
  }

  /** Delivers the whole frames of `bytes` between `start` and `end`; returns where the rest begins. */
  #cut(bytes: Uint8Array, start: number, end: number): number {
    let at = start;
    while (end - at >= FRAME_HEADER_BYTES) {
      const length =
        (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;
      if (length < 1 || length > FRAME_BYTES_MAX) throw new RangeError(`frame of ${length} bytes`);
      if (end - at < 4 + length) break;
      const body = bytes.subarray(at + 5, at + 4 + length);
      const type = bytes[at + 4]!;
      at += 4 + length;
      this.#onFrame(type, body);
    }
    return at;
  }

  #reserve(extra: number): void {
    if (this.#end + extra <= this.#buffer.length) return;
    const live = this.#end - this.#start;
    if (live + extra > this.#buffer.length) {
      const grown = new Uint8Array(Math.max(this.#buffer.length * 2, (live + extra) * 2));
      grown.set(this.#buffer.subarray(this.#start, this.#end));
      this.#buffer = grown;
    } else {
      this.#buffer.copyWithin(0, this.#start, this.#end);
    }
    this.#start = 0;
    this.#end = live;
  }
}
