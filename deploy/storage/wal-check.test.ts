import { expect, test } from 'vitest';
import { WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import { checkWal } from './wal-check.ts';

const at = (segment: number) => segment * WAL_SEGMENT_BYTES;
const range = (segment: number) => ({ from: at(segment), to: at(segment + 1) });
const places = (objects: number[], local: number[] | undefined, layersEnd = 1) => ({
  timeline: 't',
  layersEndLsn: at(layersEnd) + 100,
  objects: objects.map(range),
  local: local === undefined ? undefined : new Set(local),
});

test('WAL from the end of the layers on may lie in objects and on safekeepers', () => {
  expect(checkWal(places([1, 2], [3, 4]))).toEqual([]);
  expect(checkWal(places([], [1]))).toEqual([]);
  expect(checkWal(places([], undefined))).toEqual([]);
  // Partly filled tails count as their segment.
  expect(
    checkWal({ ...places([1], undefined), objects: [range(1), { from: at(2), to: at(2) + 9 }] }),
  ).toEqual([]);
});

test('a segment that nobody has is a gap, and neighbours are told together', () => {
  const messages = checkWal(places([1, 4], [7], 1)).map(({ message }) => message);
  expect(messages).toEqual([
    'WAL 000000010000000000000002 to 000000010000000000000003 (0/2000000 on) is neither in objects nor on a safekeeper, although later WAL is',
    'WAL 000000010000000000000005 to 000000010000000000000006 (0/5000000 on) is neither in objects nor on a safekeeper, although later WAL is',
  ]);
});

test('old WAL may be given up from its beginning on, but not what layers lack', () => {
  expect(checkWal(places([4, 5, 6], undefined, 5))).toEqual([]);
  expect(checkWal(places([3, 5, 6], undefined, 5))).toHaveLength(1);
  expect(checkWal(places([5, 6], undefined, 3)).map(({ message }) => message)).toEqual([
    'layers end at 0/3000064, but the oldest WAL that is left begins at 0/5000000',
  ]);
});
