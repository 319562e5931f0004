/**
 * The layout that all relation pages share, and the operations on it whose physical effect redo must repeat exactly.
 *
 *   0 LSN (high u32, low u32), 8 checksum u16, 10 flags u16, 12 lower u16, 14 upper u16, 16 special u16, 18 size and
 *   version u16, 20 prune xid u32, 24 line pointers: offset 15 bits, state 2 bits, length 15 bits; tuples grow down
 *   from `special` to `upper`.
 *
 * Source: storage/bufpage.h, storage/itemid.h.
 */
import { PAGE_BYTES } from '../../lsn.ts';
import { copyBytes, maxAlign, readI32, readU16, writeU16, writeU32 } from '../bytes.ts';
import { PageContentError } from './errors.ts';

export const PD_FLAGS = 10;
export const PD_LOWER = 12;
export const PD_UPPER = 14;
export const PD_SPECIAL = 16;
const PD_SIZE_VERSION = 18;
export const PD_PRUNE_XID = 20;
export const PAGE_HEADER_BYTES = 24;

export const PD_HAS_FREE_LINES = 1;
export const PD_PAGE_FULL = 2;
export const PD_ALL_VISIBLE = 4;

export const LP_UNUSED = 0;
export const LP_NORMAL = 1;
export const LP_REDIRECT = 2;
export const LP_DEAD = 3;

const LAYOUT_VERSION = 4;
export const LINE_POINTER_BYTES = 4;

// The errors of the hot paths, made apart from them: the shorter a function, the more of it the engine inlines.

function beyondPage(lower: number): PageContentError {
  return new PageContentError(`lower is ${lower}`);
}

function noLinePointer(number: number): PageContentError {
  return new PageContentError(`no line pointer ${number}`);
}

function pointsOutside(number: number): PageContentError {
  return new PageContentError(`line pointer ${number} points outside the page`);
}

function beyondLimit(number: number, limit: number): PageContentError {
  return new PageContentError(`item ${number} is beyond ${limit}`);
}

function lineInUse(number: number): PageContentError {
  return new PageContentError(`line pointer ${number} is in use`);
}

function noRoom(): PageContentError {
  return new PageContentError('item does not fit');
}

/** Whether the page was never initialised (all zeros). */
export function isNewPage(page: Uint8Array): boolean {
  return readU16(page, PD_UPPER) === 0;
}

export function setPageLsn(page: Uint8Array, lsn: number): void {
  const high = Math.floor(lsn / 4294967296);
  writeU32(page, 0, high);
  // A remainder of doubles is a call.
  writeU32(page, 4, lsn - high * 4294967296);
}

export function pageLsn(page: Uint8Array): number {
  return (readI32(page, 0) >>> 0) * 4294967296 + (readI32(page, 4) >>> 0);
}

/** Makes an empty page with `specialBytes` of special space (rounded up to 8). */
export function initPage(page: Uint8Array, specialBytes: number): void {
  page.fill(0);
  const special = PAGE_BYTES - maxAlign(specialBytes);
  writeU16(page, PD_LOWER, PAGE_HEADER_BYTES);
  writeU16(page, PD_UPPER, special);
  writeU16(page, PD_SPECIAL, special);
  writeU16(page, PD_SIZE_VERSION, PAGE_BYTES | LAYOUT_VERSION);
}

/** Number of line pointers. */
export function lineCount(page: Uint8Array): number {
  return linesBelow(readU16(page, PD_LOWER));
}

/** Number of line pointers of a page whose pd_lower is `lower`. */
function linesBelow(lower: number): number {
  if (lower <= PAGE_HEADER_BYTES) return 0;
  if (lower > PAGE_BYTES) throw beyondPage(lower);
  return (lower - PAGE_HEADER_BYTES) >> 2;
}

/** Line pointer `number` (from 1) as its 32 bits. */
export function linePointer(page: Uint8Array, number: number): number {
  return readI32(page, PAGE_HEADER_BYTES - LINE_POINTER_BYTES + number * LINE_POINTER_BYTES);
}

export function lineOffset(pointer: number): number {
  return pointer & 0x7fff;
}

export function lineState(pointer: number): number {
  return (pointer >>> 15) & 3;
}

export function lineLength(pointer: number): number {
  return pointer >>> 17;
}

export function setLinePointer(
  page: Uint8Array,
  number: number,
  offset: number,
  state: number,
  length: number,
): void {
  setLinePointerBits(page, number, linePointerBits(offset, state, length));
}

export function linePointerBits(offset: number, state: number, length: number): number {
  return offset | (state << 15) | (length << 17);
}

export function setLinePointerBits(page: Uint8Array, number: number, bits: number): void {
  if (number < 1 || number > 2041) throw noLinePointer(number);
  writeU32(page, PAGE_HEADER_BYTES - LINE_POINTER_BYTES + number * LINE_POINTER_BYTES, bits);
}

/** The line pointer's bits, after checking that it exists and its tuple lies on the page. */
export function requireTuple(page: Uint8Array, number: number): number {
  const at = PAGE_HEADER_BYTES - LINE_POINTER_BYTES + number * LINE_POINTER_BYTES;
  const lower = readU16(page, PD_LOWER);
  if (lower > PAGE_BYTES) throw beyondPage(lower);
  if (number < 1 || at > lower - LINE_POINTER_BYTES) throw noLinePointer(number);
  const pointer = readI32(page, at);
  const offset = lineOffset(pointer);
  if (offset < PAGE_HEADER_BYTES || offset + lineLength(pointer) > PAGE_BYTES) throw pointsOutside(number);
  return pointer;
}

