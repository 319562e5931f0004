/** Files as Palimpsest wrote them before blocks were compressed stay readable. */
import { expect, test } from 'vitest';
import { crc32c } from '../postgres/crc32c.ts';
import { decodeFooter } from './footer.ts';
import { ENTRY_IMAGE, FOOTER_BYTES, KIND_DELTA, LAYER_MAGIC, NO_CUT } from './format.ts';
import { LayerIndex } from './reader.ts';
import { LayerState } from './state.ts';
import { FOOTER_BYTES_VERSION_1, openSectionsVersion1 } from './version-1.ts';

/** Two relations; of the first, block 4 has a run and an image after it, block 6 a page of zeros; it was cut at 600. */
function oldFile(): Uint8Array {
  const file = new Uint8Array(20_000);
  const view = new DataView(file.buffer);
  let at = 16;
  const places: [number, number][] = [];
  const section = (count: number, fill: () => void) => {
    at = (at + 7) & ~7;
    const start = at;
    view.setUint32(at, count, true);
    at += 8;
    fill();
    places.push([start, at - start]);
  };
  const u32s = (...values: number[]) => {
    for (const value of values) {
      view.setUint32(at, value, true);
      at += 4;
    }
  };
  const f64s = (...values: number[]) => {
    for (const value of values) {
      view.setFloat64(at, value, true);
      at += 8;
    }
  };
  const runAt = at;
  file.fill(1, at, (at += 88));
  const imageAt = at;
  file.fill(2, at, (at += 8192));
  section(2, () => {
    u32s(1663, 5, 16384, 0, 0, 0, 1, 0);
    u32s(1663, 5, 16400, 0, 3, 2, 0, 0);
  });
  section(3, () => {
    f64s(500, 800, 700);
    f64s(runAt, imageAt, at);
    u32s(4, 4, 6);
    u32s(88, 8192, 0);
    u32s(crc32c(file, runAt, imageAt), crc32c(file, imageAt, imageAt + 8192), crc32c(file, 0, 0));
    u32s(0, ENTRY_IMAGE, ENTRY_IMAGE);
  });
  section(3, () => {
    f64s(400, 600, 400);
    u32s(9, 7, 12);
    u32s(NO_CUT, 7, NO_CUT);
  });
  section(0, () => {});
  section(1, () => {
    f64s(400);
    u32s(3, 0);
    file.set([7, 8, 9], at);
    at += 3;
  });
  at = (at + 7) & ~7;
  const footer = at;
  u32s(LAYER_MAGIC, 1, KIND_DELTA, 17);
  f64s(400, 900);
  for (const [start, length] of places) {
    f64s(start, length);
    u32s(crc32c(file, start, start + length), 0);
  }
  const end = footer + FOOTER_BYTES_VERSION_1;
  view.setUint32(end - 4, crc32c(file, footer, end - 4), true);
  return file.slice(0, end);
}

test('a file of version 1 is read as blocks of one entry', () => {
  const file = oldFile();
  const footer = decodeFooter('old.layer', file.subarray(-FOOTER_BYTES));
  expect(footer).toMatchObject({ version: 1, kind: KIND_DELTA, level: 0, startLsn: 400, endLsn: 900 });
  const sections = openSectionsVersion1('old.layer', footer, file, 0);
  const index = new LayerIndex(footer, sections);
  const open = (page: number, lsn: number) => {
    const number = index.findBlock(0, page, lsn);
    const from = index.blockOffset[number]!;
    const block = index.openBlock('old.layer', number, file.slice(from, from + index.blockStored[number]!));
    return { number, block, entry: block.find(0, page, lsn) };
  };
  const run = open(4, 799);
  expect(run.block.bytes(run.entry)).toEqual(new Uint8Array(88).fill(1));
  expect(run.block.flags[run.entry]).toBe(0);
  const image = open(4, 900);
  expect(image.block.bytes(image.entry)).toEqual(new Uint8Array(8192).fill(2));
  expect(image.block.flags[image.entry]).toBe(ENTRY_IMAGE);
  expect(index.continues(image.number)).toBe(true);
  expect(index.continues(run.number)).toBe(false);
  const zeros = open(6, 900);
  expect(zeros.block.length[zeros.entry]).toBe(0);
  expect(open(5, 900).entry).toBe(-1);
  expect(index.mayHold(0, 12345)).toBe(true);
  expect(index.cutBefore(0, 8, 900)).toBe(600);
  expect(index.cutBefore(0, 8, 599)).toBe(-1);
  expect(index.cutBefore(1, 8, 900)).toBe(-1);

  const state = new LayerState(sections);
  expect(state.sizeAt(0, 599)).toBe(9);
  expect(state.sizeAt(0, 600)).toBe(7);
  expect(state.sizeAt(1, 900)).toBe(12);
  const waypoints: number[][] = [];
  state.forEachWaypoint((lsn, data) => waypoints.push([lsn, ...data]));
  expect(waypoints).toEqual([[400, 7, 8, 9]]);
});

test('a flipped byte in a file of version 1 is reported', () => {
  const file = oldFile();
  for (let at = 16 + 88 + 8192; at < file.length; at += 3) {
    const damaged = file.slice();
    damaged[at]! ^= 0x20;
    if (isPadding(file, at)) continue;
    const open = () => {
      const footer = decodeFooter('old.layer', damaged.subarray(-FOOTER_BYTES));
      openSectionsVersion1('old.layer', footer, damaged, 0);
    };
    expect(open, `byte ${at}`).toThrow(/old\.layer/);
  }
});

function isPadding(file: Uint8Array, at: number): boolean {
  const { sections } = decodeFooter('old.layer', file.subarray(-FOOTER_BYTES));
  const inSection = sections.some(({ offset, storedLength }) => at >= offset && at < offset + storedLength);
  return !inSection && at < file.length - FOOTER_BYTES_VERSION_1;
}
