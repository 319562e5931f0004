/**
 * WAL in object storage: one object per segment, or per committed tail of one. Format 1:
 *
 *   0   8 bytes   `PALWAL01`
 *   8   u32       length of the header
 *   12            the header: JSON, so that an operator can read it
 *   then u32      CRC-32C of everything before it
 *   then          blocks back to back, each compressed by itself (zstd)
 *
 * A block holds `blockBytes` of WAL, the last one what is left. The header lists each block's length in the object and the
 * CRC-32C of the WAL in it. It also says all that a replica must know to be made anew from its objects alone.
 */
import type { TermStart } from '../consensus/history.ts';
import { PalimpsestError } from '../errors.ts';
import type { Term } from '../ids.ts';
import type { Lsn } from '../lsn.ts';
import { readU32, writeU32 } from '../postgres/bytes.ts';
import { crc32c } from '../postgres/crc32c.ts';

export const WAL_OBJECT_FORMAT = 1;
export const WAL_BLOCK_BYTES = 256 * 1024;
const MAGIC = new TextEncoder().encode('PALWAL01');
const PREFIX_BYTES = MAGIC.length + 4;
const HEADER_BYTES_MAX = 1024 * 1024;

export interface WalObjectHeader {
  format: number;
  tenant: string;
  timeline: string;
  /** Postgres' major version. */
  pgVersion: number;
  /** Decimal. */
  systemId: string;
  /** Where the timeline's own WAL begins. */
  startLsn: Lsn;
  /** The object holds the WAL from here … */
  from: Lsn;
  /** … up to here. All of it is committed. */
  to: Lsn;
  /** What the writer knew to be committed: the end of a whole record, at `to` or beyond. */
  commitLsn: Lsn;
  /** The highest term that the writer had seen, and who wrote which stretch of its log. */
  term: Term;
  history: TermStart[];
  compression: 'zstd';
  blockBytes: number;
  /** Of each block: its bytes in the object, and the CRC-32C of the WAL in it. */
  blocks: [number, number][];
}

/** What comes before the blocks. */
export function packWalObjectHeader(header: WalObjectHeader): Uint8Array {
  const json = new TextEncoder().encode(JSON.stringify(header));
  const bytes = new Uint8Array(PREFIX_BYTES + json.length + 4);
  bytes.set(MAGIC);
  writeU32(bytes, MAGIC.length, json.length);
  bytes.set(json, PREFIX_BYTES);
  writeU32(bytes, PREFIX_BYTES + json.length, crc32c(bytes, 0, PREFIX_BYTES + json.length));
  return bytes;
}

/** Reads an object's header; `key` is for messages. Throws `corrupt`, or `unsupported` for a newer format. */
export function parseWalObjectHeader(
  key: string,
  object: Uint8Array,
): { header: WalObjectHeader; headerBytes: number } {
  if (object.length < PREFIX_BYTES || !MAGIC.every((byte, at) => object[at] === byte)) {
    throw corrupt(key, 'it is not a WAL object');
  }
  const jsonBytes = readU32(object, MAGIC.length);
  const headerBytes = PREFIX_BYTES + jsonBytes + 4;
  if (jsonBytes > HEADER_BYTES_MAX || object.length < headerBytes)
    throw corrupt(key, 'its header is cut off');
  if (readU32(object, headerBytes - 4) !== crc32c(object, 0, headerBytes - 4)) {
    throw corrupt(key, 'the checksum of its header is wrong');
  }
  const text = new TextDecoder().decode(object.subarray(PREFIX_BYTES, PREFIX_BYTES + jsonBytes));
  const header = JSON.parse(text) as WalObjectHeader;
  if (header.format !== WAL_OBJECT_FORMAT) {
    throw new PalimpsestError(
      'unsupported',
      `object ${key} has format ${header.format}, this version reads ${WAL_OBJECT_FORMAT}`,
      'use the version of Palimpsest that wrote it',
    );
  }
  if (header.blocks.length !== Math.ceil((header.to - header.from) / header.blockBytes)) {
    throw corrupt(key, 'its header contradicts itself');
  }
  return { header, headerBytes };
}

/** An object that was damaged, or never was what its key says. */
export function corrupt(key: string, what: string): PalimpsestError {
  return new PalimpsestError(
    'corrupt',
    `object ${key}: ${what}`,
    'restore the object, or the WAL from a safekeeper that still has it',
  );
}
