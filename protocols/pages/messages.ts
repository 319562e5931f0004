/**
 * The page service: frames between a compute and a pageserver shard, over a channel of kind `pageserver`.
 * All integers are little endian; an LSN is a float64, exact to 2^53.
 *
 *   GET_PAGES      u32 request, f64 lsn, f64 notModifiedSince, u32 spc, u32 db, u32 rel, u8 fork, u32 firstBlock, u16 count
 *   GET_PAGE_LIST  u32 request, f64 lsn, f64 notModifiedSince, u16 count, (u32 spc, u32 db, u32 rel, u8 fork, u32 block) * count
 *   GET_DIRECTORY  u32 request, f64 lsn, f64 notModifiedSince, u32 db
 *   GET_BASEBACKUP u32 request, f64 lsn
 *   GET_LAYOUT     u32 request
 *   PAGES          u32 request, 8192 bytes * count
 *   DIRECTORY      u32 request, (u32 spc, u32 db, u32 rel, u32 fork, u32 blocks) *
 *   BASEBACKUP     u32 request, msgpack Basebackup
 *   LAYOUT         u32 request, u32 count, u32 stripeBlocks, (u32 attempt)?
 *   FAILED         u32 request, msgpack WireError
 *
 * Answers may come in any order; the request id pairs them. A page beyond its relation's end reads as zeros. A shard refuses pages that
 * are another's with `wrong-shard`: who asked asks for the layout, and then where they are.
 */
import { Packr } from 'msgpackr';
import { PalimpsestError, type WireError } from '../errors.ts';
import { type Lsn, PAGE_BYTES } from '../lsn.ts';
import { checkShardCount, type ShardLayout } from '../shard-layout.ts';
import type { Basebackup, ReadPoint, RelationEntry, RelationTag } from './types.ts';

export const GET_PAGES = 10;
export const GET_PAGE_LIST = 11;
export const GET_DIRECTORY = 12;
export const GET_BASEBACKUP = 13;
export const GET_LAYOUT = 14;
export const PAGES = 20;
export const DIRECTORY = 21;
export const BASEBACKUP = 22;
export const LAYOUT = 23;
export const FAILED = 29;

/** Most pages that one request may ask for: 2 MiB of answer. */
export const PAGES_PER_REQUEST_MAX = 256;

const GET_PAGES_BYTES = 39;
const GET_PAGE_LIST_HEADER_BYTES = 22;
const GET_PAGE_LIST_ITEM_BYTES = 17;
const GET_DIRECTORY_BYTES = 24;
const GET_BASEBACKUP_BYTES = 12;
const DIRECTORY_ENTRY_BYTES = 20;

const packr = new Packr({ useRecords: false });

export interface GetPages extends ReadPoint, RelationTag {
  requestId: number;
  firstBlock: number;
  count: number;
}

export interface PageTag extends RelationTag {
  block: number;
}

export interface GetPageList extends ReadPoint {
  requestId: number;
  pages: PageTag[];
}

export interface GetDirectory extends ReadPoint {
  requestId: number;
  /** Database oid; 0 for the shared relations. */
  db: number;
}

export interface GetBasebackup {
  requestId: number;
  lsn: Lsn;
}

/** Encodes the body of a GET_PAGES frame. */
export function encodeGetPages(request: GetPages): Uint8Array {
  checkCount(request.count);
  const body = new Uint8Array(GET_PAGES_BYTES);
  const view = viewOf(body);
  putHeader(view, request.requestId, request);
  view.setUint32(20, request.spc, true);
  view.setUint32(24, request.db, true);
  view.setUint32(28, request.rel, true);
  body[32] = request.fork;
  view.setUint32(33, request.firstBlock, true);
  view.setUint16(37, request.count, true);
  return body;
}

/** Decodes the body of a GET_PAGES frame; throws `invalid-argument` for a malformed one. */
export function decodeGetPages(body: Uint8Array): GetPages {
  if (body.length !== GET_PAGES_BYTES) throw malformed('GET_PAGES');
  const view = viewOf(body);
  const count = view.getUint16(37, true);
  checkCount(count);
  return {
    requestId: view.getUint32(0, true),
    ...readPointAt(view),
    spc: view.getUint32(20, true),
    db: view.getUint32(24, true),
    rel: view.getUint32(28, true),
    fork: body[32]!,
    firstBlock: view.getUint32(33, true),
    count,
  };
}

