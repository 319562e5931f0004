import { expect, test } from 'vitest';
import { writeU16, writeU32, writeU64 } from '../bytes.ts';
import { DecodedRecord } from '../wal/record.ts';
import {
  RMGR_CLOG,
  RMGR_HEAP,
  RMGR_MULTIXACT,
  RMGR_STORAGE,
  RMGR_TRANSACTION,
} from '../wal/resource-managers.ts';
import { applyRecordToPage, forEachTouchedPage } from './pages.ts';
import { HEAP_BLOCKS_PER_VM_PAGE, setVmBits } from './visibility-map.ts';

interface BlockInput {
  fork?: number;
  block: number;
  flags?: number;
}

/** A decoded record of relation 1663/5/100 made by hand. */
function record(rmid: number, info: number, main: Uint8Array, blocks: BlockInput[] = []): DecodedRecord {
  const made = new DecodedRecord(17);
  made.bytes = main;
  made.mainLength = main.length;
  made.rmid = rmid;
  made.info = info;
  made.xid = 50;
  made.end = 4096;
  made.maxBlock = blocks.length - 1;
  blocks.forEach((block, id) => {
    made.inUse[id] = 1;
    made.spc[id] = 1663;
    made.db[id] = 5;
    made.rel[id] = 100;
    made.fork[id] = block.fork ?? 0;
    made.block[id] = block.block;
    made.flags[id] = block.flags ?? 0;
  });
  return made;
}

function touched(made: DecodedRecord, trackCommitTimestamp = false): string[] {
  const pages: string[] = [];
  forEachTouchedPage(
    made,
    (spc, db, rel, fork, block, initialises) => {
      pages.push(`${spc}/${db}/${rel}.${fork} ${block}${initialises ? ' init' : ''}`);
    },
    trackCommitTimestamp,
  );
  return pages;
}

function updateMain(flags: number): Uint8Array {
  const main = new Uint8Array(14);
  main[7] = flags;
  return main;
}

test('a heap insert that clears visibility also touches the map page, without a reference to it', () => {
  const block = HEAP_BLOCKS_PER_VM_PAGE + 5;
  const made = record(RMGR_HEAP, 0x00, Uint8Array.of(1, 0, 1), [{ block }]);
  expect(touched(made)).toEqual([`1663/5/100.0 ${block}`, '1663/5/100.2 1']);
});

test('a map page that the record references is not touched twice', () => {
  const made = record(RMGR_HEAP, 0x00, Uint8Array.of(1, 0, 1), [{ block: 7 }, { fork: 2, block: 0 }]);
  expect(touched(made)).toEqual(['1663/5/100.0 7', '1663/5/100.2 0']);
});

test('an update over two heap pages touches one map page or two', () => {
  const near = record(RMGR_HEAP, 0x20, updateMain(3), [{ block: 1 }, { block: 2 }]);
  expect(touched(near)).toEqual(['1663/5/100.0 1', '1663/5/100.0 2', '1663/5/100.2 0']);
  const far = record(RMGR_HEAP, 0x20, updateMain(3), [{ block: 1 }, { block: HEAP_BLOCKS_PER_VM_PAGE }]);
  expect(touched(far).slice(2)).toEqual(['1663/5/100.2 1', '1663/5/100.2 0']);
});

test('redo of a map page clears the bits of every heap page that the record names on it', () => {
  const page = new Uint8Array(8192);
  for (const block of [1, 2, 3]) setVmBits(page, block, 3);
  const made = record(RMGR_HEAP, 0x20, updateMain(3), [{ block: 1 }, { block: 3 }]);
  applyRecordToPage(made, page, 1663, 5, 100, 2, 0);
  expect(setVmBits(page, 2, 3)).toBe(false);
  expect([page[24]]).toEqual([3 << 4]);
});

