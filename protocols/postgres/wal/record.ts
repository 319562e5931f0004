/**
 * A decoded WAL record, and its decoder.
 *
 * One DecodedRecord is reused for record after record: its arrays hold what each block reference says, and
 * offsets point into `bytes`, so that decoding allocates nothing. Layout of a record:
 *
 *   0 total length u32, 4 xid u32, 8 start of the previous record u64, 16 info u8, 17 resource manager u8, 20 CRC-32C;
 *   then headers: a block reference (id 0..32: flags u8, data length u16, image header, relation, block u32), an
 *   origin (253: u16), a top-level xid (252: u32), the main data (255: u8 length; 254: u32 length); then, in the
 *   same order, image and data of each block, and the main data.
 *
 * Source: access/xlogrecord.h.
 */
import { readI32, readU16, readU32, readU64 } from '../bytes.ts';
import { CorruptWalError } from './errors.ts';

export const RECORD_HEADER_BYTES = 24;
/** Postgres' own limit (XLogRecordMaxSize). */
export const RECORD_BYTES_MAX = 1020 * 1024 * 1024;
/** Block references of one record have ids 0..32. */
export const BLOCKS_MAX = 33;

/** Flags of a block reference; the low four bits are the fork. */
export const BLOCK_HAS_IMAGE = 0x10;
export const BLOCK_HAS_DATA = 0x20;
/** Redo makes the page anew: older versions are not needed. */
export const BLOCK_WILL_INIT = 0x40;
export const BLOCK_SAME_RELATION = 0x80;

/** A block reference with id 0, without an image, and with its own relation: 20 bytes, and none of these bits in its first word. */
const PLAIN_REFERENCE_BYTES = 20;
const NOT_PLAIN = 0xff | ((BLOCK_HAS_IMAGE | BLOCK_SAME_RELATION) << 8);

/** Bits of an image's info byte (the same in 15 to 18). */
export const IMAGE_HAS_HOLE = 0x01;
/** Redo restores this image; without it the image is only for wal_consistency_checking. */
export const IMAGE_APPLY = 0x02;
export const IMAGE_PGLZ = 0x04;
export const IMAGE_LZ4 = 0x08;
export const IMAGE_ZSTD = 0x10;
export const IMAGE_COMPRESSED = IMAGE_PGLZ | IMAGE_LZ4 | IMAGE_ZSTD;

export const BLOCK_ID_DATA_SHORT = 255;
export const BLOCK_ID_DATA_LONG = 254;
export const BLOCK_ID_ORIGIN = 253;
export const BLOCK_ID_TOPLEVEL_XID = 252;

export class DecodedRecord {
  /** Major version of Postgres that wrote the record: some formats differ. */
  readonly pgVersion: number;
  /** The buffer that holds the whole record from `offset` on, without page headers. */
  bytes: Uint8Array = new Uint8Array(0);
  offset = 0;
  length = 0;
  /** Start of the record in the log. */
  lsn = 0;
  /** MAXALIGNed end; the segment's end for an XLOG_SWITCH. The LSN that redo gives to pages. */
  end = 0;
  xid = 0;
  info = 0;
  rmid = 0;
  originId = 0;
  toplevelXid = 0;
  mainOffset = 0;
  mainLength = 0;
  /** Highest block id in use, -1 without block references. */
  maxBlock = -1;
  readonly inUse = new Uint8Array(BLOCKS_MAX);
  readonly fork = new Uint8Array(BLOCKS_MAX);
  readonly flags = new Uint8Array(BLOCKS_MAX);
  readonly spc = new Uint32Array(BLOCKS_MAX);
  readonly db = new Uint32Array(BLOCKS_MAX);
  readonly rel = new Uint32Array(BLOCKS_MAX);
  readonly block = new Uint32Array(BLOCKS_MAX);
  /** 0 where the block has no image. */
  readonly imageLength = new Int32Array(BLOCKS_MAX);
  readonly imageInfo = new Uint8Array(BLOCKS_MAX);
  readonly imageOffset = new Int32Array(BLOCKS_MAX);
  readonly holeOffset = new Int32Array(BLOCKS_MAX);
  readonly holeLength = new Int32Array(BLOCKS_MAX);
  readonly dataOffset = new Int32Array(BLOCKS_MAX);
  readonly dataLength = new Int32Array(BLOCKS_MAX);

  constructor(pgVersion: number) {
    this.pgVersion = pgVersion;
  }

  /** Start of the record before. */
  get prev(): number {
    return readU64(this.bytes, this.offset + 8);
  }

