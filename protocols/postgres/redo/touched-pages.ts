/**
 * Which pages a record changes: its block references, visibility map pages that it clears without referencing them, and
 * pages of the transaction status logs.
 */
import { readI32, readU32, readU64 } from '../bytes.ts';
import type { DecodedRecord } from '../wal/record.ts';
import {
  RMGR_CLOG,
  RMGR_COMMIT_TS,
  RMGR_MULTIXACT,
  RMGR_STORAGE,
  RMGR_TRANSACTION,
} from '../wal/resource-managers.ts';
import { requireMain } from './main-data.ts';
import {
  MULTIXACT_CREATE,
  MULTIXACT_ZERO_MEMBERS_PAGE,
  MULTIXACT_ZERO_OFFSETS_PAGE,
  multixactMemberCount,
} from './multixact.ts';
import {
  clogPage,
  commitTsPage,
  MEMBERS_PER_PAGE,
  multixactMembersPage,
  multixactOffsetsPage,
  nextMultixact,
  SLRU_CLOG,
  SLRU_COMMIT_TS,
  SLRU_DB,
  SLRU_MULTIXACT_MEMBERS,
  SLRU_MULTIXACT_OFFSETS,
  SLRU_SPC,
} from './slru.ts';
import { clearedIds, collectVmClears, partialVmPage, vmPageOf } from './visibility-map.ts';
import { endsTransaction, parseXactEnd, XactEnd } from './xact-record.ts';

const FORK_VM = 2;
const ZERO_PAGE = 0x00;
const STORAGE_TRUNCATE = 0x20;

/**
 * Takes one page that a record changes. With `initialises` the page's older versions are not needed to build the new
 * one.
 */
export type PageVisitor = (
  spc: number,
  db: number,
  rel: number,
  fork: number,
  block: number,
  initialises: boolean,
) => void;

const xactEnd = new XactEnd();

/**
 * Calls `visit` for each page that the record changes, each page once. Allocates nothing. With `trackCommitTimestamp` (as
 * the timeline's parameters say at this point) commits also change pages of pg_commit_ts.
 */
export function forEachTouchedPage(
  record: DecodedRecord,
  visit: PageVisitor,
  trackCommitTimestamp = false,
): void {
  if (record.maxBlock >= 0) {
    visitBlocks(record, visit);
    visitClearedVmPages(record, visit);
    return;
  }
  switch (record.rmid) {
    case RMGR_TRANSACTION:
      if (endsTransaction(record)) visitTransactionStatus(record, visit, trackCommitTimestamp);
      break;
    case RMGR_STORAGE:
      visitTruncatedVmPage(record, visit);
      break;
    case RMGR_CLOG:
      visitZeroedPage(record, visit, SLRU_CLOG);
      break;
    case RMGR_COMMIT_TS:
      visitZeroedPage(record, visit, SLRU_COMMIT_TS);
      break;
    case RMGR_MULTIXACT:
      visitMultixact(record, visit);
      break;
  }
}

function visitBlocks(record: DecodedRecord, visit: PageVisitor): void {
  for (let id = 0; id <= record.maxBlock; id++) {
    if (record.inUse[id] === 0) continue;
    visit(
      record.spc[id]!,
      record.db[id]!,
      record.rel[id]!,
      record.fork[id]!,
      record.block[id]!,
      record.initialises(id),
    );
  }
}

/** Calls `visit` for each visibility map page that is cleared and is not among the block references. */
export function visitClearedVmPages(record: DecodedRecord, visit: PageVisitor): void {
  const count = collectVmClears(record);
  for (let i = 0; i < count; i++) {
    const id = clearedIds[i]!;
    const page = vmPageOf(record.block[id]!);
    if (i === 1 && page === vmPageOf(record.block[clearedIds[0]!]!)) continue;
    if (findBlock(record, record.spc[id]!, record.db[id]!, record.rel[id]!, FORK_VM, page) >= 0) continue;
    visit(record.spc[id]!, record.db[id]!, record.rel[id]!, FORK_VM, page, false);
  }
}

