import { expect, test } from 'vitest';
import { type CoveringLayer, findGaps } from './coverage.ts';

const layer = (
  kind: CoveringLayer['kind'],
  startLsn: number,
  endLsn: number,
  firstKey = '00',
  lastKey = 'ff',
): CoveringLayer => ({ kind, startLsn, endLsn, firstKey, lastKey });
const delta = (startLsn: number, endLsn: number, firstKey?: string, lastKey?: string) =>
  layer('delta', startLsn, endLsn, firstKey, lastKey);
const image = (lsn: number, firstKey?: string, lastKey?: string) =>
  layer('image', lsn, lsn, firstKey, lastKey);
const ALL = { startLsn: 10, endLsn: 100, gcCutoff: 0 };

test('deltas that follow one another cover everything, also split by keys', () => {
  expect(findGaps([delta(10, 50), delta(50, 100)], ALL)).toEqual([]);
  const split = [delta(10, 50, '00', '7f'), delta(10, 50, '80', 'ff'), delta(50, 100)];
  expect(findGaps(split, ALL)).toEqual([]);
});

test('a missing delta is a gap, and is told once', () => {
  expect(findGaps([delta(10, 40), delta(60, 100)], ALL)).toEqual([
    { firstKey: '00', fromLsn: 40, toLsn: 60 },
  ]);
  expect(findGaps([delta(20, 100)], ALL)).toEqual([{ firstKey: '00', fromLsn: 10, toLsn: 20 }]);
  expect(findGaps([delta(10, 40)], ALL)).toEqual([{ firstKey: '00', fromLsn: 40, toLsn: 100 }]);
});

test('a missing part of the keys is a gap', () => {
  const layers = [delta(10, 50, '00', '7f'), delta(50, 100), delta(10, 30, '80', 'ff')];
  expect(findGaps(layers, ALL)).toEqual([{ firstKey: '80', fromLsn: 30, toLsn: 50 }]);
});

test('history below an image is not needed once it is past the cutoff, and only then', () => {
  const layers = [image(50), delta(50, 100)];
  expect(findGaps(layers, { ...ALL, gcCutoff: 60 })).toEqual([]);
  expect(findGaps(layers, { ...ALL, gcCutoff: 40 })).toEqual([{ firstKey: '00', fromLsn: 10, toLsn: 50 }]);
  // An image in the middle of what is kept does not stand in for the deltas around it.
  expect(findGaps([image(80), delta(85, 100)], { ...ALL, gcCutoff: 60 })).toHaveLength(1);
});
