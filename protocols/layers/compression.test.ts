import { constants, zstdCompressSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { compress, decompress } from './compression.ts';

/** Bytes that compress to about half, and differ with `seed`. */
function piece(length: number, seed: number): Uint8Array {
  let state = seed;
  return Uint8Array.from({ length }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state >>> 28;
  });
}

describe('compressing pieces', () => {
  it('makes what zstd makes of each piece alone, whatever came before', () => {
    const params = { params: { [constants.ZSTD_c_compressionLevel]: 1 } };
    for (const length of [64, 100, 8192, 16_384, 65_536, 65_537, 200_000, 16_384, 64]) {
      const raw = piece(length, length);
      const compressed = compress(raw);
      if (!compressed) {
        expect(zstdCompressSync(raw, params).length).toBeGreaterThan(length * 0.9);
        continue;
      }
      expect(Buffer.compare(compressed, zstdCompressSync(raw, params))).toBe(0);
      expect(Buffer.compare(decompress(compressed, length), raw)).toBe(0);
    }
  });

  it('leaves alone what does not become smaller', () => {
    let state = 7;
    const noise = Uint8Array.from({ length: 16_384 }, () => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return state >>> 24;
    });
    expect(compress(noise)).toBeUndefined();
  });
});
