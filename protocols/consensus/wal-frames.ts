/**
 * Reading WAL from a safekeeper, on the same channel as the consensus.
 *
 *   START_WAL {from}            ->   WAL {beginLsn, commitLsn, bytes}*   committed WAL only, for ever; a frame without
 *                                    bytes tells an advance of the commit LSN, or that the sender is alive
 *   READ_WAL {request, from, length, committedOnly} ->  WAL_BYTES {request, bytes}   durable WAL; short at its end, or
 *                                    at the end of what is committed
 *   ASK_STATUS {request}        ->   STATUS {request, status}
 *   a request that fails        ->   READ_FAILED {request, error}
 *   FEEDBACK {receivedLsn, remoteLsn, shard} ->         a follower of the WAL tells how far it is; no answer. The number of its shard
 *                                    and their count are behind it where there are several
 */
import { Packr } from 'msgpackr';
import type { WireError } from '../errors.ts';
import type { NodeId, Term } from '../ids.ts';
import type { Lsn } from '../lsn.ts';
import { readU32, readU64, writeU32, writeU64 } from '../postgres/bytes.ts';
import type { TermStart } from './history.ts';

export const FRAME_START_WAL = 50;
export const FRAME_WAL = 51;
export const FRAME_READ_WAL = 52;
export const FRAME_WAL_BYTES = 53;
export const FRAME_ASK_STATUS = 54;
export const FRAME_STATUS = 55;
export const FRAME_READ_FAILED = 56;
export const FRAME_FEEDBACK = 57;

/** Most bytes that one READ_WAL may ask for. */
export const READ_WAL_BYTES_MAX = 1024 * 1024;
export const WAL_FRAME_HEADER_BYTES = 16;
/** START_WAL as a request of its own has no number: its failure carries this one. */
export const STREAM_REQUEST = 0;

/** What a replica holds, as others may ask. */
export interface ReplicaStatus {
  node: NodeId;
  /** Generation of its membership; absent from a replica that does not tell. */
  generation?: number;
  term: Term;
  flushLsn: Lsn;
  /** End of its last whole record: a restart keeps no more. Told where a configuration is taken over; absent from one that does not tell. */
  recordLsn?: Lsn;
  commitLsn: Lsn;
  startLsn: Lsn;
  termHistory: TermStart[];
  /** Of its WAL in objects; absent from a replica that does not know. */
  offload?: OffloadStatus;
}

export interface OffloadStatus {
  /** All whole segments below are in objects. */
  backupLsn: Lsn;
  /** Up to here the pageserver's objects hold everything. */
  remoteLsn: Lsn;
  /** The same of each shard, where there are several, by `<number>of<count>`. */
  shards?: Record<string, Lsn>;
  /** The pageserver has received WAL up to here; 0 when none is heard of. */
  receivedLsn: Lsn;
  /** WAL from here on is on the replica's own disk. */
  localLsn: Lsn;
  /** WAL below is gone for good. */
  expiredLsn: Lsn;
}

/** How far a follower of the WAL is. */
export interface WalFeedback {
  /** It has taken all WAL up to here. */
  receivedLsn: Lsn;
  /** It can be made anew from its own objects up to here, without WAL. */
  remoteLsn: Lsn;
  /** It has the pages of one of several shards only. */
  shard?: { number: number; count: number };
}

const packr = new Packr({ useRecords: false });

export function packStartWal(from: Lsn): Uint8Array {
  const bytes = new Uint8Array(8);
  writeU64(bytes, 0, from);
  return bytes;
}

export function readStartWal(body: Uint8Array): Lsn {
  return readU64(body, 0) as Lsn;
}

export function packFeedback({ receivedLsn, remoteLsn, shard }: WalFeedback): Uint8Array {
  const bytes = new Uint8Array(shard ? 18 : 16);
  if (shard) bytes.set([shard.number, shard.count], 16);
  writeU64(bytes, 0, receivedLsn);
  writeU64(bytes, 8, remoteLsn);
  return bytes;
}

export function readFeedback(body: Uint8Array): WalFeedback {
  const shard = body.length >= 18 ? { shard: { number: body[16]!, count: body[17]! } } : {};
  return { receivedLsn: readU64(body, 0) as Lsn, remoteLsn: readU64(body, 8) as Lsn, ...shard };
}

/** Writes the header of a WAL frame; the bytes are sent as a further part. */
export function packWalHeader(beginLsn: Lsn, commitLsn: Lsn): Uint8Array {
  const bytes = new Uint8Array(WAL_FRAME_HEADER_BYTES);
  writeU64(bytes, 0, beginLsn);
  writeU64(bytes, 8, commitLsn);
  return bytes;
}

export function readWalHeader(body: Uint8Array): { beginLsn: Lsn; commitLsn: Lsn } {
  return { beginLsn: readU64(body, 0) as Lsn, commitLsn: readU64(body, 8) as Lsn };
}

export interface ReadWalRequest {
  request: number;
  from: Lsn;
  length: number;
  /** An uncommitted tail may differ from what will be committed there: only a proposer that recovers it wants it. */
  committedOnly: boolean;
}

export function packReadWal({ request, from, length, committedOnly }: ReadWalRequest): Uint8Array {
  const bytes = new Uint8Array(17);
  writeU32(bytes, 0, request);
  writeU64(bytes, 4, from);
  writeU32(bytes, 12, length);
  bytes[16] = committedOnly ? 1 : 0;
  return bytes;
}

export function readReadWal(body: Uint8Array): ReadWalRequest {
  return {
    request: readU32(body, 0),
    from: readU64(body, 4) as Lsn,
    length: readU32(body, 12),
    committedOnly: body[16] === 1,
  };
}

/** The number that a request or its answer begins with. */
export function packRequestNumber(request: number): Uint8Array {
  const bytes = new Uint8Array(4);
  writeU32(bytes, 0, request);
  return bytes;
}

export function readRequestNumber(body: Uint8Array): number {
  return readU32(body, 0);
}

export function packStatus(status: ReplicaStatus): Uint8Array {
  return new Uint8Array(packr.pack(status));
}

export function readStatus(body: Uint8Array): ReplicaStatus {
  return packr.unpack(body.subarray(4)) as ReplicaStatus;
}

export function packReadFailure(error: WireError): Uint8Array {
  return new Uint8Array(packr.pack(error));
}

export function readReadFailure(body: Uint8Array): WireError {
  return packr.unpack(body.subarray(4)) as WireError;
}
