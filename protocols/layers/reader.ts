/**
 * Reads what finds a page in a layer: which block of data has its versions. The columns are views on the sections' bytes (a
 * little-endian machine is assumed, as Node has no other).
 */
import type { RelationTag } from '../pages/types.ts';
import { crc32c } from '../postgres/crc32c.ts';
import { Block, bareBlock } from './block.ts';
import { aligned, decompress, roomFor } from './compression.ts';
import { corruptLayer } from './errors.ts';
import { filterMayHold, hashPage } from './filter.ts';
import type { LayerFooter } from './footer.ts';
import {
  BARE_FLAGS_SHIFT,
  BLOCK_BARE,
  BLOCK_COMPRESSED,
  BLOCK_CONTINUES,
  SECTION_BLOCKS,
  SECTION_CUTS,
  SECTION_FILTER,
  SECTION_NAMES,
  SECTION_RELATIONS,
} from './format.ts';
import { compareKeys, type PageKey } from './key.ts';

const RELATION_WORDS = 8;

/** Checks a section's stored bytes and gives its raw ones, aligned to 8. `stored` begins at `base` of the file. */
export function openSection(
  file: string,
  footer: LayerFooter,
  section: number,
  stored: Uint8Array,
  base: number,
): Uint8Array {
  const { offset, storedLength, rawLength, crc } = footer.sections[section]!;
  const from = offset - base;
  const isSound =
    from >= 0 && from + storedLength <= stored.length && crc32c(stored, from, from + storedLength) === crc;
  if (!isSound) throw corruptLayer(file, `section ${SECTION_NAMES[section]}`);
  const bytes = stored.subarray(from, from + storedLength);
  if (storedLength === rawLength) return aligned(bytes);
  return decompress(bytes, rawLength);
}

/** The number of elements that a section's head names. */
export function countOf(section: Uint8Array): number {
  return new DataView(section.buffer, section.byteOffset, 4).getUint32(0, true);
}

export function u32(section: Uint8Array, offset: number, count: number): Uint32Array {
  return new Uint32Array(section.buffer, section.byteOffset + offset, count);
}

export function f64(section: Uint8Array, offset: number, count: number): Float64Array {
  return new Float64Array(section.buffer, section.byteOffset + offset, count);
}

/** The relations of a layer, which a layer numbers in order of their tags. */
export class LayerRelations {
  readonly count: number;
  readonly #words: Uint32Array;
  #last = 0;

  constructor(section: Uint8Array) {
    this.count = countOf(section);
    this.#words = u32(section, 8, this.count * RELATION_WORDS);
  }

  tag(relation: number): RelationTag {
    const r = this.#words;
    const at = relation * RELATION_WORDS;
    return { spc: r[at]!, db: r[at + 1]!, rel: r[at + 2]!, fork: r[at + 3]! };
  }

  /** Number of a relation in this layer, -1 when the layer does not mention it. */
  find(spc: number, db: number, rel: number, fork: number): number {
    if (this.#last < this.count && this.#compare(this.#last, spc, db, rel, fork) === 0) return this.#last;
    let low = 0;
    let high = this.count - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      const order = this.#compare(middle, spc, db, rel, fork);
      if (order === 0) {
        this.#last = middle;
        return middle;
      }
      if (order < 0) low = middle + 1;
      else high = middle - 1;
    }
    return -1;
  }

  /** First size (of `total`) of a relation; of the number after the last one: the end. */
  firstSize(relation: number, total: number): number {
    return relation < this.count ? this.#words[relation * RELATION_WORDS + 4]! : total;
  }

  firstCut(relation: number, total: number): number {
    return relation < this.count ? this.#words[relation * RELATION_WORDS + 5]! : total;
  }

  #compare(relation: number, spc: number, db: number, rel: number, fork: number): number {
    const r = this.#words;
    const at = relation * RELATION_WORDS;
    return r[at]! - spc || r[at + 1]! - db || r[at + 2]! - rel || r[at + 3]! - fork;
  }
}

/** The raw sections of an index, however the file stores them. */
export interface IndexSections {
  relations: Uint8Array;
  blocks: Uint8Array;
  filter: Uint8Array;
  cuts: Uint8Array;
}

/** Opens the sections of an index. Throws `corrupt` naming the one whose checksum does not match. */
export function openIndexSections(
  file: string,
  footer: LayerFooter,
  stored: Uint8Array,
  base: number,
): IndexSections {
  const open = (section: number) => openSection(file, footer, section, stored, base);
  return {
    relations: open(SECTION_RELATIONS),
    blocks: open(SECTION_BLOCKS),
    filter: open(SECTION_FILTER),
    cuts: open(SECTION_CUTS),
  };
}

export class LayerIndex {
  readonly footer: LayerFooter;
  readonly relations: LayerRelations;
  readonly blockCount: number;
  /** Memory that the index holds. */
  readonly bytes: number;

  readonly blockOffset: Float64Array;
  readonly blockStored: Uint32Array;
  readonly #firstLsn: Float64Array;
  readonly #firstRelation: Uint32Array;
  readonly #firstPage: Uint32Array;
  readonly #rawLength: Uint32Array;
  readonly #crc: Uint32Array;
  readonly #flags: Uint32Array;
  readonly #filter: Uint8Array;
  readonly #cutLsn: Float64Array;
  readonly #cutTo: Uint32Array;