/** Encodes the body of a GET_PAGE_LIST frame. */
export function encodeGetPageList(request: GetPageList): Uint8Array {
  const count = request.pages.length;
  checkCount(count);
  const body = new Uint8Array(GET_PAGE_LIST_HEADER_BYTES + count * GET_PAGE_LIST_ITEM_BYTES);
  const view = viewOf(body);
  putHeader(view, request.requestId, request);
  view.setUint16(20, count, true);
  let at = GET_PAGE_LIST_HEADER_BYTES;
  for (const page of request.pages) {
    view.setUint32(at, page.spc, true);
    view.setUint32(at + 4, page.db, true);
    view.setUint32(at + 8, page.rel, true);
    body[at + 12] = page.fork;
    view.setUint32(at + 13, page.block, true);
    at += GET_PAGE_LIST_ITEM_BYTES;
  }
  return body;
}

/** Decodes the body of a GET_PAGE_LIST frame; throws `invalid-argument` for a malformed one. */
export function decodeGetPageList(body: Uint8Array): GetPageList {
  if (body.length < GET_PAGE_LIST_HEADER_BYTES) throw malformed('GET_PAGE_LIST');
  const view = viewOf(body);
  const count = view.getUint16(20, true);
  checkCount(count);
  if (body.length !== GET_PAGE_LIST_HEADER_BYTES + count * GET_PAGE_LIST_ITEM_BYTES) {
    throw malformed('GET_PAGE_LIST');
  }
  const pages: PageTag[] = [];
  for (let at = GET_PAGE_LIST_HEADER_BYTES; at < body.length; at += GET_PAGE_LIST_ITEM_BYTES) {
    pages.push({
      spc: view.getUint32(at, true),
      db: view.getUint32(at + 4, true),
      rel: view.getUint32(at + 8, true),
      fork: body[at + 12]!,
      block: view.getUint32(at + 13, true),
    });
  }
  return { requestId: view.getUint32(0, true), ...readPointAt(view), pages };
}

/** Encodes the body of a GET_DIRECTORY frame. */
export function encodeGetDirectory(request: GetDirectory): Uint8Array {
  const body = new Uint8Array(GET_DIRECTORY_BYTES);
  const view = viewOf(body);
  putHeader(view, request.requestId, request);
  view.setUint32(20, request.db, true);
  return body;
}

/** Decodes the body of a GET_DIRECTORY frame; throws `invalid-argument` for a malformed one. */
export function decodeGetDirectory(body: Uint8Array): GetDirectory {
  if (body.length !== GET_DIRECTORY_BYTES) throw malformed('GET_DIRECTORY');
  const view = viewOf(body);
  return { requestId: view.getUint32(0, true), ...readPointAt(view), db: view.getUint32(20, true) };
}

/** Encodes the body of a GET_BASEBACKUP frame. */
export function encodeGetBasebackup(request: GetBasebackup): Uint8Array {
  const body = new Uint8Array(GET_BASEBACKUP_BYTES);
  const view = viewOf(body);
  view.setUint32(0, request.requestId, true);
  view.setFloat64(4, request.lsn, true);
  return body;
}

/** Decodes the body of a GET_BASEBACKUP frame; throws `invalid-argument` for a malformed one. */
export function decodeGetBasebackup(body: Uint8Array): GetBasebackup {
  if (body.length !== GET_BASEBACKUP_BYTES) throw malformed('GET_BASEBACKUP');
  const view = viewOf(body);
  return { requestId: view.getUint32(0, true), lsn: view.getFloat64(4, true) as Lsn };
}

/** The request id that every frame of the page service begins with. */
export function requestIdOf(body: Uint8Array): number {
  if (body.length < 4) throw malformed('page service');
  return (body[0]! | (body[1]! << 8) | (body[2]! << 16) | (body[3]! << 24)) >>> 0;
}

/** The four bytes of a request id, to be sent before an answer's payload. */
export function encodeRequestId(requestId: number): Uint8Array {
  return Uint8Array.of(requestId, requestId >>> 8, requestId >>> 16, requestId >>> 24);
}

/** The pages of a PAGES body, as a view on it. Throws `invalid-argument` when their number is not `count`. */
export function decodePages(body: Uint8Array, count: number): Uint8Array {
  if (body.length !== 4 + count * PAGE_BYTES) throw malformed('PAGES');
  return body.subarray(4);
}

