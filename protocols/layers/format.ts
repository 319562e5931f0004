/**
 * Layer files: immutable, sorted history of a timeline's pages over a range of LSNs.
 *
 *   header     16 bytes: magic u32, version u32, kind u32 (1 delta, 2 image), zero u32
 *   data       blocks, one after the other without gaps: a page's image (8192 bytes, or none for a page of zeros),
 *              or a run of versions of one page
 *   sections   relations, entries, sizes, values, waypoints; each aligned to 8 bytes
 *   footer     FOOTER_BYTES: magic, version, kind, Postgres version, start and end LSN, then offset, length and
 *              CRC-32C of each section, and the footer's own CRC-32C in its last four bytes
 *
 * A delta layer holds everything that changed in (start, end]; an image layer holds whole pages as of `end`.
 * Small state (relation sizes, values, waypoints) is self-contained: a layer also repeats what held at its start, so
 * that sizes and values at an LSN are read from the one layer that covers it.
 *
 * Section layouts (little endian columns):
 *   relations  count u32, pad u32, then (spc, db, rel, fork, firstEntry, firstSize, flags, 0) u32 * count, sorted by the tag
 *   entries    count n; firstLsn f64[n], offset f64[n], block u32[n], length u32[n], crc u32[n], flags u32[n];
 *              sorted by (relation, block, firstLsn)
 *   sizes      count n; lsn f64[n], blocks i32[n], cutTo u32[n]; sorted by (relation, lsn)
 *   values     count u32, pad; then each: key length u16, 2 zero, data length u32 (2^32-1: no value), lsn f64, key, data
 *   waypoints  count u32, pad; then each: lsn f64, length u32, pad u32, data
 *
 * A version in a run: start LSN f64, end LSN f64, length u32, zero u32, the WAL record without page headers, padding
 * to 8. A version's LSN is its record's end. Every block's CRC-32C stands in its entry and is checked at every read.
 */
export const LAYER_MAGIC = 0x504c5331;
export const LAYER_VERSION = 1;
export const HEADER_BYTES = 16;
export const FOOTER_BYTES = 160;
export const VERSION_HEADER_BYTES = 24;

export const KIND_DELTA = 1;
export const KIND_IMAGE = 2;

/** The block is a whole page; without it a run of records. */
export const ENTRY_IMAGE = 1;
/** The first record of the run makes the page anew: nothing older is needed. */
export const ENTRY_INITIALISES = 2;

/** A relation's flag: some of its sizes are cuts. */
export const RELATION_HAS_CUTS = 1;

/** `cutTo` of a size that grew: no block was cut off. */
export const NO_CUT = 0xffffffff;
/** Size of a relation that does not exist. */
export const DROPPED = -1;

export const SECTION_RELATIONS = 0;
export const SECTION_ENTRIES = 1;
export const SECTION_SIZES = 2;
export const SECTION_VALUES = 3;
export const SECTION_WAYPOINTS = 4;
export const SECTION_COUNT = 5;

/** A run is split into blocks of about this size, so that a read in its middle does not fetch all of it. */
export const RUN_BYTES_TARGET = 64 * 1024;

export interface SectionPlace {
  offset: number;
  length: number;
  crc: number;
}

export interface LayerFooter {
  kind: number;
  pgVersion: number;
  startLsn: number;
  endLsn: number;
  sections: SectionPlace[];
}
