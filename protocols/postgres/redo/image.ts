/**
 * Full-page images in records: the page without its hole, raw or compressed with pglz, lz4 or zstd.
 *
 * Source: access/xlogrecord.h.
 */
import { zstdDecompressSync } from 'node:zlib';
import { PAGE_BYTES } from '../../lsn.ts';
import { type DecodedRecord, IMAGE_COMPRESSED, IMAGE_LZ4, IMAGE_PGLZ } from '../wal/record.ts';
import { PageContentError } from './errors.ts';
import { decompressLz4 } from './lz4.ts';
import { decompressPglz } from './pglz.ts';

const plain = new Uint8Array(PAGE_BYTES);

/** Writes the image of block `id` into `page` as it is stored: the caller sets the page's LSN. */
export function restoreImage(record: DecodedRecord, id: number, page: Uint8Array): void {
  const offset = record.imageOffset[id]!;
  const length = record.imageLength[id]!;
  const holeOffset = record.holeOffset[id]!;
  const holeLength = record.holeLength[id]!;
  const info = record.imageInfo[id]!;
  if ((info & IMAGE_COMPRESSED) === 0) {
    fillPage(page, record.bytes, offset, holeOffset, holeLength);
    return;
  }
  const size = PAGE_BYTES - holeLength;
  if (info & IMAGE_PGLZ) decompressPglz(record.bytes, offset, offset + length, plain, size);
  else if (info & IMAGE_LZ4) decompressLz4(record.bytes, offset, offset + length, plain, size);
  else decompressZstd(record.bytes, offset, offset + length, size);
  fillPage(page, plain, 0, holeOffset, holeLength);
}

function decompressZstd(source: Uint8Array, from: number, end: number, size: number): void {
  let result: Uint8Array;
  try {
    result = zstdDecompressSync(source.subarray(from, end), { maxOutputLength: PAGE_BYTES });
  } catch (error) {
    throw new PageContentError(`zstd image cannot be decompressed: ${String(error)}`);
  }
  if (result.length !== size) throw new PageContentError(`zstd image has ${result.length} of ${size} bytes`);
  plain.set(result);
}

function fillPage(
  page: Uint8Array,
  source: Uint8Array,
  offset: number,
  holeOffset: number,
  holeLength: number,
): void {
  page.set(source.subarray(offset, offset + holeOffset));
  page.fill(0, holeOffset, holeOffset + holeLength);
  const rest = PAGE_BYTES - holeOffset - holeLength;
  page.set(source.subarray(offset + holeOffset, offset + holeOffset + rest), holeOffset + holeLength);
}
