/**
 * Redo of pruning, vacuuming and freezing of one heap page, in the formats of 15, 16 and 17+.
 *
 * 17+: main 0 reason u8, 1 flags u8 (4 cleanup lock, 8 conflict horizon, 16 freeze plans, 32 redirections, 64 dead, 128
 * unused); block 0 data, each part present as flagged: plan count u16 and padding, plans of 12 bytes (xmax u32,
 * infomask2 u16, infomask u16, freeze flags u8, tuple count u16 at 10); then count u16 and pairs, count u16 and dead,
 * count u16 and unused; at last the offsets of the frozen tuples, plan by plan.
 * 15, 16 PRUNE: main 4 redirection count u16, 6 dead count u16; data: pairs, dead, the rest unused.
 * 15, 16 VACUUM: main 0 unused count u16; data: offsets.
 * 16 FREEZE_PAGE: main 4 plan count u16; data: plans of 12 bytes, offsets. 15: main 4 tuple count u16; data: 12 bytes for
 * each tuple (xmax u32, offset u16, infomask2 u16, infomask u16, flags u8).
 *
 * Source: access/heapam_xlog.h.
 */
import { readU16, readU32, writeU16, writeU32 } from '../../bytes.ts';
import { CorruptWalError } from '../../wal/errors.ts';
import type { DecodedRecord } from '../../wal/record.ts';
import { compactPruned } from '../compaction.ts';
import { PageContentError } from '../errors.ts';
import { requireBlockData, requireMain } from '../main-data.ts';
import {
  LP_DEAD,
  LP_REDIRECT,
  LP_UNUSED,
  lineCount,
  lineOffset,
  linePointerBits,
  requireTuple,
  setLinePointerBits,
  truncateLinePointers,
} from '../page.ts';
import { T_CID, T_INFOMASK, T_INFOMASK2, T_XMAX } from './formats.ts';

const HAS_CLEANUP_LOCK = 4;
const HAS_FREEZE_PLANS = 16;
const HAS_REDIRECTIONS = 32;
const HAS_DEAD = 64;
const HAS_UNUSED = 128;
const PLAN_BYTES = 12;

const FREEZE_XVAC = 2;
const INVALID_XVAC = 4;
const FROZEN_XID = 2;

/** Positions of the lists of one prune record, reused. */
class PruneLists {
  redirections = 0;
  redirectionCount = 0;
  dead = 0;
  deadCount = 0;
  unused = 0;
  unusedCount = 0;
}

const lists = new PruneLists();

/** PRUNE_ON_ACCESS, PRUNE_VACUUM_SCAN and PRUNE_VACUUM_CLEANUP of 17 and later. */
export function redoPruneFreeze17(record: DecodedRecord, page: Uint8Array): void {
  requireMain(record, 2);
  const { bytes } = record;
  const flags = bytes[record.mainOffset + 1]!;
  const end = record.dataOffset[0]! + record.dataLength[0]!;
  let at = record.dataOffset[0]!;
  let plans = 0;
  let planCount = 0;
  if (flags & HAS_FREEZE_PLANS) {
    planCount = readU16(bytes, at);
    plans = at + 4;
    at = plans + PLAN_BYTES * planCount;
  }
  lists.redirectionCount = flags & HAS_REDIRECTIONS ? readU16(bytes, at) : 0;
  lists.redirections = at + 2;
  if (flags & HAS_REDIRECTIONS) at += 2 + 4 * lists.redirectionCount;
  lists.deadCount = flags & HAS_DEAD ? readU16(bytes, at) : 0;
  lists.dead = at + 2;
  if (flags & HAS_DEAD) at += 2 + 2 * lists.deadCount;
  lists.unusedCount = flags & HAS_UNUSED ? readU16(bytes, at) : 0;
  lists.unused = at + 2;
  if (flags & HAS_UNUSED) at += 2 + 2 * lists.unusedCount;
  if (at > end) throw new CorruptWalError(record.lsn, 'prune record is too short');
  if (lists.redirectionCount + lists.deadCount + lists.unusedCount > 0) {
    pruneLines(page, bytes, (flags & HAS_CLEANUP_LOCK) !== 0);
  }
  freezeByPlans(record, page, plans, planCount, at);
}

