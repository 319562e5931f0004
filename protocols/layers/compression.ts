/**
 * zstd over small pieces. Synchronous by measurement: a piece of 16 KiB takes 20 to 50 microseconds, less than a trip to the
 * thread pool costs; callers with many pieces yield between them.
 */
import { constants, createZstdCompress, zstdCompressSync, zstdDecompressSync } from 'node:zlib';

/** Level 1 compresses pages about as well as higher levels, at several hundred MB/s. */
const OPTIONS = { params: { [constants.ZSTD_c_compressionLevel]: 1 } };
/** What does not become smaller by this share stays as it is, and costs nothing to read. */
const SHARE_MAX = 0.9;
const BYTES_MIN = 64;
/** Larger pieces are rare, and for them the making of a context is a small part. */
const REUSED_BYTES_MAX = 64 * 1024;
/** More than zstd ever makes of a piece. */
const OUTPUT_BYTES = REUSED_BYTES_MAX + REUSED_BYTES_MAX / 128 + 1024;

/** The compressed bytes, valid until the next call, or undefined when compressing is not worth it. */
export function compress(bytes: Uint8Array): Uint8Array | undefined {
  if (bytes.length < BYTES_MIN) return undefined;
  const compressed = compressReusing(bytes) ?? zstdCompressSync(bytes, OPTIONS);
  return compressed.length <= bytes.length * SHARE_MAX ? compressed : undefined;
}

/** The part of Node's stream that calls zstd; `state` is what is left of the output and of the input after a call. */
interface Context {
  handle: { writeSync(...args: unknown[]): void };
  state: Uint32Array;
  output: Uint8Array;
}

let context: Context | undefined | 'none';

/**
 * Compresses in a context that is kept: making one, as every call of `zstdCompressSync` does, takes nearly as long as
 * compressing, and leaves as much for the garbage collector. Node offers that for streams only, so what it takes is looked for
 * under its internal names; undefined when it is not there, or did not do the whole piece. The bytes are those of `zstdCompressSync`.
 */
function compressReusing(bytes: Uint8Array): Uint8Array | undefined {
  if (bytes.length > REUSED_BYTES_MAX) return undefined;
  context ??= makeContext() ?? 'none';
  if (context === 'none') return undefined;
  const { handle, state, output } = context;
  state[0] = 0;
  state[1] = bytes.length;
  handle.writeSync(constants.ZSTD_e_end, bytes, 0, bytes.length, output, 0, output.length);
  const [outputLeft, inputLeft] = state;
  if (inputLeft !== 0 || outputLeft === 0) {
    // It may be in the middle of a frame: what comes next must not be continued from here.
    context = undefined;
    return undefined;
  }
  return output.subarray(0, output.length - outputLeft!);
}

function makeContext(): Context | undefined {
  const stream = createZstdCompress(OPTIONS) as unknown as { _handle?: unknown; _writeState?: unknown };
  const handle = stream._handle as Context['handle'] | undefined;
  const state = stream._writeState;
  if (typeof handle?.writeSync !== 'function' || !(state instanceof Uint32Array) || state.length !== 2)
    return;
  return { handle, state, output: new Uint8Array(OUTPUT_BYTES) };
}

/** The original bytes, in a buffer aligned to 8. Throws when they are not `rawLength`, or not a zstd frame. */
export function decompress(bytes: Uint8Array, rawLength: number): Uint8Array {
  // One byte more than it takes: an output that is full makes Node allocate another one and try again.
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
