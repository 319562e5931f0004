import { constants, zstdCompressSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { compress, decompress, roomFor } from './compression.ts';

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

describe('decompressing pieces', () => {
  const raw = piece(16_000, 5);
  const frame = compress(raw)!.slice();

  it('uses the room that it is given, and no more of it', () => {
    const room = new Uint8Array(roomFor(raw.length) + 64).fill(9);
    const result = decompress(frame, raw.length, room.subarray(0, roomFor(raw.length)));
    expect(result.buffer).toBe(room.buffer);
    expect(Buffer.compare(result, raw)).toBe(0);
    expect(room.subarray(roomFor(raw.length))).toEqual(new Uint8Array(64).fill(9));
  });

  it.each([
    ['noise', new Uint8Array(100).fill(7), raw.length],
    ['half a frame', frame.slice(0, frame.length / 2), raw.length],
    ['no frame', new Uint8Array(0), raw.length],
    ['a frame of more bytes', frame, raw.length - 1],
    ['a frame of many more bytes', frame, 64],
    ['a frame of fewer bytes', frame, raw.length + 1],
  ])('refuses %s, and does the next piece well', (_, bytes, rawLength) => {
    expect(() => decompress(bytes, rawLength)).toThrow();
    expect(Buffer.compare(decompress(frame, raw.length), raw)).toBe(0);
  });
});
