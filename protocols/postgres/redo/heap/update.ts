/**
 * Redo of HEAP UPDATE (0x20) and HOT_UPDATE (0x40) on the page of the new tuple, of the old one, or of both.
 *
 * Main: 0 old xmax u32, 4 old offset u16, 6 old info bits u8, 7 flags u8 (1 old visibility cleared, 2 new visibility
 * cleared, 32 prefix from the old tuple, 64 suffix from it), 8 new xmax u32, 12 new offset u16.
 * Block 0 (new page) data: prefix length u16 and suffix length u16 if flagged, infomask2, infomask, header length, then
 * the tuple's bytes between prefix and suffix (the null bitmap and padding come before the prefix). Block 1 is the old page if it is
 * another one. Prefix and suffix are used only when both tuples are on one page.
 */
import { copyBytes, readU16, readU32, writeU16, writeU32 } from '../../bytes.ts';
import type { DecodedRecord } from '../../wal/record.ts';
import { PageContentError } from '../errors.ts';
import { requireBlockData, requireMain } from '../main-data.ts';
import { addItem, initPage, lineLength, linePointer, PD_ALL_VISIBLE, PD_FLAGS } from '../page.ts';
import {
  HEAP_HOT_UPDATE,
  HEAP_HOT_UPDATED,
  HEAP_INIT_PAGE,
  HEAP_OPERATION_MASK,
  oldTupleBlock,
  T_BITS,
  T_HOFF,
  T_INFOMASK2,
  T_XMAX,
} from './formats.ts';
import {
  applyInfoBits,
  clearXmaxBits,
  heapTupleAt,
  setCtid,
  setFirstCommandMax,
  setPrunable,
  writeTupleHeader,
} from './tuple.ts';

const OLD_ALL_VISIBLE_CLEARED = 1;
const NEW_ALL_VISIBLE_CLEARED = 2;
const PREFIX_FROM_OLD = 32;
const SUFFIX_FROM_OLD = 64;
const TUPLE_HEADER_BYTES = 5;

const tupleBuffer = new Uint8Array(8192);

/** Applies the update to `page`, which is block `id` of the record. */
export function redoUpdate(record: DecodedRecord, id: number, page: Uint8Array): void {
  requireMain(record, 14);
  const oldId = oldTupleBlock(record);
  if (id === oldId) markOldTuple(record, page);
  if (id === 0) {
    if ((record.info & HEAP_INIT_PAGE) !== 0) initPage(page, 0);
    addNewTuple(record, page, oldId === 0);
  }
}

function markOldTuple(record: DecodedRecord, page: Uint8Array): void {
  const { bytes, mainOffset } = record;
  const tuple = heapTupleAt(page, readU16(bytes, mainOffset + 4));
  clearXmaxBits(page, tuple);
  const mask2 = readU16(page, tuple + T_INFOMASK2);
  const isHot = (record.info & HEAP_OPERATION_MASK) === HEAP_HOT_UPDATE;
  writeU16(page, tuple + T_INFOMASK2, isHot ? mask2 | HEAP_HOT_UPDATED : mask2 & ~HEAP_HOT_UPDATED);
  applyInfoBits(page, tuple, bytes[mainOffset + 6]!);
  writeU32(page, tuple + T_XMAX, readU32(bytes, mainOffset));
  setFirstCommandMax(page, tuple);
  setCtid(page, tuple, record.block[0]!, readU16(bytes, mainOffset + 12));
  setPrunable(page, record.xid);
  if (bytes[mainOffset + 7]! & OLD_ALL_VISIBLE_CLEARED) page[PD_FLAGS] = page[PD_FLAGS]! & ~PD_ALL_VISIBLE;
}

function addNewTuple(record: DecodedRecord, page: Uint8Array, samePage: boolean): void {
  const { bytes, mainOffset } = record;
  const flags = bytes[mainOffset + 7]!;
  const number = readU16(bytes, mainOffset + 12);
  let at = record.dataOffset[0]!;
  const end = at + record.dataLength[0]!;
  let prefix = 0;
  let suffix = 0;
  if (flags & PREFIX_FROM_OLD) {
    prefix = readU16(bytes, at);
    at += 2;
  }
  if (flags & SUFFIX_FROM_OLD) {
    suffix = readU16(bytes, at);
    at += 2;
  }
  requireBlockData(record, 0, at - record.dataOffset[0]! + TUPLE_HEADER_BYTES);
  writeTupleHeader(tupleBuffer, record.xid, readU32(bytes, mainOffset + 8), record.block[0]!, number);
  copyBytes(tupleBuffer, T_INFOMASK2, bytes, at, TUPLE_HEADER_BYTES);
  at += TUPLE_HEADER_BYTES;
  if (T_BITS + end - at + prefix + suffix > tupleBuffer.length)
    throw new PageContentError('tuple is too long');

  let length = T_BITS;
  if (prefix > 0 || suffix > 0) {
    if (!samePage) throw new PageContentError('compressed update across pages');
    length = addFromOldTuple(record, page, at, end, prefix, suffix);
  } else {
    copyBytes(tupleBuffer, length, bytes, at, end - at);
    length += end - at;
  }
  addItem(page, tupleBuffer, 0, length, number, true);
  if (flags & NEW_ALL_VISIBLE_CLEARED) page[PD_FLAGS] = page[PD_FLAGS]! & ~PD_ALL_VISIBLE;
}

/** Completes `tupleBuffer` with the parts that the old tuple on the same page lends; returns its length. */
function addFromOldTuple(
  record: DecodedRecord,
  page: Uint8Array,
  from: number,
  end: number,
  prefix: number,
  suffix: number,
): number {
  const { bytes, mainOffset } = record;
  const oldNumber = readU16(bytes, mainOffset + 4);
  const old = heapTupleAt(page, oldNumber);
  const oldLength = lineLength(linePointer(page, oldNumber));
  if (prefix + suffix > oldLength) throw new PageContentError('old tuple is shorter than its shared parts');
  let at = from;
  let length = T_BITS;
  if (prefix > 0) {
    const bitmap = Math.max(0, tupleBuffer[T_HOFF]! - T_BITS);
    copyBytes(tupleBuffer, length, bytes, at, bitmap);
    at += bitmap;
    length += bitmap;
    copyBytes(tupleBuffer, length, page, old + page[old + T_HOFF]!, prefix);
    length += prefix;
  }
  copyBytes(tupleBuffer, length, bytes, at, end - at);
  length += end - at;
  copyBytes(tupleBuffer, length, page, old + oldLength - suffix, suffix);
  return length + suffix;
}
