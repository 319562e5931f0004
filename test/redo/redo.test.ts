/**
 * Redo against stock Postgres: every after-image of a workload, and the data directory that Postgres itself recovers.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type ReplayResult, replayAndCompare, total } from '../../deploy/wal/replay.ts';
import { type OracleRun, recordRun, recoverWithStock } from './cluster.ts';
import { compareWithRecovered, type RecoveredComparison } from './compare-recovered.ts';
import { runWorkload } from './workload.ts';

const SETTINGS = { wal_consistency_checking: 'all', full_page_writes: 'off' };

let recorded: OracleRun | undefined;
let replayed: ReplayResult;
let recovered: RecoveredComparison;

beforeAll(async () => {
  recorded = await recordRun(SETTINGS, runWorkload);
  replayed = replayAndCompare(recorded.base, recorded.wal);
  recovered = await recoverWithStock(recorded, SETTINGS, (data) =>
    compareWithRecovered(replayed.store, replayed.fold, data),
  );
}, 400_000);

afterAll(() => recorded?.destroy());

test('redo reproduces every page image that Postgres logged for comparison', () => {
  expect(replayed.findings).toEqual([]);
  const sum = total(replayed.tallies);
  expect(sum).toMatchObject({ different: 0, failed: 0, unsupported: 0 });
  expect(sum.equal).toBeGreaterThan(100_000);
});

test.each([
  'Btree/DEDUP',
  'Btree/DELETE',
  'Btree/INSERT_POST',
  'Btree/MARK_PAGE_HALFDEAD',
  'Btree/NEWROOT',
  'Btree/SPLIT_L',
  'Btree/SPLIT_R',
  'Btree/UNLINK_PAGE',
  'Btree/VACUUM',
  'Heap/CONFIRM',
  'Heap/HOT_UPDATE',
  'Heap/INPLACE',
  'Heap/LOCK',
  'Heap/UPDATE+INIT',
  'Heap2/LOCK_UPDATED',
  'Heap2/MULTI_INSERT+INIT',
  'Heap2/PRUNE_ON_ACCESS',
  'Heap2/PRUNE_VACUUM_CLEANUP',
  'Heap2/PRUNE_VACUUM_SCAN',
  'Heap2/VISIBLE',
  'Sequence/LOG',
])('the workload reached %s', (name) => {
  expect(replayed.tallies.get(name)?.equal).toBeGreaterThan(0);
});

test.each(['CLOG/ZEROPAGE', 'MultiXact/ZERO_OFF_PAGE', 'MultiXact/ZERO_MEM_PAGE', 'MultiXact/CREATE_ID'])(
  'the workload has %s',
  (name) => {
    expect(replayed.tallies.get(name)?.records).toBeGreaterThan(0);
  },
);

test('pages, visibility maps, transaction status, sizes and small files equal those of a stock recovery', () => {
  expect(recovered.findings).toEqual([]);
  expect(recovered.vmPages).toBeGreaterThan(0);
  expect(recovered.slruPages).toBeGreaterThan(6);
  expect(recovered.preparedTransactions).toBe(1);
  expect(recovered.replicationOrigins).toBe(1);
});