  constructor(footer: LayerFooter, sections: IndexSections) {
    this.footer = footer;
    const { relations, blocks, filter, cuts } = sections;
    this.bytes = relations.length + blocks.length + filter.length + cuts.length;
    this.relations = new LayerRelations(relations);
    const n = countOf(blocks);
    this.blockCount = n;
    this.blockOffset = f64(blocks, 8, n);
    this.#firstLsn = f64(blocks, 8 + 8 * n, n);
    this.#firstRelation = u32(blocks, 8 + 16 * n, n);
    this.#firstPage = u32(blocks, 8 + 20 * n, n);
    this.blockStored = u32(blocks, 8 + 24 * n, n);
    this.#rawLength = u32(blocks, 8 + 28 * n, n);
    this.#crc = u32(blocks, 8 + 32 * n, n);
    this.#flags = u32(blocks, 8 + 36 * n, n);
    this.#filter = filter;
    const m = countOf(cuts);
    this.#cutLsn = f64(cuts, 8, m);
    this.#cutTo = u32(cuts, 8 + 8 * m, m);
  }

  /** False when the layer has no version of the page for certain. */
  mayHold(relation: number, page: number): boolean {
    return filterMayHold(this.#filter, hashPage(relation, page));
  }

  /** The block in which the last entry of a page at or before `lsn` would be, -1 when no block begins before it. */
  findBlock(relation: number, page: number, lsn: number): number {
    let low = 0;
    let high = this.blockCount - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      const order =
        this.#firstRelation[middle]! - relation ||
        this.#firstPage[middle]! - page ||
        this.#firstLsn[middle]! - lsn;
      if (order <= 0) low = middle + 1;
      else high = middle - 1;
    }
    return high;
  }

  /** Stored bytes of the blocks that may have pages of a range of keys: at most one block at each end has none. */
  storedBytesBetween(first: PageKey, last: PageKey): number {
    const from = Math.max(0, this.#lastBlockBefore(first));
    const to = this.#lastBlockBefore(last);
    let bytes = 0;
    for (let block = from; block <= to; block++) bytes += this.blockStored[block]!;
    return bytes;
  }

  /** The last block whose first entry is at or before a key, -1 when there is none. */
  #lastBlockBefore(key: PageKey): number {
    let low = 0;
    let high = this.blockCount - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      const tag = this.relations.tag(this.#firstRelation[middle]!);
      if (compareKeys({ ...tag, block: this.#firstPage[middle]! }, key) <= 0) low = middle + 1;
      else high = middle - 1;
    }
    return high;
  }

  /** Checks the stored bytes of a block. Throws `corrupt` naming file and block. */
  checkBlock(file: string, block: number, stored: Uint8Array): void {
    if (crc32c(stored) === this.#crc[block]!) return;
    throw corruptLayer(
      file,
      `the data of block ${this.#firstPage[block]} at offset ${this.blockOffset[block]}`,
    );
  }

  /** Whether the page of a block's first entry has entries in the block before it. */
  continues(block: number): boolean {
    return (this.#flags[block]! & BLOCK_CONTINUES) !== 0;
  }

  /** LSN of the newest cut at or before `lsn` that took `page` away, -1 when there is none. */
  cutBefore(relation: number, page: number, lsn: number): number {
    const total = this.#cutLsn.length;
    if (total === 0) return -1;
    const first = this.relations.firstCut(relation, total);
    for (let i = this.relations.firstCut(relation + 1, total) - 1; i >= first; i--) {
      if (this.#cutTo[i]! <= page && this.#cutLsn[i]! <= lsn) return this.#cutLsn[i]!;
    }
    return -1;
  }

  /** Calls back for every cut of a relation, oldest first. */
  forEachCut(relation: number, visit: (lsn: number, cutTo: number) => void): void {
    const total = this.#cutLsn.length;
    const end = this.relations.firstCut(relation + 1, total);
    for (let i = this.relations.firstCut(relation, total); i < end; i++) {
      visit(this.#cutLsn[i]!, this.#cutTo[i]!);
    }
  }

  /** Bytes of memory that opening a block takes, a multiple of 8. */
  roomOf(block: number): number {
    return (this.#flags[block]! & BLOCK_COMPRESSED) === 0 ? 0 : roomFor(this.#rawLength[block]!);
  }

  /** Checks a block's stored bytes and opens it, in `room` of so many bytes if given. Throws `corrupt` naming file and block. */
  openBlock(file: string, block: number, stored: Uint8Array, room?: Uint8Array): Block {
    const flags = this.#flags[block]!;
    this.checkBlock(file, block, stored);
    if ((flags & BLOCK_BARE) !== 0) {
      const key = {
        relation: this.#firstRelation[block]!,
        block: this.#firstPage[block]!,
        lsn: this.#firstLsn[block]!,
        flags: flags >>> BARE_FLAGS_SHIFT,
      };
      return bareBlock(key, stored);
    }
    const isCompressed = (flags & BLOCK_COMPRESSED) !== 0;
    return new Block(isCompressed ? decompress(stored, this.#rawLength[block]!, room) : aligned(stored));
  }
}