test('a map page that a heap record references without clearing bits is refused, not changed as a heap page', () => {
  const made = record(RMGR_HEAP, 0x00, Uint8Array.of(1, 0, 0), [{ block: 7 }, { fork: 2, block: 0 }]);
  expect(() => applyRecordToPage(made, new Uint8Array(8192), 1663, 5, 100, 2, 0)).toThrow(/Heap\/INSERT/);
});

test('a truncation in the middle of a map page touches that page and clears the rest of it', () => {
  const main = new Uint8Array(20);
  writeU32(main, 0, HEAP_BLOCKS_PER_VM_PAGE + 2);
  writeU32(main, 4, 1663);
  writeU32(main, 8, 5);
  writeU32(main, 12, 100);
  writeU32(main, 16, 7);
  const made = record(RMGR_STORAGE, 0x20, main);
  expect(touched(made)).toEqual(['1663/5/100.2 1']);
  const page = new Uint8Array(8192);
  for (let i = 0; i < 6; i++) setVmBits(page, HEAP_BLOCKS_PER_VM_PAGE + i, 3);
  applyRecordToPage(made, page, 1663, 5, 100, 2, 1);
  expect([page[24], page[25]]).toEqual([0x0f, 0]);
});

test('a truncation at a map page boundary touches none', () => {
  const main = new Uint8Array(20);
  writeU32(main, 0, HEAP_BLOCKS_PER_VM_PAGE);
  writeU32(main, 16, 7);
  expect(touched(record(RMGR_STORAGE, 0x20, main))).toEqual([]);
});

test('a commit touches the status page of each of its transactions, and timestamps where they are tracked', () => {
  const main = new Uint8Array(8 + 4 + 4 + 3 * 4);
  writeU32(main, 8, 2);
  writeU32(main, 12, 3);
  writeU32(main, 16, 60);
  writeU32(main, 20, 32_768);
  writeU32(main, 24, 32_769);
  const made = record(RMGR_TRANSACTION, 0x80, main);
  expect(touched(made)).toEqual(['0/0/1.0 0', '0/0/1.0 1']);
  expect(touched(made, true)).toEqual(['0/0/1.0 0', '0/0/1.0 1', '0/0/4.0 0', '0/0/4.0 40']);
  const page = new Uint8Array(8192);
  applyRecordToPage(made, page, 0, 0, 1, 0, 1);
  expect(page[0]).toBe(0b0101);
});

test('a multixact touches its offset, the next one and the pages of its members', () => {
  const main = new Uint8Array(12 + 2 * 8);
  writeU32(main, 0, 2047);
  writeU32(main, 4, 1635);
  writeU32(main, 8, 2);
  writeU32(main, 12, 500);
  writeU32(main, 20, 501);
  main[24] = 4;
  const made = record(RMGR_MULTIXACT, 0x20, main);
  expect(touched(made)).toEqual(['0/0/2.0 0', '0/0/2.0 1', '0/0/3.0 0', '0/0/3.0 1']);
  const offsets = new Uint8Array(8192);
  applyRecordToPage(made, offsets, 0, 0, 2, 0, 1);
  expect(offsets[0]! | (offsets[1]! << 8)).toBe(1637);
  const members = new Uint8Array(8192);
  applyRecordToPage(made, members, 0, 0, 3, 0, 1);
  expect([members[0], members[4]! | (members[5]! << 8)]).toEqual([4, 501]);
});

test('a new page of a status log is made of zeros', () => {
  const main = new Uint8Array(8);
  writeU64(main, 0, 9);
  const made = record(RMGR_CLOG, 0x00, main);
  expect(touched(made)).toEqual(['0/0/1.0 9 init']);
  const page = new Uint8Array(8192).fill(5);
  applyRecordToPage(made, page, 0, 0, 1, 0, 9);
  expect(page.every((byte) => byte === 0)).toBe(true);
});

test('page numbers of status logs have four bytes before version 17', () => {
  const main = new Uint8Array(4);
  writeU16(main, 0, 300);
  const made = Object.assign(record(RMGR_CLOG, 0x00, main), { pgVersion: 15 });
  expect(touched(made)).toEqual(['0/0/1.0 300 init']);
});
