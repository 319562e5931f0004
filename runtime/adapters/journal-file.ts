/**
 * The bytes of a journal's files. Numbers are little endian; checksums are CRC-32C.
 *
 *   log       header: magic 8, u32 version, u32 0, u64 after, u32 0, u32 checksum of these        (32 bytes)
 *             then frames: u32 payload bytes, u32 payload checksum, u32 checksum of these two      (12 bytes)
 *                          payload: u64 sequence, f64 time, msgpack of the decision; one byte 0xa5
 *   snapshot  magic 8, u32 version, u32 checksum of what follows, u64 sequence, msgpack of the state
 *
 * `after` is the sequence that the log's first frame follows: what older logs hold beyond it was never acknowledged.
 *
 * A log only grows, so bytes of a write that was cut off are absent or zero, never something else. That tells a torn tail,
 * which is dropped, from a damaged frame, which is an error: a frame is torn when the file ends within it or when a whole
 * disk sector of it is zeros. The last byte of a frame is not zero, so that its last sector cannot look unwritten.
 */
import { Packr } from 'msgpackr';
import { PalimpsestError } from '../../protocols/errors.ts';
import { crc32c } from '../../protocols/postgres/crc32c.ts';
import type { JournalEntry } from '../ports/journal.ts';

export const LOG_HEADER_BYTES = 32;
export const ENTRY_BYTES_MAX = 16 * 1024 * 1024;
const FRAME_HEADER_BYTES = 12;
const FRAME_END = 0xa5;
const SNAPSHOT_HEADER_BYTES = 24;
const SECTOR_BYTES = 512;
const LOG_MAGIC = Buffer.from('PALJRNL\n', 'latin1');
const SNAPSHOT_MAGIC = Buffer.from('PALSNAP\n', 'latin1');
const VERSION = 1;

const packr = new Packr({ useRecords: false });

/** Encodes the header of a log whose first frame comes after sequence `after`. */
export function encodeLogHeader(after: number): Buffer {
  const header = Buffer.alloc(LOG_HEADER_BYTES);
  LOG_MAGIC.copy(header);
  header.writeUInt32LE(VERSION, 8);
  header.writeBigUInt64LE(BigInt(after), 16);
  header.writeUInt32LE(crc32c(header, 0, 28), 28);
  return header;
}

/** Sequence that a log follows; undefined when its header was never written whole. Throws `corrupt` or `unsupported`. */
export function decodeLogHeader(path: string, bytes: Buffer): number | undefined {
  const whole = bytes.length >= LOG_HEADER_BYTES;
  if (!whole || bytes.readUInt32LE(28) !== crc32c(bytes, 0, 28)) {
    if (bytes.length <= LOG_HEADER_BYTES) return undefined;
    throw corrupt(path, 0, 'its header is damaged');
  }
  if (!bytes.subarray(0, 8).equals(LOG_MAGIC)) throw corrupt(path, 0, 'it is not a journal');
  checkVersion(path, bytes.readUInt32LE(8));
  return Number(bytes.readBigUInt64LE(16));
}

/** One frame: header, payload, end byte. Throws `invalid-argument` for a decision that is too large. */
export function encodeFrame(entry: JournalEntry): Buffer {
  const data = packr.pack(entry.data);
  const payloadBytes = 16 + data.length + 1;
  if (payloadBytes > ENTRY_BYTES_MAX) {
    throw new PalimpsestError(
      'invalid-argument',
      `a journal entry of ${payloadBytes} bytes; at most ${ENTRY_BYTES_MAX} fit`,
    );
  }
  const frame = Buffer.allocUnsafe(FRAME_HEADER_BYTES + payloadBytes);
  frame.writeBigUInt64LE(BigInt(entry.sequence), FRAME_HEADER_BYTES);
  frame.writeDoubleLE(entry.time, FRAME_HEADER_BYTES + 8);
  frame.set(data, FRAME_HEADER_BYTES + 16);
  frame[frame.length - 1] = FRAME_END;
  frame.writeUInt32LE(payloadBytes, 0);
  frame.writeUInt32LE(crc32c(frame, FRAME_HEADER_BYTES), 4);
  frame.writeUInt32LE(crc32c(frame, 0, 8), 8);
  return frame;
}

export interface DecodedLog {
  entries: JournalEntry[];
  /** Where the torn tail begins, if there is one. */
  tornAt?: number;
}

