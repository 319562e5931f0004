import { expect, test } from 'vitest';
import { type Lsn, WAL_SEGMENT_BYTES } from '../../lsn.ts';
import type { CheckpointFields } from '../../pages/types.ts';
import { readU32, writeU16, writeU32, writeU64 } from '../bytes.ts';
import { crc32c } from '../crc32c.ts';
import { WalBuilder } from '../wal/record-builder.ts';
import {
  RMGR_DATABASE,
  RMGR_LOGICAL_MESSAGE,
  RMGR_MULTIXACT,
  RMGR_REPLICATION_ORIGIN,
  RMGR_STORAGE,
  RMGR_TRANSACTION,
  RMGR_XLOG,
} from '../wal/resource-managers.ts';
import { WalStreamDecoder } from '../wal/stream-decoder.ts';
import { slruFilePath, twoPhaseFilePath } from './data-files.ts';
import { TimelineStateFold } from './fold.ts';
import { NEW_CLUSTER_CHECKPOINT, newClusterState } from './new-cluster.ts';
import { replicationOriginFile } from './origins.ts';
import type { StateSink } from './sink.ts';
import { decodeTimelineState, encodeTimelineState } from './snapshot.ts';
import { advanceXid, fullXid } from './transaction-ids.ts';

const CHECKPOINT: CheckpointFields = { ...NEW_CLUSTER_CHECKPOINT, time: 1_700_000_000 };

function newFold(): TimelineStateFold {
  return new TimelineStateFold(newClusterState({ checkpoint: CHECKPOINT }));
}

/** Records sink calls as text. */
class RecordingSink implements StateSink {
  readonly calls: string[] = [];
  readonly values = new Map<string, Uint8Array | null>();
  truncateRelation(...args: number[]): void {
    this.calls.push(`truncate ${args.join('/')}`);
  }
  createRelation(...args: number[]): void {
    this.calls.push(`create ${args.join('/')}`);
  }
  dropRelation(...args: number[]): void {
    this.calls.push(`drop ${args.join('/')}`);
  }
  createDatabase(...args: number[]): void {
    this.calls.push(`create database ${args.join('/')}`);
  }
  dropDatabase(db: number): void {
    this.calls.push(`drop database ${db}`);
  }
  copyDatabase(...args: number[]): void {
    this.calls.push(`copy database ${args.join('/')}`);
  }
  putValue(key: string, value: Uint8Array | null): void {
    this.values.set(key, value);
  }
  truncateSlru(...args: number[]): void {
    this.calls.push(`truncate slru ${args.join('/')}`);
  }
}

interface RecordInput {
  rmid: number;
  info: number;
  main: Uint8Array;
}

/** Lays the records out as WAL, decodes them and folds each. */
function foldRecords(fold: TimelineStateFold, sink: StateSink, records: RecordInput[], pgVersion = 17): void {
  const builder = new WalBuilder({ lsn: WAL_SEGMENT_BYTES, previousStart: 0, pgVersion, systemId: 1n });
  for (const { rmid, info, main } of records) {
    const header = new Uint8Array(5);
    header[0] = 254;
    writeU32(header, 1, main.length);
    builder.append(rmid, info, [header, main]);
  }
  const decoder = new WalStreamDecoder(WAL_SEGMENT_BYTES, { pgVersion });
  decoder.feed(WAL_SEGMENT_BYTES, builder.bytes);
  while (decoder.next()) fold.apply(decoder.record, sink);
  expect(decoder.position).toBe(builder.end);
}

/** u32 values one after another; a number as [n, 8] takes eight bytes. */
function bytesOf(...values: (number | [number, number])[]): Uint8Array {
  const bytes = new Uint8Array(
    values.reduce<number>((sum, v) => sum + (typeof v === 'number' ? 4 : v[1]), 0),
  );
  let at = 0;
  for (const value of values) {
    if (typeof value === 'number') {
      writeU32(bytes, at, value);
      at += 4;
    } else {
      if (value[1] === 8) writeU64(bytes, at, value[0]);
      else bytes.fill(value[0], at, at + value[1]);
      at += value[1];
    }
  }
  return bytes;
}

const COMMIT_WITH_INFO = 0x80;

