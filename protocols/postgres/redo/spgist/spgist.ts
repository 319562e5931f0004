/**
 * Redo of the resource manager SPGist on one page; the pick-split is in pick-split.ts. Source means xid u32, build u8.
 *
 * ADD_LEAF 0x10: main 0 new page u8, 1 nulls u8, 2 leaf number u16, 4 chain head u16, 6 parent's number u16, 8 node u16, 10
 * tuple; block 0 leaf page, 1 parent. MOVE_LEAFS 0x20: main 0 count u16, 2 new page u8, 3 replaces dead u8, 4 nulls u8, 6
 * parent's number u16, 8 node u16, 12 source, 20 deleted numbers, inserted numbers (count + 1, or 1), leaf tuples; block 0
 * from, 1 to, 2 parent. ADD_NODE 0x30: main 0 number u16, 2 new number u16, 4 new page u8, 5 which block has the parent i8
 * (-1: not changed), 6 parent's number u16, 8 node u16, 12 source, 20 inner tuple; block 0 page, 1 new page if moved, 2
 * parent. SPLIT_TUPLE 0x40: main 0 prefix number u16, 2 postfix number u16, 4 new page u8, 5 same page u8, 6 both inner
 * tuples; block 0 prefix, 1 postfix page. VACUUM_LEAF 0x60: main 0 dead, 2 placeholder, 4 moved, 6 chained counts u16, 8
 * source, 16 numbers: dead, placeholders, moved from, moved to, chained, next in chain. VACUUM_ROOT 0x70: main 0 count u16,
 * 4 source, 12 numbers. VACUUM_REDIRECT 0x80: main 0 count u16, 2 first placeholder u16, 4 conflict xid u32, numbers (at 8 in
 * 15, at 10 since).
 *
 * Source: access/spgxlog.h.
 */
import { readU16, readU32 } from '../../bytes.ts';
import { CorruptWalError } from '../../wal/errors.ts';
import type { DecodedRecord } from '../../wal/record.ts';
import { deleteIndexTuples } from '../compaction.ts';
import { requireMain } from '../main-data.ts';
import { linePointer, requireTuple, setLinePointerBits, setPageLsn } from '../page.ts';
import {
  addOrReplace,
  INVALID_BLOCK,
  initSpgistPage,
  innerTupleSize,
  leafTupleSize,
  redirectToPlaceholder,
  removePlaceholdersFrom,
  replaceByDead,
  replaceManyByDead,
  replaceTuple,
  SPGIST_LEAF,
  SPGIST_NULLS,
  STATE_DEAD,
  STATE_PLACEHOLDER,
  STATE_REDIRECT,
  setNextOffset,
  updateNodeLink,
} from './formats.ts';
import { redoPickSplit } from './pick-split.ts';

const ADD_LEAF = 0x10;
const MOVE_LEAFS = 0x20;
const ADD_NODE = 0x30;
const SPLIT_TUPLE = 0x40;
const PICKSPLIT = 0x50;
const VACUUM_LEAF = 0x60;
const VACUUM_ROOT = 0x70;
const VACUUM_REDIRECT = 0x80;

/** Applies the record to `page`, which is its block `id`. Returns false if this record type is unknown. */
export function redoSpgist(record: DecodedRecord, id: number, page: Uint8Array): boolean {
  switch (record.info & 0xf0) {
    case ADD_LEAF:
      redoAddLeaf(record, id, page);
      break;
    case MOVE_LEAFS:
      redoMoveLeafs(record, id, page);
      break;
    case ADD_NODE:
      redoAddNode(record, id, page);
      break;
    case SPLIT_TUPLE:
      redoSplitTuple(record, id, page);
      break;
    case PICKSPLIT:
      redoPickSplit(record, id, page);
      break;
    case VACUUM_LEAF:
      redoVacuumLeaf(record, page);
      break;
    case VACUUM_ROOT:
      redoVacuumRoot(record, page);
      break;
    case VACUUM_REDIRECT:
      redoVacuumRedirect(record, page);
      break;
    default:
      return false;
  }
  setPageLsn(page, record.end);
  return true;
}

function redoAddLeaf(record: DecodedRecord, id: number, page: Uint8Array): void {
  requireMain(record, 14);
  const { bytes, mainOffset: main } = record;
  const leaf = readU16(bytes, main + 2);
  if (id === 1) {
    updateNodeLink(page, readU16(bytes, main + 6), readU16(bytes, main + 8), record.block[0]!, leaf);
    return;
  }
  if (bytes[main] === 1) initSpgistPage(page, SPGIST_LEAF | (bytes[main + 1] === 1 ? SPGIST_NULLS : 0));
  const head = readU16(bytes, main + 4);
  const size = leafTupleSize(bytes, main + 10);
  requireMain(record, 10 + size);
  if (leaf === head) {
    replaceTuple(page, bytes, main + 10, size, leaf);
    return;
  }
  addOrReplace(page, bytes, main + 10, size, leaf);
  if (head !== 0) setNextOffset(page, head, leaf);
}

