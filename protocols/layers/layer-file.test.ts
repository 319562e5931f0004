import { expect, test } from 'vitest';
import { PalimpsestError } from '../errors.ts';
import {
  DROPPED,
  ENTRY_IMAGE,
  ENTRY_INITIALISES,
  FOOTER_BYTES,
  KIND_DELTA,
  NO_CUT,
  VERSION_HEADER_BYTES,
} from './format.ts';
import { decodeFooter, LayerIndex } from './reader.ts';
import { LayerWriter } from './writer.ts';

const ACCOUNTS = { spc: 1663, db: 5, rel: 16384, fork: 0 };
const BRANCHES = { spc: 1663, db: 5, rel: 16400, fork: 0 };

function record(byte: number, length: number): Uint8Array {
  return new Uint8Array(length).fill(byte);
}

/** Writes a small layer the way a flush does: in pieces, taken as they come. */
function writeLayer(): Uint8Array {
  const pieces: { position: number; bytes: Uint8Array }[] = [];
  const writer = new LayerWriter({ kind: KIND_DELTA, pgVersion: 17, startLsn: 1000, endLsn: 9000 });
  const keep = ({ position, bytes }: { position: number; bytes: Uint8Array }) =>
    pieces.push({ position, bytes: bytes.slice() });
  writer.relation(ACCOUNTS);
  writer.size(1000, 3, NO_CUT);
  writer.size(4000, 1, 1);
  writer.size(5000, 8, NO_CUT);
  writer.record(0, { startLsn: 1000, endLsn: 1100, initialises: false }, record(1, 60), 0, 60);
  writer.record(0, { startLsn: 1200, endLsn: 1300, initialises: false }, record(2, 61), 0, 61);
  keep(writer.take());
  writer.record(0, { startLsn: 1400, endLsn: 1500, initialises: true }, record(3, 62), 0, 62);
  writer.image(2, 2000, new Uint8Array(8192).fill(9));
  writer.image(2, 3000, undefined);
  writer.record(2, { startLsn: 3000, endLsn: 3100, initialises: false }, record(4, 200_000), 0, 200_000);
  keep(writer.take());
  writer.relation(BRANCHES);
  writer.size(7000, DROPPED, 0);
  writer.value('relmap/5', 1000, record(7, 512));
  writer.value('relmap/5', 6000, null);
  writer.waypoint(1000, record(5, 100));
  writer.waypoint(9000, record(6, 120));
  keep(writer.finish());
  const last = pieces.at(-1)!;
  const file = new Uint8Array(last.position + last.bytes.length);
  for (const { position, bytes } of pieces) file.set(bytes, position);
  return file;
}

function readIndex(file: Uint8Array): LayerIndex {
  const footer = decodeFooter('test.layer', file.slice(file.length - FOOTER_BYTES));
  const first = footer.sections[0]!.offset;
  return new LayerIndex('test.layer', footer, file.slice(first, file.length - FOOTER_BYTES));
}

test('what was written is found again', () => {
  const file = writeLayer();
  const index = readIndex(file);
  expect(index.footer).toMatchObject({ kind: KIND_DELTA, pgVersion: 17, startLsn: 1000, endLsn: 9000 });
  const accounts = index.findRelation(1663, 5, 16384, 0);
  expect(index.tag(accounts)).toEqual(ACCOUNTS);
  expect(index.findRelation(1663, 5, 16384, 1)).toBe(-1);

  expect(index.findEntry(accounts, 0, 1099)).toBe(-1);
  const run = index.findEntry(accounts, 0, 1499);
  expect(index.entryFlags[run]).toBe(0);
  const first = file.subarray(index.entryOffset[run], index.entryOffset[run]! + index.entryLength[run]!);
  expect(first.length).toBe(2 * VERSION_HEADER_BYTES + 64 + 64);
  expect(first[VERSION_HEADER_BYTES]).toBe(1);
  const anew = index.findEntry(accounts, 0, 9000);
  expect(index.entryFlags[anew]).toBe(ENTRY_INITIALISES);
  expect(index.findEntry(accounts, 1, 9000)).toBe(-1);

  const zeros = index.findEntry(accounts, 2, 3050);
  expect(index.entryFlags[zeros]).toBe(ENTRY_IMAGE);
  expect(index.entryLength[zeros]).toBe(0);
  expect(index.entryLength[index.findEntry(accounts, 2, 2999)]).toBe(8192);
});

test('sizes, cuts, values and waypoints keep their history', () => {
  const index = readIndex(writeLayer());
  const accounts = index.findRelation(1663, 5, 16384, 0);
  expect([999, 1000, 4000, 4999, 5000].map((lsn) => index.sizeAt(accounts, lsn))).toEqual([
    undefined,
    3,
    1,
    1,
    8,
  ]);
  expect(index.cutBefore(accounts, 0, 9000)).toBe(-1);
  expect(index.cutBefore(accounts, 2, 3999)).toBe(-1);
  expect(index.cutBefore(accounts, 2, 9000)).toBe(4000);
  const branches = index.findRelation(1663, 5, 16400, 0);
  expect(index.sizeAt(branches, 8000)).toBe(DROPPED);
  const values: [string, number, number | null][] = [];
  index.forEachValue((key, lsn, data) => values.push([key, lsn, data?.length ?? null]));
  expect(values).toEqual([
    ['relmap/5', 1000, 512],
    ['relmap/5', 6000, null],
  ]);
  const waypoints: [number, number][] = [];
  index.forEachWaypoint((lsn, data) => waypoints.push([lsn, data.length]));
  expect(waypoints).toEqual([
    [1000, 100],
    [9000, 120],
  ]);
});

test('a flipped byte in the index or the footer is reported with the file and the part', () => {
  const pristine = writeLayer();
  const sections = decodeFooter('x', pristine.slice(pristine.length - FOOTER_BYTES)).sections;
  const from = sections[0]!.offset;
  for (let at = from; at < pristine.length; at += 13) {
    const isPadding = !sections.some(({ offset, length }) => at >= offset && at < offset + length);
    if (isPadding && at < pristine.length - FOOTER_BYTES) continue;
    const damaged = pristine.slice();
    damaged[at]! ^= 0x10;
    let caught: unknown;
    try {
      readIndex(damaged);
    } catch (error) {
      caught = error;
    }
    expect(caught).toBeInstanceOf(PalimpsestError);
    expect((caught as PalimpsestError).code).toBe('corrupt');
    expect((caught as PalimpsestError).message).toMatch(/test\.layer: (section \w+|the footer)/);
  }
});

test('a file of another version is refused by name', () => {
  const file = writeLayer();
  expect(() => decodeFooter('old.layer', file.slice(0, FOOTER_BYTES))).toThrow(/old\.layer/);
  expect(() => decodeFooter('short.layer', new Uint8Array(3))).toThrow(/short\.layer.*too short/);
});
