/**
 * Redo of PICKSPLIT (0x50): the leaf tuples of a chain are spread over one or two leaf pages under a new inner tuple.
 *
 * Main: 0 root split u8, 2 deleted count u16, 4 inserted count u16, 6 make the source anew u8, 7 the target u8, 8 inner
 * number u16, 10 make the inner page anew u8, 11 nulls u8, 12 inner page has the parent u8, 14 parent's number u16, 16 node
 * u16, 20 source (xid u32, build u8), 28 deleted numbers, inserted numbers, for each inserted one u8 (0 source page, 1
 * target), the inner tuple, the leaf tuples. Block 0 source page (not in a root split), 1 target, 2 inner page, 3 parent.
 *
 * Source: access/spgxlog.h.
 */
import { readU16, readU32 } from '../../bytes.ts';
import type { DecodedRecord } from '../../wal/record.ts';
import { requireMain } from '../main-data.ts';
import {
  addOrReplace,
  initSpgistPage,
  innerTupleSize,
  leafTupleSize,
  replaceManyByDead,
  SPGIST_LEAF,
  SPGIST_NULLS,
  STATE_PLACEHOLDER,
  STATE_REDIRECT,
  updateNodeLink,
} from './formats.ts';

const LISTS_AT = 28;

export function redoPickSplit(record: DecodedRecord, id: number, page: Uint8Array): void {
  requireMain(record, LISTS_AT);
  const { bytes, mainOffset: main } = record;
  const nulls = bytes[main + 11] === 1 ? SPGIST_NULLS : 0;
  if (id <= 1) {
    const isNew = bytes[main + 6 + id] === 1;
    if (isNew) initSpgistPage(page, SPGIST_LEAF | nulls);
    else if (id === 0) deleteMoved(record, page);
    insertLeafs(record, id, page);
    return;
  }
  if (id === 2) {
    const tuple = innerTupleAt(record);
    if (bytes[main + 10] === 1) initSpgistPage(page, nulls);
    addOrReplace(page, bytes, tuple, innerTupleSize(bytes, tuple), readU16(bytes, main + 8));
    if (bytes[main + 12] !== 1) return;
  }
  updateNodeLink(
    page,
    readU16(bytes, main + 14),
    readU16(bytes, main + 16),
    record.block[2]!,
    readU16(bytes, main + 8),
  );
}

function deleteMoved(record: DecodedRecord, page: Uint8Array): void {
  const { bytes, mainOffset: main } = record;
  const state = bytes[main + 24] === 1 ? STATE_PLACEHOLDER : STATE_REDIRECT;
  replaceManyByDead(
    page,
    bytes,
    main + LISTS_AT,
    readU16(bytes, main + 2),
    state,
    STATE_PLACEHOLDER,
    readU32(bytes, main + 20),
    record.block[2]!,
    readU16(bytes, main + 8),
  );
}

/** Offset of the new inner tuple, which is checked to lie within the record. */
function innerTupleAt(record: DecodedRecord): number {
  const { bytes, mainOffset: main } = record;
  const at = LISTS_AT + 2 * readU16(bytes, main + 2) + 3 * readU16(bytes, main + 4);
  requireMain(record, at + 6);
  requireMain(record, at + innerTupleSize(bytes, main + at));
  return main + at;
}

function insertLeafs(record: DecodedRecord, id: number, page: Uint8Array): void {
  const { bytes, mainOffset: main } = record;
  const count = readU16(bytes, main + 4);
  const numbers = main + LISTS_AT + 2 * readU16(bytes, main + 2);
  const selectors = numbers + 2 * count;
  const inner = innerTupleAt(record);
  let at = inner + innerTupleSize(bytes, inner);
  for (let i = 0; i < count; i++) {
    const size = leafTupleSize(bytes, at);
    requireMain(record, at + size - main);
    const target = bytes[selectors + i] === 0 ? 0 : 1;
    if (target === id) addOrReplace(page, bytes, at, size, readU16(bytes, numbers + 2 * i));
    at += size;
  }
}
