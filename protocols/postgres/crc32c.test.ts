import { expect, test } from 'vitest';
import { CRC32C_INIT, crc32c, finishCrc32c, recordCrc32c, updateCrc32c } from './crc32c.ts';

test('the checksum of "123456789" is the published one', () => {
  expect(crc32c(new TextEncoder().encode('123456789'))).toBe(0xe3069283);
});

const words = new Int32Array(4096);
const bytes = new Uint8Array(words.buffer);
for (let i = 0; i < bytes.length; i++) bytes[i] = i * 167 + 13;

/** In pieces that are too short for native code. */
function inPieces(register: number, from: number, end: number): number {
  let sum = register;
  for (let at = from; at < end; at += 100) sum = updateCrc32c(sum, bytes, at, Math.min(at + 100, end));
  return sum;
}

test('a long range has the same checksum as its pieces', () => {
  for (const [from, end] of [
    [0, 511],
    [0, 512],
    [3, 515],
    [1, 9001],
    [0, bytes.length],
  ] as const) {
    expect(crc32c(bytes, from, end)).toBe(finishCrc32c(inPieces(CRC32C_INIT, from, end)));
    const begun = updateCrc32c(CRC32C_INIT, bytes, 0, 7);
    expect(updateCrc32c(begun, bytes, from, end) | 0).toBe(inPieces(begun, from, end) | 0);
  }
});

test('a record is summed over what follows its header, then over the header up to the checksum, at every length', () => {
  const lengths = [1022, 1023, 1024, 1025, 8217];
  for (let length = 24; length <= 300; length++) lengths.push(length);
  for (const offset of [0, 8, 36]) {
    for (const length of lengths) {
      const register = inPieces(inPieces(CRC32C_INIT, offset + 24, offset + length), offset, offset + 20);
      expect(recordCrc32c(words, offset, length)).toBe(finishCrc32c(register) | 0);
    }
  }
});
