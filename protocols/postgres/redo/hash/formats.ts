/**
 * Layout of hash index pages.
 *
 * Special space, at 8176: previous block u32 (bucket pages: highest bucket when it was last split), next block u32, bucket
 * u32, flags u16, page id u16. Meta page: 24 magic, 28 version, 32 tuple count f64, 40 fill factor u16, 42 bucket bytes
 * u16, 44 bitmap bytes u16, 46 bitmap shift u16, 48 highest bucket, 52 high mask, 56 low mask, 60 split point, 64 first
 * free overflow page, 68 bitmap count, 72 hash function, 76 spares (98 u32), 468 bitmap blocks (1024 u32).
 *
 * Source: access/hash.h.
 */
import { writeU16, writeU32 } from '../../bytes.ts';
import { initPage, PAGE_HEADER_BYTES, PD_LOWER } from '../page.ts';

export const HASH_PREV = 8176;
export const HASH_NEXT = 8180;
export const HASH_BUCKET = 8184;
export const HASH_FLAGS = 8188;
const HASH_PAGE_ID_AT = 8190;
const HASH_PAGE_ID = 0xff80;
const SPECIAL_BYTES = 16;
export const INVALID = 0xffffffff;

export const LH_UNUSED_PAGE = 0;
export const LH_OVERFLOW_PAGE = 1;
export const LH_BITMAP_PAGE = 4;
export const LH_META_PAGE = 8;
export const LH_BUCKET_NEEDS_SPLIT_CLEANUP = 64;
export const LH_PAGE_HAS_DEAD_TUPLES = 128;

const META_MAGIC = 0x6440640;
const META_VERSION = 4;
export const META_TUPLES = 32;
export const META_MAX_BUCKET = 48;
export const META_HIGH_MASK = 52;
export const META_LOW_MASK = 56;
export const META_SPLIT_POINT = 60;
export const META_FIRST_FREE = 64;
export const META_BITMAPS = 68;
const META_PROCEDURE = 72;
export const META_SPARES = 76;
export const META_SPARES_COUNT = 98;
export const META_MAPS = 468;
export const META_MAPS_COUNT = 1024;
const META_LOWER = 4568;
const BUCKET_BYTES = 8152;
const BITMAP_BYTES = 4096;
const BITMAP_SHIFT = 15;
const MAX_INITIAL_BUCKETS = 0x40000000;

/** Split point groups before this number have one phase, later ones four. */
const GROUPS_WITH_ONE_PHASE = 10;

/** Makes an empty hash page. */
export function initHashPage(page: Uint8Array, prev: number, bucket: number, flags: number): void {
  initPage(page, SPECIAL_BYTES);
  writeU32(page, HASH_PREV, prev);
  writeU32(page, HASH_NEXT, INVALID);
  writeU32(page, HASH_BUCKET, bucket);
  writeU16(page, HASH_FLAGS, flags);
  writeU16(page, HASH_PAGE_ID_AT, HASH_PAGE_ID);
}

/** Makes a bitmap page whose overflow pages are all in use. */
export function initBitmapPage(page: Uint8Array, bitmapBytes: number): void {
  initHashPage(page, INVALID, INVALID, LH_BITMAP_PAGE);
  page.fill(0xff, PAGE_HEADER_BYTES, PAGE_HEADER_BYTES + bitmapBytes);
  writeU16(page, PD_LOWER, PAGE_HEADER_BYTES + bitmapBytes);
}

/** Makes the meta page of an index for `tupleCount` tuples. */
export function initMetaPage(
  page: Uint8Array,
  tupleCount: number,
  procedure: number,
  fillFactor: number,
): void {
  const wanted = tupleCount / Math.max(1, fillFactor);
  let buckets = 2;
  if (wanted >= MAX_INITIAL_BUCKETS) buckets = MAX_INITIAL_BUCKETS;
  else if (wanted > 2) buckets = totalBuckets(spareIndex(Math.floor(wanted)));
  const splitPoint = spareIndex(buckets);
  const highMask = 2 ** Math.ceil(Math.log2(buckets + 1)) - 1;
  initHashPage(page, INVALID, INVALID, LH_META_PAGE);
  writeU32(page, 24, META_MAGIC);
  writeU32(page, 28, META_VERSION);
  writeU16(page, 40, fillFactor);
  writeU16(page, 42, BUCKET_BYTES);
  writeU16(page, 44, BITMAP_BYTES);
  writeU16(page, 46, BITMAP_SHIFT);
  writeU32(page, META_MAX_BUCKET, buckets - 1);
  writeU32(page, META_HIGH_MASK, highMask);
  writeU32(page, META_LOW_MASK, highMask >>> 1);
  writeU32(page, META_SPLIT_POINT, splitPoint);
  writeU32(page, META_PROCEDURE, procedure);
  writeU32(page, META_SPARES + 4 * splitPoint, 1);
  writeU16(page, PD_LOWER, META_LOWER);
}

/** Split point phase at which there are `buckets` buckets. */
function spareIndex(buckets: number): number {
  const group = buckets <= 1 ? 0 : 32 - Math.clz32(buckets - 1);
  if (group < GROUPS_WITH_ONE_PHASE) return group;
  const within = ((buckets - 1) >>> (group - 3)) & 3;
  return GROUPS_WITH_ONE_PHASE + (group - GROUPS_WITH_ONE_PHASE) * 4 + within;
}

/** Buckets that exist once split point phase `phase` is complete. */
function totalBuckets(phase: number): number {
  if (phase < GROUPS_WITH_ONE_PHASE) return 2 ** phase;
  const before = 2 ** (GROUPS_WITH_ONE_PHASE + ((phase - GROUPS_WITH_ONE_PHASE) >> 2) - 1);
  return before + (before / 4) * (((phase - GROUPS_WITH_ONE_PHASE) & 3) + 1);
}
