/**
 * Makes two pages comparable: sets what redo need not repeat (hint bits, unused space, dead items' flags, contents of
 * deleted pages) to fixed values, as Postgres does for wal_consistency_checking.
 *
 * Source: common/bufmask.c and each resource manager's mask function.
 */
import { maxAlign, readU16, writeU16, writeU32 } from '../bytes.ts';
import {
  RMGR_BRIN,
  RMGR_BTREE,
  RMGR_GENERIC,
  RMGR_GIN,
  RMGR_GIST,
  RMGR_HASH,
  RMGR_HEAP,
  RMGR_HEAP2,
  RMGR_SEQUENCE,
  RMGR_SPGIST,
} from '../wal/resource-managers.ts';
import { BT_CYCLE, BT_FLAGS, BTP_HAS_GARBAGE, BTP_LEAF, BTP_SPLIT_END } from './btree/formats.ts';
import { PageContentError } from './errors.ts';
import { T_CID, T_CTID, T_INFOMASK } from './heap/formats.ts';
import {
  LP_NORMAL,
  LP_UNUSED,
  lineCount,
  lineLength,
  lineOffset,
  linePointer,
  lineState,
  PAGE_HEADER_BYTES,
  PD_FLAGS,
  PD_LOWER,
  PD_PRUNE_XID,
  PD_SPECIAL,
  PD_UPPER,
  setLinePointerBits,
} from './page.ts';

const HINT_FLAGS = 7;
const LINE_STATE_BITS = 0x18000;
/** Both hint bits of xmin together. */
const XMIN_FROZEN = 0x300;
const XMAX_HINTS = 0xc00;
/** Says what kind of command id the tuple holds; that is not logged. */
const COMBO_CID = 0x20;
/** Offset number of a ctid that is a speculative insertion's token. */
const SPECULATIVE_OFFSET = 0xfffe;

/** Masks `page`, whose block number is `block` and which a record of `rmid` changed, in place. */
export function maskPage(rmid: number, page: Uint8Array, block: number): void {
  page.fill(0, 0, 10);
  switch (rmid) {
    case RMGR_HEAP:
    case RMGR_HEAP2:
      maskHeap(page, block);
      break;
    case RMGR_BTREE:
      maskBtree(page);
      break;
    case RMGR_HASH:
      maskHash(page);
      break;
    case RMGR_GIN:
      maskGin(page);
      break;
    case RMGR_GIST:
      maskGist(page);
      break;
    case RMGR_SPGIST:
      maskHints(page);
      if (readU16(page, PD_LOWER) >= PAGE_HEADER_BYTES) maskUnused(page);
      break;
    case RMGR_BRIN:
      maskBrin(page);
      break;
    case RMGR_SEQUENCE:
    case RMGR_GENERIC:
      maskUnused(page);
      break;
    default:
      maskHints(page);
      break;
  }
}

function maskHints(page: Uint8Array): void {
  writeU32(page, PD_PRUNE_XID, 0);
  page[PD_FLAGS] = page[PD_FLAGS]! & ~HINT_FLAGS;
}

function maskUnused(page: Uint8Array): void {
  const lower = readU16(page, PD_LOWER);
  const upper = readU16(page, PD_UPPER);
  const special = readU16(page, PD_SPECIAL);
  if (lower > upper || special < upper || lower < PAGE_HEADER_BYTES || special > page.length) {
    throw new PageContentError(`page has lower ${lower}, upper ${upper}, special ${special}`);
  }
  page.fill(0, lower, upper);
}

function maskLineStates(page: Uint8Array): void {
  const lines = lineCount(page);
  for (let number = 1; number <= lines; number++) {
    const pointer = linePointer(page, number);
    if (lineState(pointer) !== LP_UNUSED) setLinePointerBits(page, number, pointer & ~LINE_STATE_BITS);
  }
}

function maskContent(page: Uint8Array): void {
  page.fill(0, PAGE_HEADER_BYTES);
  writeU16(page, PD_LOWER, 0);
  writeU16(page, PD_UPPER, 0);
}

function maskHeap(page: Uint8Array, block: number): void {
  maskHints(page);
  maskUnused(page);
  const lines = lineCount(page);
  for (let number = 1; number <= lines; number++) {
    const pointer = linePointer(page, number);
    const tuple = lineOffset(pointer);
    const length = lineLength(pointer);
    if (lineState(pointer) === LP_NORMAL) maskHeapTuple(page, tuple, block, number);
    if (length > 0) page.fill(0, tuple + length, tuple + maxAlign(length));
  }
}

function maskHeapTuple(page: Uint8Array, tuple: number, block: number, number: number): void {
  const mask = readU16(page, tuple + T_INFOMASK);
  const isFrozen = (mask & XMIN_FROZEN) === XMIN_FROZEN;
  writeU16(
    page,
    tuple + T_INFOMASK,
    mask & ~(isFrozen ? XMAX_HINTS | COMBO_CID : XMAX_HINTS | XMIN_FROZEN | COMBO_CID),
  );
  writeU32(page, tuple + T_CID, 0);
  if (readU16(page, tuple + T_CTID + 4) === SPECULATIVE_OFFSET) {
    writeU16(page, tuple + T_CTID, block >>> 16);
    writeU16(page, tuple + T_CTID + 2, block);
    writeU16(page, tuple + T_CTID + 4, number);
  }
}

function maskBtree(page: Uint8Array): void {
  maskHints(page);
  maskUnused(page);
  if ((readU16(page, BT_FLAGS) & BTP_LEAF) !== 0) maskLineStates(page);
  writeU16(page, BT_FLAGS, readU16(page, BT_FLAGS) & ~(BTP_HAS_GARBAGE | BTP_SPLIT_END));
  writeU16(page, BT_CYCLE, 0);
}

function maskHash(page: Uint8Array): void {
  maskHints(page);
  maskUnused(page);
  const flagsAt = readU16(page, PD_SPECIAL) + 12;
  const type = readU16(page, flagsAt) & 15;
  if (type === 0) maskContent(page);
  else if ((type & 3) !== 0) maskLineStates(page);
  writeU16(page, flagsAt, readU16(page, flagsAt) & ~128);
}

function maskGin(page: Uint8Array): void {
  maskHints(page);
  const flags = readU16(page, readU16(page, PD_SPECIAL) + 6);
  if ((flags & 4) !== 0) maskContent(page);
  else if (readU16(page, PD_LOWER) > PAGE_HEADER_BYTES) maskUnused(page);
}

function maskGist(page: Uint8Array): void {
  maskHints(page);
  maskUnused(page);
  const special = readU16(page, PD_SPECIAL);
  page.fill(0, special, special + 8);
  let flags = readU16(page, special + 12) | 8;
  if ((flags & 1) !== 0) maskLineStates(page);
  flags &= ~16;
  writeU16(page, special + 12, flags);
}

function maskBrin(page: Uint8Array): void {
  maskHints(page);
  const type = readU16(page, 8190);
  const isRegular = type === 0xf093;
  const isMetaWithLower = type === 0xf091 && readU16(page, PD_LOWER) > PAGE_HEADER_BYTES;
  if (isRegular || isMetaWithLower) maskUnused(page);
  writeU16(page, 8188, readU16(page, 8188) & ~1);
}
