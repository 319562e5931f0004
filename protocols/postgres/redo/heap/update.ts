/**
 * Redo of HEAP UPDATE (0x20) and HOT_UPDATE (0x40) on the page of the new tuple, of the old one, or of both.
 *
 * Main: 0 old xmax u32, 4 old offset u16, 6 old info bits u8, 7 flags u8 (1 old visibility cleared, 2 new visibility
 * cleared, 32 prefix from the old tuple, 64 suffix from it), 8 new xmax u32, 12 new offset u16.
 * Block 0 (new page) data: prefix length u16 and suffix length u16 if flagged, infomask2, infomask, header length, then
 * the tuple's bytes between prefix and suffix (the null bitmap and padding come before the prefix). Block 1 is the old page if it is
 * another one. Prefix and suffix are used only when both tuples are on one page.
 *
 * Source: access/heapam_xlog.h.
 */
import { copyBytes, copyU32, readU16 } from '../../bytes.ts';
import type { DecodedRecord } from '../../wal/record.ts';
import { PageContentError } from '../errors.ts';
import { requireBlockData, requireMain } from '../main-data.ts';
import { addItemSpace, initPage, lineLength, lineOffset, PD_ALL_VISIBLE, PD_FLAGS } from '../page.ts';
import {
  HEAP_HOT_UPDATE,
  HEAP_INIT_PAGE,
  HEAP_OPERATION_MASK,
  oldTupleBlock,
  T_BITS,
  T_HOFF,
  T_XMAX,
} from './formats.ts';
import {
  HOT_CLEARED,
  HOT_SET,
  heapPointerAt,
  RECORD_TUPLE_HEADER_BYTES,
  setCtid,
  setPrunable,
  setXmaxKind,
  writeTupleHeader,
} from './tuple.ts';

const OLD_ALL_VISIBLE_CLEARED = 1;
const NEW_ALL_VISIBLE_CLEARED = 2;
const PREFIX_FROM_OLD = 32;
const SUFFIX_FROM_OLD = 64;
/** No line pointer of a tuple: it would be an unused one. */
const NO_POINTER = 0;
/** From here on a call is cheaper than a loop. */
const CALL_BYTES = 16;

/** Applies the update to `page`, which is block `id` of the record. */
export function redoUpdate(record: DecodedRecord, id: number, page: Uint8Array): void {
  requireMain(record, 14);
  const { bytes, mainOffset } = record;
  const flags = bytes[mainOffset + 7]!;
  const number = readU16(bytes, mainOffset + 12);
  let oldPointer = id === oldTupleBlock(record) ? markOldTuple(record, page, flags, number) : NO_POINTER;
  if (id === 0) {
    if ((record.info & HEAP_INIT_PAGE) !== 0) {
      initPage(page, 0);
      oldPointer = NO_POINTER;
    }
    addNewTuple(record, page, oldPointer, flags, number);
  }
}

/** Marks the old tuple, whose new version is `number` of block 0. Returns its line pointer. */
function markOldTuple(record: DecodedRecord, page: Uint8Array, flags: number, number: number): number {
  const { bytes, mainOffset } = record;
  const pointer = heapPointerAt(page, readU16(bytes, mainOffset + 4));
  const tuple = lineOffset(pointer);
  const hot = (record.info & HEAP_OPERATION_MASK) === HEAP_HOT_UPDATE ? HOT_SET : HOT_CLEARED;
  setXmaxKind(page, tuple, bytes[mainOffset + 6]!, true, hot);
  copyU32(page, tuple + T_XMAX, bytes, mainOffset);
  setCtid(page, tuple, record.block[0]!, number);
  setPrunable(page, record.xid);
  if (flags & OLD_ALL_VISIBLE_CLEARED) page[PD_FLAGS] = page[PD_FLAGS]! & ~PD_ALL_VISIBLE;
  return pointer;
}

/** `oldPointer` is the old tuple's line pointer if it is on the same page. */
function addNewTuple(
  record: DecodedRecord,
  page: Uint8Array,
  oldPointer: number,
  flags: number,
  number: number,
): void {
  const { bytes, mainOffset } = record;
  const begin = record.dataOffset[0]!;
  const end = begin + record.dataLength[0]!;
  let header = begin;
  let prefix = 0;
  let suffix = 0;
  if (flags & PREFIX_FROM_OLD) {
    prefix = readU16(bytes, header);
    header += 2;
  }
  if (flags & SUFFIX_FROM_OLD) {
    suffix = readU16(bytes, header);
    header += 2;
  }
  const at = header + RECORD_TUPLE_HEADER_BYTES;
  requireBlockData(record, 0, at - begin);
  const shared = prefix + suffix;
  if (shared > 0 && oldPointer === NO_POINTER) throw acrossPages();
  const tuple = addItemSpace(page, T_BITS + end - at + shared, number, true);
  writeTupleHeader(page, tuple, record.xid, record.block[0]!, number, bytes, header);
  copyU32(page, tuple + T_XMAX, bytes, mainOffset + 8);
  if (shared > 0) addSharedParts(record, page, oldPointer, tuple, at, end, prefix, suffix);
  else copyBytes(page, tuple + T_BITS, bytes, at, end - at);
  if (flags & NEW_ALL_VISIBLE_CLEARED) page[PD_FLAGS] = page[PD_FLAGS]! & ~PD_ALL_VISIBLE;
}

function acrossPages(): PageContentError {
  return new PageContentError('compressed update across pages');
}

/** Completes the new tuple with the parts that the old tuple on the same page lends. */
function addSharedParts(
  record: DecodedRecord,
  page: Uint8Array,
  oldPointer: number,
  tuple: number,
  from: number,
  end: number,
  prefix: number,
  suffix: number,
): void {
  const { bytes } = record;
  const old = lineOffset(oldPointer);
  const oldLength = lineLength(oldPointer);
  let at = from;
  let to = tuple + T_BITS;
  if (prefix > 0) {
    const oldData = page[old + T_HOFF]!;
    if (oldData + prefix + suffix > oldLength)
      throw new PageContentError('old tuple is shorter than its shared parts');
    const bitmap = Math.min(end - at, Math.max(0, page[tuple + T_HOFF]! - T_BITS));
    copyBytes(page, to, bytes, at, bitmap);
    at += bitmap;
    to += bitmap;
    const middle = end - at;
    if (oldData + prefix + middle + suffix === oldLength) {
      // As long as before: one call copies everything, and what changed is written over it.
      copyWithinPage(page, to, old + oldData, prefix + middle + suffix);
      copyBytes(page, to + prefix, bytes, at, middle);
      return;
    }
    copyWithinPage(page, to, old + oldData, prefix);
    to += prefix;
  } else if (suffix > oldLength) {
    throw new PageContentError('old tuple is shorter than its shared parts');
  }
  copyBytes(page, to, bytes, at, end - at);
  copyWithinPage(page, to + end - at, old + oldLength - suffix, suffix);
}

/** The new tuple lies below the old one, so the parts never overlap. */
function copyWithinPage(page: Uint8Array, to: number, from: number, length: number): void {
  if (length > CALL_BYTES) page.copyWithin(to, from, from + length);
  else for (let i = 0; i < length; i++) page[to + i] = page[from + i]!;
}
