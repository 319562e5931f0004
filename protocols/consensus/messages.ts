/**
 * What a proposer and an acceptor say to each other, as values and as frames.
 *
 *   ProposerGreeting  ->  who I am                    AcceptorGreeting  <-  my term and membership
 *   VoteRequest       ->  may I lead this term?       VoteResponse      <-  yes or no, and what my log holds
 *   ProposerElected   ->  I lead; here is the log     AppendResponse    <-  history taken over
 *   AppendRequest     ->  WAL and the commit LSN      AppendResponse    <-  what is durable here
 *                                                     Refused           <-  why the last message was not obeyed
 *
 * The four greeting and vote messages are rare and travel as msgpack maps. Appends and their answers are fixed binary
 * headers, read into a reused object: nothing is allocated per frame. Frame types 1–29 belong to other protocols.
 */
import { Packr } from 'msgpackr';
import type { WireError } from '../errors.ts';
import type { NodeId, Term } from '../ids.ts';
import type { Lsn } from '../lsn.ts';
import { readU32, readU64, writeU32, writeU64 } from '../postgres/bytes.ts';
import type { TermStart } from './history.ts';
import type { Membership } from './membership.ts';

export const FRAME_PROPOSER_GREETING = 40;
export const FRAME_ACCEPTOR_GREETING = 41;
export const FRAME_VOTE_REQUEST = 42;
export const FRAME_VOTE_RESPONSE = 43;
export const FRAME_PROPOSER_ELECTED = 44;
export const FRAME_APPEND_REQUEST = 45;
export const FRAME_APPEND_RESPONSE = 46;
export const FRAME_REFUSED = 47;

export type { Membership } from './membership.ts';

export interface ProposerGreeting {
  tenant: string;
  timeline: string;
  membership: Membership;
  /** Postgres' major version. */
  pgVersion: number;
  /** Decimal: the cluster's 64-bit system identifier. */
  systemId: string;
  segmentBytes: number;
}

export interface AcceptorGreeting {
  node: NodeId;
  membership: Membership;
  term: Term;
}

export interface VoteRequest {
  generation: number;
  term: Term;
}

export interface VoteResponse {
  generation: number;
  /** The acceptor's term after the request: above the requested one when a newer proposer was here. */
  term: Term;
  granted: boolean;
  flushLsn: Lsn;
  commitLsn: Lsn;
  /** First LSN that the acceptor still holds. */
  truncateLsn: Lsn;
  /** Cut to flushLsn. */
  history: TermStart[];
}

export interface ProposerElected {
  generation: number;
  term: Term;
  /** Where the proposer will begin to send: the highest common point of both logs, by its reckoning. */
  startStreamingAt: Lsn;
  history: TermStart[];
}

/** An AppendRequest without its WAL: that follows the header. `endLsn` is `beginLsn` plus the WAL's length. */
export interface AppendHeader {
  generation: number;
  term: Term;
  beginLsn: Lsn;
  commitLsn: Lsn;
  truncateLsn: Lsn;
}

export interface AppendResponse {
  generation: number;
  term: Term;
  flushLsn: Lsn;
  commitLsn: Lsn;
  /** Up to here the pageserver that follows this acceptor has taken the WAL; 0 when none follows it. */
  followerLsn: Lsn;
}

export const APPEND_HEADER_BYTES = 36;
export const APPEND_RESPONSE_BYTES = 36;
/** Without the follower's position, as older acceptors answer. */
const APPEND_RESPONSE_BYTES_MIN = 28;

const packr = new Packr({ useRecords: false });

/** Packs one of the rare messages. The result is a copy that the caller owns. */
export function packMessage(
  message: ProposerGreeting | AcceptorGreeting | VoteRequest | VoteResponse | ProposerElected | WireError,
): Uint8Array {
  return new Uint8Array(packr.pack(message));
}

/** Unpacks a rare message; the frame's type says which. Throws on bytes that are no msgpack. */
export function unpackMessage<T>(body: Uint8Array): T {
  return packr.unpack(body) as T;
}

/** Writes the header of an AppendRequest; the WAL is sent as a further part of the same frame. */
export function packAppendHeader(header: AppendHeader): Uint8Array {
  const bytes = new Uint8Array(APPEND_HEADER_BYTES);
  writeU32(bytes, 0, header.generation);
  writeU64(bytes, 4, header.term);
  writeU64(bytes, 12, header.beginLsn);
  writeU64(bytes, 20, header.commitLsn);
  writeU64(bytes, 28, header.truncateLsn);
  return bytes;
}

/** Reads the header of an AppendRequest into `into`. The WAL is `body.subarray(APPEND_HEADER_BYTES)`. */
export function readAppendHeader(body: Uint8Array, into: AppendHeader): AppendHeader {
  if (body.length < APPEND_HEADER_BYTES) throw new RangeError(`append request of ${body.length} bytes`);
  into.generation = readU32(body, 0);
  into.term = readU64(body, 4) as Term;
  into.beginLsn = readU64(body, 12) as Lsn;
  into.commitLsn = readU64(body, 20) as Lsn;
  into.truncateLsn = readU64(body, 28) as Lsn;
  return into;
}

/** An empty header to read into. */
export function blankAppendHeader(): AppendHeader {
  return {
    generation: 0,
    term: 0 as Term,
    beginLsn: 0 as Lsn,
    commitLsn: 0 as Lsn,
    truncateLsn: 0 as Lsn,
  };
}

export function packAppendResponse(response: AppendResponse): Uint8Array {
  const bytes = new Uint8Array(APPEND_RESPONSE_BYTES);
  writeU32(bytes, 0, response.generation);
  writeU64(bytes, 4, response.term);
  writeU64(bytes, 12, response.flushLsn);
  writeU64(bytes, 20, response.commitLsn);
  writeU64(bytes, 28, response.followerLsn);
  return bytes;
}

export function readAppendResponse(body: Uint8Array, into: AppendResponse): AppendResponse {
  if (body.length < APPEND_RESPONSE_BYTES_MIN)
    throw new RangeError(`append response of ${body.length} bytes`);
  into.generation = readU32(body, 0);
  into.term = readU64(body, 4) as Term;
  into.flushLsn = readU64(body, 12) as Lsn;
  into.commitLsn = readU64(body, 20) as Lsn;
  into.followerLsn = (body.length >= APPEND_RESPONSE_BYTES ? readU64(body, 28) : 0) as Lsn;
  return into;
}

export function blankAppendResponse(): AppendResponse {
  return {
    generation: 0,
    term: 0 as Term,
    flushLsn: 0 as Lsn,
    commitLsn: 0 as Lsn,
    followerLsn: 0 as Lsn,
  };
}