  hasBlock(id: number): boolean {
    return id <= this.maxBlock && this.inUse[id] === 1;
  }

  /** Whether redo restores block `id` from an image in the record. */
  hasAppliedImage(id: number): boolean {
    return this.imageLength[id]! > 0 && (this.imageInfo[id]! & IMAGE_APPLY) !== 0;
  }

  /** Whether block `id` after this record is independent of what it was before. */
  initialises(id: number): boolean {
    return (this.flags[id]! & BLOCK_WILL_INIT) !== 0 || this.hasAppliedImage(id);
  }
}

/**
 * Decodes the record of `length` bytes at `bytes[offset]` into `record`; the caller sets `lsn` and `end`.
 * The CRC is the caller's business. Throws CorruptWalError when the headers contradict the length.
 */
export function decodeRecord(bytes: Uint8Array, offset: number, length: number, record: DecodedRecord): void {
  const end = offset + length;
  if (length < RECORD_HEADER_BYTES || end > bytes.length) {
    throw new CorruptWalError(record.lsn, `record length ${length}`);
  }
  record.xid = readU32(bytes, offset + 4);
  record.info = bytes[offset + 16]!;
  record.rmid = bytes[offset + 17]!;
  beginReferences(bytes, offset, length, record);
  const at = offset + RECORD_HEADER_BYTES;
  if ((readI32(bytes, at) & NOT_PLAIN) !== 0 || length < RECORD_HEADER_BYTES + PLAIN_REFERENCE_BYTES) {
    decodeReferences(at, 0, record);
    return;
  }
  record.spc[0] = readI32(bytes, at + 4);
  record.db[0] = readI32(bytes, at + 8);
  record.rel[0] = readI32(bytes, at + 12);
  record.block[0] = readI32(bytes, at + 16);
  endPlainReference(bytes[at + 1]!, readU16(bytes, at + 2), record);
}

/**
 * Decodes what follows the fixed header of a record that lies wholly in `bytes` at a whole word of `words`, which is the same buffer.
 * The first block reference, which is a plain one nearly always, is read as words. The caller has set the header's fields. Throws
 * CorruptWalError when the headers contradict the length.
 */
export function decodeAlignedReferences(
  bytes: Uint8Array,
  words: Int32Array,
  offset: number,
  length: number,
  record: DecodedRecord,
): void {
  beginReferences(bytes, offset, length, record);
  const word = (offset + RECORD_HEADER_BYTES) >> 2;
  const reference = words[word]!;
  if ((reference & NOT_PLAIN) !== 0 || length < RECORD_HEADER_BYTES + PLAIN_REFERENCE_BYTES) {
    decodeReferences(offset + RECORD_HEADER_BYTES, 0, record);
    return;
  }
  record.spc[0] = words[word + 1]!;
  record.db[0] = words[word + 2]!;
  record.rel[0] = words[word + 3]!;
  record.block[0] = words[word + 4]!;
  endPlainReference((reference >>> 8) & 255, reference >>> 16, record);
}

/**
 * Goes on after a plain first reference. Mostly it is the only one and short main data follows, so that all is in its place at
 * once.
 */
function endPlainReference(flags: number, dataLength: number, record: DecodedRecord): void {
  record.maxBlock = 0;
  record.inUse[0] = 1;
  record.flags[0] = flags;
  record.fork[0] = flags & 15;
  record.dataLength[0] = dataLength;
  record.imageLength[0] = 0;
  record.imageInfo[0] = 0;
  const at = record.offset + RECORD_HEADER_BYTES + PLAIN_REFERENCE_BYTES;
  const left = record.length - (RECORD_HEADER_BYTES + PLAIN_REFERENCE_BYTES + 2) - dataLength;
  if (record.bytes[at] === BLOCK_ID_DATA_SHORT && record.bytes[at + 1] === left) {
    record.mainLength = left;
    record.imageOffset[0] = at + 2;
    record.dataOffset[0] = at + 2;
    record.mainOffset = at + 2 + dataLength;
    return;
  }
  decodeReferences(at, dataLength, record);
}

function beginReferences(bytes: Uint8Array, offset: number, length: number, record: DecodedRecord): void {
  if (record.bytes !== bytes) record.bytes = bytes;
  record.offset = offset;
  record.length = length;
  record.originId = 0;
  record.toplevelXid = 0;
  record.mainLength = 0;
  record.maxBlock = -1;
}