/** Encodes the payload (after the request id) of a DIRECTORY frame. */
export function encodeDirectory(entries: readonly RelationEntry[]): Uint8Array {
  const payload = new Uint8Array(entries.length * DIRECTORY_ENTRY_BYTES);
  const view = viewOf(payload);
  let at = 0;
  for (const entry of entries) {
    view.setUint32(at, entry.spc, true);
    view.setUint32(at + 4, entry.db, true);
    view.setUint32(at + 8, entry.rel, true);
    view.setUint32(at + 12, entry.fork, true);
    view.setUint32(at + 16, entry.blocks, true);
    at += DIRECTORY_ENTRY_BYTES;
  }
  return payload;
}

/** Decodes a DIRECTORY body; throws `invalid-argument` for a malformed one. */
export function decodeDirectory(body: Uint8Array): RelationEntry[] {
  if (body.length < 4 || (body.length - 4) % DIRECTORY_ENTRY_BYTES !== 0) throw malformed('DIRECTORY');
  const view = viewOf(body);
  const entries: RelationEntry[] = [];
  for (let at = 4; at < body.length; at += DIRECTORY_ENTRY_BYTES) {
    entries.push({
      spc: view.getUint32(at, true),
      db: view.getUint32(at + 4, true),
      rel: view.getUint32(at + 8, true),
      fork: view.getUint32(at + 12, true),
      blocks: view.getUint32(at + 16, true),
    });
  }
  return entries;
}

/** Encodes the payload (after the request id) of a BASEBACKUP frame. */
export function encodeBasebackup(basebackup: Basebackup): Uint8Array {
  return packr.pack({ ...basebackup, systemId: basebackup.systemId.toString() });
}

/** Decodes a BASEBACKUP body. The bytes of its files are copies, so that they outlive the frame. */
export function decodeBasebackup(body: Uint8Array): Basebackup {
  if (body.length < 5) throw malformed('BASEBACKUP');
  const raw = packr.unpack(body.slice(4)) as Omit<Basebackup, 'systemId'> & { systemId: string };
  return { ...raw, systemId: BigInt(raw.systemId) };
}

/** Encodes the payload (after the request id) of a LAYOUT frame. */
export function encodeLayout({ count, stripeBlocks, attempt }: ShardLayout): Uint8Array {
  const payload = new Uint8Array(attempt ? 12 : 8);
  const view = viewOf(payload);
  view.setUint32(0, count, true);
  view.setUint32(4, stripeBlocks, true);
  if (attempt) view.setUint32(8, attempt, true);
  return payload;
}

/** Decodes a LAYOUT body; throws `invalid-argument` for a malformed one. */
export function decodeLayout(body: Uint8Array): ShardLayout {
  if (body.length !== 12 && body.length !== 16) throw malformed('LAYOUT');
  const view = viewOf(body);
  const attempt = body.length > 12 ? { attempt: view.getUint32(12, true) } : {};
  const layout = { count: view.getUint32(4, true), stripeBlocks: view.getUint32(8, true), ...attempt };
  checkShardCount(layout.count);
  if (layout.stripeBlocks === 0) throw malformed('LAYOUT');
  return layout;
}

/** Encodes the payload (after the request id) of a FAILED frame. */
export function encodeFailed(error: WireError): Uint8Array {
  return packr.pack(error);
}

/** Decodes a FAILED body. */
export function decodeFailed(body: Uint8Array): PalimpsestError {
  if (body.length < 5) throw malformed('FAILED');
  return PalimpsestError.fromWire(packr.unpack(body.slice(4)) as WireError);
}

function putHeader(view: DataView, requestId: number, point: ReadPoint): void {
  view.setUint32(0, requestId, true);
  view.setFloat64(4, point.lsn, true);
  view.setFloat64(12, point.notModifiedSince, true);
}

function readPointAt(view: DataView): ReadPoint {
  return { lsn: view.getFloat64(4, true) as Lsn, notModifiedSince: view.getFloat64(12, true) as Lsn };
}

function checkCount(count: number): void {
  if (count >= 1 && count <= PAGES_PER_REQUEST_MAX) return;
  throw new PalimpsestError(
    'invalid-argument',
    `a request for ${count} pages; 1 to ${PAGES_PER_REQUEST_MAX} are allowed`,
  );
}

function malformed(frame: string): PalimpsestError {
  return new PalimpsestError('invalid-argument', `malformed ${frame} frame`);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
