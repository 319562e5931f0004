/**
 * Page redo as the pageserver uses it: which pages a record changes (`forEachTouchedPage`) and the change itself, one page
 * at a time (`applyRecordToPage`).
 *
 * Redo of a page needs nothing but the page and the record: where Postgres looks at several pages in one redo routine,
 * what it takes from one to another is in the record.
 */
import { readU32 } from '../bytes.ts';
import { UnsupportedRecordError } from '../wal/errors.ts';
import { recordName } from '../wal/names.ts';
import { BLOCK_WILL_INIT, type DecodedRecord } from '../wal/record.ts';
import {
  RMGR_BRIN,
  RMGR_BTREE,
  RMGR_GENERIC,
  RMGR_GIN,
  RMGR_GIST,
  RMGR_HASH,
  RMGR_HEAP,
  RMGR_HEAP2,
  RMGR_MULTIXACT,
  RMGR_SEQUENCE,
  RMGR_SPGIST,
  RMGR_STORAGE,
  RMGR_TRANSACTION,
  RMGR_XLOG,
} from '../wal/resource-managers.ts';
import { redoBrin } from './brin.ts';
import { redoBtree } from './btree/btree.ts';
import { redoTransactionStatus } from './clog.ts';
import { redoCommitTimestamp } from './commit-ts.ts';
import { PageContentError, RedoError } from './errors.ts';
import { redoGeneric } from './generic.ts';
import { redoGin } from './gin/gin.ts';
import { redoGist, redoGistAfterImage } from './gist.ts';
import { redoHash, redoHashAfterImage } from './hash/hash.ts';
import { HEAP_OPERATION_MASK, HEAP2_VISIBLE } from './heap/formats.ts';
import { redoHeap } from './heap/heap.ts';
import { redoHeap2 } from './heap/heap2.ts';
import { restoreImage } from './image.ts';
import { MULTIXACT_CREATE, redoMultixactMembers, redoMultixactOffsets } from './multixact.ts';
import { isNewPage, setPageLsn } from './page.ts';
import { redoSequence } from './sequence.ts';
import {
  SLRU_CLOG,
  SLRU_COMMIT_TS,
  SLRU_DB,
  SLRU_MULTIXACT_MEMBERS,
  SLRU_MULTIXACT_OFFSETS,
  SLRU_SPC,
} from './slru.ts';
import { redoSpgist } from './spgist/spgist.ts';
import { findBlock } from './touched-pages.ts';
import {
  clearedBits,
  clearedIds,
  clearVmBits,
  collectVmClears,
  truncateVmPage,
  vmPageOf,
} from './visibility-map.ts';

export { forEachTouchedPage, type PageVisitor, visitClearedVmPages } from './touched-pages.ts';

const FORK_VM = 2;

/**
 * Applies `record` to the page (spc, db, rel, fork, block), in place. The page must be as the record before left it, or
 * anything at all if the record initialises it. Throws UnsupportedRecordError for record types that redo does not
 * know, and RedoError or CorruptWalError when record and page contradict each other.
 */
export function applyRecordToPage(
  record: DecodedRecord,
  page: Uint8Array,
  spc: number,
  db: number,
  rel: number,
  fork: number,
  block: number,
): void {
  try {
    if (spc === SLRU_SPC && db === SLRU_DB && rel <= SLRU_COMMIT_TS) {
      applyToSlru(record, page, rel, block);
      return;
    }
    const id = findBlock(record, spc, db, rel, fork, block);
    if (fork === FORK_VM && applyVmClears(record, id, page, spc, db, rel, block)) return;
    if (id >= 0) applyToBlock(record, id, page);
    else throw new PageContentError('the record does not change this page');
  } catch (error) {
    throw describe(error, record, spc, db, rel, fork, block);
  }
}

/** The same for the page of the record's block reference `id`. */
export function applyRecordToReference(record: DecodedRecord, id: number, page: Uint8Array): void {
  try {
    if (record.fork[id] !== FORK_VM) applyToBlock(record, id, page);
    else applyToVmReference(record, id, page);
  } catch (error) {
    throw describe(
      error,
      record,
      record.spc[id]!,
      record.db[id]!,
      record.rel[id]!,
      record.fork[id]!,
      record.block[id]!,
    );
  }
}

function applyToVmReference(record: DecodedRecord, id: number, page: Uint8Array): void {
  const isDone = applyVmClears(
    record,
    id,
    page,
    record.spc[id]!,
    record.db[id]!,
    record.rel[id]!,
    record.block[id]!,
  );
  if (!isDone) applyToBlock(record, id, page);
}

