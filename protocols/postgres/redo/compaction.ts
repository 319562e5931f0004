/**
 * Moving the tuples of a page together, which pruning and index vacuum do. The result depends on the order of the line pointers, so
 * redo has to make it exactly as Postgres does: in that order from the special space downwards.
 *
 * Where the tuples lie in that order already, as on most heap pages, those below a gap move up in place, and the rest of the page is
 * not even read: a page that was not used lately costs more to fetch from memory than to change. Otherwise the page is put
 * together in a buffer that holds it as it was and as it becomes, so that tuples move without views and as whole words.
 *
 * Invariants
 * 1. A tuple that stays must lie between `upper` and the special space at a multiple of 8, as Postgres lays it: anything else is a
 *    page that contradicts its record.
 * 2. Nothing of another page gets into the result.
 */
import { PAGE_BYTES } from '../../lsn.ts';
import { readI32, readU16, writeU16 } from '../bytes.ts';
import { PageContentError } from './errors.ts';
import {
  deleteIndexTuple,
  LINE_POINTER_BYTES,
  lineCount,
  PAGE_HEADER_BYTES,
  PD_FLAGS,
  PD_HAS_FREE_LINES,
  PD_LOWER,
  PD_SPECIAL,
  PD_UPPER,
  setLinePointerBits,
} from './page.ts';

const STATE_BITS = 3 << 15;
/** The one of STATE_BITS that is in a line pointer's lower half. */
const STATE_LOW_BIT = 1 << 15;
const OFFSET_BITS = 0x7fff;
/** Up to here a loop over words beats a call. */
const LOOP_BYTES = 256;
/** The words before line pointer 1 in the old half and in the new one. */
const OLD_LINES = PAGE_HEADER_BYTES / 4 - 1;
const NEW_LINES = OLD_LINES + PAGE_BYTES / 4;

const both = new Uint8Array(2 * PAGE_BYTES);
const words = new Int32Array(both.buffer);
const before = both.subarray(0, PAGE_BYTES);
const after = both.subarray(PAGE_BYTES);

/** The lower halves of line pointers, by number, as they were before tuples of a page moved in place. */
const oldOffsets = new Uint16Array(PAGE_BYTES / LINE_POINTER_BYTES);
/** Tuples that lie side by side move as one piece: where it lies, and where its end goes. */
const pieceStarts = new Uint16Array(PAGE_BYTES / LINE_POINTER_BYTES);
const pieceEnds = new Uint16Array(PAGE_BYTES / LINE_POINTER_BYTES);
const pieceTargets = new Uint16Array(PAGE_BYTES / LINE_POINTER_BYTES);

/**
 * What pruning does at the end, when the line pointers are set: clears unused ones, drops those at the end, compacts the tuples.
 */
export function compactPruned(page: Uint8Array): void {
  const lines = lineCount(page);
  const special = specialOf(page);
  const oldUpper = readU16(page, PD_UPPER);
  let unused = 0;
  let lastUsed = 0;
  let upper = special;
  let number = 1;
  let at = PAGE_HEADER_BYTES;
  // Tuples at the beginning of the order are mostly where they belong.
  for (; number <= lines; number++, at += LINE_POINTER_BYTES) {
    const pointer = readI32(page, at);
    if (isStored(pointer)) {
      const next = upper - storedBytes(pointer);
      if ((pointer & OFFSET_BITS) !== next) break;
      upper = next;
      lastUsed = number;
    } else if ((pointer & STATE_BITS) !== 0) {
      lastUsed = number;
    } else {
      if (pointer !== 0) setLinePointerBits(page, number, 0);
      unused++;
    }
  }
  if (upper < oldUpper) throw misplaced(number - 1, upper);
  const first = number;
  // Up to here line pointers say already where their tuples will be: all of them, unless one is not in order.
  let moved = lines + 1;
  let pieces = 0;
  let previous = upper;
  for (; number <= lines; number++, at += LINE_POINTER_BYTES) {
    const pointer = readI32(page, at);
    oldOffsets[number] = pointer;
    if (isStored(pointer)) {
      lastUsed = number;
      const offset = pointer & OFFSET_BITS;
      const length = storedBytes(pointer);
      const end = offset + length;
      if (offset < oldUpper || end > special || (offset & 7) !== 0) throw misplaced(number, offset);
      if (end !== previous || pieces === 0) {
        if (end > previous) moved = Math.min(moved, number);
        if (pieces > 0) pieceStarts[pieces - 1] = previous;
        pieceEnds[pieces] = end;
        pieceTargets[pieces++] = upper;
      }
      previous = offset;
      upper -= length;
      if (number < moved) writeU16(page, at, (pointer & STATE_LOW_BIT) | upper);
    } else if ((pointer & STATE_BITS) !== 0) {
      lastUsed = number;
    } else {
      if (pointer !== 0) setLinePointerBits(page, number, 0);
      oldOffsets[number] = 0;
      unused++;
    }
  }
  if (upper < PAGE_HEADER_BYTES + lines * LINE_POINTER_BYTES) throw new PageContentError('tuples overlap');
  if (moved > lines) {
    if (pieces > 0) pieceStarts[pieces - 1] = previous;
    moveInPlace(page, pieces);
    writeU16(page, PD_LOWER, PAGE_HEADER_BYTES + lastUsed * LINE_POINTER_BYTES);
    writeU16(page, PD_UPPER, upper);
  } else {
    restoreOffsets(page, first, moved);
    before.set(page);
    rebuild(page, lastUsed, special);
  }
  const hasFree = unused > lines - lastUsed;
  page[PD_FLAGS] = hasFree ? page[PD_FLAGS]! | PD_HAS_FREE_LINES : page[PD_FLAGS]! & ~PD_HAS_FREE_LINES;
}

