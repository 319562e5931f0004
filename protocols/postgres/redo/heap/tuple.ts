/**
 * Changes to heap tuple headers that several records share.
 */
import { copyU32, readU16, readU32, writeU16, writeU32 } from '../../bytes.ts';
import { PageContentError } from '../errors.ts';
import { LP_NORMAL, lineOffset, lineState, PD_PRUNE_XID, requireTuple } from '../page.ts';
import { T_CID, T_CTID, T_INFOMASK, T_INFOMASK2, T_XMIN } from './formats.ts';

/** Everything in infomask that says something about xmax, and whether tuples moved. */
const INFOMASK_XMAX_AND_MOVED = 0xdcd0;
/** Of infomask2's upper byte: HEAP_KEYS_UPDATED 0x2000 and HEAP_HOT_UPDATED 0x4000 of the whole. */
const INFOMASK2_KEYS_UPDATED_HIGH = 0x20;
const INFOMASK2_HOT_UPDATED_HIGH = 0x40;
const INFOMASK2_KEYS_AND_HOT_HIGH = INFOMASK2_KEYS_UPDATED_HIGH | INFOMASK2_HOT_UPDATED_HIGH;
/** What becomes of HEAP_HOT_UPDATED: the bits of infomask2's upper byte that are added; HOT_KEPT is beyond that byte and adds none. */
export const HOT_KEPT = 0x100;
export const HOT_CLEARED = 0;
export const HOT_SET = INFOMASK2_HOT_UPDATED_HIGH;
const INFOMASK_COMBO_CID = 0x20;

/** Of the bits in records: xmax is a multixact 1, only locks 2, locks exclusively 4, locks the key 8. */
const XLHL_XMAX_BITS = 15;
const XLHL_KEYS_UPDATED = 16;
const INFOMASK_OF_XMAX_BITS = Uint16Array.from({ length: XLHL_XMAX_BITS + 1 }, (_, bits) => {
  const ofBit = [0x1000, 0x80, 0x40, 0x10];
  return ofBit.reduce((mask, value, bit) => (bits & (1 << bit) ? mask | value : mask), 0);
});

/** Offset of tuple `number` on the page; it must be an ordinary one. */
export function heapTupleAt(page: Uint8Array, number: number): number {
  return lineOffset(heapPointerAt(page, number));
}

/** Line pointer `number` of the page, which must be that of an ordinary tuple. */
export function heapPointerAt(page: Uint8Array, number: number): number {
  const pointer = requireTuple(page, number);
  if (lineState(pointer) !== LP_NORMAL) throw notNormal(number);
  return pointer;
}

function notNormal(number: number): PageContentError {
  return new PageContentError(`tuple ${number} is not a normal one`);
}

/**
 * Says in the tuple's infomasks of which kind its xmax is, as `bits` tell in the records' own encoding: what delete, update and lock
 * records have in common. With `startsCommand` the command id begins anew, as it does for all but LOCK_UPDATED. `hot` says what becomes
 * of the mark that the next version is on the same page, without a new index entry: HOT_KEPT, HOT_CLEARED or HOT_SET. Returns the new
 * infomask.
 */
export function setXmaxKind(
  page: Uint8Array,
  tuple: number,
  bits: number,
  startsCommand: boolean,
  hot: number,
): number {
  const forgotten = startsCommand ? INFOMASK_XMAX_AND_MOVED | INFOMASK_COMBO_CID : INFOMASK_XMAX_AND_MOVED;
  const at = tuple + T_INFOMASK;
  const mask = (readU16(page, at) & ~forgotten) | INFOMASK_OF_XMAX_BITS[bits & XLHL_XMAX_BITS]!;
  writeU16(page, at, mask);
  const keys = bits & XLHL_KEYS_UPDATED ? INFOMASK2_KEYS_UPDATED_HIGH : 0;
  const kept = hot === HOT_KEPT ? ~INFOMASK2_KEYS_UPDATED_HIGH : ~INFOMASK2_KEYS_AND_HOT_HIGH;
  page[at - 1] = (page[at - 1]! & kept) | keys | hot;
  if (startsCommand) writeU32(page, tuple + T_CID, 0);
  return mask;
}

/** Says that the next version of the tuple, if any, is not on the same page without a new index entry. */
export function clearHotUpdated(page: Uint8Array, tuple: number): void {
  page[tuple + T_INFOMASK2 + 1] = page[tuple + T_INFOMASK2 + 1]! & ~INFOMASK2_HOT_UPDATED_HIGH;
}

/** Whether an infomask says that xmax only locks the tuple. */
export function isLockedOnly(infomask: number): boolean {
  return (infomask & 0x80) !== 0 || (infomask & 0x1050) === 0x40;
}

export function setCtid(page: Uint8Array, tuple: number, block: number, number: number): void {
  writeU16(page, tuple + T_CTID, block >>> 16);
  writeU16(page, tuple + T_CTID + 2, block);
  writeU16(page, tuple + T_CTID + 4, number);
}

/** Bytes of infomask2, infomask and header length, as records carry them. */
export const RECORD_TUPLE_HEADER_BYTES = 5;

/**
 * Writes the header of a new tuple at `tuple`, all but its xmax: what every new one gets, and from `source[offset]` infomask2, infomask
 * and header length.
 */
export function writeTupleHeader(
  page: Uint8Array,
  tuple: number,
  xmin: number,
  block: number,
  number: number,
  source: Uint8Array,
  offset: number,
): void {
  writeU32(page, tuple + T_XMIN, xmin);
  writeU32(page, tuple + T_CID, 0);
  setCtid(page, tuple, block, number);
  const to = tuple + T_INFOMASK2;
  copyU32(page, to, source, offset);
  page[to + 4] = source[offset + 4]!;
}

/** Notes that a tuple of `xid` may be pruned, if that is older than what the page knows. */
export function setPrunable(page: Uint8Array, xid: number): void {
  const current = readU32(page, PD_PRUNE_XID);
  if (current === 0 || ((xid - current) | 0) < 0) writeU32(page, PD_PRUNE_XID, xid);
}
