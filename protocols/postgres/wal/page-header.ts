/**
 * Headers of WAL pages. Every 8 KiB page starts with a short header; the first page of a 16 MiB segment with a
 * long one.
 *
 *   0 magic u16, 2 info u16, 4 timeline id u32, 8 page address u64, 16 remaining bytes of a record that began on
 *   an earlier page u32, 20 padding; long: 24 system id u64, 32 segment size u32, 36 page size u32.
 *
 * Source: access/xlog_internal.h.
 */
import { PAGE_BYTES, WAL_SEGMENT_BYTES } from '../../lsn.ts';
import {
  readBigU64,
  readU16,
  readU32,
  readU64,
  writeBigU64,
  writeU16,
  writeU32,
  writeU64,
} from '../bytes.ts';
import { walMagic } from '../versions.ts';

export const SHORT_HEADER_BYTES = 24;
export const LONG_HEADER_BYTES = 40;

/** The page begins with the rest of a record. */
export const XLP_FIRST_IS_CONTRECORD = 1;
export const XLP_LONG_HEADER = 2;
/** Full-page images on this page may be left out by archivers; Postgres sets it unless a base backup runs. */
export const XLP_BKP_REMOVABLE = 4;
/** The page begins after a record that was cut off by a crash and never completed. */
export const XLP_FIRST_IS_OVERWRITE_CONTRECORD = 8;

export interface WalPageHeader {
  magic: number;
  info: number;
  timelineId: number;
  pageAddress: number;
  remainingBytes: number;
  headerBytes: number;
  /** Only in long headers. */
  systemId: bigint | undefined;
}

/** Bytes of the header of the WAL page that begins at `pageAddress`. */
export function walPageHeaderBytes(pageAddress: number): number {
  return pageAddress % WAL_SEGMENT_BYTES === 0 ? LONG_HEADER_BYTES : SHORT_HEADER_BYTES;
}

/** Where a record's first byte lies when the previous one ended at `lsn`: after the header if a page begins there. */
export function recordStartAt(lsn: number): number {
  return lsn % PAGE_BYTES === 0 ? lsn + walPageHeaderBytes(lsn) : lsn;
}

export interface WalPageHeaderFields {
  pgVersion: number;
  systemId: bigint;
  pageAddress: number;
  /** Bytes of a record from earlier pages that continue here; 0 sets no continuation flag. */
  remainingBytes?: number;
}

/** Writes the header of one WAL page and returns its length. Byte-equal to what Postgres writes on timeline 1. */
export function writeWalPageHeader(target: Uint8Array, offset: number, fields: WalPageHeaderFields): number {
  const length = walPageHeaderBytes(fields.pageAddress);
  const remaining = fields.remainingBytes ?? 0;
  let info = XLP_BKP_REMOVABLE;
  if (remaining > 0) info |= XLP_FIRST_IS_CONTRECORD;
  if (length === LONG_HEADER_BYTES) info |= XLP_LONG_HEADER;
  writeU16(target, offset, walMagic(fields.pgVersion));
  writeU16(target, offset + 2, info);
  writeU32(target, offset + 4, 1);
  writeU64(target, offset + 8, fields.pageAddress);
  writeU32(target, offset + 16, remaining);
  writeU32(target, offset + 20, 0);
  if (length === LONG_HEADER_BYTES) {
    writeBigU64(target, offset + 24, fields.systemId);
    writeU32(target, offset + 32, WAL_SEGMENT_BYTES);
    writeU32(target, offset + 36, PAGE_BYTES);
  }
  return length;
}

/** Parses the header at `offset`; the caller provides at least LONG_HEADER_BYTES where a segment begins. */
export function parseWalPageHeader(bytes: Uint8Array, offset: number): WalPageHeader {
  const info = readU16(bytes, offset + 2);
  const long = (info & XLP_LONG_HEADER) !== 0;
  return {
    magic: readU16(bytes, offset),
    info,
    timelineId: readU32(bytes, offset + 4),
    pageAddress: readU64(bytes, offset + 8),
    remainingBytes: readU32(bytes, offset + 16),
    headerBytes: long ? LONG_HEADER_BYTES : SHORT_HEADER_BYTES,
    systemId: long ? readBigU64(bytes, offset + 24) : undefined,
  };
}
