import { expect, test } from 'vitest';
import { type CoveringLayer, findGaps } from './coverage.ts';

const layer = (
  kind: CoveringLayer['kind'],
  level: number,
  startLsn: number,
  endLsn: number,
): CoveringLayer => ({
  kind,
  level,
  startLsn,
  endLsn,
});
const open = (startLsn: number, endLsn: number) => layer('delta', 0, startLsn, endLsn);
const merged = (startLsn: number, endLsn: number) => [
  layer('delta', 1, startLsn, endLsn),
  layer('state', 1, startLsn, endLsn),
];
const ALL = { startLsn: 10, endLsn: 100, gcCutoff: 0 };

test('level 0 and the states of merges follow one another', () => {
  expect(findGaps([open(50, 100), open(10, 50)], ALL)).toEqual([]);
  expect(findGaps([...merged(10, 50), open(50, 100), layer('image', 1, 40, 40)], ALL)).toEqual([]);
});

test('what is missing between two, before the first or after the last is a gap', () => {
  expect(findGaps([open(10, 40), open(60, 100)], ALL)).toEqual([{ fromLsn: 40, toLsn: 60 }]);
  expect(findGaps([open(20, 100)], ALL)).toEqual([{ fromLsn: 10, toLsn: 20 }]);
  expect(findGaps([open(10, 40)], ALL)).toEqual([{ fromLsn: 40, toLsn: 100 }]);
  expect(findGaps([], { ...ALL, endLsn: 10 })).toEqual([]);
  // The pages of a merge without its state, and an image, do not stand in for it.
  const pagesOnly = [layer('delta', 1, 10, 50), layer('image', 1, 50, 50), open(50, 100)];
  expect(findGaps(pagesOnly, ALL)).toEqual([{ fromLsn: 10, toLsn: 50 }]);
});

test('below the cutoff nothing needs to be there', () => {
  expect(findGaps([open(50, 100)], { ...ALL, gcCutoff: 60 })).toEqual([]);
  expect(findGaps([open(10, 20), open(50, 100)], { ...ALL, gcCutoff: 50 })).toEqual([]);
  expect(findGaps([open(50, 100)], { ...ALL, gcCutoff: 40 })).toEqual([{ fromLsn: 40, toLsn: 50 }]);
});
