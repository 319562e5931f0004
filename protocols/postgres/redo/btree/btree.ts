/**
 * Redo of the resource manager Btree on one page; splits and posting lists have their own files.
 *
 * INSERT_LEAF 0x00, INSERT_UPPER 0x10, INSERT_META 0x20, INSERT_POST 0x50: main 0 item number u16; block 0 data: the
 * tuple (POST: posting list position u16 before it); block 1 the child whose split this finishes; block 2 the meta page.
 * DELETE 0x70: main 0 conflict xid u32, 4 deleted count u16, 6 updated count u16; VACUUM 0xc0: main 0 and 2 the same
 * counts; block 0 data: deleted numbers, updated numbers, updates.
 * NEWROOT 0xa0: main 0 root block u32, 4 level u32; block 0 root and its tuples, 1 left child, 2 meta page.
 * MARK_PAGE_HALFDEAD 0xb0: main 0 parent's item u16, 4 leaf u32, 8 left u32, 12 right u32, 16 topmost parent u32; block
 * 0 leaf, 1 parent. UNLINK_PAGE 0x80, with meta 0x90: main 0 left, 4 right, 8 level, 16 safe xid u64, 24 the leaf's
 * left, 28 its right, 32 topmost parent; block 0 target, 1 left, 2 right, 3 leaf, 4 meta page.
 * META_CLEANUP 0xe0: block 0 meta page. Meta data: version, root, level, fast root, its level, deleted pages (u32 each),
 * all-equal-image u8. REUSE_PAGE 0xd0 changes nothing.
 *
 * Source: access/nbtxlog.h.
 */
import { copyBytes, readU16, readU32, writeU16, writeU32 } from '../../bytes.ts';
import type { DecodedRecord } from '../../wal/record.ts';
import { deleteIndexTuples } from '../compaction.ts';
import { requireBlockData, requireMain } from '../main-data.ts';
import {
  addItem,
  deleteIndexTuple,
  lineOffset,
  PAGE_HEADER_BYTES,
  PD_LOWER,
  PD_UPPER,
  requireTuple,
  setPageLsn,
} from '../page.ts';
import {
  BT_FLAGS,
  BT_NEXT,
  BT_PREV,
  BT_SPECIAL,
  BTP_DELETED,
  BTP_HALF_DEAD,
  BTP_HAS_FULLXID,
  BTP_HAS_GARBAGE,
  BTP_LEAF,
  BTP_META,
  BTP_ROOT,
  BTREE_DEDUP,
  BTREE_DELETE,
  BTREE_INSERT_LEAF,
  BTREE_INSERT_META,
  BTREE_INSERT_POST,
  BTREE_INSERT_UPPER,
  BTREE_MARK_PAGE_HALFDEAD,
  BTREE_META_CLEANUP,
  BTREE_NEWROOT,
  BTREE_SPLIT_L,
  BTREE_SPLIT_R,
  BTREE_UNLINK_PAGE,
  BTREE_UNLINK_PAGE_META,
  BTREE_VACUUM,
  INDEX_ALT_TID,
  indexTupleSize,
  initBtreePage,
  writeTidBlock,
} from './formats.ts';
import { redoDedup, swapPosting, swappedItem, swappedPosting, updatePostings } from './posting.ts';
import { clearIncompleteSplit, redoSplit, restorePageItems } from './split.ts';

const META_MAGIC = 0x053162;
const META_DATA_BYTES = 25;
/** Where pd_lower stands on a meta page: header and 48 bytes of meta data. */
const META_LOWER = 72;
const SAFE_XID_BYTES = 8;

const highKey = new Uint8Array(8);

/** Applies the record to `page`, which is its block `id`. Returns false if this record type is unknown. */
export function redoBtree(record: DecodedRecord, id: number, page: Uint8Array): boolean {
  const operation = record.info & 0xf0;
  switch (operation) {
    case BTREE_INSERT_LEAF:
    case BTREE_INSERT_UPPER:
    case BTREE_INSERT_META:
    case BTREE_INSERT_POST:
      if (id === 0) redoInsert(record, page, operation === BTREE_INSERT_POST);
      else if (id === 1) clearIncompleteSplit(page);
      else writeMeta(record, id, page);
      break;
    case BTREE_SPLIT_L:
    case BTREE_SPLIT_R:
      redoSplit(record, id, page);
      break;
    case BTREE_DEDUP:
      redoDedup(record, page);
      break;
    case BTREE_DELETE:
      redoDelete(record, page, record.mainOffset + 4);
      break;
    case BTREE_VACUUM:
      redoDelete(record, page, record.mainOffset);
      break;
    case BTREE_MARK_PAGE_HALFDEAD:
      redoMarkHalfDead(record, id, page);
      break;
    case BTREE_UNLINK_PAGE:
    case BTREE_UNLINK_PAGE_META:
      redoUnlink(record, id, page);
      break;
    case BTREE_NEWROOT:
      redoNewRoot(record, id, page);
      break;
    case BTREE_META_CLEANUP:
      writeMeta(record, id, page);
      break;
    default:
      return false;
  }
  setPageLsn(page, record.end);
  return true;
}