test('a commit moves the next xid past its subtransactions, notes its time and drops relations', () => {
  const fold = newFold();
  const sink = new RecordingSink();
  const timeUs = 1_000_000;
  const main = bytesOf([timeUs, 8], 2 | 4, 2, 1500, 1501, 1, 1663, 5, 16_384);
  foldRecords(fold, sink, [{ rmid: RMGR_TRANSACTION, info: COMMIT_WITH_INFO, main }]);
  expect(fold.fields.nextXid).toBe(1502);
  expect(fold.newestCommitTime).toBe(946_684_801_000);
  expect(sink.calls).toEqual(['drop 1663/5/16384']);
});

test('an abort drops relations too and leaves the newest commit time alone', () => {
  const fold = newFold();
  const sink = new RecordingSink();
  const main = bytesOf([5, 8], 4, 1, 1663, 5, 777);
  foldRecords(fold, sink, [{ rmid: RMGR_TRANSACTION, info: 0x20 | COMMIT_WITH_INFO, main }]);
  expect(sink.calls).toEqual(['drop 1663/5/777']);
  expect(fold.newestCommitTime).toBe(0);
});

test.each([
  [15, 12],
  [18, 16],
])('dropped statistics of version %i are skipped by their size', (pgVersion, itemBytes) => {
  const fold = newFold();
  const sink = new RecordingSink();
  const main = bytesOf([0, 8], 4 | 256 | 16, 1, 1663, 5, 16_384, 2, [7, 2 * itemBytes], 1234);
  foldRecords(fold, sink, [{ rmid: RMGR_TRANSACTION, info: 0x30 | COMMIT_WITH_INFO, main }], pgVersion);
  expect(sink.values.get('twophase/1234')).toBeNull();
});

test('a prepared transaction is kept with its checksum until it ends', () => {
  const fold = newFold();
  const sink = new RecordingSink();
  const state = new Uint8Array(96);
  writeU32(state, 8, 2000);
  writeU32(state, 28, 1);
  writeU16(state, 54, 3);
  writeU32(state, 80, 2001);
  foldRecords(fold, sink, [{ rmid: RMGR_TRANSACTION, info: 0x10, main: state }]);
  const file = sink.values.get('twophase/2000')!;
  expect(file.subarray(0, 96)).toEqual(state);
  expect(readU32(file, 96)).toBe(crc32c(state));
  expect(fold.fields.nextXid).toBe(2002);
});

test('shutdown checkpoints, oids, full-page writes and parameters are taken over', () => {
  const fold = newFold();
  const sink = new RecordingSink();
  const parameters = bytesOf(50, 4, 3, 2, 32, 2, [1, 1], [1, 1]);
  foldRecords(fold, sink, [
    { rmid: RMGR_XLOG, info: 0x30, main: bytesOf(24_576) },
    { rmid: RMGR_XLOG, info: 0x80, main: new Uint8Array(1) },
    { rmid: RMGR_XLOG, info: 0x60, main: parameters },
  ]);
  expect(fold.fields).toMatchObject({
    nextOid: 24_576,
    fullPageWrites: false,
    walLevel: 2,
    oldestCommitTsXid: 1000,
  });
  expect(fold.parameters).toMatchObject({ maxConnections: 50, maxWalSenders: 3, trackCommitTimestamp: true });
  expect(fold.lastWasShutdownCheckpoint).toBe(false);
});

test('a multixact moves both its counters and the next xid', () => {
  const fold = newFold();
  const main = bytesOf(9, 40, 2, 3000, 1, 3005, 4);
  foldRecords(fold, new RecordingSink(), [{ rmid: RMGR_MULTIXACT, info: 0x20, main }]);
  expect(fold.fields).toMatchObject({ nextMulti: 10, nextMultiOffset: 42, nextXid: 3006 });
});

test('relations and databases are created, cut, copied and dropped', () => {
  const sink = new RecordingSink();
  foldRecords(newFold(), sink, [
    { rmid: RMGR_STORAGE, info: 0x10, main: bytesOf(1663, 5, 16_384, 0) },
    { rmid: RMGR_STORAGE, info: 0x20, main: bytesOf(40_000, 1663, 5, 16_384, 7) },
    { rmid: RMGR_DATABASE, info: 0x00, main: bytesOf(20_000, 1663, 5, 1663) },
    { rmid: RMGR_DATABASE, info: 0x10, main: bytesOf(20_001, 1663) },
    { rmid: RMGR_DATABASE, info: 0x20, main: bytesOf(20_001, 1, 1663) },
  ]);
  expect(sink.calls).toEqual([
    'create 1663/5/16384/0',
    'truncate 1663/5/16384/0/40000',
    'truncate 1663/5/16384/2/2',
    'truncate 1663/5/16384/1/0',
    'create database 20000/1663',
    'copy database 5/20000/1663/1663',
    'create database 20001/1663',
    'drop database 20001',
  ]);
});