function redoMoveLeafs(record: DecodedRecord, id: number, page: Uint8Array): void {
  requireMain(record, 20);
  const { bytes, mainOffset: main } = record;
  const moves = readU16(bytes, main);
  const inserts = bytes[main + 3] === 1 ? 1 : moves + 1;
  const inserted = main + 20 + 2 * moves;
  const tuples = inserted + 2 * inserts;
  requireMain(record, tuples - main);
  const lastInserted = readU16(bytes, tuples - 2);
  if (id === 1) {
    if (bytes[main + 2] === 1) initSpgistPage(page, SPGIST_LEAF | (bytes[main + 4] === 1 ? SPGIST_NULLS : 0));
    let at = tuples;
    for (let i = 0; i < inserts; i++) {
      const size = leafTupleSize(bytes, at);
      requireMain(record, at + size - main);
      addOrReplace(page, bytes, at, size, readU16(bytes, inserted + 2 * i));
      at += size;
    }
  } else if (id === 0) {
    const state = bytes[main + 16] === 1 ? STATE_PLACEHOLDER : STATE_REDIRECT;
    const xid = readU32(bytes, main + 12);
    const target = record.block[1]!;
    replaceManyByDead(page, bytes, main + 20, moves, state, STATE_PLACEHOLDER, xid, target, lastInserted);
  } else {
    updateNodeLink(page, readU16(bytes, main + 6), readU16(bytes, main + 8), record.block[1]!, lastInserted);
  }
}

function redoAddNode(record: DecodedRecord, id: number, page: Uint8Array): void {
  requireMain(record, 26);
  const { bytes, mainOffset: main } = record;
  const number = readU16(bytes, main);
  const newNumber = readU16(bytes, main + 2);
  const size = innerTupleSize(bytes, main + 20);
  requireMain(record, 20 + size);
  if (!record.hasBlock(1)) {
    replaceTuple(page, bytes, main + 20, size, number);
    return;
  }
  const newBlock = record.block[1]!;
  if (id === 1) {
    if (bytes[main + 4] === 1) initSpgistPage(page, 0);
    addOrReplace(page, bytes, main + 20, size, newNumber);
  } else if (id === 0) {
    const state = bytes[main + 16] === 1 ? STATE_PLACEHOLDER : STATE_REDIRECT;
    replaceByDead(page, number, state, readU32(bytes, main + 12), newBlock, newNumber);
  }
  if (bytes[main + 5] === id) {
    updateNodeLink(page, readU16(bytes, main + 6), readU16(bytes, main + 8), newBlock, newNumber);
  }
}

function redoSplitTuple(record: DecodedRecord, id: number, page: Uint8Array): void {
  requireMain(record, 12);
  const { bytes, mainOffset: main } = record;
  const prefixSize = innerTupleSize(bytes, main + 6);
  const postfix = main + 6 + prefixSize;
  requireMain(record, postfix - main + 6);
  const postfixSize = innerTupleSize(bytes, postfix);
  requireMain(record, postfix - main + postfixSize);
  const postfixNumber = readU16(bytes, main + 2);
  if (id === 1) {
    if (bytes[main + 4] === 1) initSpgistPage(page, 0);
    addOrReplace(page, bytes, postfix, postfixSize, postfixNumber);
    return;
  }
  replaceTuple(page, bytes, main + 6, prefixSize, readU16(bytes, main));
  if (bytes[main + 5] === 1) addOrReplace(page, bytes, postfix, postfixSize, postfixNumber);
}

function redoVacuumLeaf(record: DecodedRecord, page: Uint8Array): void {
  requireMain(record, 16);
  const { bytes, mainOffset: main } = record;
  const deadCount = readU16(bytes, main);
  const placeholderCount = readU16(bytes, main + 2);
  const moveCount = readU16(bytes, main + 4);
  const chainCount = readU16(bytes, main + 6);
  const placeholders = main + 16 + 2 * deadCount;
  const moveFrom = placeholders + 2 * placeholderCount;
  const moveTo = moveFrom + 2 * moveCount;
  const chain = moveTo + 2 * moveCount;
  const next = chain + 2 * chainCount;
  if (next + 2 * chainCount - main > record.mainLength) {
    throw new CorruptWalError(record.lsn, 'vacuum record is too short');
  }
  const turn = (at: number, count: number, state: number) =>
    replaceManyByDead(page, bytes, at, count, state, state, 0, INVALID_BLOCK, 0);
  turn(main + 16, deadCount, STATE_DEAD);
  turn(placeholders, placeholderCount, STATE_PLACEHOLDER);
  for (let i = 0; i < moveCount; i++) {
    swapLinePointers(page, readU16(bytes, moveFrom + 2 * i), readU16(bytes, moveTo + 2 * i));
  }
  turn(moveFrom, moveCount, STATE_PLACEHOLDER);
  for (let i = 0; i < chainCount; i++) {
    setNextOffset(page, readU16(bytes, chain + 2 * i), readU16(bytes, next + 2 * i));
  }
}

function swapLinePointers(page: Uint8Array, left: number, right: number): void {
  const leftBits = requireTuple(page, left);
  requireTuple(page, right);
  setLinePointerBits(page, left, linePointer(page, right));
  setLinePointerBits(page, right, leftBits);
}

function redoVacuumRoot(record: DecodedRecord, page: Uint8Array): void {
  requireMain(record, 12);
  const count = readU16(record.bytes, record.mainOffset);
  requireMain(record, 12 + 2 * count);
  deleteIndexTuples(page, record.bytes, record.mainOffset + 12, count);
}

function redoVacuumRedirect(record: DecodedRecord, page: Uint8Array): void {
  const numbers = record.pgVersion >= 16 ? 10 : 8;
  requireMain(record, 8);
  const { bytes, mainOffset: main } = record;
  const count = readU16(bytes, main);
  requireMain(record, numbers + 2 * count);
  for (let i = 0; i < count; i++) redirectToPlaceholder(page, readU16(bytes, main + numbers + 2 * i));
  const firstPlaceholder = readU16(bytes, main + 2);
  if (firstPlaceholder !== 0) removePlaceholdersFrom(page, firstPlaceholder);
}
