/**
 * Changes to heap tuple headers that several records share.
 */
import { readU16, readU32, writeU16, writeU32 } from '../../bytes.ts';
import { PageContentError } from '../errors.ts';
import { LP_NORMAL, lineOffset, lineState, PD_PRUNE_XID, requireTuple } from '../page.ts';
import { T_CID, T_CTID, T_INFOMASK, T_INFOMASK2, T_XMAX, T_XMIN } from './formats.ts';

/** Everything in infomask that says something about xmax, and whether tuples moved. */
const INFOMASK_XMAX_AND_MOVED = 0xdcd0;
const INFOMASK_XMAX_KIND = 0x10d0;
const INFOMASK2_KEYS_UPDATED = 0x2000;
const INFOMASK_COMBO_CID = 0x20;

const XLHL_XMAX_IS_MULTI = 1;
const XLHL_XMAX_LOCK_ONLY = 2;
const XLHL_XMAX_EXCL_LOCK = 4;
const XLHL_XMAX_KEYSHR_LOCK = 8;
const XLHL_KEYS_UPDATED = 16;

/** Offset of tuple `number` on the page; it must be an ordinary one. */
export function heapTupleAt(page: Uint8Array, number: number): number {
  const pointer = requireTuple(page, number);
  if (lineState(pointer) !== LP_NORMAL) throw new PageContentError(`tuple ${number} is not a normal one`);
  return lineOffset(pointer);
}

/** Forgets what the tuple says about xmax. */
export function clearXmaxBits(page: Uint8Array, tuple: number): void {
  writeU16(page, tuple + T_INFOMASK, readU16(page, tuple + T_INFOMASK) & ~INFOMASK_XMAX_AND_MOVED);
  writeU16(page, tuple + T_INFOMASK2, readU16(page, tuple + T_INFOMASK2) & ~INFOMASK2_KEYS_UPDATED);
}

/** Sets the infomask bits that a delete, update or lock record carries in its own encoding. */
export function applyInfoBits(page: Uint8Array, tuple: number, bits: number): void {
  let mask = readU16(page, tuple + T_INFOMASK) & ~INFOMASK_XMAX_KIND;
  let mask2 = readU16(page, tuple + T_INFOMASK2) & ~INFOMASK2_KEYS_UPDATED;
  if (bits & XLHL_XMAX_IS_MULTI) mask |= 0x1000;
  if (bits & XLHL_XMAX_LOCK_ONLY) mask |= 0x80;
  if (bits & XLHL_XMAX_EXCL_LOCK) mask |= 0x40;
  if (bits & XLHL_XMAX_KEYSHR_LOCK) mask |= 0x10;
  if (bits & XLHL_KEYS_UPDATED) mask2 |= INFOMASK2_KEYS_UPDATED;
  writeU16(page, tuple + T_INFOMASK, mask);
  writeU16(page, tuple + T_INFOMASK2, mask2);
}

/** Whether an infomask says that xmax only locks the tuple. */
export function isLockedOnly(infomask: number): boolean {
  return (infomask & 0x80) !== 0 || (infomask & 0x1050) === 0x40;
}

export function setFirstCommandMax(page: Uint8Array, tuple: number): void {
  writeU32(page, tuple + T_CID, 0);
  writeU16(page, tuple + T_INFOMASK, readU16(page, tuple + T_INFOMASK) & ~INFOMASK_COMBO_CID);
}

export function setCtid(page: Uint8Array, tuple: number, block: number, number: number): void {
  writeU16(page, tuple + T_CTID, block >>> 16);
  writeU16(page, tuple + T_CTID + 2, block);
  writeU16(page, tuple + T_CTID + 4, number);
}

/** Bytes of infomask2, infomask and header length, as records carry them. */
export const RECORD_TUPLE_HEADER_BYTES = 5;

/**
 * Writes the header of a new tuple at `tuple`: what every new one gets, and from `source[offset]` infomask2, infomask and header
 * length.
 */
export function writeTupleHeader(
  page: Uint8Array,
  tuple: number,
  xmin: number,
  xmax: number,
  block: number,
  number: number,
  source: Uint8Array,
  offset: number,
): void {
  writeU32(page, tuple + T_XMIN, xmin);
  writeU32(page, tuple + T_XMAX, xmax);
  writeU32(page, tuple + T_CID, 0);
  setCtid(page, tuple, block, number);
  for (let i = 0; i < RECORD_TUPLE_HEADER_BYTES; i++) page[tuple + T_INFOMASK2 + i] = source[offset + i]!;
}

/** Notes that a tuple of `xid` may be pruned, if that is older than what the page knows. */
export function setPrunable(page: Uint8Array, xid: number): void {
  const current = readU32(page, PD_PRUNE_XID);
  if (current === 0 || ((xid - current) | 0) < 0) writeU32(page, PD_PRUNE_XID, xid);
}
