import { expect, test } from 'vitest';
import { CRC32C_INIT, crc32c, finishCrc32c, recordCrc32c, updateCrc32c } from './crc32c.ts';

test('the checksum of "123456789" is the published one', () => {
  expect(crc32c(new TextEncoder().encode('123456789'))).toBe(0xe3069283);
});

test('a record is summed over what follows its header, then over the header up to the checksum, at every length', () => {
  const words = new Int32Array(128);
  const bytes = new Uint8Array(words.buffer);
  for (let i = 0; i < bytes.length; i++) bytes[i] = i * 167 + 13;
  for (const offset of [0, 8, 36]) {
    for (let length = 24; length <= 300; length++) {
      let register = updateCrc32c(CRC32C_INIT, bytes, offset + 24, offset + length);
      register = updateCrc32c(register, bytes, offset, offset + 20);
      expect(recordCrc32c(words, offset, length)).toBe(finishCrc32c(register) | 0);
    }
  }
});