test('files that a compute shipped are kept; other messages are not', () => {
  const fold = newFold();
  const sink = new RecordingSink();
  const builder = new WalBuilder({ lsn: WAL_SEGMENT_BYTES, previousStart: 0, pgVersion: 17, systemId: 1n });
  builder.file('pg_stat/pgstat.stat', Uint8Array.of(1, 2, 3));
  builder.logicalMessage('other', Uint8Array.of(9));
  const decoder = new WalStreamDecoder(WAL_SEGMENT_BYTES, { pgVersion: 17 });
  decoder.feed(WAL_SEGMENT_BYTES, builder.bytes);
  while (decoder.next()) {
    expect(decoder.record.rmid).toBe(RMGR_LOGICAL_MESSAGE);
    fold.apply(decoder.record, sink);
  }
  expect([...sink.values]).toEqual([['file/pg_stat/pgstat.stat', Uint8Array.of(1, 2, 3)]]);
});

test('replication origins move forward only, unless forced, and go when dropped', () => {
  const fold = newFold();
  const sink = new RecordingSink();
  const set = (lsn: number, force: number) => bytesOf([lsn, 8], 7 | (force << 16));
  foldRecords(fold, sink, [
    { rmid: RMGR_REPLICATION_ORIGIN, info: 0, main: set(500, 0) },
    { rmid: RMGR_REPLICATION_ORIGIN, info: 0, main: set(400, 0) },
  ]);
  expect([...fold.origins.entries()]).toEqual([[7, 500]]);
  expect(replicationOriginFile(fold.origins.entries()).length).toBe(4 + 16 + 4);
  foldRecords(fold, sink, [{ rmid: RMGR_REPLICATION_ORIGIN, info: 0, main: set(300, 1) }]);
  expect([...fold.origins.entries()]).toEqual([[7, 300]]);
  foldRecords(fold, sink, [{ rmid: RMGR_REPLICATION_ORIGIN, info: 0x10, main: bytesOf(7) }]);
  expect([...fold.origins.entries()]).toEqual([]);
  expect(sink.values.get('origin/7')).toBeNull();
});

test('state survives being stored, and damaged bytes are refused', () => {
  const fold = newFold();
  fold.sawCommitAt(1_234_567_890_123.5);
  fold.lastRecordStart = 1000 as Lsn;
  fold.lastRecordEnd = 1120 as Lsn;
  fold.lastWasShutdownCheckpoint = true;
  fold.fields.nextXid = 5 * 2 ** 32 + 9;
  fold.origins.advance(3, 4711, false);
  for (const pgVersion of [15, 17]) {
    const bytes = encodeTimelineState(fold, pgVersion);
    expect(decodeTimelineState(bytes).snapshot()).toEqual(fold.snapshot());
    expect(() => decodeTimelineState(bytes.subarray(1))).toThrow(/damaged/);
    expect(() => decodeTimelineState(bytes.subarray(0, 100))).toThrow(/damaged/);
  }
});

test('transaction ids wrap into the next epoch', () => {
  expect(advanceXid(1000, 5)).toBe(1000);
  expect(advanceXid(1000, 1000)).toBe(1001);
  expect(advanceXid(1000, 2)).toBe(1000);
  expect(advanceXid(2 ** 32 - 10, 2 ** 32 - 1)).toBe(2 ** 32 + 3);
  expect(advanceXid(2 ** 32 - 10, 20)).toBe(2 ** 32 + 21);
  expect(fullXid(2 ** 32 + 21, 20)).toBe(2 ** 32 + 20);
  expect(fullXid(2 ** 32 + 21, 2 ** 32 - 5)).toBe(2 ** 32 - 5);
});

test('small files are named as the version names them', () => {
  expect(twoPhaseFilePath(16, 0xabc, 5000)).toBe('pg_twophase/00000ABC');
  expect(twoPhaseFilePath(17, 0xabc, 2 ** 32 + 0xfff)).toBe('pg_twophase/0000000100000ABC');
  expect(slruFilePath(1, 33)).toBe('pg_xact/0001');
  expect(slruFilePath(3, 31)).toBe('pg_multixact/members/0000');
});
