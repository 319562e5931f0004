/**
 * Posting lists: splitting one around a new tuple, deduplication into new ones, and removing tuple ids from them.
 *
 * Source: access/nbtree.h, nbtree/nbtdedup.c.
 */
import { copyBytes, maxAlign, readU16, writeU16 } from '../../bytes.ts';
import { CorruptWalError } from '../../wal/errors.ts';
import type { DecodedRecord } from '../../wal/record.ts';
import { PageContentError } from '../errors.ts';
import { requireBlockData, requireMain } from '../main-data.ts';
import {
  addItem,
  initPage,
  lineCount,
  lineLength,
  lineOffset,
  overwriteIndexTuple,
  requireTuple,
} from '../page.ts';
import {
  BT_FLAGS,
  BT_IS_POSTING,
  BT_SPECIAL,
  BTP_HAS_GARBAGE,
  firstDataKey,
  INDEX_ALT_TID,
  INDEX_SIZE_MASK,
  indexTupleSize,
  isPosting,
  postingCount,
  postingListOffset,
  SPECIAL_BYTES,
  TID_BYTES,
  writeTidBlock,
} from './formats.ts';

const rebuiltPage = new Uint8Array(8192);
const tupleBuffer = new Uint8Array(8192);
/** Results of the last `swapPosting`. */
export const swappedPosting = new Uint8Array(8192);
export const swappedItem = new Uint8Array(8192);

/**
 * Puts a new tuple's id into a posting list at `position` and takes the list's last id out for the new tuple. Leaves
 * both in `swappedPosting` and `swappedItem`.
 */
export function swapPosting(
  source: Uint8Array,
  itemOffset: number,
  itemLength: number,
  page: Uint8Array,
  postingOffset: number,
  position: number,
): void {
  if (!isPosting(page, postingOffset)) throw new PageContentError('no posting list where one is split');
  const size = indexTupleSize(page, postingOffset);
  const count = postingCount(page, postingOffset);
  const list = postingListOffset(page, postingOffset);
  if (position === 0 || position >= count || itemLength > swappedItem.length) {
    throw new PageContentError(`posting list of ${count} is split at ${position}`);
  }
  copyBytes(swappedPosting, 0, page, postingOffset, size);
  swappedPosting.fill(0, size, maxAlign(size));
  copyBytes(swappedItem, 0, source, itemOffset, itemLength);
  const at = list + position * TID_BYTES;
  swappedPosting.copyWithin(at + TID_BYTES, at, at + (count - position - 1) * TID_BYTES);
  copyBytes(swappedPosting, at, swappedItem, 0, TID_BYTES);
  copyBytes(swappedItem, 0, page, postingOffset + list + (count - 1) * TID_BYTES, TID_BYTES);
}

/**
 * Removes some tuple ids from posting lists. `offsets` lists `count` item numbers (u16); at `updates`, for each: count of
 * removed ids u16 and their positions u16.
 */
export function updatePostings(
  record: DecodedRecord,
  page: Uint8Array,
  offsets: number,
  updates: number,
  count: number,
): void {
  const { bytes } = record;
  const end = record.dataOffset[0]! + record.dataLength[0]!;
  let at = updates;
  for (let i = 0; i < count; i++) {
    const removed = readU16(bytes, at);
    at += 2;
    if (at + 2 * removed > end) throw new CorruptWalError(record.lsn, 'posting update is too short');
    updatePosting(page, readU16(bytes, offsets + 2 * i), bytes, at, removed);
    at += 2 * removed;
  }
}