/** Id of the record's block reference to this page, or -1. */
export function findBlock(
  record: DecodedRecord,
  spc: number,
  db: number,
  rel: number,
  fork: number,
  block: number,
): number {
  for (let id = 0; id <= record.maxBlock; id++) {
    if (
      record.inUse[id] === 1 &&
      record.block[id] === block &&
      record.rel[id] === rel &&
      record.fork[id] === fork &&
      record.db[id] === db &&
      record.spc[id] === spc
    ) {
      return id;
    }
  }
  return -1;
}

function visitTransactionStatus(record: DecodedRecord, visit: PageVisitor, withTimestamps: boolean): void {
  parseXactEnd(record, xactEnd);
  visitXidPages(record, visit, SLRU_CLOG, clogPage);
  if (withTimestamps && xactEnd.committed) visitXidPages(record, visit, SLRU_COMMIT_TS, commitTsPage);
}

function visitXidPages(
  record: DecodedRecord,
  visit: PageVisitor,
  slru: number,
  pageOf: (xid: number) => number,
): void {
  const first = pageOf(xactEnd.xid);
  visit(SLRU_SPC, SLRU_DB, slru, 0, first, false);
  // Subtransactions come in ascending order, so pages repeat only in runs.
  let last = first;
  for (let i = 0; i < xactEnd.subxactCount; i++) {
    const page = pageOf(readU32(record.bytes, xactEnd.subxactOffset + 4 * i));
    if (page === last || page === first) continue;
    visit(SLRU_SPC, SLRU_DB, slru, 0, page, false);
    last = page;
  }
}

function visitTruncatedVmPage(record: DecodedRecord, visit: PageVisitor): void {
  if ((record.info & 0xf0) !== STORAGE_TRUNCATE) return;
  requireMain(record, 20);
  const page = partialVmPage(record);
  if (page < 0) return;
  const { bytes, mainOffset } = record;
  visit(
    readU32(bytes, mainOffset + 4),
    readU32(bytes, mainOffset + 8),
    readU32(bytes, mainOffset + 12),
    FORK_VM,
    page,
    false,
  );
}

function visitZeroedPage(record: DecodedRecord, visit: PageVisitor, slru: number): void {
  if ((record.info & 0xf0) === ZERO_PAGE) visit(SLRU_SPC, SLRU_DB, slru, 0, slruPageNumber(record), true);
}

/** The page number that begins an SLRU record: 32 bits before version 17, 64 since. */
export function slruPageNumber(record: DecodedRecord): number {
  if (record.pgVersion >= 17) {
    requireMain(record, 8);
    return readU64(record.bytes, record.mainOffset);
  }
  requireMain(record, 4);
  return readI32(record.bytes, record.mainOffset);
}

function visitMultixact(record: DecodedRecord, visit: PageVisitor): void {
  switch (record.info & 0xf0) {
    case MULTIXACT_ZERO_OFFSETS_PAGE:
      visit(SLRU_SPC, SLRU_DB, SLRU_MULTIXACT_OFFSETS, 0, slruPageNumber(record), true);
      break;
    case MULTIXACT_ZERO_MEMBERS_PAGE:
      visit(SLRU_SPC, SLRU_DB, SLRU_MULTIXACT_MEMBERS, 0, slruPageNumber(record), true);
      break;
    case MULTIXACT_CREATE:
      visitCreatedMultixact(record, visit);
      break;
  }
}

function visitCreatedMultixact(record: DecodedRecord, visit: PageVisitor): void {
  const count = multixactMemberCount(record);
  const multi = readU32(record.bytes, record.mainOffset);
  const page = multixactOffsetsPage(multi);
  visit(SLRU_SPC, SLRU_DB, SLRU_MULTIXACT_OFFSETS, 0, page, false);
  const nextPage = multixactOffsetsPage(nextMultixact(multi));
  if (nextPage !== page) visit(SLRU_SPC, SLRU_DB, SLRU_MULTIXACT_OFFSETS, 0, nextPage, false);

  const first = readU32(record.bytes, record.mainOffset + 4);
  for (let done = 0; done < count; ) {
    const offset = (first + done) >>> 0;
    visit(SLRU_SPC, SLRU_DB, SLRU_MULTIXACT_MEMBERS, 0, multixactMembersPage(offset), false);
    // The last page of all is cut short by the counter's wrap-around.
    done += Math.min(MEMBERS_PER_PAGE - (offset % MEMBERS_PER_PAGE), 2 ** 32 - offset);
  }
}
