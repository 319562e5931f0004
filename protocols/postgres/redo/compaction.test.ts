import fc from 'fast-check';
import { expect, test } from 'vitest';
import { PAGE_BYTES } from '../../lsn.ts';
import { readU16, writeU16 } from '../bytes.ts';
import { compactPruned, deleteIndexTuples } from './compaction.ts';
import { PageContentError } from './errors.ts';
import {
  addItem,
  initPage,
  LP_REDIRECT,
  LP_UNUSED,
  lineCount,
  lineLength,
  lineOffset,
  linePointer,
  lineState,
  PD_FLAGS,
  PD_HAS_FREE_LINES,
  PD_LOWER,
  PD_UPPER,
  setLinePointer,
} from './page.ts';

const SPECIAL_BYTES = 16;

interface Layout {
  /** Length of each tuple, in the order in which they are added, downwards from the special space. */
  lengths: number[];
  /** Which line pointer each one gets: without shuffling the order of the line pointers is that of the tuples. */
  shuffled: boolean;
  removed: Set<number>;
}

const layouts = fc.record({
  lengths: fc.array(fc.integer({ min: 1, max: 300 }), { minLength: 4, maxLength: 25 }),
  shuffled: fc.boolean(),
  removed: fc.uniqueArray(fc.integer({ min: 1, max: 25 }), { minLength: 3, maxLength: 20 }),
});

/** A page of tuples whose bytes all are the number of their line pointer. */
function makePage({ lengths, shuffled }: Layout): Uint8Array {
  const page = new Uint8Array(PAGE_BYTES);
  initPage(page, SPECIAL_BYTES);
  page.fill(0xee, PAGE_BYTES - SPECIAL_BYTES);
  lengths.forEach((length, index) => {
    // Every second one goes in front, which moves the line pointers of the others up.
    const number = shuffled && index % 2 === 1 ? 1 : lineCount(page) + 1;
    addItem(page, new Uint8Array(length).fill(index + 1), 0, length, number, false);
  });
  return page;
}

/** Content of each stored tuple by line pointer, and where each has to lie: packed in the order of the line pointers. */
function contents(page: Uint8Array): { bytes: number[]; offset: number; number: number }[] {
  const found = [];
  for (let number = 1; number <= lineCount(page); number++) {
    const pointer = linePointer(page, number);
    if (lineState(pointer) === LP_UNUSED || lineLength(pointer) === 0) continue;
    const offset = lineOffset(pointer);
    found.push({ bytes: [...page.subarray(offset, offset + lineLength(pointer))], offset, number });
  }
  return found;
}

function packed(tuples: { bytes: number[] }[]): number[] {
  let upper = PAGE_BYTES - SPECIAL_BYTES;
  return tuples.map(({ bytes }) => {
    upper -= (bytes.length + 7) & ~7;
    return upper;
  });
}

function expectPacked(page: Uint8Array, expected: { bytes: number[] }[]): void {
  const found = contents(page);
  const offsets = packed(expected);
  expect(found.map(({ bytes }) => bytes)).toEqual(expected.map(({ bytes }) => bytes));
  expect(found.map(({ offset }) => offset)).toEqual(offsets);
  expect(readU16(page, PD_UPPER)).toBe(offsets.at(-1) ?? PAGE_BYTES - SPECIAL_BYTES);
  expect([...page.subarray(PAGE_BYTES - SPECIAL_BYTES)]).toEqual(new Array(SPECIAL_BYTES).fill(0xee));
}

test('pruning packs the tuples that stay in the order of their line pointers, whatever order they lie in', () => {
  fc.assert(
    fc.property(layouts, ({ lengths, shuffled, removed }) => {
      const layout = { lengths, shuffled, removed: new Set(removed.filter((n) => n <= lengths.length)) };
      const page = makePage(layout);
      const stays = contents(page).filter(({ number }) => !layout.removed.has(number));
      for (const number of layout.removed) {
        // Every third one leads to another tuple instead of going.
        if (number % 3 === 0) setLinePointer(page, number, 1, LP_REDIRECT, 0);
        else setLinePointer(page, number, 0, LP_UNUSED, 0);
      }
      compactPruned(page);
      expectPacked(page, stays);
      const kept = Array.from({ length: lengths.length }, (_, i) => i + 1).filter(
        (number) => !layout.removed.has(number) || number % 3 === 0,
      );
      const last = kept.at(-1) ?? 0;
      expect(lineCount(page)).toBe(last);
      expect((page[PD_FLAGS]! & PD_HAS_FREE_LINES) !== 0).toBe(kept.length < last);
    }),
    { numRuns: 300, seed: 7 },
  );
});

test('index tuples that are deleted leave no line pointers, and the others are packed', () => {
  fc.assert(
    fc.property(layouts, ({ lengths, shuffled, removed }) => {
      const numbers = removed.filter((n) => n <= lengths.length).sort((a, b) => a - b);
      fc.pre(numbers.length > 2);
      const page = makePage({ lengths, shuffled, removed: new Set() });
      const stays = contents(page).filter(({ number }) => !numbers.includes(number));
      const list = new Uint8Array(2 * numbers.length);
      numbers.forEach((number, i) => {
        writeU16(list, 2 * i, number);
      });
      deleteIndexTuples(page, list, 0, numbers.length);
      expectPacked(page, stays);
      expect(lineCount(page)).toBe(lengths.length - numbers.length);
    }),
    { numRuns: 300, seed: 11 },
  );
});

const ORDERED = { lengths: [40, 40, 40, 40], shuffled: false, removed: new Set<number>() };

test.each([
  ['below upper', 96],
  ['in the special space', PAGE_BYTES - 16],
  ['at no multiple of eight', PAGE_BYTES - 16 - 3 * 40 + 4],
])('a tuple that lies %s is refused', (_, offset) => {
  const page = makePage(ORDERED);
  setLinePointer(page, 2, 0, LP_UNUSED, 0);
  setLinePointer(page, 3, offset, 1, 40);
  expect(() => compactPruned(page)).toThrow(PageContentError);
});

test('tuples that claim the same bytes until they do not fit are refused', () => {
  const page = makePage({ ...ORDERED, lengths: [4000, 4000] });
  const pointer = linePointer(page, 2);
  for (let number = 1; number <= 3; number++)
    setLinePointer(page, number, lineOffset(pointer), 1, lineLength(pointer));
  writeU16(page, PD_LOWER, 24 + 3 * 4);
  expect(() => compactPruned(page)).toThrow(PageContentError);
});
