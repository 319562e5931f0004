/**
 * Reading FUSE requests: each request is one buffer, a header of 40 bytes and a body by opcode.
 *
 * Reads and writes are the hot path, so fields are read where they lie; nothing is decoded into objects there.
 * Ids are 64 bits on the wire but counters in practice, hence exact as numbers.
 */
import { REQUEST_HEADER_BYTES } from './constants.ts';

/** Flag of WRITE (FUSE_WRITE_CACHE). */
const WRITE_CACHE = 1;

function readU64(request: Buffer, offset: number): number {
  return request.readUInt32LE(offset) + request.readUInt32LE(offset + 4) * 0x1_0000_0000;
}

export function opcodeOf(request: Buffer): number {
  return request.readUInt32LE(4);
}

/** Names the request in its reply. */
export function uniqueOf(request: Buffer): number {
  return readU64(request, 8);
}

export function nodeIdOf(request: Buffer): number {
  return readU64(request, 16);
}

/** Offset of READ, WRITE, READDIR and FALLOCATE. */
export function offsetOf(request: Buffer): number {
  return readU64(request, 48);
}

/** Bytes asked for by READ and READDIR, or carried by WRITE. */
export function sizeOf(request: Buffer): number {
  return request.readUInt32LE(56);
}

/** Whether WRITE brings pages of the kernel's cache, whose writer has gone on long ago and hears of no error. */
export function isDelayedWrite(request: Buffer): boolean {
  return (request.readUInt32LE(60) & WRITE_CACHE) !== 0;
}

export function writtenBytesOf(request: Buffer): Buffer {
  return request.subarray(80, 80 + sizeOf(request));
}

/** The one name of LOOKUP, UNLINK and RMDIR. */
export function lookupNameOf(request: Buffer): string {
  return stringAt(request, REQUEST_HEADER_BYTES);
}

export interface CreateRequest {
  mode: number;
  name: string;
}

export function readCreate(request: Buffer): CreateRequest {
  return { mode: request.readUInt32LE(44), name: stringAt(request, 56) };
}

export function readMknod(request: Buffer): CreateRequest {
  return { mode: request.readUInt32LE(40), name: stringAt(request, 56) };
}

export function readMkdir(request: Buffer): CreateRequest {
  return { mode: request.readUInt32LE(40), name: stringAt(request, 48) };
}

export interface RenameRequest {
  newParent: number;
  name: string;
  newName: string;
  flags: number;
}

/** RENAME, or RENAME2 when `withFlags`. */
export function readRename(request: Buffer, withFlags: boolean): RenameRequest {
  const start = withFlags ? 56 : 48;
  const name = stringAt(request, start);
  return {
    newParent: readU64(request, 40),
    flags: withFlags ? request.readUInt32LE(48) : 0,
    name,
    newName: stringAt(request, start + Buffer.byteLength(name) + 1),
  };
}

export interface SetattrRequest {
  /** Bits of SetattrValid. */
  valid: number;
  size: number;
  mode: number;
  mtimeSeconds: number;
}

export function readSetattr(request: Buffer): SetattrRequest {
  return {
    valid: request.readUInt32LE(40),
    size: readU64(request, 56),
    mtimeSeconds: readU64(request, 80),
    mode: request.readUInt32LE(108),
  };
}

export interface FallocateRequest {
  offset: number;
  length: number;
  mode: number;
}

export function readFallocate(request: Buffer): FallocateRequest {
  return { offset: offsetOf(request), length: readU64(request, 56), mode: request.readUInt32LE(64) };
}

/** Calls `forget(nodeId, lookups)` for each entry of FORGET or BATCH_FORGET. */
export function readForgets(
  request: Buffer,
  batch: boolean,
  forget: (nodeId: number, lookups: number) => void,
): void {
  if (!batch) {
    forget(nodeIdOf(request), readU64(request, 40));
    return;
  }
  const count = request.readUInt32LE(40);
  for (let i = 0; i < count; i++) forget(readU64(request, 48 + i * 16), readU64(request, 56 + i * 16));
}

export interface InitRequest {
  minor: number;
  maxReadaheadBytes: number;
  flags: number;
}

export function readInit(request: Buffer): InitRequest {
  return {
    minor: request.readUInt32LE(44),
    maxReadaheadBytes: request.readUInt32LE(48),
    flags: request.readUInt32LE(52),
  };
}

function stringAt(request: Buffer, start: number): string {
  const end = request.indexOf(0, start);
  return request.toString('utf8', start, end < 0 ? request.length : end);
}
