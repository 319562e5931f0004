/**
 * The visibility map fork: two bits for each heap page after a page header, and which heap records clear them.
 *
 * Up to 17.10 a heap record that clears bits does not reference the map's page as a block; later minors do. So the map
 * page is derived here from what the record says about the heap page, and a block reference is honoured where
 * there is one.
 */
import { readU32 } from '../bytes.ts';
import type { DecodedRecord } from '../wal/record.ts';
import { RMGR_HEAP, RMGR_HEAP2 } from '../wal/resource-managers.ts';
import {
  HEAP_DELETE,
  HEAP_HOT_UPDATE,
  HEAP_INSERT,
  HEAP_LOCK,
  HEAP_OPERATION_MASK,
  HEAP_UPDATE,
  HEAP2_LOCK_UPDATED,
  HEAP2_MULTI_INSERT,
  oldTupleBlock,
} from './heap/formats.ts';
import { initPage, isNewPage, PAGE_HEADER_BYTES } from './page.ts';

/** Heap pages that one page of the map covers. */
export const HEAP_BLOCKS_PER_VM_PAGE = (8192 - PAGE_HEADER_BYTES) * 4;
const VM_ALL_FROZEN = 2;
export const VM_VALID_BITS = 3;

export function vmPageOf(heapBlock: number): number {
  return Math.floor(heapBlock / HEAP_BLOCKS_PER_VM_PAGE);
}

/** Ids of the heap blocks whose bits the last record given to `collectVmClears` clears, and which bits. */
export const clearedIds = new Uint8Array(2);
export const clearedBits = new Uint8Array(2);

/** Fills `clearedIds` and `clearedBits`; returns how many heap blocks of the record lose visibility map bits. */
export function collectVmClears(record: DecodedRecord): number {
  if (record.maxBlock < 0) return 0;
  if (record.rmid === RMGR_HEAP) return collectHeap(record);
  if (record.rmid === RMGR_HEAP2) return collectHeap2(record);
  return 0;
}

function collectHeap(record: DecodedRecord): number {
  const { bytes, mainOffset } = record;
  switch (record.info & HEAP_OPERATION_MASK) {
    case HEAP_INSERT:
      return (bytes[mainOffset + 2]! & 1) !== 0 ? clearOne(0, VM_VALID_BITS) : 0;
    case HEAP_DELETE:
      return (bytes[mainOffset + 7]! & 1) !== 0 ? clearOne(0, VM_VALID_BITS) : 0;
    case HEAP_LOCK:
      return (bytes[mainOffset + 7]! & 1) !== 0 ? clearOne(0, VM_ALL_FROZEN) : 0;
    case HEAP_UPDATE:
    case HEAP_HOT_UPDATE: {
      const flags = bytes[mainOffset + 7]!;
      let count = (flags & 1) !== 0 ? clearOne(oldTupleBlock(record), VM_VALID_BITS) : 0;
      if ((flags & 2) !== 0) {
        clearedIds[count] = 0;
        clearedBits[count] = VM_VALID_BITS;
        count++;
      }
      return count;
    }
    default:
      return 0;
  }
}

function collectHeap2(record: DecodedRecord): number {
  const { bytes, mainOffset } = record;
  const operation = record.info & HEAP_OPERATION_MASK;
  if (operation === HEAP2_MULTI_INSERT)
    return (bytes[mainOffset]! & 1) !== 0 ? clearOne(0, VM_VALID_BITS) : 0;
  if (operation === HEAP2_LOCK_UPDATED)
    return (bytes[mainOffset + 7]! & 1) !== 0 ? clearOne(0, VM_ALL_FROZEN) : 0;
  return 0;
}

function clearOne(id: number, bits: number): number {
  clearedIds[0] = id;
  clearedBits[0] = bits;
  return 1;
}

/** Clears `bits` of a heap page on the map page that covers it; makes the map page if it is new. */
export function clearVmBits(page: Uint8Array, heapBlock: number, bits: number): void {
  if (isNewPage(page)) initPage(page, 0);
  const index = heapBlock % HEAP_BLOCKS_PER_VM_PAGE;
  const at = PAGE_HEADER_BYTES + (index >> 2);
  page[at] = page[at]! & ~(bits << ((index & 3) * 2));
}

/** Sets `bits` of a heap page; returns whether anything changed. */
export function setVmBits(page: Uint8Array, heapBlock: number, bits: number): boolean {
  if (isNewPage(page)) initPage(page, 0);
  const index = heapBlock % HEAP_BLOCKS_PER_VM_PAGE;
  const at = PAGE_HEADER_BYTES + (index >> 2);
  const shift = (index & 3) * 2;
  if (((page[at]! >> shift) & VM_VALID_BITS) === bits) return false;
  page[at] = page[at]! | (bits << shift);
  return true;
}

/**
 * Storage truncate (0x20): 0 new heap length in blocks u32, 4 tablespace, 8 database, 12 relation, 16 flags (1 heap,
 * 2 visibility map, 4 free space map).
 */
export const TRUNCATE_HEAP = 1;
export const TRUNCATE_VM = 2;
export const TRUNCATE_FSM = 4;

/** Map page that keeps only some of its bits when the heap is cut, or -1 when the cut falls on a page boundary. */
export function partialVmPage(record: DecodedRecord): number {
  const heapBlocks = readU32(record.bytes, record.mainOffset);
  if ((record.bytes[record.mainOffset + 16]! & TRUNCATE_VM) === 0) return -1;
  return heapBlocks % HEAP_BLOCKS_PER_VM_PAGE === 0 ? -1 : vmPageOf(heapBlocks);
}

/** Pages of the map that remain when the heap has `heapBlocks`. */
export function vmPagesFor(heapBlocks: number): number {
  return Math.ceil(heapBlocks / HEAP_BLOCKS_PER_VM_PAGE);
}

/** Clears the bits of all heap pages from `heapBlocks` on, on the map page that covers that block. */
export function truncateVmPage(page: Uint8Array, heapBlocks: number): void {
  if (isNewPage(page)) initPage(page, 0);
  const index = heapBlocks % HEAP_BLOCKS_PER_VM_PAGE;
  const at = PAGE_HEADER_BYTES + (index >> 2);
  page.fill(0, at + 1);
  page[at] = page[at]! & ((1 << ((index & 3) * 2)) - 1);
}
