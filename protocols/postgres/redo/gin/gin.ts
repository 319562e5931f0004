/**
 * Redo of the resource manager Gin on one page.
 *
 * CREATE_PTREE 0x10: main 0 size u32, 4 posting lists; block 0. INSERT 0x20: main 0 flags u16 (1 data page, 2 leaf), on inner
 * pages 2 left child, 6 right child (block: high u16, low u16); block 0 data: entry page: item u16, replaces u8, tuple at 4;
 * data leaf: posting list changes; inner data page: item u16, posting item at 2; block 1 the child whose split this
 * finishes. SPLIT 0x30: images; block 3 such a child. VACUUM_PAGE 0x40: image. DELETE_PAGE 0x50: main 0 parent's item u16,
 * 4 right link u32, 8 deletion xid u32; block 0 page, 1 parent, 2 left. UPDATE_META_PAGE 0x60: main 16 meta data (56
 * bytes), 72 previous tail u32, 76 its new right link u32, 80 tuple count i32; block 0 meta, 1 tail and its tuples, or the
 * previous tail. INSERT_LISTPAGE 0x70: main 0 right link u32, 4 tuple count i32; block 0 and its tuples. DELETE_LISTPAGE
 * 0x80: main 0 meta data, 56 page count i32; block 0 meta, 1.. pages. VACUUM_DATA_LEAF_PAGE 0x90: block 0 data: posting list
 * changes.
 *
 * Source: access/ginxlog.h.
 */
import { copyBytes, readI32, readU16, readU32, writeU16, writeU32 } from '../../bytes.ts';
import { CorruptWalError } from '../../wal/errors.ts';
import type { DecodedRecord } from '../../wal/record.ts';
import { indexTupleSize } from '../btree/formats.ts';
import { PageContentError } from '../errors.ts';
import { requireBlockData, requireMain } from '../main-data.ts';
import {
  addItem,
  deleteIndexTuple,
  lineCount,
  lineOffset,
  PD_PRUNE_XID,
  requireTuple,
  setPageLsn,
} from '../page.ts';
import {
  addPostingItem,
  DATA_START,
  deletePostingItem,
  GIN_COMPRESSED,
  GIN_DATA,
  GIN_DELETED,
  GIN_FLAGS,
  GIN_INCOMPLETE_SPLIT,
  GIN_ITEM_COUNT,
  GIN_LEAF,
  GIN_LIST,
  GIN_LIST_FULLROW,
  GIN_RIGHT_LINK,
  INVALID_BLOCK,
  initGinPage,
  initMetaPage,
  META_BYTES,
  POSTING_ITEM_BYTES,
  setDataSize,
  writeBlockId,
} from './formats.ts';
import { recompressLeaf } from './posting-list.ts';

const CREATE_PTREE = 0x10;
const INSERT = 0x20;
const SPLIT = 0x30;
const DELETE_PAGE = 0x50;
const UPDATE_META_PAGE = 0x60;
const INSERT_LISTPAGE = 0x70;
const DELETE_LISTPAGE = 0x80;
const VACUUM_DATA_LEAF_PAGE = 0x90;

const INSERT_IS_DATA = 1;
const INSERT_IS_LEAF = 2;
const UPDATE_META_MAIN_BYTES = 84;

/** Applies the record to `page`, which is its block `id`. Returns false if this record type is unknown. */
export function redoGin(record: DecodedRecord, id: number, page: Uint8Array): boolean {
  switch (record.info & 0xf0) {
    case CREATE_PTREE:
      redoCreateTree(record, page);
      break;
    case INSERT:
      if (id === 0) redoInsert(record, page);
      else clearIncompleteSplit(page);
      break;
    case SPLIT:
      if (id !== 3) throw new PageContentError('a split page has no image');
      clearIncompleteSplit(page);
      break;
    case DELETE_PAGE:
      redoDeletePage(record, id, page);
      break;
    case UPDATE_META_PAGE:
      redoUpdateMeta(record, id, page);
      break;
    case INSERT_LISTPAGE:
      redoInsertListPage(record, page);
      break;
    case DELETE_LISTPAGE:
      requireMain(record, META_BYTES + 4);
      if (id === 0) initMetaPage(page, record.bytes, record.mainOffset);
      else initGinPage(page, GIN_DELETED);
      break;
    case VACUUM_DATA_LEAF_PAGE:
      recompress(record, page);
      break;
    default:
      return false;
  }
  setPageLsn(page, record.end);
  return true;
}

function clearIncompleteSplit(page: Uint8Array): void {
  writeU16(page, GIN_FLAGS, readU16(page, GIN_FLAGS) & ~GIN_INCOMPLETE_SPLIT);
}

function redoCreateTree(record: DecodedRecord, page: Uint8Array): void {
  requireMain(record, 4);
  const size = readU32(record.bytes, record.mainOffset);
  requireMain(record, 4 + size);
  initGinPage(page, GIN_DATA | GIN_LEAF | GIN_COMPRESSED);
  setDataSize(page, size);
  copyBytes(page, DATA_START, record.bytes, record.mainOffset + 4, size);
}

