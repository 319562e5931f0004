/**
 * A block of data: entries of neighbouring pages with a table of their own, so that the index of a file needs one line per
 * block and not per page. Raw layout, little-endian columns:
 *
 *   count n u32, zero u32; lsn f64[n], relation u32[n], block u32[n], offset u32[n], length u32[n], flags u32[n], zeros up
 *   to a multiple of 8, then the entries' bytes, to which the offsets refer
 *
 * An entry is a page's image (8192 bytes, or none for a page of zeros), or a run of versions of one page. Its LSN is that
 * of the image, or of the run's first record; entries are sorted by (relation, block, LSN). A version in a run: start LSN f64,
 * end LSN f64, length u32, zero u32, the WAL record without page headers, padding to 8. A version's LSN is its record's end.
 */
import { F64Column, U32Column } from './columns.ts';

const HEADER_BYTES = 8;
const ENTRY_BYTES = 28;

/** The entries of one block, as views on its raw bytes. */
export class Block {
  readonly entryCount: number;
  readonly lsn: Float64Array;
  readonly relation: Uint32Array;
  readonly block: Uint32Array;
  readonly offset: Uint32Array;
  readonly length: Uint32Array;
  readonly flags: Uint32Array;
  readonly data: Uint8Array;

  /** `raw` must be aligned to 8. Throws a RangeError when it is not a block. */
  constructor(raw: Uint8Array) {
    const n = new DataView(raw.buffer, raw.byteOffset, raw.byteLength).getUint32(0, true);
    this.entryCount = n;
    const { buffer } = raw;
    let at = raw.byteOffset + HEADER_BYTES;
    this.lsn = new Float64Array(buffer, at, n);
    at += 8 * n;
    this.relation = new Uint32Array(buffer, at, n);
    this.block = new Uint32Array(buffer, at + 4 * n, n);
    this.offset = new Uint32Array(buffer, at + 8 * n, n);
    this.length = new Uint32Array(buffer, at + 12 * n, n);
    this.flags = new Uint32Array(buffer, at + 16 * n, n);
    this.data = raw.subarray(dataStart(n));
  }

  /** The last entry of a page with an LSN at or before `lsn`, -1 when there is none. */
  find(relation: number, block: number, lsn: number): number {
    let low = 0;
    let high = this.entryCount - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      const order =
        this.relation[middle]! - relation || this.block[middle]! - block || this.lsn[middle]! - lsn;
      if (order <= 0) low = middle + 1;
      else high = middle - 1;
    }
    return high >= 0 && this.relation[high] === relation && this.block[high] === block ? high : -1;
  }

  /** The bytes of an entry. */
  bytes(entry: number): Uint8Array {
    const from = this.offset[entry]!;
    return this.data.subarray(from, from + this.length[entry]!);
  }
}

/** A block that is one entry without a table, as version 1 has them. */
export function bareBlock(
  key: { relation: number; block: number; lsn: number; flags: number },
  data: Uint8Array,
): Block {
  const builder = new BlockBuilder();
  builder.begin(key.relation, key.block, key.lsn, key.flags);
  builder.append(data.length).set(data, builder.dataBytes - data.length);
  return new Block(builder.finish());
}

/** Collects entries, which must come in order, and lays them out as a block. */
export class BlockBuilder {
  #lsn = new F64Column();
  #columns = [new U32Column(), new U32Column(), new U32Column(), new U32Column(), new U32Column()] as const;
  #data = new Uint8Array(64 * 1024);
  view = new DataView(this.#data.buffer);
  #used = 0;
  /** Where blocks are laid out, one after the other. */
  #layout = new Uint8Array(0);

  get entryCount(): number {
    return this.#lsn.length;
  }

  /** Bytes of entries so far. */
  get dataBytes(): number {
    return this.#used;
  }

  /** Bytes that the block takes so far. */
  get bytes(): number {
    return this.#used + this.#lsn.length * ENTRY_BYTES;
  }

  /** Begins the next entry, of no bytes yet. */
  begin(relation: number, block: number, lsn: number, flags: number): void {
    this.#lsn.push(lsn);
    const [relations, blocks, offsets, lengths, allFlags] = this.#columns;
    relations.push(relation);
    blocks.push(block);
    offsets.push(this.#used);
    lengths.push(0);
    allFlags.push(flags);
  }

  /** Makes the newest entry longer; returns the buffer, whose last `length` bytes (up to `dataBytes`) are to be filled. */
  append(length: number): Uint8Array {
    if (this.#used + length > this.#data.length) {
      const grown = new Uint8Array(Math.max(this.#data.length * 2, this.#used + length));
      grown.set(this.#data.subarray(0, this.#used));
      this.#data = grown;
      this.view = new DataView(grown.buffer);
    }
    this.#used += length;
    const lengths = this.#columns[3];
    lengths.replace(lengths.length - 1, lengths.at(lengths.length - 1) + length);
    return this.#data;
  }

  /** The raw bytes of the block, valid until the next one is finished; the builder is empty afterwards. */
  finish(): Uint8Array {
    const n = this.#lsn.length;
    const start = dataStart(n);
    const length = start + this.#used;
    if (this.#layout.length < length) this.#layout = new Uint8Array(length);
    const raw = this.#layout.subarray(0, length);
    // All that no column covers.
    raw.fill(0, 0, HEADER_BYTES);
    raw.fill(0, HEADER_BYTES + n * ENTRY_BYTES, start);
    new DataView(raw.buffer).setUint32(0, n, true);
    raw.set(this.#lsn.bytes(), HEADER_BYTES);
    let at = HEADER_BYTES + 8 * n;
    for (const column of this.#columns) {
      raw.set(column.bytes(), at);
      at += 4 * n;
    }
    raw.set(this.#data.subarray(0, this.#used), start);
    this.#lsn.clear();
    for (const column of this.#columns) column.clear();
    this.#used = 0;
    return raw;
  }
}

function dataStart(entries: number): number {
  return (HEADER_BYTES + entries * ENTRY_BYTES + 7) & ~7;
}
