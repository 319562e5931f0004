/**
 * The fold's part for transaction records: used transaction ids, commit times, dropped relations, prepared transactions.
 *
 * PREPARE 0x10: main data is the two-phase state without its checksum: 0 magic, 4 length, 8 xid, 28 subtransaction count
 * i32, 54 gid length u16, 72 gid (aligned to 8), subtransaction xids. ASSIGNMENT 0x50: 0 top xid, 4 count i32, 8 xids.
 *
 * Source: access/xact.h, transam/twophase.c.
 */
import { maxAlign, readU16, readU32, writeU32 } from '../bytes.ts';
import { crc32c } from '../crc32c.ts';
import { requireMain } from '../redo/main-data.ts';
import {
  DROPPED_RELATION_BYTES,
  endsTransaction,
  parseXactEnd,
  XACT_ASSIGNMENT,
  XACT_OPERATION_MASK,
  XACT_PREPARE,
  XactEnd,
} from '../redo/xact-record.ts';
import { CorruptWalError } from '../wal/errors.ts';
import type { DecodedRecord } from '../wal/record.ts';
import type { TimelineStateFold } from './fold.ts';
import type { StateSink } from './sink.ts';
import { isLaterXid } from './transaction-ids.ts';

/** 2000-01-01 in milliseconds since 1970: where Postgres' timestamps begin. */
export const POSTGRES_EPOCH_MS = 946_684_800_000;
const TWO_PHASE_HEADER_BYTES = 72;

const xactEnd = new XactEnd();

export function foldTransaction(
  fold: TimelineStateFold,
  record: DecodedRecord,
  sink: StateSink | undefined,
): void {
  if (endsTransaction(record)) {
    foldEnd(fold, record, sink);
    return;
  }
  const operation = record.info & XACT_OPERATION_MASK;
  if (operation === XACT_PREPARE) foldPrepare(fold, record, sink);
  else if (operation === XACT_ASSIGNMENT) foldAssignment(fold, record);
}

function foldEnd(fold: TimelineStateFold, record: DecodedRecord, sink: StateSink | undefined): void {
  const { bytes } = record;
  parseXactEnd(record, xactEnd);
  fold.sawXid(xactEnd.xid);
  let latest = xactEnd.xid;
  for (let i = 0; i < xactEnd.subxactCount; i++) {
    const xid = readU32(bytes, xactEnd.subxactOffset + 4 * i);
    fold.sawXid(xid);
    if (isLaterXid(xid, latest)) latest = xid;
  }
  if (xactEnd.committed) foldCommit(fold, latest);
  if (xactEnd.hasOrigin) fold.origins.advance(record.originId, xactEnd.originLsn, false, sink);
  if (sink === undefined) return;
  if (xactEnd.prepared) sink.putValue(twoPhaseKey(xactEnd.xid), null);
  for (let i = 0; i < xactEnd.droppedCount; i++) {
    const at = xactEnd.droppedOffset + i * DROPPED_RELATION_BYTES;
    sink.dropRelation(readU32(bytes, at), readU32(bytes, at + 4), readU32(bytes, at + 8));
  }
}

function foldCommit(fold: TimelineStateFold, latestXid: number): void {
  fold.sawCommitAt(POSTGRES_EPOCH_MS + xactEnd.time / 1000);
  if (!fold.parameters.trackCommitTimestamp) return;
  const { fields } = fold;
  if (fields.oldestCommitTsXid === 0) fields.oldestCommitTsXid = xactEnd.xid;
  if (fields.newestCommitTsXid === 0 || isLaterXid(latestXid, fields.newestCommitTsXid)) {
    fields.newestCommitTsXid = latestXid;
  }
}

function foldPrepare(fold: TimelineStateFold, record: DecodedRecord, sink: StateSink | undefined): void {
  requireMain(record, TWO_PHASE_HEADER_BYTES);
  const { bytes, mainOffset } = record;
  const count = readU32(bytes, mainOffset + 28);
  const subxacts = TWO_PHASE_HEADER_BYTES + maxAlign(readU16(bytes, mainOffset + 54));
  requireMain(record, subxacts + 4 * count);
  const xid = readU32(bytes, mainOffset + 8);
  fold.sawXid(xid);
  for (let i = 0; i < count; i++) fold.sawXid(readU32(bytes, mainOffset + subxacts + 4 * i));
  sink?.putValue(twoPhaseKey(xid), twoPhaseFile(bytes.subarray(mainOffset, mainOffset + record.mainLength)));
}

function foldAssignment(fold: TimelineStateFold, record: DecodedRecord): void {
  requireMain(record, 8);
  const { bytes, mainOffset } = record;
  const count = readU32(bytes, mainOffset + 4);
  if (record.mainLength < 8 + 4 * count) throw new CorruptWalError(record.lsn, 'assignment is too short');
  for (let i = 0; i < count; i++) fold.sawXid(readU32(bytes, mainOffset + 8 + 4 * i));
}

/** Key of the small value that holds a prepared transaction's state. */
export function twoPhaseKey(xid: number): string {
  return `twophase/${xid}`;
}

/** The file below pg_twophase: the state followed by its CRC-32C. */
function twoPhaseFile(state: Uint8Array): Uint8Array {
  const file = new Uint8Array(state.length + 4);
  file.set(state);
  writeU32(file, state.length, crc32c(state));
  return file;
}
