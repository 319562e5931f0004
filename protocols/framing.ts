/**
 * Framing of channels: u32 length of what follows (little endian), u8 type, body. The same on every transport.
 */
export const FRAME_HEADER_BYTES = 5;
/** A frame above this is refused: a peer that sends it is broken. */
export const FRAME_BYTES_MAX = 64 * 1024 * 1024;

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
  #buffer = new Uint8Array(256 * 1024);
  #start = 0;
  #end = 0;
  readonly #onFrame: (type: number, body: Uint8Array) => void;

  constructor(onFrame: (type: number, body: Uint8Array) => void) {
    this.#onFrame = onFrame;
  }

  push(chunk: Uint8Array): void {
    this.#reserve(chunk.length);
    this.#buffer.set(chunk, this.#end);
    this.#end += chunk.length;
    while (this.#end - this.#start >= FRAME_HEADER_BYTES) {
      const b = this.#buffer;
      const s = this.#start;
      const length = (b[s]! | (b[s + 1]! << 8) | (b[s + 2]! << 16) | (b[s + 3]! << 24)) >>> 0;
      if (length < 1 || length > FRAME_BYTES_MAX) throw new RangeError(`frame of ${length} bytes`);
      if (this.#end - s < 4 + length) break;
      this.#start = s + 4 + length;
      this.#onFrame(b[s + 4]!, b.subarray(s + 5, s + 4 + length));
    }
    if (this.#start === this.#end) this.#start = this.#end = 0;
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
