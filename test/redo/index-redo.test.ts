/**
 * Redo of hash, GIN, GiST, SP-GiST, BRIN and generic WAL against stock Postgres' images and its own recovery.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type ReplayResult, replayAndCompare, total } from '../../deploy/wal/replay.ts';
import { type OracleRun, recordRun, recoverWithStock } from './cluster.ts';
import { compareWithRecovered, type RecoveredComparison } from './compare-recovered.ts';
import { runIndexWorkload } from './index-workload.ts';

const SETTINGS = { wal_consistency_checking: 'all', full_page_writes: 'off' };

let recorded: OracleRun | undefined;
let replayed: ReplayResult;
let recovered: RecoveredComparison;

beforeAll(async () => {
  recorded = await recordRun(SETTINGS, runIndexWorkload);
  replayed = replayAndCompare(recorded.base, recorded.wal);
  recovered = await recoverWithStock(recorded, SETTINGS, (data) =>
    compareWithRecovered(replayed.store, replayed.fold, data),
  );
}, 400_000);

afterAll(() => recorded?.destroy());

test('redo reproduces every index page image that Postgres logged for comparison', () => {
  expect(replayed.findings).toEqual([]);
  const sum = total(replayed.tallies);
  expect(sum).toMatchObject({ different: 0, failed: 0, unsupported: 0 });
  expect(sum.equal).toBeGreaterThan(100_000);
});

test.each([
  'BRIN/CREATE_INDEX',
  'BRIN/DESUMMARIZE',
  'BRIN/INSERT',
  'BRIN/REVMAP_EXTEND',
  'BRIN/SAMEPAGE_UPDATE',
  'BRIN/UPDATE',
  'Generic/GENERIC',
  'Gin/CREATE_PTREE',
  'Gin/DELETE_LISTPAGE',
  'Gin/DELETE_PAGE',
  'Gin/INSERT',
  'Gin/INSERT_LISTPAGE',
  'Gin/UPDATE_META_PAGE',
  'Gin/VACUUM_DATA_LEAF_PAGE',
  'Gist/PAGE_DELETE',
  'Gist/PAGE_SPLIT',
  'Gist/PAGE_UPDATE',
  'Hash/ADD_OVFL_PAGE',
  'Hash/DELETE',
  'Hash/INIT_BITMAP_PAGE',
  'Hash/INIT_META_PAGE',
  'Hash/INSERT',
  'Hash/MOVE_PAGE_CONTENTS',
  'Hash/SPLIT_ALLOCATE_PAGE',
  'Hash/SPLIT_COMPLETE',
  'Hash/SQUEEZE_PAGE',
  'Hash/UPDATE_META_PAGE',
  'Hash/VACUUM_ONE_PAGE',
  'SPGist/ADD_LEAF',
  'SPGist/ADD_NODE',
  'SPGist/MOVE_LEAFS',
  'SPGist/PICKSPLIT',
  'SPGist/SPLIT_TUPLE',
  'SPGist/VACUUM_LEAF',
  'SPGist/VACUUM_REDIRECT',
  'SPGist/VACUUM_ROOT',
])('the workload reached %s', (name) => {
  expect(replayed.tallies.get(name)?.equal).toBeGreaterThan(0);
});

test.each(['Gist/DELETE', 'Gin/SPLIT', 'Gin/VACUUM_PAGE', 'Hash/SPLIT_PAGE'])(
  'the workload has %s',
  (name) => {
    expect(replayed.tallies.get(name)?.records).toBeGreaterThan(0);
  },
);

test('index pages equal those of a stock recovery', () => {
  expect(recovered.findings).toEqual([]);
  expect(recovered.pages).toBeGreaterThan(1000);
});
