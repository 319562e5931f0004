/**
 * Building FUSE replies: a header of 16 bytes and a body by opcode.
 */
import { INIT_FLAG2_REQUEST_TIMEOUT, InitFlag, REPLY_HEADER_BYTES, WRITE_BYTES_MAX } from './constants.ts';
import type { InitRequest } from './requests.ts';

/** The newest minor version whose layouts this codec writes. */
const MINOR_VERSION = 38;
/** The kernel asks again only when a day has passed: nobody else changes what is served. */
const TIME_TO_LIVE_SECONDS = 86_400;
const ENTRY_BYTES = 128;

function writeU64(into: Buffer, value: number, offset: number): void {
  into.writeUInt32LE(value % 0x1_0000_0000, offset);
  into.writeUInt32LE(Math.floor(value / 0x1_0000_0000), offset + 4);
}

/** Fills a reply's header in place; `errno` is positive or 0. */
export function writeReplyHeader(into: Buffer, unique: number, errno: number, bodyBytes: number): void {
  into.writeUInt32LE(REPLY_HEADER_BYTES + bodyBytes, 0);
  into.writeInt32LE(-errno, 4);
  writeU64(into, unique, 8);
}

export interface Attributes {
  nodeId: number;
  size: number;
  /** With the type bits. */
  mode: number;
  links: number;
  uid: number;
  gid: number;
  mtimeMs: number;
}

function writeAttributes(into: Buffer, offset: number, attributes: Attributes): void {
  const seconds = Math.floor(attributes.mtimeMs / 1000);
  writeU64(into, attributes.nodeId, offset);
  writeU64(into, attributes.size, offset + 8);
  writeU64(into, Math.ceil(attributes.size / 512), offset + 16);
  writeU64(into, seconds, offset + 24);
  writeU64(into, seconds, offset + 32);
  writeU64(into, seconds, offset + 40);
  into.writeUInt32LE(attributes.mode, offset + 60);
  into.writeUInt32LE(attributes.links, offset + 64);
  into.writeUInt32LE(attributes.uid, offset + 68);
  into.writeUInt32LE(attributes.gid, offset + 72);
  into.writeUInt32LE(8192, offset + 80);
}

/** Answer to GETATTR and SETATTR. */
export function attributesReply(attributes: Attributes): Buffer {
  const body = Buffer.alloc(104);
  writeU64(body, TIME_TO_LIVE_SECONDS, 0);
  writeAttributes(body, 16, attributes);
  return body;
}

/** Answer to LOOKUP, MKNOD and MKDIR. */
export function entryReply(attributes: Attributes): Buffer {
  return fillEntry(Buffer.alloc(ENTRY_BYTES), attributes);
}

/** Answer to CREATE: an entry and an open file. */
export function createReply(attributes: Attributes, openFlags: number): Buffer {
  const body = fillEntry(Buffer.alloc(ENTRY_BYTES + 16), attributes);
  body.writeUInt32LE(openFlags, ENTRY_BYTES + 8);
  return body;
}

/**
 * Answer to OPENDIR: no handle, and the kernel keeps no listing. (With ENOSYS it would keep listings for ever, also the
 * one that a starting Postgres was shown.)
 */
export function openDirectoryReply(): Buffer {
  return Buffer.alloc(16);
}

function fillEntry(body: Buffer, attributes: Attributes): Buffer {
  writeU64(body, attributes.nodeId, 0);
  writeU64(body, TIME_TO_LIVE_SECONDS, 16);
  writeU64(body, TIME_TO_LIVE_SECONDS, 24);
  writeAttributes(body, 40, attributes);
  return body;
}

/** Answer to LOOKUP of a name that does not exist, which the kernel remembers as well. */
export function absentEntryReply(): Buffer {
  const body = Buffer.alloc(ENTRY_BYTES);
  writeU64(body, TIME_TO_LIVE_SECONDS, 16);
  return body;
}

