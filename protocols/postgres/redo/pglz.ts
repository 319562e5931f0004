/**
 * Decompression of pglz, Postgres' own compression: control bytes of eight flags, each a literal byte or a reference
 * (length 3..273, distance 1..4095).
 */
import { PageContentError } from './errors.ts';

/** Decompresses `source[from, end)` into exactly `size` bytes of `target`. */
export function decompressPglz(
  source: Uint8Array,
  from: number,
  end: number,
  target: Uint8Array,
  size: number,
): void {
  let at = from;
  let out = 0;
  while (at < end && out < size) {
    let control = source[at++]!;
    for (let bit = 0; bit < 8 && at < end && out < size; bit++, control >>= 1) {
      if ((control & 1) === 0) {
        target[out++] = source[at++]!;
        continue;
      }
      let length = (source[at]! & 15) + 3;
      const distance = ((source[at]! & 0xf0) << 4) | source[at + 1]!;
      at += 2;
      if (length === 18) length += source[at++]!;
      if (distance === 0 || distance > out) throw new PageContentError('pglz reference before the beginning');
      for (const stop = Math.min(out + length, size); out < stop; out++)
        target[out] = target[out - distance]!;
    }
  }
  if (out !== size || at > end) throw new PageContentError(`pglz image has ${out} of ${size} bytes`);
}