/** Reads the frames of a log from `after + 1` up to sequence `last`. Throws `corrupt` with file and offset. */
export function decodeLog(path: string, bytes: Buffer, after: number, last: number): DecodedLog {
  const entries: JournalEntry[] = [];
  let at = LOG_HEADER_BYTES;
  let expected = after + 1;
  while (at < bytes.length && expected <= last) {
    const frame = decodeFrame(path, bytes, at);
    if (!frame) return { entries, tornAt: at };
    if (frame.entry.sequence !== expected) {
      throw corrupt(path, at, `it holds entry ${frame.entry.sequence} where ${expected} belongs`);
    }
    entries.push(frame.entry);
    expected++;
    at = frame.end;
  }
  return { entries };
}

/** Reads bytes that are exactly one frame, as a message carries it. Throws `corrupt` for anything else. */
export function decodeEntry(where: string, bytes: Uint8Array): JournalEntry {
  const frame = decodeFrame(where, Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength), 0);
  if (!frame || frame.end !== bytes.length) throw corrupt(where, 0, 'it is not one whole entry');
  return frame.entry;
}

function decodeFrame(
  path: string,
  bytes: Buffer,
  at: number,
): { entry: JournalEntry; end: number } | undefined {
  const bodyAt = at + FRAME_HEADER_BYTES;
  if (bodyAt > bytes.length) return undefined;
  if (crc32c(bytes, at, at + 8) !== bytes.readUInt32LE(at + 8)) {
    if (hasUnwrittenSector(bytes, at, bodyAt)) return undefined;
    throw corrupt(path, at, 'the header of an entry is damaged');
  }
  const end = bodyAt + bytes.readUInt32LE(at);
  if (end > bytes.length) return undefined;
  if (crc32c(bytes, bodyAt, end) !== bytes.readUInt32LE(at + 4)) {
    if (hasUnwrittenSector(bytes, at, end)) return undefined;
    throw corrupt(path, at, 'an entry is damaged');
  }
  const sequence = Number(bytes.readBigUInt64LE(bodyAt));
  const data = unpack(path, at, bytes.subarray(bodyAt + 16, end - 1));
  return { entry: { sequence, time: bytes.readDoubleLE(bodyAt + 8), data }, end };
}

/** Whether some sector's part of `bytes[start, end)` is all zeros: it was never written. */
function hasUnwrittenSector(bytes: Buffer, start: number, end: number): boolean {
  for (let from = start; from < end; ) {
    const to = Math.min(end, (Math.floor(from / SECTOR_BYTES) + 1) * SECTOR_BYTES);
    if (bytes.subarray(from, to).every((byte) => byte === 0)) return true;
    from = to;
  }
  return false;
}

/** Encodes a snapshot file. */
export function encodeSnapshot(sequence: number, data: unknown): Buffer {
  const packed = packr.pack(data);
  const bytes = Buffer.alloc(SNAPSHOT_HEADER_BYTES + packed.length);
  SNAPSHOT_MAGIC.copy(bytes);
  bytes.writeUInt32LE(VERSION, 8);
  bytes.writeBigUInt64LE(BigInt(sequence), 16);
  bytes.set(packed, SNAPSHOT_HEADER_BYTES);
  bytes.writeUInt32LE(crc32c(bytes, 16), 12);
  return bytes;
}

/** Decodes a snapshot file. Throws `corrupt` or `unsupported`. */
export function decodeSnapshot(path: string, bytes: Buffer): { sequence: number; data: unknown } {
  if (bytes.length < SNAPSHOT_HEADER_BYTES || !bytes.subarray(0, 8).equals(SNAPSHOT_MAGIC)) {
    throw corrupt(path, 0, 'it is not a snapshot');
  }
  checkVersion(path, bytes.readUInt32LE(8));
  if (crc32c(bytes, 16) !== bytes.readUInt32LE(12)) throw corrupt(path, 0, 'the snapshot is damaged');
  return {
    sequence: Number(bytes.readBigUInt64LE(16)),
    data: unpack(path, 0, bytes.subarray(SNAPSHOT_HEADER_BYTES)),
  };
}

function unpack(path: string, at: number, data: Uint8Array): unknown {
  try {
    // A copy: decoded byte strings alias their input, and would keep the whole file in memory.
    return packr.unpack(Buffer.from(data));
  } catch (error) {
    throw corrupt(path, at, 'its content cannot be read', error);
  }
}

function checkVersion(path: string, version: number): void {
  if (version === VERSION) return;
  throw new PalimpsestError(
    'unsupported',
    `${path} has format version ${version}; this Palimpsest reads version ${VERSION}`,
    'use the version of Palimpsest that wrote it',
  );
}

function corrupt(path: string, offset: number, what: string, cause?: unknown): PalimpsestError {
  return new PalimpsestError(
    'corrupt',
    `journal file ${path} is corrupt at byte ${offset}: ${what}`,
    'restore the file from a backup; check the disk for errors',
    cause,
  );
}
