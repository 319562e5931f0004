import { expect, test } from 'vitest';
import { PalimpsestError } from '../errors.ts';
import type { Block } from './block.ts';
import { decodeFooter } from './footer.ts';
import {
  BLOCK_BYTES_TARGET,
  DROPPED,
  ENTRY_IMAGE,
  ENTRY_INITIALISES,
  FOOTER_BYTES,
  KIND_DELTA,
  LAYER_VERSION,
  NO_CUT,
  TRAILER_VERSION_AT,
  VERSION_HEADER_BYTES,
} from './format.ts';
import { compareKeys, FIRST_KEY, formatKey, LAST_KEY, parseKey } from './key.ts';
import { LayerIndex, openIndexSections } from './reader.ts';
import { LayerState, openStateSections } from './state.ts';
import { LayerWriter } from './writer.ts';

const ACCOUNTS = { spc: 1663, db: 5, rel: 16384, fork: 0 };
const BRANCHES = { spc: 1663, db: 5, rel: 16400, fork: 0 };

function record(byte: number, length: number): Uint8Array {
  return new Uint8Array(length).fill(byte);
}

/** Bytes that do not compress. */
function noise(length: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0, x = seed; i < length; i++) {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    bytes[i] = x >>> 24;
  }
  return bytes;
}

/** Writes a layer the way a flush does: in pieces, taken as they come. */
function writeLayer(fill: (writer: LayerWriter, take: () => void) => void, level = 0): Uint8Array {
  const pieces: { position: number; bytes: Uint8Array }[] = [];
  const writer = new LayerWriter({ kind: KIND_DELTA, level, pgVersion: 17, startLsn: 1000, endLsn: 9000 });
  const keep = ({ position, bytes }: { position: number; bytes: Uint8Array }) =>
    pieces.push({ position, bytes: bytes.slice() });
  fill(writer, () => keep(writer.take()));
  keep(writer.finish());
  const last = pieces.at(-1)!;
  const file = new Uint8Array(last.position + last.bytes.length);
  for (const { position, bytes } of pieces) file.set(bytes, position);
  return file;
}

function smallLayer(): Uint8Array {
  return writeLayer((writer, take) => {
    writer.relation(ACCOUNTS);
    writer.size(1000, 3, NO_CUT);
    writer.size(4000, 1, 1);
    writer.size(5000, 8, NO_CUT);
    writer.record(0, { startLsn: 1000, endLsn: 1100, initialises: false }, record(1, 60), 0, 60);
    writer.record(0, { startLsn: 1200, endLsn: 1300, initialises: false }, record(2, 61), 0, 61);
    take();
    writer.record(0, { startLsn: 1400, endLsn: 1500, initialises: true }, record(3, 62), 0, 62);
    writer.image(2, 2000, new Uint8Array(8192).fill(9));
    writer.image(2, 3000, undefined);
    writer.record(2, { startLsn: 3000, endLsn: 3100, initialises: false }, noise(200_000), 0, 200_000);
    take();
    writer.relation(BRANCHES);
    writer.size(7000, DROPPED, 0);
    writer.value('relmap/5', 1000, record(7, 512));
    writer.value('relmap/5', 6000, null);
    writer.waypoint(1000, record(5, 100));
    writer.waypoint(9000, record(6, 120));
  });
}

interface OpenLayer {
  index: LayerIndex;
  state: LayerState;
  /** The entry of a page at an LSN, as a read finds it. */
  find(relation: number, page: number, lsn: number): { block: Block; entry: number } | undefined;
}

function openLayer(file: Uint8Array): OpenLayer {
  const footer = decodeFooter('test.layer', file.subarray(-FOOTER_BYTES));
  const index = new LayerIndex(footer, openIndexSections('test.layer', footer, file, 0));
  const state = new LayerState(openStateSections('test.layer', footer, file, 0));
  return {
    index,
    state,
    find(relation, page, lsn) {
      const number = index.findBlock(relation, page, lsn);
      if (number < 0) return undefined;
      const from = index.blockOffset[number]!;
      const stored = file.slice(from, from + index.blockStored[number]!);
      const block = index.openBlock('test.layer', number, stored);
      const entry = block.find(relation, page, lsn);
      return entry < 0 ? undefined : { block, entry };
    },
  };
}

