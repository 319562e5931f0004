/** Where the first record begins in WAL that is entered at the beginning of a page. */
import { PAGE_BYTES } from '../../lsn.ts';
import { readU16, readU64 } from '../bytes.ts';
import { pgVersionOfMagic } from '../versions.ts';
import { CorruptWalError } from './errors.ts';
import { parseWalPageHeader } from './page-header.ts';

/** Whether the WAL page at `bytes[at]` was written for this LSN. */
export function isOwnPage(bytes: Uint8Array, at: number, lsn: number): boolean {
  return pgVersionOfMagic(readU16(bytes, at)) !== undefined && readU64(bytes, at + 8) === lsn;
}

/** LSN of the first record that begins in `bytes`, which begin with a WAL page at `lsn`. */
export function firstRecordFrom(bytes: Uint8Array, lsn: number): number {
  for (let at = 0; at + PAGE_BYTES <= bytes.length; at += PAGE_BYTES) {
    const header = parseWalPageHeader(bytes, at);
    if (!isOwnPage(bytes, at, lsn + at)) throw new CorruptWalError(lsn + at, 'page address');
    if (header.remainingBytes === 0) return lsn + at;
    const end = at + header.headerBytes + ((header.remainingBytes + 7) & ~7);
    if (end < at + PAGE_BYTES) return lsn + end;
  }
  throw new CorruptWalError(lsn, 'no record begins here');
}
