/**
 * Layout of SP-GiST pages and tuples, and the page operations that redo needs.
 *
 * Special space, at 8184: flags u16, redirection count u16, placeholder count u16, page id u16. Every tuple begins with a
 * u32 whose low two bits are its state. Leaf tuple: 0 state and size << 2, 4 next in chain (14 bits) and null flag u16, 6
 * heap tuple id. Inner tuple: 0 state, all-the-same bit, node count (13 bits), prefix size (16 bits), 4 size u16, 8 prefix,
 * nodes (index tuples). Dead tuple (16 bytes): as a leaf tuple, 6 where it redirects to, 12 xid u32.
 *
 * Source: access/spgist_private.h.
 */
import { readU16, readU32, writeU16, writeU32 } from '../../bytes.ts';
import { indexTupleSize } from '../btree/formats.ts';
import { deleteIndexTuples } from '../compaction.ts';
import { PageContentError } from '../errors.ts';
import { addItem, deleteIndexTuple, initPage, lineCount, lineOffset, requireTuple } from '../page.ts';

const SPG_FLAGS = 8184;
const SPG_REDIRECTIONS = 8186;
const SPG_PLACEHOLDERS = 8188;
const SPG_PAGE_ID_AT = 8190;
const SPG_PAGE_ID = 0xff82;
const SPECIAL_BYTES = 8;

export const SPGIST_LEAF = 4;
export const SPGIST_NULLS = 8;

export const STATE_REDIRECT = 1;
export const STATE_DEAD = 2;
export const STATE_PLACEHOLDER = 3;

const INNER_HEADER_BYTES = 8;
const DEAD_TUPLE_BYTES = 16;
const NEXT_OFFSET_MASK = 0x3fff;
export const INVALID_BLOCK = 0xffffffff;
/** More numbers than a page has line pointers for. */
const NUMBERS_MAX = 2048;

const deadTuple = new Uint8Array(DEAD_TUPLE_BYTES);
const sortedNumbers = new Uint16Array(NUMBERS_MAX);
const sortedBytes = new Uint8Array(sortedNumbers.buffer);

/** Makes an empty SP-GiST page. */
export function initSpgistPage(page: Uint8Array, flags: number): void {
  initPage(page, SPECIAL_BYTES);
  writeU16(page, SPG_FLAGS, flags);
  writeU16(page, SPG_PAGE_ID_AT, SPG_PAGE_ID);
}

export function leafTupleSize(bytes: Uint8Array, offset: number): number {
  return readU32(bytes, offset) >>> 2;
}

export function innerTupleSize(bytes: Uint8Array, offset: number): number {
  return readU16(bytes, offset + 4);
}

/** Makes leaf tuple `number` point to `next` in its chain. */
export function setNextOffset(page: Uint8Array, number: number, next: number): void {
  const at = lineOffset(requireTuple(page, number)) + 4;
  writeU16(page, at, (readU16(page, at) & ~NEXT_OFFSET_MASK) | (next & NEXT_OFFSET_MASK));
}

/** Adds a tuple as `number`; a tuple there is a placeholder and makes room. */
export function addOrReplace(
  page: Uint8Array,
  source: Uint8Array,
  offset: number,
  size: number,
  number: number,
): void {
  if (number <= lineCount(page)) {
    const state = page[lineOffset(requireTuple(page, number))]! & 3;
    if (state !== STATE_PLACEHOLDER) throw new PageContentError(`tuple ${number} is no placeholder`);
    change(page, SPG_PLACEHOLDERS, -1);
    deleteIndexTuple(page, number);
  }
  addItem(page, source, offset, size, number, false);
}

/** Replaces tuple `number`, whatever it is, by another at the same number. */
export function replaceTuple(
  page: Uint8Array,
  source: Uint8Array,
  offset: number,
  size: number,
  number: number,
): void {
  deleteIndexTuple(page, number);
  addItem(page, source, offset, size, number, false);
}

