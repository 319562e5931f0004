/**
 * Redo of the resource manager BRIN on one page.
 *
 * CREATE_INDEX 0x00: main 0 pages per range u32, 4 version u16; block 0 meta page. INSERT 0x10: main 0 heap block u32, 4
 * pages per range u32, 8 item number u16; block 0 regular page (flag 0x80: made anew) and its tuple, 1 revmap page.
 * UPDATE 0x20: main 0 old item u16, 4 as INSERT; block 2 the old tuple's page. SAMEPAGE_UPDATE 0x30: main 0 item u16;
 * block 0 and its tuple. REVMAP_EXTEND 0x40: main 0 new revmap block u32; block 0 meta page, 1 the new page.
 * DESUMMARIZE 0x50: main 0 pages per range u32, 4 heap block u32, 8 item u16; block 0 revmap page, 1 regular page.
 *
 * Special space, at 8184: flags u16 at 8188, page type u16 at 8190. Revmap: an array of 1360 tuple ids from 24 on.
 *
 * Source: access/brin_xlog.h, access/brin_page.h.
 */
import { readU16, readU32, writeU16, writeU32 } from '../bytes.ts';
import type { DecodedRecord } from '../wal/record.ts';
import { PageContentError } from './errors.ts';
import { requireMain } from './main-data.ts';
import {
  addItem,
  deleteIndexTupleNoCompact,
  initPage,
  overwriteIndexTuple,
  PAGE_HEADER_BYTES,
  PD_LOWER,
  setPageLsn,
} from './page.ts';

const CREATE_INDEX = 0x00;
const INSERT = 0x10;
const UPDATE = 0x20;
const SAMEPAGE_UPDATE = 0x30;
const REVMAP_EXTEND = 0x40;
const DESUMMARIZE = 0x50;
const OPERATION_MASK = 0x70;
const INIT_PAGE = 0x80;

const SPECIAL_BYTES = 8;
const PAGE_TYPE = 8190;
const TYPE_META = 0xf091;
const TYPE_REVMAP = 0xf092;
const TYPE_REGULAR = 0xf093;
const META_MAGIC = 0xa8109cfa;
const META_BYTES = 16;
const LAST_REVMAP_PAGE = 36;
const REVMAP_ITEMS = 1360;
const TID_BYTES = 6;

/** Applies the record to `page`, which is its block `id`. Returns false if this record type is unknown. */
export function redoBrin(record: DecodedRecord, id: number, page: Uint8Array): boolean {
  const { bytes, mainOffset } = record;
  switch (record.info & OPERATION_MASK) {
    case CREATE_INDEX:
      requireMain(record, 6);
      initMeta(page, readU32(bytes, mainOffset), readU16(bytes, mainOffset + 4));
      break;
    case INSERT:
      requireMain(record, 10);
      insert(record, id, page, mainOffset);
      break;
    case UPDATE:
      requireMain(record, 14);
      if (id === 2) deleteIndexTupleNoCompact(page, readU16(bytes, mainOffset));
      else insert(record, id, page, mainOffset + 4);
      break;
    case SAMEPAGE_UPDATE:
      requireMain(record, 2);
      overwriteIndexTuple(
        page,
        readU16(bytes, mainOffset),
        bytes,
        record.dataOffset[id]!,
        record.dataLength[id]!,
      );
      break;
    case REVMAP_EXTEND:
      requireMain(record, 4);
      extendRevmap(id, page, readU32(bytes, mainOffset));
      break;
    case DESUMMARIZE:
      requireMain(record, 10);
      if (id === 1) deleteIndexTupleNoCompact(page, readU16(bytes, mainOffset + 8));
      else setRevmap(page, readU32(bytes, mainOffset), readU32(bytes, mainOffset + 4), 0xffffffff, 0);
      break;
    default:
      return false;
  }
  setPageLsn(page, record.end);
  return true;
}

function initBrinPage(page: Uint8Array, type: number): void {
  initPage(page, SPECIAL_BYTES);
  writeU16(page, PAGE_TYPE, type);
}

function initMeta(page: Uint8Array, pagesPerRange: number, version: number): void {
  initBrinPage(page, TYPE_META);
  writeU32(page, PAGE_HEADER_BYTES, META_MAGIC);
  writeU32(page, PAGE_HEADER_BYTES + 4, version);
  writeU32(page, PAGE_HEADER_BYTES + 8, pagesPerRange);
  writeU16(page, PD_LOWER, PAGE_HEADER_BYTES + META_BYTES);
}

/** The part that INSERT and UPDATE share; `at` is where heap block, pages per range and item number stand. */
function insert(record: DecodedRecord, id: number, page: Uint8Array, at: number): void {
  const { bytes } = record;
  const number = readU16(bytes, at + 8);
  if (id === 1) {
    setRevmap(page, readU32(bytes, at + 4), readU32(bytes, at), record.block[0]!, number);
    return;
  }
  if ((record.info & INIT_PAGE) !== 0) initBrinPage(page, TYPE_REGULAR);
  addItem(page, bytes, record.dataOffset[0]!, record.dataLength[0]!, number, true);
}

function extendRevmap(id: number, page: Uint8Array, newBlock: number): void {
  if (id === 1) {
    initBrinPage(page, TYPE_REVMAP);
    return;
  }
  writeU32(page, LAST_REVMAP_PAGE, newBlock);
  writeU16(page, PD_LOWER, PAGE_HEADER_BYTES + META_BYTES);
}

/** Points the range of `heapBlock` to a summary tuple; block 0xffffffff and number 0 mean none. */
function setRevmap(
  page: Uint8Array,
  pagesPerRange: number,
  heapBlock: number,
  block: number,
  number: number,
): void {
  if (pagesPerRange === 0) throw new PageContentError('ranges of no pages');
  const at = PAGE_HEADER_BYTES + (Math.floor(heapBlock / pagesPerRange) % REVMAP_ITEMS) * TID_BYTES;
  writeU16(page, at, block >>> 16);
  writeU16(page, at + 2, block);
  writeU16(page, at + 4, number);
}
