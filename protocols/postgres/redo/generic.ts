/**
 * Redo of generic WAL, which extensions use. Block data: pieces of offset u16, length u16 and bytes to be put there; the
 * space between lower and upper becomes zero.
 *
 * Source: transam/generic_xlog.c.
 */
import { copyBytes, readU16 } from '../bytes.ts';
import type { DecodedRecord } from '../wal/record.ts';
import { PageContentError } from './errors.ts';
import { PD_LOWER, PD_UPPER, setPageLsn } from './page.ts';

/** Applies block `id`'s changes to `page`. */
export function redoGeneric(record: DecodedRecord, id: number, page: Uint8Array): boolean {
  const { bytes } = record;
  let at = record.dataOffset[id]!;
  const end = at + record.dataLength[id]!;
  while (at < end) {
    const offset = readU16(bytes, at);
    const length = readU16(bytes, at + 2);
    at += 4;
    if (at + length > end || offset + length > page.length)
      throw new PageContentError('generic change runs over');
    copyBytes(page, offset, bytes, at, length);
    at += length;
  }
  page.fill(0, readU16(page, PD_LOWER), readU16(page, PD_UPPER));
  setPageLsn(page, record.end);
  return true;
}
