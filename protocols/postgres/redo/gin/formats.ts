/**
 * Layout of GIN pages.
 *
 * Special space, at 8184: right link u32, 8188 item count u16 (internal data pages, list pages), 8190 flags u16. Data
 * pages: 24 right bound (tuple id), 32 on leaves compressed posting lists, on inner pages posting items (child block: high
 * u16, low u16; key: tuple id).
 *
 * Source: access/ginblock.h.
 */
import { copyBytes, readU16, writeU16, writeU32 } from '../../bytes.ts';
import { PageContentError } from '../errors.ts';
import { initPage, PAGE_HEADER_BYTES, PD_LOWER } from '../page.ts';

export const GIN_RIGHT_LINK = 8184;
export const GIN_ITEM_COUNT = 8188;
export const GIN_FLAGS = 8190;
const SPECIAL_BYTES = 8;
export const INVALID_BLOCK = 0xffffffff;

export const GIN_DATA = 1;
export const GIN_LEAF = 2;
export const GIN_DELETED = 4;
export const GIN_META = 8;
export const GIN_LIST = 16;
export const GIN_LIST_FULLROW = 32;
export const GIN_INCOMPLETE_SPLIT = 64;
export const GIN_COMPRESSED = 128;

/** Where posting lists or items begin on data pages. */
export const DATA_START = 32;
export const DATA_END = 8184;
export const POSTING_ITEM_BYTES = 10;
export const META_BYTES = 56;

/** Makes an empty GIN page. */
export function initGinPage(page: Uint8Array, flags: number): void {
  initPage(page, SPECIAL_BYTES);
  writeU32(page, GIN_RIGHT_LINK, INVALID_BLOCK);
  writeU16(page, GIN_FLAGS, flags);
}

/** Makes the meta page with the given content. */
export function initMetaPage(page: Uint8Array, source: Uint8Array, offset: number): void {
  initGinPage(page, GIN_META);
  copyBytes(page, PAGE_HEADER_BYTES, source, offset, META_BYTES);
  writeU16(page, PD_LOWER, PAGE_HEADER_BYTES + META_BYTES);
}

/** Notes how many bytes of posting lists or items a data page holds. */
export function setDataSize(page: Uint8Array, size: number): void {
  if (DATA_START + size > DATA_END) throw new PageContentError(`${size} bytes on a data page`);
  writeU16(page, PD_LOWER, DATA_START + size);
}

/** Inserts a posting item as number `number` (from 1) of an inner data page. */
export function addPostingItem(page: Uint8Array, source: Uint8Array, offset: number, number: number): void {
  const count = readU16(page, GIN_ITEM_COUNT);
  if (number < 1 || number > count + 1) throw new PageContentError(`posting item ${number} of ${count}`);
  setDataSize(page, (count + 1) * POSTING_ITEM_BYTES);
  const at = DATA_START + (number - 1) * POSTING_ITEM_BYTES;
  page.copyWithin(at + POSTING_ITEM_BYTES, at, DATA_START + count * POSTING_ITEM_BYTES);
  copyBytes(page, at, source, offset, POSTING_ITEM_BYTES);
  writeU16(page, GIN_ITEM_COUNT, count + 1);
}

/** Removes posting item `number` from an inner data page. */
export function deletePostingItem(page: Uint8Array, number: number): void {
  const count = readU16(page, GIN_ITEM_COUNT);
  if (number < 1 || number > count) throw new PageContentError(`posting item ${number} of ${count}`);
  const at = DATA_START + (number - 1) * POSTING_ITEM_BYTES;
  page.copyWithin(at, at + POSTING_ITEM_BYTES, DATA_START + count * POSTING_ITEM_BYTES);
  writeU16(page, GIN_ITEM_COUNT, count - 1);
  setDataSize(page, (count - 1) * POSTING_ITEM_BYTES);
}

/** Stores a block number in Postgres' split form: high u16, low u16. */
export function writeBlockId(bytes: Uint8Array, offset: number, block: number): void {
  writeU16(bytes, offset, block >>> 16);
  writeU16(bytes, offset + 2, block);
}