/** What goes wrong with a page's content is told with the record and the page. */
function describe(
  error: unknown,
  record: DecodedRecord,
  spc: number,
  db: number,
  rel: number,
  fork: number,
  block: number,
): unknown {
  if (!(error instanceof PageContentError || error instanceof RangeError)) return error;
  const name = recordName(record.pgVersion, record.rmid, record.info);
  return new RedoError(record.lsn, name, `${spc}/${db}/${rel}.${fork} block ${block}`, error);
}

function applyToBlock(record: DecodedRecord, id: number, page: Uint8Array): void {
  if (record.hasAppliedImage(id)) {
    applyImage(record, id, page);
    if (record.rmid === RMGR_GIST) redoGistAfterImage(record, id, page);
    else if (record.rmid === RMGR_HASH) redoHashAfterImage(record, id, page);
    return;
  }
  if ((record.flags[id]! & BLOCK_WILL_INIT) !== 0) page.fill(0);
  if (!redoBlock(record, id, page)) {
    throw new UnsupportedRecordError(record.lsn, recordName(record.pgVersion, record.rmid, record.info));
  }
}

function applyImage(record: DecodedRecord, id: number, page: Uint8Array): void {
  restoreImage(record, id, page);
  if (!isNewPage(page)) setPageLsn(page, record.end);
}

/** Dispatches to the resource manager; false when it or the record's type is not known. */
function redoBlock(record: DecodedRecord, id: number, page: Uint8Array): boolean {
  switch (record.rmid) {
    case RMGR_HEAP:
      // Map pages are dealt with before; one that is left here comes from a format that is not known.
      return record.fork[id] !== FORK_VM && redoHeap(record, id, page);
    case RMGR_HEAP2:
      return (record.fork[id] !== FORK_VM || setsVisibility(record)) && redoHeap2(record, id, page);
    case RMGR_BTREE:
      return redoBtree(record, id, page);
    case RMGR_SEQUENCE:
      return redoSequence(record, page);
    case RMGR_GENERIC:
      return redoGeneric(record, id, page);
    case RMGR_HASH:
      return redoHash(record, id, page);
    case RMGR_GIN:
      return redoGin(record, id, page);
    case RMGR_GIST:
      return redoGist(record, id, page);
    case RMGR_SPGIST:
      return redoSpgist(record, id, page);
    case RMGR_BRIN:
      return redoBrin(record, id, page);
    case RMGR_XLOG:
      // A hint that was logged without an image: nothing to repeat.
      return true;
    default:
      return false;
  }
}

function setsVisibility(record: DecodedRecord): boolean {
  return (record.info & HEAP_OPERATION_MASK) === HEAP2_VISIBLE;
}

/**
 * Clears bits of a visibility map page for heap records, whether or not they reference it as a block; also the partial page
 * of a truncation. Returns false when the record is of another kind.
 */
function applyVmClears(
  record: DecodedRecord,
  id: number,
  page: Uint8Array,
  spc: number,
  db: number,
  rel: number,
  block: number,
): boolean {
  if (record.rmid === RMGR_STORAGE) {
    truncateVmPage(page, readU32(record.bytes, record.mainOffset));
    return true;
  }
  const count = collectVmClears(record);
  if (count === 0) return false;
  if (id >= 0 && record.hasAppliedImage(id)) {
    applyImage(record, id, page);
    return true;
  }
  for (let i = 0; i < count; i++) {
    const heap = clearedIds[i]!;
    const isCovered =
      record.rel[heap] === rel &&
      record.db[heap] === db &&
      record.spc[heap] === spc &&
      vmPageOf(record.block[heap]!) === block;
    if (isCovered) clearVmBits(page, record.block[heap]!, clearedBits[i]!);
  }
  if (id >= 0) setPageLsn(page, record.end);
  return true;
}

function applyToSlru(record: DecodedRecord, page: Uint8Array, slru: number, block: number): void {
  if (record.rmid === RMGR_TRANSACTION) {
    if (slru === SLRU_CLOG) redoTransactionStatus(record, page, block);
    else if (slru === SLRU_COMMIT_TS) redoCommitTimestamp(record, page, block);
    else throw new PageContentError('the record does not change this page');
    return;
  }
  if (record.rmid === RMGR_MULTIXACT && (record.info & 0xf0) === MULTIXACT_CREATE) {
    if (slru === SLRU_MULTIXACT_OFFSETS) redoMultixactOffsets(record, page, block);
    else if (slru === SLRU_MULTIXACT_MEMBERS) redoMultixactMembers(record, page, block);
    else throw new PageContentError('the record does not change this page');
    return;
  }
  // What remains are the records that add a page of zeros.
  page.fill(0);
}