/**
 * Removes `count` index tuples whose numbers (u16, ascending) are at `source[offset]`. Up to two go one by one, more in
 * one compaction: the result differs physically, so redo has to make the same choice.
 */
export function deleteIndexTuples(page: Uint8Array, source: Uint8Array, offset: number, count: number): void {
  if (count <= 2) {
    for (let i = count - 1; i >= 0; i--) deleteIndexTuple(page, readU16(source, offset + i * 2));
    return;
  }
  const lines = lineCount(page);
  before.set(page);
  let next = 0;
  let kept = 0;
  for (let number = 1; number <= lines; number++) {
    if (next < count && readU16(source, offset + next * 2) === number) next++;
    else words[OLD_LINES + ++kept] = words[OLD_LINES + number]!;
  }
  if (next !== count) throw new PageContentError('tuples to delete are not on the page');
  rebuild(page, kept, specialOf(page));
}

/** Whether bytes of the page belong to a line pointer: not to an unused or dead one or a redirection. */
function isStored(pointer: number): boolean {
  return pointer >>> 17 !== 0 && (pointer & STATE_BITS) !== 0;
}

/** Bytes that the line pointer's tuple takes on the page. */
function storedBytes(pointer: number): number {
  return ((pointer >>> 17) + 7) & ~7;
}

function specialOf(page: Uint8Array): number {
  const special = readU16(page, PD_SPECIAL);
  if (special > PAGE_BYTES) throw new PageContentError(`special space at ${special}`);
  return special;
}

function misplaced(number: number, offset: number): PageContentError {
  return new PageContentError(`line pointer ${number} points to ${offset}, where no tuple can be`);
}

/** Moves the pieces up, in order, so that none is overwritten before its turn. */
function moveInPlace(page: Uint8Array, pieces: number): void {
  for (let piece = 0; piece < pieces; piece++) {
    const start = pieceStarts[piece]!;
    const end = pieceEnds[piece]!;
    page.copyWithin(pieceTargets[piece]! - (end - start), start, end);
  }
}

/** Points line pointers `first` up to, not including, `end` again to where their tuples were. */
function restoreOffsets(page: Uint8Array, first: number, end: number): void {
  for (let number = first; number < end; number++) {
    writeU16(page, PAGE_HEADER_BYTES + (number - 1) * LINE_POINTER_BYTES, oldOffsets[number]!);
  }
}

/** Puts the page together anew of the old half with its first `count` line pointers: they, zeros, tuples, special space. */
function rebuild(page: Uint8Array, count: number, special: number): void {
  const oldUpper = readU16(before, PD_UPPER);
  const lower = PAGE_HEADER_BYTES + count * LINE_POINTER_BYTES;
  let upper = special;
  let from = special;
  let end = special;
  let target = special;
  for (let number = 1; number <= count; number++) {
    const pointer = words[OLD_LINES + number]!;
    if (!isStored(pointer)) {
      words[NEW_LINES + number] = pointer;
      continue;
    }
    const length = storedBytes(pointer);
    const offset = pointer & OFFSET_BITS;
    if (offset < oldUpper || offset + length > special || (offset & 7) !== 0) throw misplaced(number, offset);
    if (offset + length !== from) {
      movePiece(from, end, target);
      end = offset + length;
      target = upper;
    }
    from = offset;
    upper -= length;
    // Tuples that claim the same bytes would leave the new half.
    if (upper < lower) throw new PageContentError('tuples overlap');
    words[NEW_LINES + number] = (pointer & ~OFFSET_BITS) | upper;
  }
  movePiece(from, end, target);
  both.copyWithin(PAGE_BYTES, 0, PAGE_HEADER_BYTES);
  both.fill(0, PAGE_BYTES + lower, PAGE_BYTES + upper);
  if (special < PAGE_BYTES) both.copyWithin(PAGE_BYTES + special, special, PAGE_BYTES);
  page.set(after);
  writeU16(page, PD_LOWER, lower);
  writeU16(page, PD_UPPER, upper);
}

/** Copies from..end of the old half so that it ends at `target` in the new one; all are multiples of 8. */
function movePiece(from: number, end: number, target: number): void {
  const length = end - from;
  const to = PAGE_BYTES + target - length;
  if (length > LOOP_BYTES) {
    both.copyWithin(to, from, end);
    return;
  }
  const shift = (to - from) >> 2;
  const last = end >> 2;
  for (let word = from >> 2; word < last; word++) words[word + shift] = words[word]!;
}
