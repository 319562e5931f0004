/**
 * Redo of the resource manager Gist on one page.
 *
 * PAGE_UPDATE 0x00: main 0 deleted count u16, 2 inserted count u16; block 0 data: deleted numbers, new tuples; block 1 the
 * left half of a split that this completes. DELETE 0x10: main 0 conflict xid u32, 4 count u16, offsets (at 6 in 15, at 8
 * since). PAGE_SPLIT 0x30: main 0 right link u32, 8 NSN u64, 16 leaf u8, 18 page count u16, 20 mark follow-right u8; blocks
 * 1..n and their tuples (count i32 first), block 0 as in PAGE_UPDATE's 1. PAGE_DELETE 0x60: main 0 deletion xid u64, 8
 * downlink's number u16; block 0 the page, 1 its parent. PAGE_REUSE 0x20 and ASSIGN_LSN 0x70 change nothing.
 *
 * Special space, at 8176: NSN (high u32, low u32), 8184 right link u32, 8188 flags u16, 8190 page id u16.
 *
 * Source: access/gistxlog.h, access/gist.h.
 */
import { copyBytes, readI32, readU16, readU32, readU64, writeU16, writeU32 } from '../bytes.ts';
import { CorruptWalError } from '../wal/errors.ts';
import type { DecodedRecord } from '../wal/record.ts';
import { indexTupleSize } from './btree/formats.ts';
import { deleteIndexTuples } from './compaction.ts';
import { requireBlockData, requireMain } from './main-data.ts';
import {
  addItem,
  deleteIndexTuple,
  initPage,
  lineCount,
  overwriteIndexTuple,
  PAGE_HEADER_BYTES,
  PD_LOWER,
  setPageLsn,
} from './page.ts';

const PAGE_UPDATE = 0x00;
const DELETE = 0x10;
const PAGE_SPLIT = 0x30;
const PAGE_DELETE = 0x60;

const SPECIAL_BYTES = 16;
const NSN = 8176;
const RIGHT_LINK = 8184;
const FLAGS = 8188;
const PAGE_ID = 8190;
const GIST_PAGE_ID = 0xff81;
const ROOT_BLOCK = 0;
const INVALID_BLOCK = 0xffffffff;

const F_LEAF = 1;
const F_DELETED = 2;
const F_TUPLES_DELETED = 4;
const F_FOLLOW_RIGHT = 8;
const F_HAS_GARBAGE = 16;
const DELETE_XID_BYTES = 8;

/** Applies the record to `page`, which is its block `id`. Returns false if this record type is unknown. */
export function redoGist(record: DecodedRecord, id: number, page: Uint8Array): boolean {
  switch (record.info & 0xf0) {
    case PAGE_UPDATE:
      if (id === 1) clearFollowRight(record, page);
      else redoPageUpdate(record, page);
      break;
    case DELETE:
      redoDelete(record, page);
      break;
    case PAGE_SPLIT:
      if (id === 0) clearFollowRight(record, page);
      else redoSplit(record, id, page);
      break;
    case PAGE_DELETE:
      redoPageDelete(record, id, page);
      break;
    default:
      return false;
  }
  setPageLsn(page, record.end);
  return true;
}

/**
 * What redo changes even after it restored block `id` from an image, which was taken before the change: a split's left
 * half is marked as complete.
 */
export function redoGistAfterImage(record: DecodedRecord, id: number, page: Uint8Array): void {
  const operation = record.info & 0xf0;
  if ((operation === PAGE_UPDATE && id === 1) || (operation === PAGE_SPLIT && id === 0)) {
    clearFollowRight(record, page);
  }
}

function setNsn(page: Uint8Array, nsn: number): void {
  writeU32(page, NSN, Math.floor(nsn / 4294967296));
  writeU32(page, NSN + 4, nsn % 4294967296);
}

function setFlags(page: Uint8Array, set: number, clear: number): void {
  writeU16(page, FLAGS, (readU16(page, FLAGS) | set) & ~clear);
}

