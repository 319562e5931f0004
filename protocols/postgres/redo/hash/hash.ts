/**
 * Redo of the resource manager Hash on one page.
 *
 * INIT_META_PAGE 0x00: main 0 tuple count f64, 8 hash function u32, 12 fill factor u16. INIT_BITMAP_PAGE 0x10: main 0 bitmap
 * bytes u16; block 0 bitmap, 1 meta. INSERT 0x20: main 0 item u16; block 0 and its tuple, 1 meta. ADD_OVFL_PAGE 0x30: main
 * 0 bitmap bytes u16, 2 free bit found u8; block 0 new page (bucket u32), 1 page before, 2 bitmap (bit u32), 3 new bitmap,
 * 4 meta (first free u32). SPLIT_ALLOCATE_PAGE 0x40: main 0 new bucket u32, 4 old flags u16, 6 new flags u16, 8 flags u8 (1
 * masks, 2 split point); block 0 old bucket, 1 new, 2 meta. SPLIT_PAGE 0x50: image. SPLIT_COMPLETE 0x60: main 0 old flags
 * u16, 2 new flags u16. MOVE_PAGE_CONTENTS 0x70: main 0 tuple count u16; block 1 target (numbers, tuples), 2 source (numbers).
 * SQUEEZE_PAGE 0x80: main 0 previous block u32, 4 next block u32, 8 tuple count u16, 11 previous is the target u8; block 1
 * target as before, 2 freed page, 3 previous, 4 next, 5 bitmap (bit u32), 6 meta (first free u32). DELETE 0x90: main 0 clear
 * dead mark u8; block 1 numbers. SPLIT_CLEANUP 0xa0. UPDATE_META_PAGE 0xb0: main 0 tuple count f64. VACUUM_ONE_PAGE 0xc0: main 0
 * conflict xid u32, 4 count (i32 in 15, u16 since), 8 numbers; block 0 page, 1 meta. Block 0 of 0x70 to 0x90 is only locked.
 *
 * Source: access/hash_xlog.h.
 */
import { readI32, readU16, readU32, writeU16, writeU32 } from '../../bytes.ts';
import { CorruptWalError } from '../../wal/errors.ts';
import type { DecodedRecord } from '../../wal/record.ts';
import { alignedIndexTupleSize } from '../btree/formats.ts';
import { deleteIndexTuples } from '../compaction.ts';
import { PageContentError } from '../errors.ts';
import { requireBlockData, requireMain } from '../main-data.ts';
import { addItem, PAGE_HEADER_BYTES, setPageLsn } from '../page.ts';
import {
  HASH_FLAGS,
  HASH_NEXT,
  HASH_PREV,
  INVALID,
  initBitmapPage,
  initHashPage,
  initMetaPage,
  LH_BUCKET_NEEDS_SPLIT_CLEANUP,
  LH_OVERFLOW_PAGE,
  LH_PAGE_HAS_DEAD_TUPLES,
  LH_UNUSED_PAGE,
  META_BITMAPS,
  META_FIRST_FREE,
  META_HIGH_MASK,
  META_LOW_MASK,
  META_MAPS,
  META_MAPS_COUNT,
  META_MAX_BUCKET,
  META_SPARES,
  META_SPARES_COUNT,
  META_SPLIT_POINT,
  META_TUPLES,
} from './formats.ts';

const INIT_META_PAGE = 0x00;
const INIT_BITMAP_PAGE = 0x10;
const INSERT = 0x20;
const ADD_OVFL_PAGE = 0x30;
const SPLIT_ALLOCATE_PAGE = 0x40;
const SPLIT_COMPLETE = 0x60;
const MOVE_PAGE_CONTENTS = 0x70;
const SQUEEZE_PAGE = 0x80;
const DELETE = 0x90;
const SPLIT_CLEANUP = 0xa0;
const UPDATE_META_PAGE = 0xb0;
const VACUUM_ONE_PAGE = 0xc0;

const UPDATE_MASKS = 1;
const UPDATE_SPLIT_POINT = 2;