function updatePosting(
  page: Uint8Array,
  number: number,
  bytes: Uint8Array,
  positions: number,
  removed: number,
): void {
  const tuple = lineOffset(requireTuple(page, number));
  if (!isPosting(page, tuple)) throw new PageContentError(`tuple ${number} has no posting list`);
  const count = postingCount(page, tuple);
  const list = postingListOffset(page, tuple);
  const left = count - removed;
  if (left < 1) throw new PageContentError(`posting list of ${count} loses ${removed}`);
  // A list of one becomes an ordinary tuple with that id.
  const size = left > 1 ? maxAlign(list + left * TID_BYTES) : list;
  tupleBuffer.fill(0, 0, maxAlign(size));
  copyBytes(tupleBuffer, 0, page, tuple, list);
  let info = (readU16(tupleBuffer, 6) & ~(INDEX_SIZE_MASK | INDEX_ALT_TID)) | size;
  let out = 0;
  if (left > 1) {
    info |= INDEX_ALT_TID;
    writeU16(tupleBuffer, 4, left | BT_IS_POSTING);
    writeTidBlock(tupleBuffer, 0, list);
    out = list;
  }
  writeU16(tupleBuffer, 6, info);
  let next = 0;
  for (let i = 0; i < count; i++) {
    if (next < removed && readU16(bytes, positions + 2 * next) === i) {
      next++;
      continue;
    }
    copyBytes(tupleBuffer, out, page, tuple + list + i * TID_BYTES, TID_BYTES);
    out += TID_BYTES;
  }
  overwriteIndexTuple(page, number, tupleBuffer, 0, size);
}

/**
 * DEDUP 0x60: main 0 interval count u16; block 0 data: for each interval its first item u16 and number of items u16. The
 * items of an interval become one posting list; the page is rebuilt in order.
 */
export function redoDedup(record: DecodedRecord, page: Uint8Array): void {
  requireMain(record, 2);
  const { bytes } = record;
  const intervalCount = readU16(bytes, record.mainOffset);
  requireBlockData(record, 0, 4 * intervalCount);
  const intervals = record.dataOffset[0]!;
  initPage(rebuiltPage, SPECIAL_BYTES);
  rebuiltPage.set(page.subarray(BT_SPECIAL), BT_SPECIAL);
  const firstKey = firstDataKey(page);
  const lines = lineCount(page);
  if (firstKey === 2) copyItem(page, 1, 1);
  let target = firstKey;
  let interval = 0;
  for (let number = firstKey; number <= lines; ) {
    const at = intervals + 4 * interval;
    if (interval < intervalCount && readU16(bytes, at) === number) {
      const items = readU16(bytes, at + 2);
      mergeItems(page, number, items, target++);
      number += Math.max(1, items);
      interval++;
    } else {
      copyItem(page, number++, target++);
    }
  }
  writeU16(rebuiltPage, BT_FLAGS, readU16(rebuiltPage, BT_FLAGS) & ~BTP_HAS_GARBAGE);
  page.set(rebuiltPage);
}

function copyItem(page: Uint8Array, number: number, target: number): void {
  const pointer = requireTuple(page, number);
  addItem(rebuiltPage, page, lineOffset(pointer), lineLength(pointer), target, false);
}

/** Adds to the rebuilt page one posting list tuple with the ids of `items` items from `first` on. */
function mergeItems(page: Uint8Array, first: number, items: number, target: number): void {
  const base = lineOffset(requireTuple(page, first));
  const keyBytes = isPosting(page, base) ? postingListOffset(page, base) : indexTupleSize(page, base);
  tupleBuffer.fill(0);
  copyBytes(tupleBuffer, 0, page, base, keyBytes);
  let at = keyBytes;
  let count = 0;
  for (let number = first; number < first + items; number++) {
    const tuple = lineOffset(requireTuple(page, number));
    const posting = isPosting(page, tuple);
    const ids = posting ? postingCount(page, tuple) : 1;
    const from = posting ? tuple + postingListOffset(page, tuple) : tuple;
    if (at + ids * TID_BYTES > tupleBuffer.length)
      throw new PageContentError('posting list outgrows its page');
    copyBytes(tupleBuffer, at, page, from, ids * TID_BYTES);
    at += ids * TID_BYTES;
    count += ids;
  }
  const size = maxAlign(at);
  if (items > 1) {
    writeU16(tupleBuffer, 6, (readU16(tupleBuffer, 6) & ~INDEX_SIZE_MASK) | size | INDEX_ALT_TID);
    writeU16(tupleBuffer, 4, count | BT_IS_POSTING);
    writeTidBlock(tupleBuffer, 0, keyBytes);
  }
  addItem(rebuiltPage, tupleBuffer, 0, size, target, false);
}
