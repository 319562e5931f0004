/**
 * Redo of the resource manager Heap on one page.
 *
 * INSERT 0x00: main 0 offset u16, 2 flags u8 (1 visibility cleared, 32 all frozen); block 0 data: infomask2, infomask,
 * header length (5 bytes), then the tuple from its null bitmap on.
 * DELETE 0x10: 0 xmax u32, 4 offset u16, 6 info bits u8, 7 flags u8 (1 visibility cleared, 8 speculative insert undone,
 * 16 moved to another partition).
 * CONFIRM 0x50: 0 offset u16. LOCK 0x60: 0 xmax u32, 4 offset u16, 6 info bits u8, 7 flags u8 (1 frozen cleared).
 * INPLACE 0x70: 0 offset u16 (since 18 invalidations follow); block 0 data: the new content after the tuple's header.
 * TRUNCATE 0x30 is for logical decoding only. Updates are in update.ts.
 *
 * Source: access/heapam_xlog.h.
 */
import { copyBytes, copyU32, readU16, writeU32 } from '../../bytes.ts';
import type { DecodedRecord } from '../../wal/record.ts';
import { PageContentError } from '../errors.ts';
import { requireBlockData, requireMain } from '../main-data.ts';
import {
  addItemSpace,
  initPage,
  lineLength,
  linePointer,
  PD_ALL_VISIBLE,
  PD_FLAGS,
  setPageLsn,
} from '../page.ts';
import {
  HEAP_CONFIRM,
  HEAP_DELETE,
  HEAP_HOT_UPDATE,
  HEAP_INIT_PAGE,
  HEAP_INPLACE,
  HEAP_INSERT,
  HEAP_LOCK,
  HEAP_OPERATION_MASK,
  HEAP_UPDATE,
  T_BITS,
  T_HOFF,
  T_XMAX,
  T_XMIN,
} from './formats.ts';
import {
  clearHotUpdated,
  HOT_CLEARED,
  HOT_KEPT,
  heapTupleAt,
  isLockedOnly,
  RECORD_TUPLE_HEADER_BYTES,
  setCtid,
  setPrunable,
  setXmaxKind,
  writeTupleHeader,
} from './tuple.ts';
import { redoUpdate } from './update.ts';

const ALL_VISIBLE_CLEARED = 1;
const INSERT_ALL_FROZEN_SET = 32;
const DELETE_IS_SUPER = 8;
const DELETE_IS_PARTITION_MOVE = 16;
/** A ctid that says "this row moved to another partition". */
const MOVED_BLOCK = 0xffffffff;
const MOVED_OFFSET = 0xfffd;

/** Applies the record to `page`, which is its block `id`. Returns false if this record type is unknown. */
export function redoHeap(record: DecodedRecord, id: number, page: Uint8Array): boolean {
  switch (record.info & HEAP_OPERATION_MASK) {
    case HEAP_INSERT:
      redoInsert(record, page);
      break;
    case HEAP_DELETE:
      redoDelete(record, page);
      break;
    case HEAP_UPDATE:
    case HEAP_HOT_UPDATE:
      redoUpdate(record, id, page);
      break;
    case HEAP_CONFIRM:
      redoConfirm(record, page);
      break;
    case HEAP_LOCK:
      redoLock(record, page);
      break;
    case HEAP_INPLACE:
      redoInplace(record, page);
      break;
    default:
      return false;
  }
  setPageLsn(page, record.end);
  return true;
}

function redoInsert(record: DecodedRecord, page: Uint8Array): void {
  requireMain(record, 3);
  requireBlockData(record, 0, RECORD_TUPLE_HEADER_BYTES);
  const { bytes, mainOffset } = record;
  const number = readU16(bytes, mainOffset);
  const flags = bytes[mainOffset + 2]!;
  if ((record.info & HEAP_INIT_PAGE) !== 0) initPage(page, 0);
  const data = record.dataOffset[0]!;
  const length = record.dataLength[0]! - RECORD_TUPLE_HEADER_BYTES;
  const tuple = addItemSpace(page, T_BITS + length, number, true);
  writeTupleHeader(page, tuple, record.xid, record.block[0]!, number, bytes, data);
  writeU32(page, tuple + T_XMAX, 0);
  copyBytes(page, tuple + T_BITS, bytes, data + RECORD_TUPLE_HEADER_BYTES, length);
  if (flags & ALL_VISIBLE_CLEARED) clearAllVisible(page);
  if (flags & INSERT_ALL_FROZEN_SET) page[PD_FLAGS] = page[PD_FLAGS]! | PD_ALL_VISIBLE;
}

function redoDelete(record: DecodedRecord, page: Uint8Array): void {
  requireMain(record, 8);
  const { bytes, mainOffset } = record;
  const number = readU16(bytes, mainOffset + 4);
  const flags = bytes[mainOffset + 7]!;
  const tuple = heapTupleAt(page, number);
  const isSuper = (flags & DELETE_IS_SUPER) !== 0;
  setXmaxKind(page, tuple, bytes[mainOffset + 6]!, true, HOT_CLEARED);
  if (isSuper) writeU32(page, tuple + T_XMIN, 0);
  else copyU32(page, tuple + T_XMAX, bytes, mainOffset);
  setPrunable(page, record.xid);
  if (flags & ALL_VISIBLE_CLEARED) clearAllVisible(page);
  if (flags & DELETE_IS_PARTITION_MOVE) setCtid(page, tuple, MOVED_BLOCK, MOVED_OFFSET);
  else setCtid(page, tuple, record.block[0]!, number);
}

function redoConfirm(record: DecodedRecord, page: Uint8Array): void {
  requireMain(record, 2);
  const number = readU16(record.bytes, record.mainOffset);
  setCtid(page, heapTupleAt(page, number), record.block[0]!, number);
}

function redoLock(record: DecodedRecord, page: Uint8Array): void {
  requireMain(record, 8);
  const { bytes, mainOffset } = record;
  const number = readU16(bytes, mainOffset + 4);
  const tuple = heapTupleAt(page, number);
  const infomask = setXmaxKind(page, tuple, bytes[mainOffset + 6]!, true, HOT_KEPT);
  copyU32(page, tuple + T_XMAX, bytes, mainOffset);
  if (isLockedOnly(infomask)) {
    clearHotUpdated(page, tuple);
    setCtid(page, tuple, record.block[0]!, number);
  }
}

function redoInplace(record: DecodedRecord, page: Uint8Array): void {
  requireMain(record, 2);
  const number = readU16(record.bytes, record.mainOffset);
  const tuple = heapTupleAt(page, number);
  const header = page[tuple + T_HOFF]!;
  const length = record.dataLength[0]!;
  if (header + length !== lineLength(linePointer(page, number)))
    throw new PageContentError('tuple length differs');
  copyBytes(page, tuple + header, record.bytes, record.dataOffset[0]!, length);
}

function clearAllVisible(page: Uint8Array): void {
  page[PD_FLAGS] = page[PD_FLAGS]! & ~PD_ALL_VISIBLE;
}
