/**
 * Redo of commit timestamps on pages of pg_commit_ts: 10 bytes for each transaction (time i64, origin u16), written by
 * commit records while track_commit_timestamp is on.
 *
 * Own records: ZEROPAGE 0x00: page number (i32 before 17, i64 since); TRUNCATE 0x10: page number, oldest xid u32 (at
 * offset 4 before 17, 8 since).
 *
 * Source: access/commit_ts.h, transam/commit_ts.c.
 */
import { readU32, writeU16, writeU64 } from '../bytes.ts';
import type { DecodedRecord } from '../wal/record.ts';
import { COMMIT_TS_ENTRY_BYTES, COMMIT_TS_PER_PAGE, commitTsPage } from './slru.ts';
import { parseXactEnd, XactEnd } from './xact-record.ts';

export const COMMIT_TS_ZERO_PAGE = 0x00;
export const COMMIT_TS_TRUNCATE = 0x10;

const parsed = new XactEnd();

/** Stores time and origin of the committed transaction and its subtransactions that lie on page `block`. */
export function redoCommitTimestamp(record: DecodedRecord, page: Uint8Array, block: number): void {
  parseXactEnd(record, parsed);
  if (!parsed.committed) return;
  const time = parsed.hasOrigin ? parsed.originTime : parsed.time;
  setTimestamp(page, block, parsed.xid, time, record.originId);
  for (let i = 0; i < parsed.subxactCount; i++) {
    setTimestamp(page, block, readU32(record.bytes, parsed.subxactOffset + 4 * i), time, record.originId);
  }
}

function setTimestamp(page: Uint8Array, block: number, xid: number, time: number, origin: number): void {
  if (commitTsPage(xid) !== block) return;
  const at = (xid % COMMIT_TS_PER_PAGE) * COMMIT_TS_ENTRY_BYTES;
  writeU64(page, at, time);
  writeU16(page, at + 8, origin);
}
