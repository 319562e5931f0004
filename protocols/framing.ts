/**
 * Framing of channels: u32 length of what follows (little endian), u8 type, body. The same on every transport.
 */
export const FRAME_HEADER_BYTES = 5;
/** A frame above this is refused: a peer that sends it is broken. */
export const FRAME_BYTES_MAX = 64 * 1024 * 1024;

const INITIAL_BYTES = 4 * 1024;
/** Memory for a larger frame that came in pieces is given up when the frame is delivered. */
const KEPT_BYTES_MAX = 1024 * 1024;

/** Returns the five bytes that come before a body of `bodyBytes`. */
export function frameHeader(type: number, bodyBytes: number): Uint8Array {
  const length = bodyBytes + 1;
  return Uint8Array.of(length, length >>> 8, length >>> 16, length >>> 24, type);
}

/**
 * Cuts a byte stream into frames. `onFrame` gets a view that is valid only during the call. Throws a RangeError for a frame above
 * the limit. A frame that lies whole in a chunk is not copied; of one that does not, each byte is copied once.
 */
export class FrameReader {
  /** The beginning of a frame whose end has not come; most channels never need more than a little. */
  #buffer = new Uint8Array(INITIAL_BYTES);
  #used = 0;
  readonly #onFrame: (type: number, body: Uint8Array) => void;

  constructor(onFrame: (type: number, body: Uint8Array) => void) {
    this.#onFrame = onFrame;
  }

  push(received: Uint8Array): void {
    // A Buffer's slice() is a view where everybody expects a copy: bodies must never be Buffers.
    const chunk = new Uint8Array(received.buffer, received.byteOffset, received.byteLength);
    let at = this.#used > 0 ? this.#complete(chunk) : 0;
    while (chunk.length - at >= FRAME_HEADER_BYTES) {
      const end = at + frameBytes(chunk, at);
      if (end > chunk.length) break;
      this.#onFrame(chunk[at + 4]!, chunk.subarray(at + FRAME_HEADER_BYTES, end));
      at = end;
    }
    if (at < chunk.length) this.#take(chunk, at, chunk.length - at);
  }

  /** Takes what the frame that has begun lacks, and delivers it when it is whole; returns how much of the chunk that was. */
  #complete(chunk: Uint8Array): number {
    let at = 0;
    if (this.#used < FRAME_HEADER_BYTES) at = this.#take(chunk, 0, FRAME_HEADER_BYTES - this.#used);
    if (this.#used < FRAME_HEADER_BYTES) return at;
    const bytes = frameBytes(this.#buffer, 0);
    // Not more than that on the word of a peer alone.
    this.#reserve(Math.min(bytes, KEPT_BYTES_MAX));
    at += this.#take(chunk, at, bytes - this.#used);
    if (this.#used < bytes) return at;
    const buffer = this.#buffer;
    this.#used = 0;
    if (buffer.length > KEPT_BYTES_MAX) this.#buffer = new Uint8Array(INITIAL_BYTES);
    this.#onFrame(buffer[4]!, buffer.subarray(FRAME_HEADER_BYTES, bytes));
    return at;
  }

  /** Keeps up to `wanted` bytes of the chunk from `at` on; returns how many there were. */
  #take(chunk: Uint8Array, at: number, wanted: number): number {
    const count = Math.min(wanted, chunk.length - at);
    this.#reserve(this.#used + count);
    this.#buffer.set(at === 0 && count === chunk.length ? chunk : chunk.subarray(at, at + count), this.#used);
    this.#used += count;
    return count;
  }

  #reserve(bytes: number): void {
    if (bytes <= this.#buffer.length) return;
    const grown = new Uint8Array(Math.max(bytes, this.#buffer.length * 2));
    grown.set(this.#buffer.subarray(0, this.#used));
    this.#buffer = grown;
  }
}

/** Bytes of the frame that begins at `at`, its header included. */
function frameBytes(bytes: Uint8Array, at: number): number {
  const length = (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;
  if (length < 1 || length > FRAME_BYTES_MAX) throw new RangeError(`frame of ${length} bytes`);
  return 4 + length;
}