/** Points node `index` of inner tuple `number` to (block, offset). */
export function updateNodeLink(
  page: Uint8Array,
  number: number,
  index: number,
  block: number,
  offset: number,
): void {
  const tuple = lineOffset(requireTuple(page, number));
  const header = readU32(page, tuple);
  const nodes = (header >>> 3) & 0x1fff;
  if (index >= nodes) throw new PageContentError(`node ${index} of ${nodes}`);
  let node = tuple + INNER_HEADER_BYTES + (header >>> 16);
  for (let i = 0; i < index; i++) {
    node += indexTupleSize(page, node);
    if (node > page.length - 8) throw new PageContentError('node outside the page');
  }
  writeTid(page, node, block, offset);
}

/** Puts a dead tuple in the place of tuple `number`; redirections lead to (block, offset). */
export function replaceByDead(
  page: Uint8Array,
  number: number,
  state: number,
  xid: number,
  block: number,
  offset: number,
): void {
  formDead(state, xid, block, offset);
  replaceTuple(page, deadTuple, 0, DEAD_TUPLE_BYTES, number);
  countDead(page, state);
}

/**
 * Replaces the tuples whose numbers (u16, in any order) are at `source[at]` by dead ones: the first listed by one of
 * `firstState`, the others of `otherState`.
 */
export function replaceManyByDead(
  page: Uint8Array,
  source: Uint8Array,
  at: number,
  count: number,
  firstState: number,
  otherState: number,
  xid: number,
  block: number,
  offset: number,
): void {
  if (count === 0) return;
  if (count > NUMBERS_MAX) throw new PageContentError(`${count} tuples to delete`);
  for (let i = 0; i < count; i++) sortedNumbers[i] = readU16(source, at + 2 * i);
  sortedNumbers.subarray(0, count).sort();
  deleteIndexTuples(page, sortedBytes, 0, count);
  const first = readU16(source, at);
  for (let i = 0; i < count; i++) {
    const number = sortedNumbers[i]!;
    const state = number === first ? firstState : otherState;
    formDead(state, xid, block, offset);
    addItem(page, deadTuple, 0, DEAD_TUPLE_BYTES, number, false);
    countDead(page, state);
  }
}

/** Turns redirection `number` into a placeholder. */
export function redirectToPlaceholder(page: Uint8Array, number: number): void {
  const tuple = lineOffset(requireTuple(page, number));
  page[tuple] = (page[tuple]! & ~3) | STATE_PLACEHOLDER;
  writeTid(page, tuple + 6, INVALID_BLOCK, 0);
  change(page, SPG_REDIRECTIONS, -1);
  change(page, SPG_PLACEHOLDERS, 1);
}

/** Removes all tuples from `first` on, which are placeholders. */
export function removePlaceholdersFrom(page: Uint8Array, first: number): void {
  const count = lineCount(page) - first + 1;
  if (count <= 0 || count > NUMBERS_MAX) return;
  for (let i = 0; i < count; i++) sortedNumbers[i] = first + i;
  change(page, SPG_PLACEHOLDERS, -count);
  deleteIndexTuples(page, sortedBytes, 0, count);
}

function formDead(state: number, xid: number, block: number, offset: number): void {
  const redirects = state === STATE_REDIRECT;
  writeU32(deadTuple, 0, state | (DEAD_TUPLE_BYTES << 2));
  writeU16(deadTuple, 4, 0);
  writeTid(deadTuple, 6, redirects ? block : INVALID_BLOCK, redirects ? offset : 0);
  writeU32(deadTuple, 12, redirects ? xid : 0);
}

function countDead(page: Uint8Array, state: number): void {
  if (state === STATE_REDIRECT) change(page, SPG_REDIRECTIONS, 1);
  else if (state === STATE_PLACEHOLDER) change(page, SPG_PLACEHOLDERS, 1);
}

function change(page: Uint8Array, at: number, by: number): void {
  writeU16(page, at, readU16(page, at) + by);
}

function writeTid(bytes: Uint8Array, at: number, block: number, offset: number): void {
  writeU16(bytes, at, block >>> 16);
  writeU16(bytes, at + 2, block);
  writeU16(bytes, at + 4, offset);
}
