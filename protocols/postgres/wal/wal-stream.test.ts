import { expect, test } from 'vitest';
import { type Lsn, PAGE_BYTES, WAL_SEGMENT_BYTES } from '../../lsn.ts';
import type { CheckpointFields } from '../../pages/types.ts';
import { decodeCheckpoint } from '../checkpoint.ts';
import { crc32c } from '../crc32c.ts';
import { RecordBoundaries } from './boundaries.ts';
import { CorruptWalError } from './errors.ts';
import { advancePayload } from './geometry.ts';
import { walPageHeaderBytes } from './page-header.ts';
import { WalBuilder } from './record-builder.ts';
import { RMGR_LOGICAL_MESSAGE, RMGR_XLOG } from './resource-managers.ts';
import { WalStreamDecoder } from './stream-decoder.ts';

const PG_VERSION = 17;
const SYSTEM_ID = 7_123_456_789_012_345_678n;
const CHECKPOINT: CheckpointFields = {
  redo: 0 as Lsn,
  timelineId: 1,
  previousTimelineId: 1,
  fullPageWrites: true,
  walLevel: 1,
  nextXid: 3 * 2 ** 32 + 777,
  nextOid: 16400,
  nextMulti: 5,
  nextMultiOffset: 11,
  oldestXid: 722,
  oldestXidDb: 1,
  oldestMulti: 1,
  oldestMultiDb: 1,
  time: 1_760_000_000,
  oldestCommitTsXid: 0,
  newestCommitTsXid: 0,
  oldestActiveXid: 0,
};

function builderAt(lsn: number): WalBuilder {
  return new WalBuilder({ lsn, previousStart: lsn - 200, pgVersion: PG_VERSION, systemId: SYSTEM_ID });
}

/** A log with records of many sizes that starts shortly before a segment's end. */
function sampleLog(): { builder: WalBuilder; from: number; starts: number[] } {
  const from = 2 * WAL_SEGMENT_BYTES - 5 * PAGE_BYTES - 4096;
  const builder = builderAt(from);
  const starts: number[] = [];
  for (const size of [0, 1, 7, 100, 255, 256, 3000, 8100, 8192, 20_000, 120_000, 3, 40, 70_001]) {
    starts.push(builder.logicalMessage('test', new Uint8Array(size).fill(size & 255)));
  }
  starts.push(builder.shutdownCheckpoint(CHECKPOINT));
  return { builder, from, starts };
}

/** Cuts bytes into pieces of pseudo-random sizes, the same for the same seed. */
function* cuts(bytes: Uint8Array, seed: number, sizeMax: number): Generator<Uint8Array> {
  let state = seed;
  for (let at = 0; at < bytes.length; ) {
    state = (state * 1103515245 + 12345) & 0x7fffffff;
    const size = 1 + (state % sizeMax);
    yield bytes.slice(at, at + size);
    at += size;
  }
}

test('the known checksum of CRC-32C comes out', () => {
  expect(crc32c(new TextEncoder().encode('123456789'))).toBe(0xe3069283);
});

test.each([1, 7, 100, 9000, 300_000])('records decode whole from chunks of up to %i bytes', (sizeMax) => {
  const { builder, from, starts } = sampleLog();
  const decoder = new WalStreamDecoder(from, { pgVersion: PG_VERSION });
  const seen: number[] = [];
  let at = from;
  for (const chunk of cuts(builder.bytes, 42, sizeMax)) {
    decoder.feed(at, chunk);
    at += chunk.length;
    while (decoder.next()) seen.push(decoder.record.lsn);
  }
  expect(seen).toEqual(starts);
  expect(decoder.position).toBe(builder.end);
  expect(decoder.record.rmid).toBe(RMGR_XLOG);
  const { bytes, mainOffset } = decoder.record;
  expect(decodeCheckpoint(bytes, mainOffset, PG_VERSION)).toEqual({ ...CHECKPOINT, redo: starts.at(-1) });
});

test.each([1, 3, 17, 8192, 300_000])(
  'boundaries follow whole records in cuts of up to %i bytes',
  (sizeMax) => {
    const { builder, from, starts } = sampleLog();
    const boundaries = new RecordBoundaries(from);
    let at = from;
    for (const chunk of cuts(builder.bytes, 7, sizeMax)) {
      boundaries.feed(at, chunk);
      at += chunk.length;
      if (boundaries.position > at) throw new Error(`boundary ${boundaries.position} beyond ${at}`);
    }
    expect(boundaries.position).toBe(builder.end);
    expect(boundaries.lastStart).toBe(starts.at(-1));
  },
);

test('a record that has not arrived whole moves no boundary', () => {
  const builder = builderAt(WAL_SEGMENT_BYTES);
  builder.logicalMessage('a', new Uint8Array(10_000));
  const whole = builder.end;
  builder.logicalMessage('b', new Uint8Array(10_000));
  const boundaries = new RecordBoundaries(WAL_SEGMENT_BYTES);
  boundaries.feed(WAL_SEGMENT_BYTES, builder.bytes.subarray(0, builder.bytes.length - 1));
  expect(boundaries.position).toBe(whole);
});

