/**
 * Record types of the resource manager Btree and the layout of its pages and tuples.
 *
 * Special space, at 8176: previous block u32, next block u32, level u32, flags u16, vacuum cycle u16.
 * Index tuple: 0 heap block (high u16, low u16), 4 heap offset u16, 6 size in 13 bits and flags. With flag 0x2000 the
 * first six bytes mean something else; a posting list tuple has its list's offset as block and 0x2000 | count as
 * offset; the list is an array of 6-byte tuple ids.
 *
 * Source: access/nbtree.h.
 */
import { maxAlign, readU16, readU32, writeU16, writeU32 } from '../../bytes.ts';
import { PageContentError } from '../errors.ts';
import { initPage } from '../page.ts';

export const BTREE_INSERT_LEAF = 0x00;
export const BTREE_INSERT_UPPER = 0x10;
export const BTREE_INSERT_META = 0x20;
export const BTREE_SPLIT_L = 0x30;
export const BTREE_SPLIT_R = 0x40;
export const BTREE_INSERT_POST = 0x50;
export const BTREE_DEDUP = 0x60;
export const BTREE_DELETE = 0x70;
export const BTREE_UNLINK_PAGE = 0x80;
export const BTREE_UNLINK_PAGE_META = 0x90;
export const BTREE_NEWROOT = 0xa0;
export const BTREE_MARK_PAGE_HALFDEAD = 0xb0;
export const BTREE_VACUUM = 0xc0;
export const BTREE_REUSE_PAGE = 0xd0;
export const BTREE_META_CLEANUP = 0xe0;

export const BTP_LEAF = 1;
export const BTP_ROOT = 2;
export const BTP_DELETED = 4;
export const BTP_META = 8;
export const BTP_HALF_DEAD = 16;
export const BTP_SPLIT_END = 32;
export const BTP_HAS_GARBAGE = 64;
export const BTP_INCOMPLETE_SPLIT = 128;
export const BTP_HAS_FULLXID = 256;

export const SPECIAL_BYTES = 16;
export const BT_SPECIAL = 8176;
export const BT_PREV = 8176;
export const BT_NEXT = 8180;
const BT_LEVEL = 8184;
export const BT_FLAGS = 8188;
export const BT_CYCLE = 8190;

export const INDEX_SIZE_MASK = 0x1fff;
export const INDEX_ALT_TID = 0x2000;
export const BT_IS_POSTING = 0x2000;
export const POSTING_COUNT_MASK = 0x0fff;
export const TID_BYTES = 6;

/** Makes an empty btree page. */
export function initBtreePage(
  page: Uint8Array,
  previous: number,
  next: number,
  level: number,
  flags: number,
): void {
  initPage(page, SPECIAL_BYTES);
  writeU32(page, BT_PREV, previous);
  writeU32(page, BT_NEXT, next);
  writeU32(page, BT_LEVEL, level);
  writeU16(page, BT_FLAGS, flags);
}

/** Size of the tuple as its header says; at least the header itself. */
export function indexTupleSize(bytes: Uint8Array, offset: number): number {
  const size = readU16(bytes, offset + 6) & INDEX_SIZE_MASK;
  if (size < 8) throw new PageContentError(`index tuple of ${size} bytes`);
  return size;
}

export function alignedIndexTupleSize(bytes: Uint8Array, offset: number): number {
  return maxAlign(indexTupleSize(bytes, offset));
}

export function isPosting(bytes: Uint8Array, offset: number): boolean {
  return (
    (readU16(bytes, offset + 6) & INDEX_ALT_TID) !== 0 && (readU16(bytes, offset + 4) & BT_IS_POSTING) !== 0
  );
}

export function postingCount(bytes: Uint8Array, offset: number): number {
  return readU16(bytes, offset + 4) & POSTING_COUNT_MASK;
}

/** Where the posting list begins in its tuple, checked against the tuple's size. */
export function postingListOffset(bytes: Uint8Array, offset: number): number {
  const listOffset = ((readU16(bytes, offset) << 16) | readU16(bytes, offset + 2)) >>> 0;
  if (listOffset + postingCount(bytes, offset) * TID_BYTES > indexTupleSize(bytes, offset)) {
    throw new PageContentError('posting list runs over its tuple');
  }
  return listOffset;
}

/** Stores a block number in the tuple's tid, in Postgres' split form. */
export function writeTidBlock(bytes: Uint8Array, offset: number, block: number): void {
  writeU16(bytes, offset, block >>> 16);
  writeU16(bytes, offset + 2, block);
}

export function nextBlock(page: Uint8Array): number {
  return readU32(page, BT_NEXT);
}

/** The first data item: 2 where item 1 is the high key, 1 on a rightmost page. */
export function firstDataKey(page: Uint8Array): number {
  return nextBlock(page) === 0 ? 1 : 2;
}
