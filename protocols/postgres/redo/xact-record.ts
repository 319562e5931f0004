/**
 * Commit, abort and prepare records (resource manager Transaction).
 *
 * Commit and abort: 0 time i64; if the record's info has 0x80: 8 xinfo u32, then as xinfo says, in this order:
 * 1 database and tablespace (8 bytes), 2 subtransactions (count i32, xids), 4 dropped relations (count i32, 12 bytes
 * each), 256 dropped statistics (count i32, 12 bytes each, 16 from version 18), 8 invalidations (commit only: count
 * i32, 16 bytes each), 16 the prepared transaction's xid u32, 128 its gid (with 16, ends in NUL), 32 origin LSN u64 and
 * origin time i64.
 *
 * Source: access/xact.h.
 */
import { readI64, readU32, readU64 } from '../bytes.ts';
import { CorruptWalError } from '../wal/errors.ts';
import type { DecodedRecord } from '../wal/record.ts';
import { RMGR_TRANSACTION } from '../wal/resource-managers.ts';

export const XACT_COMMIT = 0x00;
export const XACT_PREPARE = 0x10;
export const XACT_ABORT = 0x20;
export const XACT_COMMIT_PREPARED = 0x30;
export const XACT_ABORT_PREPARED = 0x40;
export const XACT_ASSIGNMENT = 0x50;
export const XACT_OPERATION_MASK = 0x70;

const HAS_INFO = 0x80;
const XINFO_DBINFO = 1;
const XINFO_SUBXACTS = 2;
const XINFO_RELATIONS = 4;
const XINFO_INVALIDATIONS = 8;
const XINFO_TWOPHASE = 16;
const XINFO_ORIGIN = 32;
const XINFO_GID = 128;
const XINFO_DROPPED_STATS = 256;

export const DROPPED_RELATION_BYTES = 12;

/** Whether `record` ends a transaction: a commit or abort, of a prepared one or not. */
export function endsTransaction(record: DecodedRecord): boolean {
  if (record.rmid !== RMGR_TRANSACTION) return false;
  const operation = record.info & XACT_OPERATION_MASK;
  return (
    operation === XACT_COMMIT ||
    operation === XACT_ABORT ||
    operation === XACT_COMMIT_PREPARED ||
    operation === XACT_ABORT_PREPARED
  );
}

/**
 * What a commit or abort record says; one object is reused. Lists and times are offsets into the record's bytes: few who read it need
 * them, and a number that is no small integer may cost an allocation where it is kept.
 */
export class XactEnd {
  committed = false;
  /** The transaction that ends: the prepared one's for COMMIT PREPARED. */
  xid = 0;
  prepared = false;
  subxactCount = 0;
  subxactOffset = 0;
  droppedCount = 0;
  droppedOffset = 0;
  hasOrigin = false;
  #bytes: Uint8Array = new Uint8Array(0);
  #timeOffset = 0;
  #originOffset = 0;

  /** Begins anew with a record's bytes and where its time is. */
  begin(bytes: Uint8Array, timeOffset: number): void {
    if (this.#bytes !== bytes) this.#bytes = bytes;
    this.#timeOffset = timeOffset;
    this.prepared = false;
    this.subxactCount = 0;
    this.droppedCount = 0;
    this.hasOrigin = false;
  }

  /** Notes where the origin's LSN and time are. */
  setOrigin(offset: number): void {
    this.hasOrigin = true;
    this.#originOffset = offset;
  }

  /** Microseconds since 2000-01-01. */
  get time(): number {
    return readI64(this.#bytes, this.#timeOffset);
  }

  /** Of a transaction that has an origin. */
  get originLsn(): number {
    return readU64(this.#bytes, this.#originOffset);
  }

  /** Of a transaction that has an origin, in microseconds since 2000-01-01. */
  get originTime(): number {
    return readI64(this.#bytes, this.#originOffset + 8);
  }
}

/** Parses the record, which `endsTransaction`, into `result`. Throws CorruptWalError when it is too short. */
export function parseXactEnd(record: DecodedRecord, result: XactEnd): void {
  const { bytes } = record;
  const end = record.mainOffset + record.mainLength;
  const operation = record.info & XACT_OPERATION_MASK;
  result.begin(bytes, record.mainOffset);
  result.committed = operation === XACT_COMMIT || operation === XACT_COMMIT_PREPARED;
  result.xid = record.xid;
  let at = record.mainOffset + 8;
  if ((record.info & HAS_INFO) === 0) {
    requireWithin(record, at, end);
    return;
  }
  const xinfo = readU32(bytes, at);
  at += 4;
  if (xinfo & XINFO_DBINFO) at += 8;
  if (xinfo & XINFO_SUBXACTS) {
    result.subxactCount = readU32(bytes, at);
    result.subxactOffset = at + 4;
    at += 4 + 4 * result.subxactCount;
  }
  requireWithin(record, at, end);
  if (xinfo & XINFO_RELATIONS) {
    result.droppedCount = readU32(bytes, at);
    result.droppedOffset = at + 4;
    at += 4 + DROPPED_RELATION_BYTES * result.droppedCount;
  }
  requireWithin(record, at, end);
  if (xinfo & XINFO_DROPPED_STATS) at += 4 + readU32(bytes, at) * (record.pgVersion >= 18 ? 16 : 12);
  requireWithin(record, at, end);
  if (xinfo & XINFO_INVALIDATIONS) at += 4 + readU32(bytes, at) * 16;
  requireWithin(record, at, end);
  if (xinfo & XINFO_TWOPHASE) {
    result.xid = readU32(bytes, at);
    result.prepared = true;
    at += 4;
    if (xinfo & XINFO_GID) at = skipText(bytes, at, end);
  }
  if (xinfo & XINFO_ORIGIN) {
    result.setOrigin(at);
    at += 16;
  }
  requireWithin(record, at, end);
}

function skipText(bytes: Uint8Array, start: number, end: number): number {
  let at = start;
  while (at < end && bytes[at] !== 0) at++;
  return at + 1;
}

function requireWithin(record: DecodedRecord, at: number, end: number): void {
  if (at > end) throw new CorruptWalError(record.lsn, 'transaction record is too short');
}