test('what was written is found again', () => {
  const { index, find } = openLayer(smallLayer());
  expect(index.footer).toMatchObject({
    kind: KIND_DELTA,
    level: 0,
    pgVersion: 17,
    startLsn: 1000,
    endLsn: 9000,
    firstKey: FIRST_KEY,
    lastKey: LAST_KEY,
    entries: 5,
  });
  const accounts = index.relations.find(1663, 5, 16384, 0);
  expect(index.relations.tag(accounts)).toEqual(ACCOUNTS);
  expect(index.relations.find(1663, 5, 16384, 1)).toBe(-1);

  expect(find(accounts, 0, 1099)).toBeUndefined();
  const run = find(accounts, 0, 1499)!;
  expect(run.block.flags[run.entry]).toBe(0);
  const bytes = run.block.bytes(run.entry);
  expect(bytes.length).toBe(2 * VERSION_HEADER_BYTES + 64 + 64);
  expect(bytes[VERSION_HEADER_BYTES]).toBe(1);
  const anew = find(accounts, 0, 9000)!;
  expect(anew.block.flags[anew.entry]).toBe(ENTRY_INITIALISES);
  expect(find(accounts, 1, 9000)).toBeUndefined();

  const zeros = find(accounts, 2, 3050)!;
  expect(zeros.block.flags[zeros.entry]).toBe(ENTRY_IMAGE);
  expect(zeros.block.length[zeros.entry]).toBe(0);
  const image = find(accounts, 2, 2999)!;
  expect(image.block.bytes(image.entry)).toEqual(new Uint8Array(8192).fill(9));
  const long = find(accounts, 2, 9000)!;
  expect(long.block.bytes(long.entry).subarray(VERSION_HEADER_BYTES)).toEqual(noise(200_000));
});

test('a page with more versions than a block holds is found at every LSN, and says where it goes on', () => {
  const count = 2000;
  const file = writeLayer((writer) => {
    writer.relation(ACCOUNTS);
    for (let i = 0; i < count; i++) {
      writer.record(
        7,
        { startLsn: 1000 + i * 4, endLsn: 1004 + i * 4, initialises: false },
        noise(60),
        0,
        60,
      );
    }
    writer.record(8, { startLsn: 1000, endLsn: 1004, initialises: false }, noise(60), 0, 60);
  });
  const { index, find } = openLayer(file);
  expect(index.blockCount).toBeGreaterThan(3);
  expect(index.continues(0)).toBe(false);
  for (let block = 1; block < index.blockCount; block++) expect(index.continues(block)).toBe(true);
  for (const i of [0, 1, 500, 1999]) {
    const found = find(0, 7, 1004 + i * 4)!;
    expect(found.block.lsn[found.entry]).toBeLessThanOrEqual(1004 + i * 4);
  }
  expect(file.length).toBeLessThan(count * 84);
});

test('blocks of pages compress, noise stays as it is, and both are read back', () => {
  const pages = 200;
  const file = writeLayer((writer) => {
    writer.relation(ACCOUNTS);
    for (let page = 0; page < pages; page++) {
      writer.image(page, 5000, page < pages / 2 ? record(page, 8192) : noise(8192, page));
    }
  });
  const { index, find } = openLayer(file);
  expect(file.length).toBeLessThan((pages / 2) * 8192 + 60_000);
  expect(file.length).toBeGreaterThan((pages / 2) * 8192);
  expect(index.blockCount).toBeGreaterThan((pages * 8192) / BLOCK_BYTES_TARGET / 2);
  for (const page of [0, 1, 99, 100, 199]) {
    const { block, entry } = find(0, page, 5000)!;
    expect(block.bytes(entry)).toEqual(page < 100 ? record(page, 8192) : noise(8192, page));
  }
});

test('the filter knows every page of the layer and hardly any other', () => {
  const file = writeLayer((writer) => {
    writer.relation(ACCOUNTS);
    for (let page = 0; page < 6000; page += 3) {
      writer.record(page, { startLsn: 1000, endLsn: 1100, initialises: false }, record(1, 40), 0, 40);
    }
  });
  const { index } = openLayer(file);
  let falsePositives = 0;
  for (let page = 0; page < 6000; page++) {
    if (page % 3 === 0) expect(index.mayHold(0, page)).toBe(true);
    else if (index.mayHold(0, page)) falsePositives++;
  }
  expect(falsePositives).toBeLessThan(4000 * 0.03);
});