function redoInsert(record: DecodedRecord, page: Uint8Array, splitsPosting: boolean): void {
  requireMain(record, 2);
  const { bytes } = record;
  const number = readU16(bytes, record.mainOffset);
  const data = record.dataOffset[0]!;
  const length = record.dataLength[0]!;
  if (!splitsPosting) {
    addItem(page, bytes, data, length, number, false);
    return;
  }
  requireBlockData(record, 0, 10);
  const posting = lineOffset(requireTuple(page, number - 1));
  swapPosting(bytes, data + 2, length - 2, page, posting, readU16(bytes, data));
  copyBytes(page, posting, swappedPosting, 0, indexTupleSize(swappedPosting, 0));
  addItem(page, swappedItem, 0, length - 2, number, false);
}

function redoDelete(record: DecodedRecord, page: Uint8Array, counts: number): void {
  requireMain(record, counts - record.mainOffset + 4);
  const { bytes } = record;
  const deleted = readU16(bytes, counts);
  const updated = readU16(bytes, counts + 2);
  requireBlockData(record, 0, 2 * (deleted + updated));
  const data = record.dataOffset[0]!;
  if (updated > 0) {
    updatePostings(record, page, data + 2 * deleted, data + 2 * (deleted + updated), updated);
  }
  if (deleted > 0) deleteIndexTuples(page, bytes, data, deleted);
  writeU16(page, BT_FLAGS, readU16(page, BT_FLAGS) & ~BTP_HAS_GARBAGE);
}

function redoMarkHalfDead(record: DecodedRecord, id: number, page: Uint8Array): void {
  requireMain(record, 20);
  const { bytes, mainOffset } = record;
  if (id === 0) {
    initHalfDead(
      page,
      readU32(bytes, mainOffset + 8),
      readU32(bytes, mainOffset + 12),
      readU32(bytes, mainOffset + 16),
    );
    return;
  }
  // The parent's downlink to the leaf takes over the right sibling's, whose own goes away.
  const number = readU16(bytes, mainOffset);
  const right = lineOffset(requireTuple(page, number + 1));
  copyBytes(page, lineOffset(requireTuple(page, number)), page, right, 4);
  deleteIndexTuple(page, number + 1);
}

function redoUnlink(record: DecodedRecord, id: number, page: Uint8Array): void {
  requireMain(record, 36);
  const { bytes, mainOffset } = record;
  const left = readU32(bytes, mainOffset);
  const right = readU32(bytes, mainOffset + 4);
  if (id === 0) initDeleted(record, page, left, right);
  else if (id === 1) writeU32(page, BT_NEXT, right);
  else if (id === 2) writeU32(page, BT_PREV, left);
  else if (id === 3) {
    initHalfDead(
      page,
      readU32(bytes, mainOffset + 24),
      readU32(bytes, mainOffset + 28),
      readU32(bytes, mainOffset + 32),
    );
  } else writeMeta(record, id, page);
}

/** A deleted page keeps only its links and the xid from which on it may be reused. */
function initDeleted(record: DecodedRecord, page: Uint8Array, left: number, right: number): void {
  const level = readU32(record.bytes, record.mainOffset + 8);
  initBtreePage(page, left, right, level, BTP_DELETED | BTP_HAS_FULLXID | (level === 0 ? BTP_LEAF : 0));
  writeU16(page, PD_LOWER, PAGE_HEADER_BYTES + SAFE_XID_BYTES);
  writeU16(page, PD_UPPER, BT_SPECIAL);
  copyBytes(page, PAGE_HEADER_BYTES, record.bytes, record.mainOffset + 16, SAFE_XID_BYTES);
}

/** A half-dead leaf holds one dummy high key that points to the topmost page to be deleted. */
function initHalfDead(page: Uint8Array, left: number, right: number, topParent: number): void {
  initBtreePage(page, left, right, 0, BTP_HALF_DEAD | BTP_LEAF);
  highKey.fill(0);
  writeTidBlock(highKey, 0, topParent);
  writeU16(highKey, 6, highKey.length | INDEX_ALT_TID);
  addItem(page, highKey, 0, highKey.length, 1, false);
}

function redoNewRoot(record: DecodedRecord, id: number, page: Uint8Array): void {
  requireMain(record, 8);
  const level = readU32(record.bytes, record.mainOffset + 4);
  if (id === 0) {
    initBtreePage(page, 0, 0, level, BTP_ROOT | (level === 0 ? BTP_LEAF : 0));
    if (level > 0) restorePageItems(record, 0, page);
  } else if (id === 1) clearIncompleteSplit(page);
  else writeMeta(record, id, page);
}

function writeMeta(record: DecodedRecord, id: number, page: Uint8Array): void {
  requireBlockData(record, id, META_DATA_BYTES);
  const data = record.dataOffset[id]!;
  initBtreePage(page, 0, 0, 0, BTP_META);
  writeU32(page, 24, META_MAGIC);
  copyBytes(page, 28, record.bytes, data, 24);
  // The number of heap tuples at the last cleanup: -1.0, "unknown".
  writeU32(page, 56, 0);
  writeU32(page, 60, 0xbff00000);
  page[64] = record.bytes[data + 24]!;
  writeU16(page, PD_LOWER, META_LOWER);
}
