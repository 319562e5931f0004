/**
 * Record types and flags of the resource managers Heap and Heap2, and the heap tuple header.
 *
 * Tuple header: 0 xmin, 4 xmax, 8 cid or xvac, 12 ctid (block high u16, low u16, offset u16), 18 infomask2 u16,
 * 20 infomask u16, 22 header length u8, 23 null bitmap.
 *
 * Source: access/heapam_xlog.h, access/htup_details.h.
 */
import type { DecodedRecord } from '../../wal/record.ts';

export const HEAP_OPERATION_MASK = 0x70;
/** Redo begins with an empty page. */
export const HEAP_INIT_PAGE = 0x80;

export const HEAP_INSERT = 0x00;
export const HEAP_DELETE = 0x10;
export const HEAP_UPDATE = 0x20;
export const HEAP_TRUNCATE = 0x30;
export const HEAP_HOT_UPDATE = 0x40;
export const HEAP_CONFIRM = 0x50;
export const HEAP_LOCK = 0x60;
export const HEAP_INPLACE = 0x70;

export const HEAP2_REWRITE = 0x00;
/** PRUNE in 15 and 16, PRUNE_ON_ACCESS since 17. */
export const HEAP2_PRUNE = 0x10;
/** VACUUM in 15 and 16, PRUNE_VACUUM_SCAN since 17. */
export const HEAP2_VACUUM = 0x20;
/** FREEZE_PAGE in 15 and 16, PRUNE_VACUUM_CLEANUP since 17. */
export const HEAP2_FREEZE = 0x30;
export const HEAP2_VISIBLE = 0x40;
export const HEAP2_MULTI_INSERT = 0x50;
export const HEAP2_LOCK_UPDATED = 0x60;
export const HEAP2_NEW_CID = 0x70;

export const T_XMIN = 0;
export const T_XMAX = 4;
export const T_CID = 8;
export const T_CTID = 12;
export const T_INFOMASK2 = 18;
export const T_INFOMASK = 20;
export const T_HOFF = 22;
export const T_BITS = 23;

const FORK_MAIN = 0;

/**
 * Which block reference holds the old tuple of an update: 0 when old and new tuple share a page. Some minor releases
 * add the visibility map as further references, so only a main fork reference counts.
 */
export function oldTupleBlock(record: DecodedRecord): number {
  return record.hasBlock(1) && record.fork[1] === FORK_MAIN ? 1 : 0;
}
