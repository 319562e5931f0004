import { zstdCompressSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { PAGE_BYTES } from '../../lsn.ts';
import {
  DecodedRecord,
  IMAGE_APPLY,
  IMAGE_HAS_HOLE,
  IMAGE_LZ4,
  IMAGE_PGLZ,
  IMAGE_ZSTD,
} from '../wal/record.ts';
import { PageContentError } from './errors.ts';
import { restoreImage } from './image.ts';
import { decompressLz4 } from './lz4.ts';
import { decompressPglz } from './pglz.ts';

/** A record whose block 0 has the given image. */
function recordWithImage(image: Uint8Array, info: number, holeOffset = 0, holeLength = 0): DecodedRecord {
  const record = new DecodedRecord(17);
  record.bytes = image;
  record.maxBlock = 0;
  record.inUse[0] = 1;
  record.imageLength[0] = image.length;
  record.imageInfo[0] = info | IMAGE_APPLY;
  record.holeOffset[0] = holeOffset;
  record.holeLength[0] = holeLength;
  return record;
}

function samplePage(): Uint8Array {
  return Uint8Array.from({ length: PAGE_BYTES }, (_, i) => ((i * i) % 251) & (i % 3 === 0 ? 255 : 15));
}

test('an image with a hole comes back with zeros in it', () => {
  const page = samplePage().fill(0, 100, 5000);
  const image = new Uint8Array([...page.subarray(0, 100), ...page.subarray(5000)]);
  const restored = new Uint8Array(PAGE_BYTES).fill(1);
  restoreImage(recordWithImage(image, IMAGE_HAS_HOLE, 100, 4900), 0, restored);
  expect(restored).toEqual(page);
});

test('a zstd image with a hole comes back', () => {
  const page = samplePage().fill(0, 40, 8000);
  const packed = zstdCompressSync(new Uint8Array([...page.subarray(0, 40), ...page.subarray(8000)]));
  const restored = new Uint8Array(PAGE_BYTES);
  restoreImage(recordWithImage(packed, IMAGE_ZSTD | IMAGE_HAS_HOLE, 40, 7960), 0, restored);
  expect(restored).toEqual(page);
});

test('a damaged compressed image is a content error, whatever the method', () => {
  const page = new Uint8Array(PAGE_BYTES);
  for (const method of [IMAGE_PGLZ, IMAGE_LZ4, IMAGE_ZSTD]) {
    const image = Uint8Array.from({ length: 200 }, (_, i) => (i * 37) & 255);
    expect(() => restoreImage(recordWithImage(image, method), 0, page)).toThrow(PageContentError);
  }
});

test('an lz4 block with long literals and an overlapping match decompresses', () => {
  const literals = Uint8Array.from({ length: 300 }, (_, i) => i & 255);
  // Token: 15 literals and more, match of 15 + 4 and more; 300 = 15 + 255 + 30; match 3 back of 4 + 15 + 81 bytes.
  const block = Uint8Array.of(0xff, 255, 30, ...literals, 3, 0, 81, 0x20, 7, 8);
  const expected = [...literals];
  for (let i = 0; i < 100; i++) expected.push(expected[expected.length - 3]!);
  expected.push(7, 8);
  const target = new Uint8Array(expected.length);
  decompressLz4(block, 0, block.length, target, target.length);
  expect([...target]).toEqual(expected);
});

test('pglz literals and references decompress', () => {
  // Control 0b0100: two literals, a reference (length 3 + 15 + 2, distance 2), a literal.
  const block = Uint8Array.of(0b0100, 65, 66, 0x0f, 2, 2, 67);
  const expected = `AB${'AB'.repeat(10)}C`;
  const target = new Uint8Array(expected.length);
  decompressPglz(block, 0, block.length, target, target.length);
  expect(new TextDecoder().decode(target)).toBe(expected);
});
