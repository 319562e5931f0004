/**
 * Framing of channels: u32 length of what follows (little endian), u8 type, body. The same on every transport.
 */
export const FRAME_HEADER_BYTES = 5;
/** A frame above this is refused: a peer that sends it is broken. */
export const FRAME_BYTES_MAX = 64 * 1024 * 1024;

const INITIAL_BYTES = 4 * 1024;
/** A frame that lacks less than this is completed by a copy. */
const ROOM_FROM_BYTES = 8 * 1024;
const ROOM_BYTES = 256 * 1024;
/** With less room than this, what is kept moves to the front. */
const ROOM_BYTES_MIN = 128 * 1024;

/** Returns the five bytes that come before a body of `bodyBytes`. */
export function frameHeader(type: number, bodyBytes: number): Uint8Array {
  const length = bodyBytes + 1;
  return Uint8Array.of(length, length >>> 8, length >>> 16, length >>> 24, type);
}

/**
 * Cuts a byte stream into frames. `onFrame` gets a view that is valid only during the call.
 * Throws a RangeError for a frame above the limit.
 *
 * Of what is pushed only the beginning of a frame that is not whole yet is copied. While a long one is arriving, the next bytes of the
 * stream can be received into `room` at once, and `filled` says how many: then they are not copied at all.
 */
export class FrameReader {
  /** The beginning of a frame, from `#start` to `#end`; most channels never need more than a little. */
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
    let at = this.#start === this.#end ? 0 : this.#complete(chunk);
    at = this.#cut(chunk, at, chunk.length);
    if (at < chunk.length) this.#keep(chunk.subarray(at));
  }

  /** Where the next bytes of the stream may be received; undefined when they had better be pushed. Valid until the next call of `push`. */
  get room(): Uint8Array | undefined {
    if (this.#lacking() < ROOM_FROM_BYTES) return undefined;
    if (this.#buffer.length - this.#end < ROOM_BYTES_MIN) this.#reserve(ROOM_BYTES);
    return this.#buffer.subarray(this.#end);
  }

  /** The next `count` bytes of the stream are in `room`. */
  filled(count: number): void {
    this.#end += count;
    this.#start = this.#cut(this.#buffer, this.#start, this.#end);
    if (this.#start === this.#end) this.#start = this.#end = 0;
  }

  /** Delivers the whole frames of `bytes` between `start` and `end`; returns where the rest begins. */
  #cut(bytes: Uint8Array, start: number, end: number): number {
    let at = start;
    while (end - at >= FRAME_HEADER_BYTES) {
      const length = lengthAt(bytes, at);
      if (end - at < 4 + length) break;
      const body = bytes.subarray(at + 5, at + 4 + length);
      const type = bytes[at + 4]!;
      at += 4 + length;
      this.#onFrame(type, body);
    }
    return at;
  }

  /** Adds what the kept beginning lacks, as far as `chunk` has it, and delivers the frame when it is whole; returns the bytes taken. */
  #complete(chunk: Uint8Array): number {
    const header = Math.min(chunk.length, Math.max(0, FRAME_HEADER_BYTES - (this.#end - this.#start)));
    if (header > 0) this.#keep(chunk.subarray(0, header));
    const rest = Math.min(chunk.length - header, this.#lacking());
    if (rest > 0) this.#keep(chunk.subarray(header, header + rest));
    this.filled(0);
    return header + rest;
  }

  /** Bytes that the frame lacks whose header is kept; 0 when none is. */
  #lacking(): number {
    const kept = this.#end - this.#start;
    return kept < FRAME_HEADER_BYTES ? 0 : 4 + lengthAt(this.#buffer, this.#start) - kept;
  }

  #keep(bytes: Uint8Array): void {
    this.#reserve(bytes.length);
    this.#buffer.set(bytes, this.#end);
    this.#end += bytes.length;
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

/** What follows the length at `at`: the type and the body. */
function lengthAt(bytes: Uint8Array, at: number): number {
  const length = (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;
  if (length < 1 || length > FRAME_BYTES_MAX) throw new RangeError(`frame of ${length} bytes`);
  return length;
}