/** Applies the record to `page`, which is its block `id`. Returns false if this record type is unknown. */
export function redoHash(record: DecodedRecord, id: number, page: Uint8Array): boolean {
  const { bytes, mainOffset } = record;
  switch (record.info & 0xf0) {
    case INIT_META_PAGE:
      requireMain(record, 14);
      initMetaPage(
        page,
        readF64(bytes, mainOffset),
        readU32(bytes, mainOffset + 8),
        readU16(bytes, mainOffset + 12),
      );
      break;
    case INIT_BITMAP_PAGE:
      requireMain(record, 2);
      if (id === 0) initBitmapPage(page, readU16(bytes, mainOffset));
      else addBitmap(page, readU32(page, META_MAX_BUCKET) + 2);
      break;
    case INSERT:
      requireMain(record, 2);
      if (id === 1) addToTupleCount(page, 1);
      else
        addItem(page, bytes, record.dataOffset[0]!, record.dataLength[0]!, readU16(bytes, mainOffset), false);
      break;
    case ADD_OVFL_PAGE:
      redoAddOverflow(record, id, page);
      break;
    case SPLIT_ALLOCATE_PAGE:
      redoSplitAllocate(record, id, page);
      break;
    case SPLIT_COMPLETE:
      requireMain(record, 4);
      writeU16(page, HASH_FLAGS, readU16(bytes, mainOffset + 2 * id));
      break;
    case MOVE_PAGE_CONTENTS:
      requireMain(record, 3);
      if (id === 0) return true;
      if (id === 1) addMovedTuples(record, page, readU16(bytes, mainOffset));
      else deleteListed(record, id, page);
      break;
    case SQUEEZE_PAGE:
      if (!redoSqueeze(record, id, page)) return true;
      break;
    case DELETE:
      requireMain(record, 2);
      if (id === 0) return true;
      deleteListed(record, id, page);
      if (bytes[mainOffset] === 1) clearFlag(page, LH_PAGE_HAS_DEAD_TUPLES);
      break;
    case SPLIT_CLEANUP:
      clearFlag(page, LH_BUCKET_NEEDS_SPLIT_CLEANUP);
      break;
    case UPDATE_META_PAGE:
      requireMain(record, 8);
      page.set(bytes.subarray(mainOffset, mainOffset + 8), META_TUPLES);
      break;
    case VACUUM_ONE_PAGE:
      redoVacuumOnePage(record, id, page);
      break;
    default:
      return false;
  }
  setPageLsn(page, record.end);
  return true;
}

/** What redo changes even after it restored block `id` from an image: bucket flags, which may be older there. */
export function redoHashAfterImage(record: DecodedRecord, id: number, page: Uint8Array): void {
  const operation = record.info & 0xf0;
  if ((operation === SPLIT_ALLOCATE_PAGE && id === 0) || operation === SPLIT_COMPLETE)
    redoHash(record, id, page);
}

const float = new Float64Array(1);
const floatBytes = new Uint8Array(float.buffer);

function readF64(bytes: Uint8Array, offset: number): number {
  floatBytes.set(bytes.subarray(offset, offset + 8));
  return float[0]!;
}

function addToTupleCount(page: Uint8Array, change: number): void {
  float[0] = readF64(page, META_TUPLES) + change;
  page.set(floatBytes, META_TUPLES);
}

function clearFlag(page: Uint8Array, flag: number): void {
  writeU16(page, HASH_FLAGS, readU16(page, HASH_FLAGS) & ~flag);
}

function addBitmap(page: Uint8Array, block: number): void {
  const count = readU32(page, META_BITMAPS);
  if (count >= META_MAPS_COUNT) throw new PageContentError('too many bitmap pages');
  writeU32(page, META_MAPS + 4 * count, block);
  writeU32(page, META_BITMAPS, count + 1);
}

function addSpare(page: Uint8Array): void {
  const splitPoint = readU32(page, META_SPLIT_POINT);
  if (splitPoint >= META_SPARES_COUNT) throw new PageContentError('split point out of range');
  const at = META_SPARES + 4 * splitPoint;
  writeU32(page, at, readU32(page, at) + 1);
}

/** Sets or clears the bit whose number is block `id`'s data. */
function changeBit(record: DecodedRecord, id: number, page: Uint8Array, set: boolean): void {
  requireBlockData(record, id, 4);
  const bit = readU32(record.bytes, record.dataOffset[id]!);
  const at = PAGE_HEADER_BYTES + Math.floor(bit / 8);
  if (at >= HASH_PREV) throw new PageContentError(`bitmap bit ${bit}`);
  const mask = 1 << (bit & 7);
  page[at] = set ? page[at]! | mask : page[at]! & ~mask;
}

function redoAddOverflow(record: DecodedRecord, id: number, page: Uint8Array): void {
  requireMain(record, 3);
  const { bytes, mainOffset } = record;
  if (id === 0) {
    requireBlockData(record, 0, 4);
    initHashPage(page, record.block[1]!, readU32(bytes, record.dataOffset[0]!), LH_OVERFLOW_PAGE);
  } else if (id === 1) {
    writeU32(page, HASH_NEXT, record.block[0]!);
  } else if (id === 2) {
    changeBit(record, 2, page, true);
  } else if (id === 3) {
    initBitmapPage(page, readU16(bytes, mainOffset));
  } else {
    requireBlockData(record, 4, 4);
    writeU32(page, META_FIRST_FREE, readU32(bytes, record.dataOffset[4]!));
    if (bytes[mainOffset + 2] === 1) return;
    addSpare(page);
    if (!record.hasBlock(3)) return;
    addBitmap(page, record.block[3]!);
    addSpare(page);
  }
}