export function redoPrune15(record: DecodedRecord, page: Uint8Array): void {
  requireMain(record, 8);
  const { bytes, mainOffset } = record;
  const end = record.dataOffset[0]! + record.dataLength[0]!;
  lists.redirectionCount = readU16(bytes, mainOffset + 4);
  lists.deadCount = readU16(bytes, mainOffset + 6);
  lists.redirections = record.dataOffset[0]!;
  lists.dead = lists.redirections + 4 * lists.redirectionCount;
  lists.unused = lists.dead + 2 * lists.deadCount;
  if (lists.unused > end) throw new CorruptWalError(record.lsn, 'prune record is too short');
  lists.unusedCount = (end - lists.unused) >> 1;
  pruneLines(page, bytes, true);
}

export function redoVacuum15(record: DecodedRecord, page: Uint8Array): void {
  requireMain(record, 2);
  lists.redirectionCount = 0;
  lists.deadCount = 0;
  lists.unusedCount = readU16(record.bytes, record.mainOffset);
  lists.unused = record.dataOffset[0]!;
  requireBlockData(record, 0, 2 * lists.unusedCount);
  pruneLines(page, record.bytes, false);
}

export function redoFreeze16(record: DecodedRecord, page: Uint8Array): void {
  requireMain(record, 6);
  const count = readU16(record.bytes, record.mainOffset + 4);
  const plans = record.dataOffset[0]!;
  freezeByPlans(record, page, plans, count, plans + PLAN_BYTES * count);
}

export function redoFreeze15(record: DecodedRecord, page: Uint8Array): void {
  requireMain(record, 6);
  const { bytes } = record;
  const count = readU16(bytes, record.mainOffset + 4);
  requireBlockData(record, 0, PLAN_BYTES * count);
  let at = record.dataOffset[0]!;
  for (let i = 0; i < count; i++, at += PLAN_BYTES) {
    freezeTuple(
      page,
      readU16(bytes, at + 4),
      readU32(bytes, at),
      readU16(bytes, at + 6),
      readU16(bytes, at + 8),
      bytes[at + 10]!,
    );
  }
}

/** With the cleanup lock tuples move; vacuum's second pass only frees dead line pointers. */
function pruneLines(page: Uint8Array, bytes: Uint8Array, hasCleanupLock: boolean): void {
  const lines = lineCount(page);
  for (let i = 0, at = lists.redirections; i < lists.redirectionCount; i++, at += 4)
    setLine(page, lines, readU16(bytes, at), linePointerBits(readU16(bytes, at + 2), LP_REDIRECT, 0));
  for (let i = 0, at = lists.dead; i < lists.deadCount; i++, at += 2)
    setLine(page, lines, readU16(bytes, at), linePointerBits(0, LP_DEAD, 0));
  for (let i = 0, at = lists.unused; i < lists.unusedCount; i++, at += 2)
    setLine(page, lines, readU16(bytes, at), linePointerBits(0, LP_UNUSED, 0));
  if (hasCleanupLock) compactPruned(page);
  else truncateLinePointers(page);
}

function setLine(page: Uint8Array, lines: number, number: number, bits: number): void {
  if (number > lines) throw new PageContentError(`no line pointer ${number}`);
  setLinePointerBits(page, number, bits);
}

function freezeByPlans(
  record: DecodedRecord,
  page: Uint8Array,
  plans: number,
  planCount: number,
  offsets: number,
): void {
  const { bytes } = record;
  const end = record.dataOffset[0]! + record.dataLength[0]!;
  let at = offsets;
  for (let i = 0; i < planCount; i++) {
    const plan = plans + i * PLAN_BYTES;
    const count = readU16(bytes, plan + 10);
    if (at + 2 * count > end) throw new CorruptWalError(record.lsn, 'freeze record is too short');
    for (let k = 0; k < count; k++, at += 2) {
      freezeTuple(
        page,
        readU16(bytes, at),
        readU32(bytes, plan),
        readU16(bytes, plan + 4),
        readU16(bytes, plan + 6),
        bytes[plan + 8]!,
      );
    }
  }
}

function freezeTuple(
  page: Uint8Array,
  number: number,
  xmax: number,
  infomask2: number,
  infomask: number,
  flags: number,
): void {
  const tuple = lineOffset(requireTuple(page, number));
  writeU32(page, tuple + T_XMAX, xmax);
  if (flags & FREEZE_XVAC) writeU32(page, tuple + T_CID, FROZEN_XID);
  if (flags & INVALID_XVAC) writeU32(page, tuple + T_CID, 0);
  writeU16(page, tuple + T_INFOMASK, infomask);
  writeU16(page, tuple + T_INFOMASK2, infomask2);
}
