/**
 * Compressed posting lists of GIN leaves, and the changes that records make to a leaf's sequence of them.
 *
 * A list ("segment"): 0 first tuple id (block high u16, low u16, offset u16), 6 length u16, 8 the differences between
 * successive ids (block * 2048 + offset) as varbytes of seven bits, lowest first; padded to an even length.
 * Changes: count u16, then for each: segment number u8, action u8 (1 delete, 2 insert before, 3 replace, 4 add items) and
 * the new segment, or a count u16 and tuple ids.
 *
 * Source: access/ginblock.h, access/ginxlog.h, gin/ginpostinglist.c.
 */
import { copyBytes, readU16, writeU16 } from '../../bytes.ts';
import { PageContentError } from '../errors.ts';
import { PD_LOWER } from '../page.ts';
import { DATA_END, DATA_START, setDataSize } from './formats.ts';

const SEGMENT_HEADER_BYTES = 8;
const TID_BYTES = 6;
const OFFSET_RANGE = 2048;
const ACTION_DELETE = 1;
const ACTION_INSERT = 2;
const ACTION_REPLACE = 3;
const ACTION_ADD_ITEMS = 4;
/** More ids than a page can hold in any encoding. */
const IDS_MAX = 8192;

const rebuilt = new Uint8Array(8192);
let rebuiltLength = 0;
const segment = new Uint8Array(8192);
const oldIds = new Float64Array(IDS_MAX);
const newIds = new Float64Array(IDS_MAX);

/** Applies the changes in `source[from, end)` to the posting lists of a leaf. */
export function recompressLeaf(page: Uint8Array, source: Uint8Array, from: number, end: number): void {
  const listEnd = Math.min(readU16(page, PD_LOWER), DATA_END);
  let count = readU16(source, from);
  let at = from + 2;
  let old = DATA_START;
  let oldNumber = 0;
  rebuiltLength = 0;
  for (; count > 0; count--) {
    if (at + 2 > end) throw new PageContentError('posting list changes end early');
    const number = source[at]!;
    const action = source[at + 1]!;
    at += 2;
    for (; oldNumber < number; oldNumber++) old = keepSegment(page, old, listEnd);
    switch (action) {
      case ACTION_DELETE:
        old += segmentSize(page, old, listEnd);
        oldNumber++;
        break;
      case ACTION_INSERT:
        at = appendSegment(source, at, end);
        break;
      case ACTION_REPLACE:
        at = appendSegment(source, at, end);
        old += segmentSize(page, old, listEnd);
        oldNumber++;
        break;
      case ACTION_ADD_ITEMS:
        at = appendWithItems(page, old, listEnd, source, at, end);
        old += segmentSize(page, old, listEnd);
        oldNumber++;
        break;
      default:
        throw new PageContentError(`posting list action ${action}`);
    }
  }
  append(page, old, listEnd - old);
  page.set(rebuilt.subarray(0, rebuiltLength), DATA_START);
  setDataSize(page, rebuiltLength);
}

function segmentSize(bytes: Uint8Array, at: number, end: number): number {
  const length = readU16(bytes, at + TID_BYTES);
  const size = SEGMENT_HEADER_BYTES + length + (length & 1);
  if (at + size > end) throw new PageContentError('posting list runs over');
  return size;
}

function append(source: Uint8Array, from: number, length: number): void {
  if (length < 0 || rebuiltLength + length > DATA_END - DATA_START) {
    throw new PageContentError('posting lists do not fit');
  }
  copyBytes(rebuilt, rebuiltLength, source, from, length);
  rebuiltLength += length;
}

function keepSegment(page: Uint8Array, at: number, end: number): number {
  const size = segmentSize(page, at, end);
  append(page, at, size);
  return at + size;
}

function appendSegment(source: Uint8Array, at: number, end: number): number {
  const size = segmentSize(source, at, end);
  append(source, at, size);
  return at + size;
}

/** Appends the old segment with more ids merged in; returns the offset after those in `source`. */
function appendWithItems(
  page: Uint8Array,
  old: number,
  oldEnd: number,
  source: Uint8Array,
  from: number,
  end: number,
): number {
  const added = readU16(source, from);
  const next = from + 2 + added * TID_BYTES;
  if (next > end || added > IDS_MAX) throw new PageContentError('added items end early');
  const oldCount = decodeSegment(page, old, old + segmentSize(page, old, oldEnd));
  let merged = 0;
  let o = 0;
  for (let i = 0; i < added; i++) {
    const id = readId(source, from + 2 + i * TID_BYTES);
    while (o < oldCount && oldIds[o]! < id) newIds[merged++] = oldIds[o++]!;
    if (o < oldCount && oldIds[o] === id) o++;
    newIds[merged++] = id;
    if (merged + oldCount - o > IDS_MAX) throw new PageContentError('too many posting list items');
  }
  while (o < oldCount) newIds[merged++] = oldIds[o++]!;
  append(segment, 0, encodeSegment(merged));
  return next;
}

function readId(bytes: Uint8Array, at: number): number {
  return (readU16(bytes, at) * 65536 + readU16(bytes, at + 2)) * OFFSET_RANGE + readU16(bytes, at + 4);
}

/** Decodes a segment into `oldIds`; returns how many there are. */
function decodeSegment(bytes: Uint8Array, at: number, end: number): number {
  const stop = Math.min(end, at + SEGMENT_HEADER_BYTES + readU16(bytes, at + TID_BYTES));
  let id = readId(bytes, at);
  oldIds[0] = id;
  let count = 1;
  let next = at + SEGMENT_HEADER_BYTES;
  while (next < stop) {
    let scale = 1;
    let byte = 0x80;
    while (byte & 0x80 && next < stop) {
      byte = bytes[next++]!;
      id += (byte & 0x7f) * scale;
      scale *= 128;
    }
    oldIds[count++] = id;
  }
  return count;
}

/** Encodes `count` ids of `newIds` into `segment`; returns its size. */
function encodeSegment(count: number): number {
  const first = newIds[0]!;
  const block = Math.floor(first / OFFSET_RANGE);
  writeU16(segment, 0, Math.floor(block / 65536));
  writeU16(segment, 2, block % 65536);
  writeU16(segment, 4, first % OFFSET_RANGE);
  let at = SEGMENT_HEADER_BYTES;
  for (let i = 1; i < count; i++) {
    let difference = newIds[i]! - newIds[i - 1]!;
    while (difference > 0x7f) {
      segment[at++] = 0x80 | (difference % 128);
      difference = Math.floor(difference / 128);
    }
    segment[at++] = difference;
    if (at > segment.length - 16) throw new PageContentError('posting list outgrows its page');
  }
  writeU16(segment, TID_BYTES, at - SEGMENT_HEADER_BYTES);
  if ((at & 1) !== 0) segment[at++] = 0;
  return at;
}