test('after a log switch both readers go on at the next segment', () => {
  const from = WAL_SEGMENT_BYTES + 4096;
  const before = builderAt(from);
  const switchStart = before.append(RMGR_XLOG, 0x40, []);
  const after = new WalBuilder({
    lsn: 2 * WAL_SEGMENT_BYTES,
    previousStart: switchStart,
    pgVersion: PG_VERSION,
    systemId: SYSTEM_ID,
  });
  after.logicalMessage('after', new Uint8Array(5));
  const log = new Uint8Array(after.end - from);
  log.set(before.bytes);
  log.set(after.bytes, 2 * WAL_SEGMENT_BYTES - from);
  const boundaries = new RecordBoundaries(from);
  const decoder = new WalStreamDecoder(from, { pgVersion: PG_VERSION });
  const ends: number[] = [];
  let at = from;
  for (const chunk of cuts(log, 3, 100_000)) {
    boundaries.feed(at, chunk);
    decoder.feed(at, chunk);
    at += chunk.length;
    while (decoder.next()) ends.push(decoder.record.end);
  }
  expect(ends).toEqual([2 * WAL_SEGMENT_BYTES, after.end]);
  expect(boundaries.position).toBe(after.end);
});

test('a flipped bit anywhere in the log is reported as corruption, or needs more bytes, and never decodes', () => {
  const { builder, from, starts } = sampleLog();
  const pristine = builder.bytes.slice();
  for (let bit = 0; bit < pristine.length * 8; bit += 10_007) {
    const damaged = pristine.slice();
    damaged[bit >> 3]! ^= 1 << (bit & 7);
    const decoder = new WalStreamDecoder(from, { pgVersion: PG_VERSION });
    decoder.feed(from, damaged);
    let count = 0;
    let failed = false;
    try {
      while (decoder.next()) count++;
    } catch (error) {
      expect(error).toBeInstanceOf(CorruptWalError);
      failed = true;
    }
    // Padding between records and unused header bits carry no meaning.
    if (!failed) expect(count).toBeLessThanOrEqual(starts.length);
  }
});

test('page images come back with the zeros they were stored without', () => {
  const page = new Uint8Array(PAGE_BYTES).fill(7, 0, 3000);
  const builder = builderAt(WAL_SEGMENT_BYTES);
  const pages = Array.from({ length: 40 }, (_, block) => ({
    spc: 1663,
    db: 5,
    rel: 16384,
    fork: 1,
    block,
    page,
  }));
  builder.fullPageImages(pages);
  const decoder = new WalStreamDecoder(WAL_SEGMENT_BYTES, { pgVersion: PG_VERSION });
  decoder.feed(WAL_SEGMENT_BYTES, builder.bytes);
  const blocks: number[] = [];
  while (decoder.next()) {
    const record = decoder.record;
    for (let id = 0; id <= record.maxBlock; id++) {
      expect(record.hasAppliedImage(id)).toBe(true);
      expect(record.imageLength[id]).toBe(3000);
      expect([record.spc[id], record.db[id], record.rel[id], record.fork[id]]).toEqual([1663, 5, 16384, 1]);
      blocks.push(record.block[id]!);
    }
  }
  expect(blocks).toEqual(pages.map((p) => p.block));
});

test('a logical message carries prefix and payload', () => {
  const builder = builderAt(WAL_SEGMENT_BYTES);
  builder.file('pg_stat/pgstat.stat', new Uint8Array(300).fill(9));
  const decoder = new WalStreamDecoder(WAL_SEGMENT_BYTES, { pgVersion: PG_VERSION });
  decoder.feed(WAL_SEGMENT_BYTES, builder.bytes);
  expect(decoder.next()).toBe(true);
  expect(decoder.record.rmid).toBe(RMGR_LOGICAL_MESSAGE);
  expect(decoder.next()).toBe(false);
});

test('payload arithmetic over whole segments equals the walk page by page', () => {
  const walk = (start: number, length: number) => {
    let position = start;
    let left = length;
    for (;;) {
      const room = PAGE_BYTES - (position % PAGE_BYTES);
      if (left <= room) return position + left;
      left -= room;
      position += room;
      position += walPageHeaderBytes(position);
    }
  };
  for (const start of [WAL_SEGMENT_BYTES + 40, WAL_SEGMENT_BYTES * 2 - 8, 3 * WAL_SEGMENT_BYTES - 16_000]) {
    for (const length of [1, 100, 9000, 16_726_016, 16_727_000, 16_740_000, 40_000_000, 50_331_648]) {
      expect(advancePayload(start, length)).toBe(walk(start, length));
    }
  }
});
