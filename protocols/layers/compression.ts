/**
 * zstd over small pieces. Synchronous by measurement: a piece of 16 KiB takes 20 to 50 microseconds, less than a trip to the
 * thread pool costs; callers with many pieces yield between them.
 */
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';

/** Level 1 compresses pages about as well as higher levels, at several hundred MB/s. */
const OPTIONS = { params: { [constants.ZSTD_c_compressionLevel]: 1 } };
/** What does not become smaller by this share stays as it is, and costs nothing to read. */
const SHARE_MAX = 0.9;
const BYTES_MIN = 64;

/** The compressed bytes, or undefined when compressing is not worth it. */
export function compress(bytes: Uint8Array): Uint8Array | undefined {
  if (bytes.length < BYTES_MIN) return undefined;
  const compressed = zstdCompressSync(bytes, OPTIONS);
  return compressed.length <= bytes.length * SHARE_MAX ? compressed : undefined;
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