function clearFollowRight(record: DecodedRecord, page: Uint8Array): void {
  setNsn(page, record.end);
  setFlags(page, 0, F_FOLLOW_RIGHT);
}

function redoPageUpdate(record: DecodedRecord, page: Uint8Array): void {
  requireMain(record, 4);
  const { bytes, mainOffset } = record;
  const deleted = readU16(bytes, mainOffset);
  const inserted = readU16(bytes, mainOffset + 2);
  requireBlockData(record, 0, 2 * deleted);
  const data = record.dataOffset[0]!;
  let at = data + 2 * deleted;
  if (deleted === 1 && inserted === 1) {
    // One for one is an overwrite in place: the physical order differs from delete and add.
    overwriteIndexTuple(page, readU16(bytes, data), bytes, at, indexTupleSize(bytes, at));
    return;
  }
  if (deleted > 0) {
    deleteIndexTuples(page, bytes, data, deleted);
    if ((readU16(page, FLAGS) & F_LEAF) !== 0) setFlags(page, F_TUPLES_DELETED, 0);
  }
  const end = data + record.dataLength[0]!;
  for (let number = lineCount(page) + 1; at < end; number++) {
    const size = indexTupleSize(bytes, at);
    addItem(page, bytes, at, size, number, false);
    at += size;
  }
}

function redoDelete(record: DecodedRecord, page: Uint8Array): void {
  const offsets = record.pgVersion >= 16 ? 8 : 6;
  requireMain(record, 6);
  const { bytes, mainOffset } = record;
  const count = readU16(bytes, mainOffset + 4);
  requireMain(record, offsets + 2 * count);
  if (count > 0) deleteIndexTuples(page, bytes, mainOffset + offsets, count);
  setFlags(page, F_TUPLES_DELETED, F_HAS_GARBAGE);
}

function redoSplit(record: DecodedRecord, id: number, page: Uint8Array): void {
  requireMain(record, 21);
  requireBlockData(record, id, 4);
  const { bytes, mainOffset } = record;
  const block = record.block[id]!;
  const isLeaf = bytes[mainOffset + 16] === 1;
  const isLast = id === readU16(bytes, mainOffset + 18);
  initPage(page, SPECIAL_BYTES);
  writeU16(page, PAGE_ID, GIST_PAGE_ID);
  writeU16(page, FLAGS, isLeaf && block !== ROOT_BLOCK ? F_LEAF : 0);
  writeU32(page, RIGHT_LINK, INVALID_BLOCK);
  fillFromData(record, id, page);
  setNsn(page, readU64(bytes, mainOffset + 8));
  if (block === ROOT_BLOCK) return;
  writeU32(page, RIGHT_LINK, isLast ? readU32(bytes, mainOffset) : record.block[id + 1]!);
  const isRootSplit = record.block[1] === ROOT_BLOCK;
  if (!isLast && !isRootSplit && bytes[mainOffset + 20] === 1) setFlags(page, F_FOLLOW_RIGHT, 0);
}

function fillFromData(record: DecodedRecord, id: number, page: Uint8Array): void {
  const { bytes } = record;
  const count = readI32(bytes, record.dataOffset[id]!);
  const end = record.dataOffset[id]! + record.dataLength[id]!;
  let at = record.dataOffset[id]! + 4;
  for (let number = 1; number <= count; number++) {
    if (at >= end) throw new CorruptWalError(record.lsn, 'split page has too few tuples');
    const size = indexTupleSize(bytes, at);
    addItem(page, bytes, at, size, number, false);
    at += size;
  }
}

function redoPageDelete(record: DecodedRecord, id: number, page: Uint8Array): void {
  requireMain(record, 10);
  if (id === 1) {
    deleteIndexTuple(page, readU16(record.bytes, record.mainOffset + 8));
    return;
  }
  setFlags(page, F_DELETED, 0);
  writeU16(page, PD_LOWER, PAGE_HEADER_BYTES + DELETE_XID_BYTES);
  copyBytes(page, PAGE_HEADER_BYTES, record.bytes, record.mainOffset, DELETE_XID_BYTES);
}