function recompress(record: DecodedRecord, page: Uint8Array): void {
  if ((readU16(page, GIN_FLAGS) & GIN_COMPRESSED) === 0) {
    throw new PageContentError('posting lists in the format before 9.4: reindex');
  }
  const from = record.dataOffset[0]!;
  recompressLeaf(page, record.bytes, from, from + record.dataLength[0]!);
}

function redoInsert(record: DecodedRecord, page: Uint8Array): void {
  requireMain(record, 2);
  requireBlockData(record, 0, 2);
  const { bytes, mainOffset } = record;
  const flags = readU16(bytes, mainOffset);
  const isLeaf = (flags & INSERT_IS_LEAF) !== 0;
  let rightChild = INVALID_BLOCK;
  if (!isLeaf) {
    requireMain(record, 10);
    rightChild = ((readU16(bytes, mainOffset + 6) << 16) | readU16(bytes, mainOffset + 8)) >>> 0;
  }
  if ((flags & INSERT_IS_DATA) === 0) insertEntry(record, page, rightChild);
  else if (isLeaf) recompress(record, page);
  else insertPostingItem(record, page, rightChild);
}

function insertPostingItem(record: DecodedRecord, page: Uint8Array, rightChild: number): void {
  requireBlockData(record, 0, 2 + POSTING_ITEM_BYTES);
  const data = record.dataOffset[0]!;
  const number = readU16(record.bytes, data);
  // The existing item led to the left half and now leads to the right one; the new item takes its place before it.
  if (number < 1 || number > readU16(page, GIN_ITEM_COUNT))
    throw new PageContentError(`posting item ${number}`);
  writeBlockId(page, DATA_START + (number - 1) * POSTING_ITEM_BYTES, rightChild);
  addPostingItem(page, record.bytes, data + 2, number);
}

function insertEntry(record: DecodedRecord, page: Uint8Array, rightChild: number): void {
  requireBlockData(record, 0, 12);
  const { bytes } = record;
  const data = record.dataOffset[0]!;
  const number = readU16(bytes, data);
  if (rightChild !== INVALID_BLOCK) {
    const tuple = lineOffset(requireTuple(page, number));
    writeBlockId(page, tuple, rightChild);
    writeU16(page, tuple + 4, 0);
  }
  if (bytes[data + 2] === 1) deleteIndexTuple(page, number);
  const size = indexTupleSize(bytes, data + 4);
  requireBlockData(record, 0, 4 + size);
  addItem(page, bytes, data + 4, size, number, false);
}

function redoDeletePage(record: DecodedRecord, id: number, page: Uint8Array): void {
  requireMain(record, 12);
  const { bytes, mainOffset } = record;
  if (id === 0) {
    writeU16(page, GIN_FLAGS, readU16(page, GIN_FLAGS) | GIN_DELETED);
    writeU32(page, PD_PRUNE_XID, readU32(bytes, mainOffset + 8));
  } else if (id === 1) {
    deletePostingItem(page, readU16(bytes, mainOffset));
  } else {
    writeU32(page, GIN_RIGHT_LINK, readU32(bytes, mainOffset + 4));
  }
}

function redoUpdateMeta(record: DecodedRecord, id: number, page: Uint8Array): void {
  requireMain(record, UPDATE_META_MAIN_BYTES);
  const { bytes, mainOffset } = record;
  if (id === 0) {
    initMetaPage(page, bytes, mainOffset + 16);
    return;
  }
  const count = readI32(bytes, mainOffset + 80);
  if (count > 0) {
    addTuples(record, id, page, count);
    writeU16(page, GIN_ITEM_COUNT, readU16(page, GIN_ITEM_COUNT) + 1);
  } else {
    writeU32(page, GIN_RIGHT_LINK, readU32(bytes, mainOffset + 76));
  }
}

function redoInsertListPage(record: DecodedRecord, page: Uint8Array): void {
  requireMain(record, 8);
  const rightLink = readU32(record.bytes, record.mainOffset);
  const isTail = rightLink === INVALID_BLOCK;
  initGinPage(page, isTail ? GIN_LIST | GIN_LIST_FULLROW : GIN_LIST);
  writeU32(page, GIN_RIGHT_LINK, rightLink);
  writeU16(page, GIN_ITEM_COUNT, isTail ? 1 : 0);
  addTuples(record, 0, page, readI32(record.bytes, record.mainOffset + 4));
}

/** Appends the tuples in block `id`'s data, which follow each other without padding. */
function addTuples(record: DecodedRecord, id: number, page: Uint8Array, count: number): void {
  const { bytes } = record;
  const end = record.dataOffset[id]! + record.dataLength[id]!;
  let at = record.dataOffset[id]!;
  for (let i = 0; i < count; i++) {
    if (at >= end) throw new CorruptWalError(record.lsn, 'fewer tuples than announced');
    const size = indexTupleSize(bytes, at);
    addItem(page, bytes, at, size, lineCount(page) + 1, false);
    at += size;
  }
}
