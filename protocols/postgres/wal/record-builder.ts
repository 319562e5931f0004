/**
 * Builds WAL records that storage itself appends to a timeline: the shutdown checkpoint that a compute starts
 * from, images of free space map pages and files at a clean stop. The bytes are those that Postgres would write.
 */
import { formatLsn, type Lsn, PAGE_BYTES } from '../../lsn.ts';
import type { CheckpointFields, RelationTag } from '../../pages/types.ts';
import { maxAlign, writeU16, writeU32, writeU64 } from '../bytes.ts';
import { CHECKPOINT_BYTES, encodeCheckpoint } from '../checkpoint.ts';
import { CRC32C_INIT, finishCrc32c, updateCrc32c } from '../crc32c.ts';
import { recordStartAt, walPageHeaderBytes, writeWalPageHeader } from './page-header.ts';
import {
  BLOCK_HAS_IMAGE,
  BLOCK_ID_DATA_LONG,
  BLOCK_ID_DATA_SHORT,
  BLOCKS_MAX,
  IMAGE_APPLY,
  IMAGE_HAS_HOLE,
  RECORD_HEADER_BYTES,
} from './record.ts';
import { RMGR_LOGICAL_MESSAGE, RMGR_XLOG } from './resource-managers.ts';

const INFO_CHECKPOINT_SHUTDOWN = 0x00;
const INFO_FULL_PAGE_IMAGE = 0xb0;
/** A run of zeros below this is not worth being left out of an image. */
const HOLE_BYTES_MIN = 64;

/** Prefix of the logical messages that hold files a compute wants to find again. */
export const FILE_MESSAGE_PREFIX = 'palimpsest/file/';

export interface PageToLog extends RelationTag {
  block: number;
  /** 8192 bytes. */
  page: Uint8Array;
}

export interface WalBuilderOptions {
  /** End of the last record: where the built bytes will begin. */
  lsn: number;
  /** Start of the last record, which the first built one points back to. */
  previousStart: number;
  pgVersion: number;
  systemId: bigint;
}

/** Chains records and lays them out as WAL bytes with page and segment headers. */
export class WalBuilder {
  readonly #pgVersion: number;
  readonly #systemId: bigint;
  readonly #begin: number;
  #end: number;
  #lastStart: number;
  #bytes = new Uint8Array(64 * 1024);

  constructor(options: WalBuilderOptions) {
    if (options.lsn % 8 !== 0) throw new RangeError(`${formatLsn(options.lsn)} is not a record's end`);
    this.#pgVersion = options.pgVersion;
    this.#systemId = options.systemId;
    this.#begin = options.lsn;
    this.#end = options.lsn;
    this.#lastStart = options.previousStart;
  }

  /** Where the next record will end up starting, past a page header if one is due. */
  get nextStart(): Lsn {
    return recordStartAt(this.#end) as Lsn;
  }

  /** End of the last record built. */
  get end(): Lsn {
    return this.#end as Lsn;
  }

  /** Start of the last record built. */
  get lastStart(): Lsn {
    return this.#lastStart as Lsn;
  }

  /** All bytes from the builder's start LSN to `end`. */
  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#end - this.#begin);
  }

