/**
 * Redo of sequences. LOG 0x00: main 0 tablespace, 4 database, 8 relation (u32 each), 12 the sequence's tuple. The page is
 * made anew each time; its special space holds a magic number.
 *
 * Source: commands/sequence.h.
 */
import { readU16, writeU32 } from '../bytes.ts';
import type { DecodedRecord } from '../wal/record.ts';
import { requireMain } from './main-data.ts';
import { addItem, initPage, PD_SPECIAL, setPageLsn } from './page.ts';

const SEQUENCE_MAGIC = 0x1717;
const TUPLE_AT = 12;

/** Applies the record to the sequence's only page. */
export function redoSequence(record: DecodedRecord, page: Uint8Array): boolean {
  requireMain(record, TUPLE_AT);
  initPage(page, 4);
  writeU32(page, readU16(page, PD_SPECIAL), SEQUENCE_MAGIC);
  addItem(page, record.bytes, record.mainOffset + TUPLE_AT, record.mainLength - TUPLE_AT, 1, false);
  setPageLsn(page, record.end);
  return true;
}
