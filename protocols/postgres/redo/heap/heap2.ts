/**
 * Redo of the resource manager Heap2 on one page; pruning and freezing are in prune.ts.
 *
 * VISIBLE 0x40: 0 newest xid that conflicts u32, 4 flags u8 (bits of the visibility map in the low two); block 0 is the
 * map, block 1 the heap page.
 * MULTI_INSERT 0x50: 0 flags u8 (1 visibility cleared, 32 all frozen), 2 tuple count u16, 4 offsets u16 each unless the
 * page is made anew; block 0 data: for each tuple, from an even offset: length u16, infomask2, infomask, header length,
 * the bytes from the null bitmap on.
 * LOCK_UPDATED 0x60: 0 xmax u32, 4 offset u16, 6 info bits u8, 7 flags u8.
 * NEW_CID 0x70 and REWRITE 0x00 are for logical decoding only.
 *
 * Source: access/heapam_xlog.h.
 */
import { copyBytes, copyU32, readU16, writeU32 } from '../../bytes.ts';
import { CorruptWalError } from '../../wal/errors.ts';
import type { DecodedRecord } from '../../wal/record.ts';
import { requireMain } from '../main-data.ts';
import { addItemSpace, initPage, PD_ALL_VISIBLE, PD_FLAGS, setPageLsn } from '../page.ts';
import { setVmBits, VM_VALID_BITS } from '../visibility-map.ts';
import {
  HEAP_INIT_PAGE,
  HEAP_OPERATION_MASK,
  HEAP2_FREEZE,
  HEAP2_LOCK_UPDATED,
  HEAP2_MULTI_INSERT,
  HEAP2_PRUNE,
  HEAP2_VACUUM,
  HEAP2_VISIBLE,
  T_BITS,
  T_XMAX,
} from './formats.ts';
import { redoFreeze15, redoFreeze16, redoPrune15, redoPruneFreeze17, redoVacuum15 } from './prune.ts';
import { HOT_KEPT, heapTupleAt, setXmaxKind, writeTupleHeader } from './tuple.ts';

const ALL_VISIBLE_CLEARED = 1;
const ALL_FROZEN_SET = 32;
/** Length u16, infomask2 u16, infomask u16, header length u8. */
const MULTI_TUPLE_HEADER_BYTES = 7;

/** Applies the record to `page`, which is its block `id`. Returns false if this record type is unknown. */
export function redoHeap2(record: DecodedRecord, id: number, page: Uint8Array): boolean {
  const operation = record.info & HEAP_OPERATION_MASK;
  switch (operation) {
    case HEAP2_PRUNE:
    case HEAP2_VACUUM:
    case HEAP2_FREEZE:
      redoPruneVacuumFreeze(record, operation, page);
      break;
    case HEAP2_VISIBLE:
      return redoVisible(record, id, page);
    case HEAP2_MULTI_INSERT:
      redoMultiInsert(record, page);
      break;
    case HEAP2_LOCK_UPDATED:
      redoLockUpdated(record, page);
      break;
    default:
      return false;
  }
  setPageLsn(page, record.end);
  return true;
}

function redoPruneVacuumFreeze(record: DecodedRecord, operation: number, page: Uint8Array): void {
  if (record.pgVersion >= 17) redoPruneFreeze17(record, page);
  else if (operation === HEAP2_PRUNE) redoPrune15(record, page);
  else if (operation === HEAP2_VACUUM) redoVacuum15(record, page);
  else if (record.pgVersion === 16) redoFreeze16(record, page);
  else redoFreeze15(record, page);
}

function redoVisible(record: DecodedRecord, id: number, page: Uint8Array): boolean {
  requireMain(record, 5);
  if (id === 1) {
    // Postgres moves the heap page's LSN only with checksums or wal_log_hints; doing it always is as safe.
    page[PD_FLAGS] = page[PD_FLAGS]! | PD_ALL_VISIBLE;
    setPageLsn(page, record.end);
    return true;
  }
  const bits = record.bytes[record.mainOffset + 4]! & VM_VALID_BITS;
  if (setVmBits(page, record.block[1]!, bits)) setPageLsn(page, record.end);
  return true;
}

function redoMultiInsert(record: DecodedRecord, page: Uint8Array): void {
  requireMain(record, 4);
  const { bytes, mainOffset } = record;
  const flags = bytes[mainOffset]!;
  const count = readU16(bytes, mainOffset + 2);
  const initialises = (record.info & HEAP_INIT_PAGE) !== 0;
  if (initialises) initPage(page, 0);
  else requireMain(record, 4 + 2 * count);
  const begin = record.dataOffset[0]!;
  const end = begin + record.dataLength[0]!;
  let at = begin;
  for (let i = 0; i < count; i++) {
    const number = initialises ? i + 1 : readU16(bytes, mainOffset + 4 + 2 * i);
    // Each tuple is aligned to two bytes relative to the beginning of the block's data.
    at += (at - begin) & 1;
    const length = readU16(bytes, at);
    if (at + MULTI_TUPLE_HEADER_BYTES + length > end)
      throw new CorruptWalError(record.lsn, 'multi-insert tuple is too long');
    const tuple = addItemSpace(page, T_BITS + length, number, true);
    writeTupleHeader(page, tuple, record.xid, record.block[0]!, number, bytes, at + 2);
    writeU32(page, tuple + T_XMAX, 0);
    at += MULTI_TUPLE_HEADER_BYTES;
    copyBytes(page, tuple + T_BITS, bytes, at, length);
    at += length;
  }
  if (flags & ALL_VISIBLE_CLEARED) page[PD_FLAGS] = page[PD_FLAGS]! & ~PD_ALL_VISIBLE;
  if (flags & ALL_FROZEN_SET) page[PD_FLAGS] = page[PD_FLAGS]! | PD_ALL_VISIBLE;
}

function redoLockUpdated(record: DecodedRecord, page: Uint8Array): void {
  requireMain(record, 8);
  const { bytes, mainOffset } = record;
  const tuple = heapTupleAt(page, readU16(bytes, mainOffset + 4));
  setXmaxKind(page, tuple, bytes[mainOffset + 6]!, false, HOT_KEPT);
  copyU32(page, tuple + T_XMAX, bytes, mainOffset);
}