test('a layer of level 1 covers its pages, and of a relation that was cut all blocks', () => {
  const fill = (writer: LayerWriter) => {
    writer.relation(ACCOUNTS);
    writer.record(5, { startLsn: 1000, endLsn: 1100, initialises: false }, record(1, 40), 0, 40);
    writer.record(9, { startLsn: 1000, endLsn: 1100, initialises: false }, record(1, 40), 0, 40);
  };
  const plain = openLayer(writeLayer(fill, 1)).index.footer;
  expect(plain.firstKey).toEqual({ ...ACCOUNTS, block: 5 });
  expect(plain.lastKey).toEqual({ ...ACCOUNTS, block: 9 });
  const cut = openLayer(
    writeLayer((writer) => {
      fill(writer);
      writer.relation(BRANCHES);
      writer.cut(2000, 3);
      writer.record(1, { startLsn: 1000, endLsn: 1100, initialises: false }, record(1, 40), 0, 40);
    }, 1),
  ).index;
  expect(cut.footer.lastKey).toEqual({ ...BRANCHES, block: LAST_KEY.block });
  expect(cut.cutBefore(1, 3, 2000)).toBe(2000);
  expect(cut.cutBefore(1, 2, 2000)).toBe(-1);
});

test('sizes, cuts, values and waypoints keep their history', () => {
  const { index, state } = openLayer(smallLayer());
  const accounts = state.relations.find(1663, 5, 16384, 0);
  expect([999, 1000, 4000, 4999, 5000].map((lsn) => state.sizeAt(accounts, lsn))).toEqual([
    undefined,
    3,
    1,
    1,
    8,
  ]);
  expect(index.cutBefore(accounts, 0, 9000)).toBe(-1);
  expect(index.cutBefore(accounts, 2, 3999)).toBe(-1);
  expect(index.cutBefore(accounts, 2, 9000)).toBe(4000);
  const branches = state.relations.find(1663, 5, 16400, 0);
  expect(state.sizeAt(branches, 8000)).toBe(DROPPED);
  const values: [string, number, number | null][] = [];
  state.forEachValue((key, lsn, data) => values.push([key, lsn, data?.length ?? null]));
  expect(values).toEqual([
    ['relmap/5', 1000, 512],
    ['relmap/5', 6000, null],
  ]);
  const waypoints: [number, number][] = [];
  state.forEachWaypoint((lsn, data) => waypoints.push([lsn, data.length]));
  expect(waypoints).toEqual([
    [1000, 100],
    [9000, 120],
  ]);
});

test('a flipped byte anywhere behind the header is reported with the file and the part', () => {
  const pristine = smallLayer();
  const blocks = openLayer(pristine).index;
  for (let at = 16; at < pristine.length; at += at < 200_000 ? 9001 : 13) {
    const damaged = pristine.slice();
    damaged[at]! ^= 0x10;
    let caught: unknown;
    try {
      openLayer(damaged);
      for (let block = 0; block < blocks.blockCount; block++) {
        const from = blocks.blockOffset[block]!;
        blocks.openBlock('test.layer', block, damaged.slice(from, from + blocks.blockStored[block]!));
      }
    } catch (error) {
      caught = error;
    }
    expect(caught, `byte ${at}`).toBeInstanceOf(PalimpsestError);
    expect((caught as PalimpsestError).code).toMatch(/corrupt|unsupported/);
    expect((caught as PalimpsestError).message).toMatch(/test\.layer/);
  }
});

test('a file of a newer version, a short one and one of something else are refused by name', () => {
  const file = smallLayer();
  const newer = file.slice();
  new DataView(newer.buffer).setUint32(newer.length + TRAILER_VERSION_AT, LAYER_VERSION + 1, true);
  expect(() => decodeFooter('new.layer', newer.subarray(-FOOTER_BYTES))).toThrow(
    /new\.layer has format version 3, newer than 2/,
  );
  expect(() => decodeFooter('old.layer', file.slice(0, FOOTER_BYTES))).toThrow(/old\.layer/);
  expect(() => decodeFooter('short.layer', new Uint8Array(3))).toThrow(/short\.layer.*too short/);
});

test('keys order as their texts do', () => {
  const keys = [
    FIRST_KEY,
    { ...ACCOUNTS, block: 0 },
    { ...ACCOUNTS, block: 70_000 },
    { ...ACCOUNTS, fork: 1, block: 0 },
    { ...BRANCHES, block: 3 },
    LAST_KEY,
  ];
  for (let i = 1; i < keys.length; i++) {
    expect(compareKeys(keys[i - 1]!, keys[i]!)).toBeLessThan(0);
    expect(formatKey(keys[i - 1]!) < formatKey(keys[i]!)).toBe(true);
  }
  for (const key of keys) expect(parseKey(formatKey(key))).toEqual(key);
});