/** Adds `size` bytes as item `number`: see `addItemSpace`. */
export function addItem(
  page: Uint8Array,
  source: Uint8Array,
  sourceOffset: number,
  size: number,
  number: number,
  overwrite: boolean,
): void {
  copyBytes(page, addItemSpace(page, size, number, overwrite), source, sourceOffset, size);
}

/**
 * Makes room for item `number` of `size` bytes and returns where its content belongs. With `overwrite` the line pointer
 * must be unused or the next one; without, later line pointers move up by one.
 */
export function addItemSpace(page: Uint8Array, size: number, number: number, overwrite: boolean): number {
  const oldLower = readU16(page, PD_LOWER);
  const limit = linesBelow(oldLower) + 1;
  let lower = oldLower;
  let shuffles = false;
  if (number < 1 || number > limit) throw beyondLimit(number, limit);
  if (number < limit) {
    if (!overwrite) shuffles = true;
    else if (lineState(linePointer(page, number)) !== LP_UNUSED) throw lineInUse(number);
  }
  if (number === limit || shuffles) lower += LINE_POINTER_BYTES;
  const upper = readU16(page, PD_UPPER) - maxAlign(size);
  if (lower > upper || upper + size > PAGE_BYTES || readU16(page, PD_SPECIAL) > PAGE_BYTES) throw noRoom();
  if (shuffles) {
    const at = PAGE_HEADER_BYTES + (number - 1) * LINE_POINTER_BYTES;
    page.copyWithin(at + LINE_POINTER_BYTES, at, oldLower);
  }
  setLinePointer(page, number, upper, LP_NORMAL, size);
  if (lower !== oldLower) writeU16(page, PD_LOWER, lower);
  writeU16(page, PD_UPPER, upper);
  return upper;
}

function setFlag(page: Uint8Array, flag: number, on: boolean): void {
  page[PD_FLAGS] = on ? page[PD_FLAGS]! | flag : page[PD_FLAGS]! & ~flag;
}

/** What vacuum's second pass does at the end: drops unused line pointers at the end (never the first). */
export function truncateLinePointers(page: Uint8Array): void {
  let countingEnd = true;
  let hasFree = false;
  let dropped = 0;
  for (let number = lineCount(page); number >= 1; number--) {
    const used = lineState(linePointer(page, number)) !== LP_UNUSED;
    if (countingEnd && number > 1) {
      if (used) countingEnd = false;
      else dropped++;
    } else if (!used) {
      hasFree = true;
      break;
    }
  }
  if (dropped > 0) writeU16(page, PD_LOWER, readU16(page, PD_LOWER) - LINE_POINTER_BYTES * dropped);
  setFlag(page, PD_HAS_FREE_LINES, hasFree);
}

/** Removes one index tuple and its line pointer, closing both gaps. */
export function deleteIndexTuple(page: Uint8Array, number: number): void {
  const pointer = requireTuple(page, number);
  const size = maxAlign(lineLength(pointer));
  const offset = lineOffset(pointer);
  const upper = readU16(page, PD_UPPER);
  const lower = readU16(page, PD_LOWER);
  const at = PAGE_HEADER_BYTES + (number - 1) * LINE_POINTER_BYTES;
  page.copyWithin(at, at + LINE_POINTER_BYTES, lower);
  if (offset > upper) page.copyWithin(upper + size, upper, offset);
  writeU16(page, PD_UPPER, upper + size);
  writeU16(page, PD_LOWER, lower - LINE_POINTER_BYTES);
  const lines = lineCount(page);
  for (let other = 1; other <= lines; other++) {
    const bits = linePointer(page, other);
    if (lineOffset(bits) <= offset) setLinePointerBits(page, other, bits + size);
  }
}

/** Like deleteIndexTuple, but the line pointer stays as an unused one, unless it is the last. */
export function deleteIndexTupleNoCompact(page: Uint8Array, number: number): void {
  const pointer = requireTuple(page, number);
  const size = maxAlign(lineLength(pointer));
  const offset = lineOffset(pointer);
  const upper = readU16(page, PD_UPPER);
  if (number < lineCount(page)) setLinePointerBits(page, number, 0);
  else writeU16(page, PD_LOWER, readU16(page, PD_LOWER) - LINE_POINTER_BYTES);
  if (offset > upper) page.copyWithin(upper + size, upper, offset);
  writeU16(page, PD_UPPER, upper + size);
  const lines = lineCount(page);
  for (let other = 1; other <= lines; other++) {
    const bits = linePointer(page, other);
    if (lineLength(bits) !== 0 && lineOffset(bits) <= offset) setLinePointerBits(page, other, bits + size);
  }
}

/** Replaces an index tuple in place, moving its neighbours when the size changes. */
export function overwriteIndexTuple(
  page: Uint8Array,
  number: number,
  source: Uint8Array,
  sourceOffset: number,
  size: number,
): void {
  const pointer = requireTuple(page, number);
  const offset = lineOffset(pointer);
  const upper = readU16(page, PD_UPPER);
  const shrinkage = maxAlign(lineLength(pointer)) - maxAlign(size);
  if (upper + shrinkage < readU16(page, PD_LOWER)) throw new PageContentError('grown tuple does not fit');
  if (shrinkage !== 0) {
    page.copyWithin(upper + shrinkage, upper, offset);
    writeU16(page, PD_UPPER, upper + shrinkage);
    const lines = lineCount(page);
    for (let other = 1; other <= lines; other++) {
      const bits = linePointer(page, other);
      if (lineLength(bits) !== 0 && lineOffset(bits) <= offset)
        setLinePointerBits(page, other, bits + shrinkage);
    }
  }
  setLinePointer(page, number, offset + shrinkage, lineState(pointer), size);
  copyBytes(page, offset + shrinkage, source, sourceOffset, size);
}