/** Decodes the headers from `start` on; those before it announced `announced` bytes of images and data. */
function decodeReferences(start: number, announced: number, record: DecodedRecord): void {
  const { bytes } = record;
  const end = record.offset + record.length;
  let at = start;
  let payload = announced;
  while (end - at > payload) {
    const id = bytes[at]!;
    if (id < BLOCKS_MAX) {
      at = decodeBlockHeader(bytes, at, id, record);
      payload += record.dataLength[id]! + record.imageLength[id]!;
    } else if (id === BLOCK_ID_DATA_SHORT) {
      record.mainLength = bytes[at + 1]!;
      at += 2;
      payload += record.mainLength;
      break;
    } else if (id === BLOCK_ID_DATA_LONG) {
      record.mainLength = readU32(bytes, at + 1);
      at += 5;
      payload += record.mainLength;
      break;
    } else if (id === BLOCK_ID_ORIGIN) {
      record.originId = readU16(bytes, at + 1);
      at += 3;
    } else if (id === BLOCK_ID_TOPLEVEL_XID) {
      record.toplevelXid = readU32(bytes, at + 1);
      at += 5;
    } else {
      throw new CorruptWalError(record.lsn, `unknown header id ${id} in a record`);
    }
  }
  if (end - at !== payload) throw new CorruptWalError(record.lsn, 'record headers do not match its length');
  placePayload(at, record);
}

/** Reads one block reference whose id is at `at`, returns the offset after it. */
function decodeBlockHeader(bytes: Uint8Array, start: number, id: number, record: DecodedRecord): number {
  const previous = record.maxBlock;
  if (id <= previous) throw new CorruptWalError(record.lsn, `block reference ${id} is out of order`);
  for (let skipped = previous + 1; skipped < id; skipped++) record.inUse[skipped] = 0;
  record.maxBlock = id;
  record.inUse[id] = 1;
  const flags = bytes[start + 1]!;
  record.flags[id] = flags;
  record.fork[id] = flags & 15;
  record.dataLength[id] = readU16(bytes, start + 2);
  let at = start + 4;
  if ((flags & BLOCK_HAS_IMAGE) !== 0) {
    at = decodeImageHeader(bytes, at, id, record);
  } else {
    record.imageLength[id] = 0;
    record.imageInfo[id] = 0;
  }
  if ((flags & BLOCK_SAME_RELATION) === 0) {
    record.spc[id] = readI32(bytes, at);
    record.db[id] = readI32(bytes, at + 4);
    record.rel[id] = readI32(bytes, at + 8);
    at += 12;
  } else {
    const from = lastInUse(record, previous);
    record.spc[id] = record.spc[from]!;
    record.db[id] = record.db[from]!;
    record.rel[id] = record.rel[from]!;
  }
  record.block[id] = readI32(bytes, at);
  return at + 4;
}

function lastInUse(record: DecodedRecord, from: number): number {
  for (let id = from; id >= 0; id--) if (record.inUse[id] === 1) return id;
  throw new CorruptWalError(record.lsn, 'a block reference repeats a relation that was not given');
}

/** Image header: length u16, hole offset u16, info u8, and the hole's length u16 if compressed with a hole. */
function decodeImageHeader(bytes: Uint8Array, at: number, id: number, record: DecodedRecord): number {
  const length = readU16(bytes, at);
  const holeOffset = readU16(bytes, at + 2);
  const info = bytes[at + 4]!;
  const hasHole = (info & IMAGE_HAS_HOLE) !== 0;
  let next = at + 5;
  let holeLength = 0;
  if ((info & IMAGE_COMPRESSED) !== 0) {
    if (hasHole) {
      holeLength = readU16(bytes, next);
      next += 2;
    }
  } else {
    holeLength = 8192 - length;
  }
  if (length === 0 || holeLength < 0 || holeOffset + holeLength > 8192 || (holeLength > 0 && !hasHole)) {
    throw new CorruptWalError(record.lsn, `image of block reference ${id} has a bad hole`);
  }
  record.imageLength[id] = length;
  record.imageInfo[id] = info;
  record.holeOffset[id] = holeOffset;
  record.holeLength[id] = holeLength;
  return next;
}

function placePayload(start: number, record: DecodedRecord): void {
  let at = start;
  for (let id = 0; id <= record.maxBlock; id++) {
    if (record.inUse[id] === 0) continue;
    record.imageOffset[id] = at;
    at += record.imageLength[id]!;
    record.dataOffset[id] = at;
    at += record.dataLength[id]!;
  }
  record.mainOffset = at;
}
