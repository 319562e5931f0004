/**
 * Redo of page splits, SPLIT_L (0x30: the new tuple went left) and SPLIT_R (0x40).
 *
 * Main: 0 level u32, 4 first item that went right u16, 6 the new item's number u16, 8 posting list position u16 (0:
 * none). Block 0 left page, data: the new tuple (if it went left or splits a posting list), then the new high key;
 * block 1 right page, data: all its tuples; block 2 the page right of it, if any; block 3 the child whose split this
 * finishes, above the leaf level.
 *
 * Source: access/nbtxlog.h.
 */
import { copyBytes, readU16, readU32, writeU16, writeU32 } from '../../bytes.ts';
import { CorruptWalError } from '../../wal/errors.ts';
import type { DecodedRecord } from '../../wal/record.ts';
import { PageContentError } from '../errors.ts';
import { requireMain } from '../main-data.ts';
import { addItem, initPage, lineLength, lineOffset, requireTuple } from '../page.ts';
import {
  alignedIndexTupleSize,
  BT_CYCLE,
  BT_FLAGS,
  BT_NEXT,
  BT_PREV,
  BT_SPECIAL,
  BTP_INCOMPLETE_SPLIT,
  BTP_LEAF,
  BTREE_SPLIT_L,
  firstDataKey,
  initBtreePage,
  SPECIAL_BYTES,
} from './formats.ts';
import { swapPosting, swappedItem, swappedPosting } from './posting.ts';

const leftPage = new Uint8Array(8192);
const newItem = new Uint8Array(8192);
const restoredOffsets = new Int32Array(2048);

/** Applies a split to block `id`. */
export function redoSplit(record: DecodedRecord, id: number, page: Uint8Array): void {
  requireMain(record, 10);
  if (id === 0) splitLeft(record, page);
  else if (id === 1) fillRight(record, page);
  else if (id === 2) writeU32(page, BT_PREV, record.block[1]!);
  else clearIncompleteSplit(page);
}

export function clearIncompleteSplit(page: Uint8Array): void {
  writeU16(page, BT_FLAGS, readU16(page, BT_FLAGS) & ~BTP_INCOMPLETE_SPLIT);
}

/** Adds the tuples in block `id`'s data so that the last ends up at the page's end, as Postgres does. */
export function restorePageItems(record: DecodedRecord, id: number, page: Uint8Array): void {
  const { bytes } = record;
  let at = record.dataOffset[id]!;
  const end = at + record.dataLength[id]!;
  let count = 0;
  while (at < end) {
    if (count === restoredOffsets.length) throw new PageContentError('too many tuples for a page');
    restoredOffsets[count++] = at;
    at += alignedIndexTupleSize(bytes, at);
  }
  if (at !== end) throw new CorruptWalError(record.lsn, 'tuples run over the block data');
  for (let i = count - 1; i >= 0; i--) {
    const offset = restoredOffsets[i]!;
    addItem(page, bytes, offset, alignedIndexTupleSize(bytes, offset), count - i, false);
  }
}

function fillRight(record: DecodedRecord, page: Uint8Array): void {
  const level = readU32(record.bytes, record.mainOffset);
  const next = record.hasBlock(2) ? record.block[2]! : 0;
  initBtreePage(page, record.block[0]!, next, level, level === 0 ? BTP_LEAF : 0);
  restorePageItems(record, 1, page);
}

function splitLeft(record: DecodedRecord, page: Uint8Array): void {
  const { bytes, mainOffset } = record;
  const wentLeft = (record.info & 0xf0) === BTREE_SPLIT_L;
  const isLeaf = readU32(bytes, mainOffset) === 0;
  const firstRight = readU16(bytes, mainOffset + 4);
  const newNumber = readU16(bytes, mainOffset + 6);
  const position = readU16(bytes, mainOffset + 8);
  const end = record.dataOffset[0]! + record.dataLength[0]!;
  let at = record.dataOffset[0]!;
  let newLength = 0;
  let replaced = 0;
  if (wentLeft || position !== 0) {
    newLength = alignedIndexTupleSize(bytes, at);
    if (position !== 0) {
      replaced = newNumber - 1;
      swapPosting(bytes, at, newLength, page, lineOffset(requireTuple(page, replaced)), position);
      copyBytes(newItem, 0, swappedItem, 0, newLength);
    } else {
      copyBytes(newItem, 0, bytes, at, newLength);
    }
    at += newLength;
  }
  if (at >= end) throw new CorruptWalError(record.lsn, 'split has no high key');

  initPage(leftPage, SPECIAL_BYTES);
  leftPage.set(page.subarray(BT_SPECIAL), BT_SPECIAL);
  addItem(leftPage, bytes, at, alignedIndexTupleSize(bytes, at), 1, false);
  let target = 2;
  let number = firstDataKey(page);
  for (; number < firstRight; number++) {
    if (number === replaced) {
      addItem(leftPage, swappedPosting, 0, alignedIndexTupleSize(swappedPosting, 0), target++, false);
      continue;
    }
    if (wentLeft && number === newNumber) addItem(leftPage, newItem, 0, newLength, target++, false);
    const pointer = requireTuple(page, number);
    addItem(leftPage, page, lineOffset(pointer), lineLength(pointer), target++, false);
  }
  if (wentLeft && number === newNumber) addItem(leftPage, newItem, 0, newLength, target, false);
  page.set(leftPage);
  writeU16(page, BT_FLAGS, BTP_INCOMPLETE_SPLIT | (isLeaf ? BTP_LEAF : 0));
  writeU32(page, BT_NEXT, record.block[1]!);
  writeU16(page, BT_CYCLE, 0);
}
