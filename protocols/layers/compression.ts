/**
 * zstd over small pieces. Synchronous by measurement: a piece of 16 KiB takes 5 to 30 microseconds, less than a trip to the
 * thread pool costs; callers with many pieces yield between them.
 *
 * Both ways go through a context that is kept: making one, as every call of Node's synchronous functions does, takes several
 * times as long as decompressing a piece and as long as compressing one, and leaves as much for the garbage collector. Node offers
 * that for streams only, so what it takes is looked for under its internal names; where it is not there, or has not done
 * the whole piece, the synchronous functions do it. The bytes are the same.
 */
import {
  constants,
  createZstdCompress,
  createZstdDecompress,
  zstdCompressSync,
  zstdDecompressSync,
} from 'node:zlib';

/** Level 1 compresses pages about as well as higher levels, at several hundred MB/s. */
const OPTIONS = { params: { [constants.ZSTD_c_compressionLevel]: 1 } };
/** What does not become smaller by this share stays as it is, and costs nothing to read. */
const SHARE_MAX = 0.9;
const BYTES_MIN = 64;
/** Larger pieces are rare, and for them the making of a context is a small part. */
const REUSED_BYTES_MAX = 64 * 1024;
/** More than zstd ever makes of a piece. */
const OUTPUT_BYTES = REUSED_BYTES_MAX + REUSED_BYTES_MAX / 128 + 1024;
/** More than a context ever leaves of an output: what `state` says when a call has failed. */
const FAILED = 0xffffffff;

/** The part of Node's stream that calls zstd; `state` is what is left of the output and of the input after a call. */
interface Context {
  handle: { writeSync(...args: unknown[]): void };
  state: Uint32Array;
}

/** One direction: a context that is made when it is needed, and anew after a piece that it did not end. */
class ReusedContext {
  readonly #make: () => object;
  readonly #flush: number;
  #context: Context | undefined | 'none';

  constructor(make: () => object, flush: number) {
    this.#make = make;
    this.#flush = flush;
  }

  /** Bytes of `output` that were written for the whole of `input`; undefined when it was not done, or `output` is full. */
  run(input: Uint8Array, output: Uint8Array): number | undefined {
    this.#context ??= makeContext(this.#make) ?? 'none';
    if (this.#context === 'none') return undefined;
    const { handle, state } = this.#context;
    state[0] = FAILED;
    state[1] = input.length;
    handle.writeSync(this.#flush, input, 0, input.length, output, 0, output.length);
    const [outputLeft, inputLeft] = state;
    if (inputLeft !== 0 || outputLeft === 0 || outputLeft === FAILED) {
      this.forget();
      return undefined;
    }
    return output.length - outputLeft!;
  }

  /** The context may be in the middle of a frame: what comes next must not be continued from there. */
  forget(): void {
    this.#context = undefined;
  }
}

function makeContext(make: () => object): Context | undefined {
  const stream = make() as {
    _handle?: Context['handle'];
    _writeState?: Uint32Array;
    on(event: 'error', ignore: () => void): void;
  };
  // A piece that is damaged is an error of the stream as well; the caller is told by the state.
  stream.on('error', () => {});
  const { _handle: handle, _writeState: state } = stream;
  if (typeof handle?.writeSync !== 'function' || !(state instanceof Uint32Array) || state.length !== 2)
    return;
  return { handle, state };
}

const compressing = new ReusedContext(() => createZstdCompress(OPTIONS), constants.ZSTD_e_end);
const decompressing = new ReusedContext(() => createZstdDecompress(), constants.ZSTD_e_continue);
let compressed: Uint8Array | undefined;

/** The compressed bytes, valid until the next call, or undefined when compressing is not worth it. */
export function compress(bytes: Uint8Array): Uint8Array | undefined {
  if (bytes.length < BYTES_MIN) return undefined;
  const result = compressReusing(bytes) ?? zstdCompressSync(bytes, OPTIONS);
  return result.length <= bytes.length * SHARE_MAX ? result : undefined;
}

function compressReusing(bytes: Uint8Array): Uint8Array | undefined {
  if (bytes.length > REUSED_BYTES_MAX) return undefined;
  compressed ??= new Uint8Array(OUTPUT_BYTES);
  const length = compressing.run(bytes, compressed);
  return length === undefined ? undefined : compressed.subarray(0, length);
}

/** Bytes that `decompress` wants to have for a piece: a multiple of 8, and more than it takes, so that a longer one shows. */
export function roomFor(rawLength: number): number {
  return (rawLength + 8) & ~7;
}

/**
 * The original bytes, aligned to 8: in `room` (of `roomFor(rawLength)` bytes, aligned to 8) if it is given. Throws when they are not
 * `rawLength`, or not a zstd frame.
 */
export function decompress(
  bytes: Uint8Array,
  rawLength: number,
  room: Uint8Array = new Uint8Array(roomFor(rawLength)),
): Uint8Array {
  const length = decompressing.run(bytes, room);
  if (length === rawLength) return room.subarray(0, length);
  decompressing.forget();
  const raw = zstdDecompressSync(bytes, {
    chunkSize: Math.max(64, rawLength + 1),
    maxOutputLength: rawLength,
  });
  if (raw.length !== rawLength) throw new RangeError(`${raw.length} bytes instead of ${rawLength}`);
  return aligned(new Uint8Array(raw.buffer, raw.byteOffset, raw.byteLength));
}

/** The bytes themselves, or a copy when typed arrays could not be laid over them. */
export function aligned(bytes: Uint8Array): Uint8Array {
  return bytes.byteOffset % 8 === 0 ? bytes : new Uint8Array(bytes);
}
