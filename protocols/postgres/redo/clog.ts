/**
 * Redo of transaction status on pages of pg_xact: two bits for each transaction, set by commit and abort records.
 *
 * Own records: ZEROPAGE 0x00: page number (i32 before 17, i64 since); TRUNCATE 0x10: page number, oldest xid u32, its
 * database u32.
 *
 * Source: access/clog.h, transam/clog.c.
 */
import { readU32 } from '../bytes.ts';
import type { DecodedRecord } from '../wal/record.ts';
import { clogPage, XACTS_PER_CLOG_PAGE } from './slru.ts';
import { parseXactEnd, XactEnd } from './xact-record.ts';

export const CLOG_ZERO_PAGE = 0x00;
export const CLOG_TRUNCATE = 0x10;

const STATUS_COMMITTED = 1;
const STATUS_ABORTED = 2;

const parsed = new XactEnd();

/** Marks the transaction and its subtransactions that lie on page `block` as committed or aborted. */
export function redoTransactionStatus(record: DecodedRecord, page: Uint8Array, block: number): void {
  parseXactEnd(record, parsed);
  const status = parsed.committed ? STATUS_COMMITTED : STATUS_ABORTED;
  setStatus(page, block, parsed.xid, status);
  for (let i = 0; i < parsed.subxactCount; i++) {
    setStatus(page, block, readU32(record.bytes, parsed.subxactOffset + 4 * i), status);
  }
}

function setStatus(page: Uint8Array, block: number, xid: number, status: number): void {
  if (clogPage(xid) !== block) return;
  const index = xid % XACTS_PER_CLOG_PAGE;
  const shift = (index & 3) * 2;
  const at = index >> 2;
  page[at] = (page[at]! & ~(3 << shift)) | (status << shift);
}
