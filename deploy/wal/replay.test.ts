import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { TimelineStateFold } from '../../protocols/postgres/state/fold.ts';
import { newClusterState } from '../../protocols/postgres/state/new-cluster.ts';
import { DecodedRecord } from '../../protocols/postgres/wal/record.ts';
import { RMGR_HEAP, RMGR_XLOG } from '../../protocols/postgres/wal/resource-managers.ts';
import { PageStore } from './page-store.ts';
import { Replay } from './replay.ts';

const HEAP_INSERT_INIT = 0x80;
const XLOG_FPI_FOR_HINT = 0xa0;

const folder = mkdtempSync(join(tmpdir(), 'replay-'));
for (const name of ['global', 'base']) mkdirSync(join(folder, name));
afterAll(() => rmSync(folder, { recursive: true }));

/** A record with `main` after `data` of its only block reference, to block 3 of relation 1663/5/100. */
function record(rmid: number, info: number, data: Uint8Array, main: Uint8Array): DecodedRecord {
  const made = new DecodedRecord(17);
  made.bytes = Uint8Array.of(...data, ...main);
  made.dataLength[0] = data.length;
  made.mainOffset = data.length;
  made.mainLength = main.length;
  made.rmid = rmid;
  made.info = info;
  made.xid = 50;
  made.end = 4096;
  made.maxBlock = 0;
  made.inUse[0] = 1;
  made.spc[0] = 1663;
  made.db[0] = 5;
  made.rel[0] = 100;
  made.block[0] = 3;
  return made;
}

test('a hint that was logged without an image leaves a page to the resource manager that made its content', () => {
  const store = new PageStore(folder);
  const replay = new Replay(store, new TimelineStateFold(newClusterState()));
  const header = Uint8Array.of(1, 0, 2, 8, 24);
  replay.apply(
    record(RMGR_HEAP, HEAP_INSERT_INIT, Uint8Array.of(...header, 0, 7, 7), Uint8Array.of(1, 0, 0)),
  );
  const content = store.page(1663, 5, 100, 0, 3).slice();
  replay.apply(record(RMGR_XLOG, XLOG_FPI_FOR_HINT, new Uint8Array(0), new Uint8Array(0)));
  expect(replay.findings).toEqual([]);
  expect(store.page(1663, 5, 100, 0, 3)).toEqual(content);
  // Pages are compared up to what their resource manager leaves open, so this says what is masked.
  expect(store.relation(1663, 5, 100, 0).pages.changedBy(3)).toBe(RMGR_HEAP);
  store.close();
});
