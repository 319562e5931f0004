/**
 * Decompression of one LZ4 block: tokens with literal and match lengths, extended by bytes of 255.
 */
import { PageContentError } from './errors.ts';

/** Decompresses `source[from, end)` into exactly `size` bytes of `target`. */
export function decompressLz4(
  source: Uint8Array,
  from: number,
  end: number,
  target: Uint8Array,
  size: number,
): void {
  let at = from;
  let out = 0;
  while (at < end) {
    const token = source[at++]!;
    let literals = token >> 4;
    if (literals === 15) {
      let extension = 255;
      while (extension === 255 && at < end) {
        extension = source[at++]!;
        literals += extension;
      }
    }
    if (at + literals > end || out + literals > size) throw new PageContentError('lz4 literals run over');
    target.set(source.subarray(at, at + literals), out);
    at += literals;
    out += literals;
    if (at >= end) break;
    const distance = source[at]! | (source[at + 1]! << 8);
    at += 2;
    let length = (token & 15) + 4;
    if (length === 19) {
      let extension = 255;
      while (extension === 255 && at < end) {
        extension = source[at++]!;
        length += extension;
      }
    }
    if (distance === 0 || distance > out || out + length > size)
      throw new PageContentError('lz4 match runs over');
    for (const stop = out + length; out < stop; out++) target[out] = target[out - distance]!;
  }
  if (out !== size) throw new PageContentError(`lz4 image has ${out} of ${size} bytes`);
}
