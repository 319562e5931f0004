/** Every frame comes back as it was sent. */
import { expect, test } from 'vitest';
import { PalimpsestError } from '../errors.ts';
import type { NodeId, Term } from '../ids.ts';
import type { Lsn } from '../lsn.ts';
import {
  APPEND_HEADER_BYTES,
  blankAppendHeader,
  blankAppendResponse,
  packAppendHeader,
  packAppendResponse,
  packMessage,
  readAppendHeader,
  readAppendResponse,
  unpackMessage,
} from './messages.ts';
import {
  packReadFailure,
  packReadWal,
  packRequestNumber,
  packStartWal,
  packStatus,
  packWalHeader,
  readReadFailure,
  readReadWal,
  readStartWal,
  readStatus,
  readWalHeader,
} from './wal-frames.ts';

const FAR = (2 ** 52 + 8) as Lsn;

test('append requests keep positions beyond 32 bits', () => {
  const header = {
    generation: 4_000_000_000,
    term: 7 as Term,
    beginLsn: FAR,
    commitLsn: (FAR - 8) as Lsn,
    truncateLsn: 16 as Lsn,
  };
  const bytes = packAppendHeader(header);
  expect(bytes.length).toBe(APPEND_HEADER_BYTES);
  expect(readAppendHeader(bytes, blankAppendHeader())).toEqual(header);
});

test('append responses come back', () => {
  const response = {
    generation: 1,
    term: 9 as Term,
    flushLsn: FAR,
    commitLsn: 8 as Lsn,
    followerLsn: (FAR - 800) as Lsn,
  };
  const bytes = packAppendResponse(response);
  expect(readAppendResponse(bytes, blankAppendResponse())).toEqual(response);
  // An older acceptor does not tell of followers.
  const older = readAppendResponse(bytes.subarray(0, 28), blankAppendResponse());
  expect(older).toEqual({ ...response, followerLsn: 0 });
});

test('a frame that is too short is refused', () => {
  expect(() => readAppendHeader(new Uint8Array(10), blankAppendHeader())).toThrow(RangeError);
  expect(() => readAppendResponse(new Uint8Array(10), blankAppendResponse())).toThrow(RangeError);
});

test('rare messages are maps that come back', () => {
  const vote = {
    generation: 1,
    term: 3 as Term,
    granted: true,
    flushLsn: FAR,
    commitLsn: 8 as Lsn,
    truncateLsn: 0 as Lsn,
    history: [{ term: 1 as Term, lsn: FAR }],
  };
  expect(unpackMessage(packMessage(vote))).toEqual(vote);
});

test('frames of WAL readers come back', () => {
  expect(readStartWal(packStartWal(FAR))).toBe(FAR);
  expect(readWalHeader(packWalHeader(FAR, 24 as Lsn))).toEqual({ beginLsn: FAR, commitLsn: 24 });
  for (const committedOnly of [false, true]) {
    const wanted = { request: 5, from: FAR, length: 1000, committedOnly };
    expect(readReadWal(packReadWal(wanted))).toEqual(wanted);
  }
  const status = {
    node: 'sk1' as NodeId,
    term: 2 as Term,
    flushLsn: FAR,
    commitLsn: 8 as Lsn,
    startLsn: 8 as Lsn,
    termHistory: [],
  };
  expect(readStatus(Buffer.concat([packRequestNumber(1), packStatus(status)]))).toEqual(status);
  const error = new PalimpsestError('not-found', 'gone', 'look elsewhere').toWire();
  expect(readReadFailure(Buffer.concat([packRequestNumber(1), packReadFailure(error)]))).toEqual(error);
});
