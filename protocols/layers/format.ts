/**
 * Layer files: immutable, sorted history of a timeline's pages over a range of LSNs and of keys. Version 2.
 *
 *   header     16 bytes: magic u32, version u32, kind u32, zero u32
 *   data       blocks, one after the other without gaps, each compressed by itself (see block.ts)
 *   sections   relations, blocks, filter, cuts: what finds a page; then sizes, values, waypoints: the small state
 *   footer     FOOTER_BYTES, see below
 *
 * A *delta* layer holds everything that changed in (start, end] for its range of keys; an *image* layer whole pages as of
 * `end`, all that existed then in its range of keys: a page that it lacks is one of zeros. A *state* layer has the small
 * state of (start, end] and no pages; where history ended since, of the moments alone that stay readable, and of `end`. Level 0
 * layers hold all keys, and the small state too.
 *
 * The small state (sizes of relations, values, waypoints) is self-contained: a layer that has it also repeats what held
 * at its start, so that sizes and values at an LSN are read from the one layer that covers it. Cuts are the sizes that took
 * blocks away: a read of pages needs them, and no other sizes.
 *
 * A section is stored as it is, or compressed when that makes it smaller (then its length differs from its raw length).
 * Raw layouts, little-endian columns:
 *   relations  count u32, pad u32, then (spc, db, rel, fork, firstSize, firstCut, 0, 0) u32 * count, sorted by the tag
 *   blocks     count n; offset f64[n], firstLsn f64[n], firstRelation u32[n], firstBlock u32[n], storedLength u32[n],
 *              rawLength u32[n], crc u32[n], flags u32[n]; sorted by (relation, block, LSN) of each one's first entry
 *   filter     see filter.ts; empty when there is none
 *   cuts       count n; lsn f64[n], cutTo u32[n]; sorted by (relation, lsn)
 *   sizes      count n; lsn f64[n], blocks i32[n], cutTo u32[n]; sorted by (relation, lsn)
 *   values     count u32, pad; then each: key length u16, 2 zero, data length u32 (2^32-1: no value), lsn f64, key, data
 *   waypoints  count u32, pad; then each: lsn f64, length u32, pad u32, data
 *
 * Footer: magic u32, version u32, kind u32, Postgres version u32, start LSN f64, end LSN f64, first key and last key
 * (spc, db, rel, fork, block u32 each), level u32, zero u32, entries f64, then for each section offset f64, stored length
 * u32, raw length u32, CRC-32C of the stored bytes u32, zero u32; and at the file's end the trailer: zero u32, footer magic u32,
 * version u32, length of the footer u32, zero u32, CRC-32C of the footer before it u32.
 *
 * Every block of data has the CRC-32C of its stored bytes in the section `blocks`; all are checked at every read.
 * Files of version 1 are read too: see version-1.ts.
 */
export const LAYER_MAGIC = 0x504c5331;
export const FOOTER_MAGIC = 0x504c4654;
export const LAYER_VERSION = 2;
export const HEADER_BYTES = 16;
export const VERSION_HEADER_BYTES = 24;

export const KIND_DELTA = 1;
export const KIND_IMAGE = 2;
export const KIND_STATE = 3;

/** The entry is a whole page; without it a run of records. */
export const ENTRY_IMAGE = 1;
/** The first record of the run makes the page anew: nothing older is needed. */
export const ENTRY_INITIALISES = 2;

/** The block's stored bytes are a zstd frame. */
export const BLOCK_COMPRESSED = 1;
/** The page of the block's first entry has entries in the block before, too. */
export const BLOCK_CONTINUES = 2;
/** The block is the bytes of one entry without a table (version 1); the entry's flags stand above BARE_FLAGS_SHIFT. */
export const BLOCK_BARE = 4;
export const BARE_FLAGS_SHIFT = 8;

/** `cutTo` of a size that grew: no block was cut off. */
export const NO_CUT = 0xffffffff;
/** Size of a relation that does not exist. */
export const DROPPED = -1;

export const SECTION_RELATIONS = 0;
export const SECTION_BLOCKS = 1;
export const SECTION_FILTER = 2;
export const SECTION_CUTS = 3;
export const SECTION_SIZES = 4;
export const SECTION_VALUES = 5;
export const SECTION_WAYPOINTS = 6;
export const SECTION_COUNT = 7;
export const SECTION_NAMES = ['relations', 'blocks', 'filter', 'cuts', 'sizes', 'values', 'waypoints'];

const TRAILER_BYTES = 24;
export const FOOTER_SECTIONS_AT = 88;
export const FOOTER_BYTES = FOOTER_SECTIONS_AT + SECTION_COUNT * 24 + TRAILER_BYTES;
/** The trailer as seen from the file's end. */
export const TRAILER_MAGIC_AT = -20;
export const TRAILER_VERSION_AT = -16;
export const TRAILER_LENGTH_AT = -12;
export const TRAILER_CRC_AT = -4;

/**
 * A block of data is ended when it has about this much: what one read of a page fetches and decompresses. At 16 KiB zstd finds
 * nine tenths of what there is to find, and decompressing takes 5 to 10 microseconds.
 */
export const BLOCK_BYTES_TARGET = 16 * 1024;

export interface SectionPlace {
  offset: number;
  storedLength: number;
  rawLength: number;
  crc: number;
}