/** Answer to WRITE. */
export function writtenReply(bytes: number): Buffer {
  const body = Buffer.alloc(8);
  body.writeUInt32LE(bytes, 0);
  return body;
}

export interface DirectoryEntry {
  name: string;
  nodeId: number;
  directory: boolean;
}

/** Answer to READDIR from entry `start` on, as many as fit into `bytesMax`. */
export function directoryReply(entries: DirectoryEntry[], start: number, bytesMax: number): Buffer {
  const parts: Buffer[] = [];
  let total = 0;
  for (let i = start; i < entries.length; i++) {
    const entry = entries[i]!;
    const nameBytes = Buffer.byteLength(entry.name);
    const bytes = (24 + nameBytes + 7) & ~7;
    if (total + bytes > bytesMax) break;
    const part = Buffer.alloc(bytes);
    writeU64(part, entry.nodeId, 0);
    writeU64(part, i + 1, 8);
    part.writeUInt32LE(nameBytes, 16);
    part.writeUInt32LE(entry.directory ? 4 : 8, 20);
    part.write(entry.name, 24);
    parts.push(part);
    total += bytes;
  }
  return Buffer.concat(parts, total);
}

/** Answer to STATFS: plenty of space; the real limits are the compute's own. */
export function statfsReply(): Buffer {
  const body = Buffer.alloc(80);
  writeU64(body, 2 ** 30, 0);
  writeU64(body, 2 ** 29, 8);
  writeU64(body, 2 ** 29, 16);
  writeU64(body, 2 ** 20, 24);
  writeU64(body, 2 ** 20, 32);
  body.writeUInt32LE(4096, 40);
  body.writeUInt32LE(255, 44);
  body.writeUInt32LE(4096, 48);
  return body;
}

export interface InitReplyOptions {
  /** Requests that the kernel may have in flight in the background (read-ahead). */
  backgroundRequestsMax: number;
  readaheadBytesMax: number;
  /** The kernel aborts the mount when a request stays unanswered for so long; 0 leaves it off. */
  requestTimeoutSeconds: number;
}

/**
 * Answer to INIT. Written pages stay in the kernel's cache and come later, many in one request; each close of a file
 * sends what is left of it, so once all its users have ended everything has arrived.
 */
export function initReply(request: InitRequest, options: InitReplyOptions): Buffer {
  const wanted =
    InitFlag.ASYNC_READ |
    InitFlag.BIG_WRITES |
    InitFlag.ASYNC_DIO |
    InitFlag.WRITEBACK_CACHE |
    InitFlag.NO_OPEN_SUPPORT |
    InitFlag.PARALLEL_DIROPS |
    InitFlag.MAX_PAGES |
    InitFlag.EXPLICIT_INVAL_DATA;
  const withTimeout = options.requestTimeoutSeconds > 0 && (request.flags & InitFlag.INIT_EXT) !== 0;
  const body = Buffer.alloc(64);
  body.writeUInt32LE(7, 0);
  body.writeUInt32LE(Math.min(request.minor, MINOR_VERSION), 4);
  body.writeUInt32LE(Math.min(request.maxReadaheadBytes, options.readaheadBytesMax), 8);
  body.writeUInt32LE(((request.flags & wanted) | (withTimeout ? InitFlag.INIT_EXT : 0)) >>> 0, 12);
  body.writeUInt16LE(options.backgroundRequestsMax, 16);
  body.writeUInt16LE(options.backgroundRequestsMax, 18);
  body.writeUInt32LE(WRITE_BYTES_MAX, 20);
  body.writeUInt32LE(1, 24);
  body.writeUInt16LE(WRITE_BYTES_MAX / 4096, 28);
  if (withTimeout) {
    body.writeUInt32LE(INIT_FLAG2_REQUEST_TIMEOUT, 32);
    body.writeUInt16LE(options.requestTimeoutSeconds, 40);
  }
  return body;
}