function redoSplitAllocate(record: DecodedRecord, id: number, page: Uint8Array): void {
  requireMain(record, 9);
  const { bytes, mainOffset } = record;
  const newBucket = readU32(bytes, mainOffset);
  if (id === 0) {
    writeU16(page, HASH_FLAGS, readU16(bytes, mainOffset + 4));
    writeU32(page, HASH_PREV, newBucket);
    return;
  }
  if (id === 1) {
    initHashPage(page, newBucket, newBucket, readU16(bytes, mainOffset + 6));
    return;
  }
  writeU32(page, META_MAX_BUCKET, newBucket);
  const flags = bytes[mainOffset + 8]!;
  let at = record.dataOffset[2]!;
  requireBlockData(record, 2, (flags & UPDATE_MASKS ? 8 : 0) + (flags & UPDATE_SPLIT_POINT ? 8 : 0));
  if (flags & UPDATE_MASKS) {
    writeU32(page, META_LOW_MASK, readU32(bytes, at));
    writeU32(page, META_HIGH_MASK, readU32(bytes, at + 4));
    at += 8;
  }
  if (flags & UPDATE_SPLIT_POINT) {
    const splitPoint = readU32(bytes, at);
    if (splitPoint >= META_SPARES_COUNT) throw new PageContentError('split point out of range');
    writeU32(page, META_SPARES + 4 * splitPoint, readU32(bytes, at + 4));
    writeU32(page, META_SPLIT_POINT, splitPoint);
  }
}

/** Adds the tuples in block 1's data: `count` item numbers, then the tuples. */
function addMovedTuples(record: DecodedRecord, page: Uint8Array, count: number): void {
  if (count === 0) return;
  requireBlockData(record, 1, 2 * count);
  const { bytes } = record;
  const numbers = record.dataOffset[1]!;
  const end = numbers + record.dataLength[1]!;
  let at = numbers + 2 * count;
  for (let i = 0; i < count; i++) {
    if (at >= end) throw new CorruptWalError(record.lsn, 'fewer tuples than announced');
    const size = alignedIndexTupleSize(bytes, at);
    addItem(page, bytes, at, size, readU16(bytes, numbers + 2 * i), false);
    at += size;
  }
}

function deleteListed(record: DecodedRecord, id: number, page: Uint8Array): void {
  const count = record.dataLength[id]! >> 1;
  if (count > 0) deleteIndexTuples(page, record.bytes, record.dataOffset[id]!, count);
}

/** Returns whether the page changed. */
function redoSqueeze(record: DecodedRecord, id: number, page: Uint8Array): boolean {
  requireMain(record, 12);
  const { bytes, mainOffset } = record;
  const nextBlock = readU32(bytes, mainOffset + 4);
  switch (id) {
    case 0:
      return false;
    case 1: {
      const count = readU16(bytes, mainOffset + 8);
      const isPrevious = bytes[mainOffset + 11] === 1;
      addMovedTuples(record, page, count);
      if (isPrevious) writeU32(page, HASH_NEXT, nextBlock);
      return count > 0 || isPrevious;
    }
    case 2:
      initHashPage(page, INVALID, INVALID, LH_UNUSED_PAGE);
      return true;
    case 3:
      writeU32(page, HASH_NEXT, nextBlock);
      return true;
    case 4:
      writeU32(page, HASH_PREV, readU32(bytes, mainOffset));
      return true;
    case 5:
      changeBit(record, 5, page, false);
      return true;
    default:
      requireBlockData(record, id, 4);
      writeU32(page, META_FIRST_FREE, readU32(bytes, record.dataOffset[id]!));
      return true;
  }
}

function redoVacuumOnePage(record: DecodedRecord, id: number, page: Uint8Array): void {
  requireMain(record, 8);
  const { bytes, mainOffset } = record;
  const count = record.pgVersion >= 16 ? readU16(bytes, mainOffset + 4) : readI32(bytes, mainOffset + 4);
  if (id === 1) {
    addToTupleCount(page, -count);
    return;
  }
  requireMain(record, 8 + 2 * count);
  if (count > 0) deleteIndexTuples(page, bytes, mainOffset + 8, count);
  clearFlag(page, LH_PAGE_HAS_DEAD_TUPLES);
}