  /** Appends a CHECKPOINT_SHUTDOWN record whose redo is its own start; returns that start. */
  shutdownCheckpoint(fields: CheckpointFields): Lsn {
    const main = encodeCheckpoint({ ...fields, redo: this.nextStart }, this.#pgVersion);
    return this.append(RMGR_XLOG, INFO_CHECKPOINT_SHUTDOWN, [mainHeader(CHECKPOINT_BYTES), main]);
  }

  /** Appends XLOG_FPI records with an image of every page, at most 33 pages a record. */
  fullPageImages(pages: readonly PageToLog[]): void {
    for (let from = 0; from < pages.length; from += BLOCKS_MAX) {
      const batch = pages.slice(from, from + BLOCKS_MAX);
      const headers: Uint8Array[] = [];
      const images: Uint8Array[] = [];
      batch.forEach((page, id) => {
        const hole = longestZeroRun(page.page);
        headers.push(imageHeader(id, page, hole));
        images.push(page.page.subarray(0, hole.offset), page.page.subarray(hole.offset + hole.length));
      });
      this.append(RMGR_XLOG, INFO_FULL_PAGE_IMAGE, [...headers, ...images]);
    }
  }

  /** Appends a non-transactional logical message, which Postgres' redo ignores. */
  logicalMessage(prefix: string, payload: Uint8Array): Lsn {
    const prefixBytes = new TextEncoder().encode(`${prefix}\0`);
    const head = new Uint8Array(24);
    writeU64(head, 8, prefixBytes.length);
    writeU64(head, 16, payload.length);
    const length = head.length + prefixBytes.length + payload.length;
    return this.append(RMGR_LOGICAL_MESSAGE, 0, [mainHeader(length), head, prefixBytes, payload]);
  }

  /** Appends the message that holds a file to be found at `path` below PGDATA by the next compute. */
  file(path: string, content: Uint8Array): Lsn {
    return this.logicalMessage(FILE_MESSAGE_PREFIX + path, content);
  }

  /** Appends a record made of `parts` after its header; fills in length, prev and CRC. Returns its start. */
  append(rmid: number, info: number, parts: readonly Uint8Array[]): Lsn {
    const length = parts.reduce((sum, part) => sum + part.length, RECORD_HEADER_BYTES);
    const record = new Uint8Array(length);
    writeU32(record, 0, length);
    writeU64(record, 8, this.#lastStart);
    record[16] = info;
    record[17] = rmid;
    let at = RECORD_HEADER_BYTES;
    for (const part of parts) {
      record.set(part, at);
      at += part.length;
    }
    sealRecord(record);
    return this.#lay(record);
  }

  #lay(record: Uint8Array): Lsn {
    const pages = Math.ceil(record.length / (PAGE_BYTES - 40)) + 2;
    this.#reserve(record.length + pages * 40 + 8);
    let at = this.#end;
    if (at % PAGE_BYTES === 0) at += this.#writeHeader(at, 0);
    const start = at;
    let done = 0;
    while (done < record.length) {
      if (at % PAGE_BYTES === 0) at += this.#writeHeader(at, record.length - done);
      const count = Math.min(record.length - done, PAGE_BYTES - (at % PAGE_BYTES));
      this.#bytes.set(record.subarray(done, done + count), at - this.#begin);
      done += count;
      at += count;
    }
    const end = maxAlign(at);
    this.#bytes.fill(0, at - this.#begin, end - this.#begin);
    this.#end = end;
    this.#lastStart = start;
    return start as Lsn;
  }

  #writeHeader(pageAddress: number, remainingBytes: number): number {
    return writeWalPageHeader(this.#bytes, pageAddress - this.#begin, {
      pgVersion: this.#pgVersion,
      systemId: this.#systemId,
      pageAddress,
      remainingBytes,
    });
  }

  #reserve(extra: number): void {
    const used = this.#end - this.#begin;
    if (used + extra <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(this.#bytes.length * 2, used + extra));
    grown.set(this.#bytes.subarray(0, used));
    this.#bytes = grown;
  }
}

/** Stores the CRC of a whole record, in place. */
export function sealRecord(record: Uint8Array): void {
  let register = updateCrc32c(CRC32C_INIT, record, RECORD_HEADER_BYTES, record.length);
  register = updateCrc32c(register, record, 0, 20);
  writeU32(record, 20, finishCrc32c(register));
}

/**
 * A WAL segment's beginning that Postgres accepts before `lsn`: the headers of the segment's first page and of the page
 * that holds `lsn`, zeros elsewhere. Returns the bytes from the segment's start up to `lsn`.
 */
export function segmentPrefix(
  lsn: number,
  segmentStart: number,
  pgVersion: number,
  systemId: bigint,
): Uint8Array {
  const bytes = new Uint8Array(lsn - segmentStart);
  if (bytes.length === 0) return bytes;
  writeWalPageHeader(bytes, 0, { pgVersion, systemId, pageAddress: segmentStart });
  const page = lsn - (lsn % PAGE_BYTES);
  if (page > segmentStart && lsn - page >= walPageHeaderBytes(page)) {
    writeWalPageHeader(bytes, page - segmentStart, { pgVersion, systemId, pageAddress: page });
  }
  return bytes;
}

function mainHeader(length: number): Uint8Array {
  if (length < 256) return Uint8Array.of(BLOCK_ID_DATA_SHORT, length);
  const header = new Uint8Array(5);
  header[0] = BLOCK_ID_DATA_LONG;
  writeU32(header, 1, length);
  return header;
}

interface Hole {
  offset: number;
  length: number;
}

function imageHeader(id: number, page: PageToLog, hole: Hole): Uint8Array {
  const header = new Uint8Array(4 + 5 + 12 + 4);
  header[0] = id;
  header[1] = page.fork | BLOCK_HAS_IMAGE;
  writeU16(header, 4, PAGE_BYTES - hole.length);
  writeU16(header, 6, hole.offset);
  header[8] = hole.length > 0 ? IMAGE_APPLY | IMAGE_HAS_HOLE : IMAGE_APPLY;
  writeU32(header, 9, page.spc);
  writeU32(header, 13, page.db);
  writeU32(header, 17, page.rel);
  writeU32(header, 21, page.block);
  return header;
}

/** The longest run of zeros after the page header; offset 0 and length 0 if none is worth it. */
function longestZeroRun(page: Uint8Array): Hole {
  let best: Hole = { offset: 0, length: 0 };
  let start = 24;
  for (let at = 24; at <= PAGE_BYTES; at++) {
    if (at < PAGE_BYTES && page[at] === 0) continue;
    if (at - start > best.length) best = { offset: start, length: at - start };
    start = at + 1;
  }
  return best.length >= HOLE_BYTES_MIN ? best : { offset: 0, length: 0 };
}
