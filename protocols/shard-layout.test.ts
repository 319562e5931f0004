/** Where pages are: spread evenly, and for ever where they were. */
import { expect, it } from 'vitest';
import {
  checkShardCount,
  ONE_SHARD,
  ownedRanges,
  ownsPage,
  parseShardId,
  STRIPE_BLOCKS,
  shardId,
  shardOf,
  shardsOf,
  splitFrom,
  stripeEnd,
} from './shard-layout.ts';

/** From the first day on; a change of these loses data. */
const GOLDEN = ['105606776564', '462200300140', '327450374001', '505533770133'];
const TIMELINE = '1'.repeat(32);
const file = (rel: number) => ({ spc: 1663, rel });
const layout = (count: number) => ({ count, stripeBlocks: STRIPE_BLOCKS });

it('has everything on one shard when there is one', () => {
  expect(shardOf(file(16_384), 5_000_000, ONE_SHARD)).toBe(0);
  expect(ownsPage(undefined, file(16_384), 77)).toBe(true);
  expect(shardsOf(ONE_SHARD)).toEqual([undefined]);
});

it('has status logs on shard 0', () => {
  for (let block = 0; block < 100; block++) {
    expect(shardOf({ spc: 0, rel: 1 + (block % 3) }, block * STRIPE_BLOCKS, layout(8))).toBe(0);
  }
});

it('puts pages where it always has', () => {
  const numbers = (rel: number) =>
    Array.from({ length: 12 }, (_, stripe) => shardOf(file(rel), stripe * STRIPE_BLOCKS, layout(8))).join('');
  expect([1259, 16_384, 16_385, 4_294_967_295].map(numbers)).toEqual(GOLDEN);
});

it('spreads the stripes of one large relation, and many small relations, evenly', () => {
  for (const count of [2, 4, 8]) {
    const large = new Array<number>(count).fill(0);
    const small = new Array<number>(count).fill(0);
    for (let i = 0; i < 8000; i++) {
      large[shardOf(file(16_397), i * STRIPE_BLOCKS, layout(count))]!++;
      small[shardOf(file(16_384 + i), 0, layout(count))]!++;
    }
    for (const found of [...large, ...small]) {
      expect(Math.abs(found - 8000 / count)).toBeLessThan(0.1 * (8000 / count));
    }
  }
});

it('keeps a stripe together', () => {
  for (const block of [0, 1, 2047, 2048, 4095, 123_456]) {
    const end = stripeEnd(block, layout(4));
    expect(end % STRIPE_BLOCKS).toBe(0);
    expect(end - block).toBeLessThanOrEqual(STRIPE_BLOCKS);
    expect(shardOf(file(16_400), end - 1, layout(4))).toBe(shardOf(file(16_400), block, layout(4)));
  }
});

it('tells which blocks of a relation a shard has', () => {
  const blocks = 9 * STRIPE_BLOCKS + 5;
  const counts = shardsOf(layout(4)).map((shard) => {
    const ranges = ownedRanges(shard, file(16_400), 0, blocks);
    for (const { from, to } of ranges) {
      for (const block of [from, to - 1]) expect(ownsPage(shard, file(16_400), block)).toBe(true);
      if (to < blocks) expect(ownsPage(shard, file(16_400), to)).toBe(false);
    }
    return ranges.reduce((sum, { from, to }) => sum + to - from, 0);
  });
  expect(counts.reduce((a, b) => a + b)).toBe(blocks);
  expect(ownedRanges(undefined, file(16_400), 3, 7)).toEqual([{ from: 3, to: 7 }]);
  expect(ownedRanges(undefined, file(16_400), 7, 7)).toEqual([]);
});

it('gives the pages of one shard to its own parts when it is split', () => {
  for (const [before, after] of [
    [1, 2],
    [2, 4],
    [2, 8],
  ] as const) {
    for (const shard of shardsOf(layout(after))) {
      for (let rel = 16_384; rel < 16_500; rel++) {
        for (const block of [0, 5000, 90_000]) {
          if (!ownsPage(shard, file(rel), block)) continue;
          expect(ownsPage(splitFrom(shard!, layout(before)), file(rel), block)).toBe(true);
        }
      }
    }
  }
});

it('names shards, and reads the names', () => {
  expect(shardId(TIMELINE, undefined)).toBe(TIMELINE);
  expect(shardId(TIMELINE, { ...layout(4), number: 3 })).toBe(`${TIMELINE}-3of4`);
  expect(parseShardId(TIMELINE)).toEqual({ timeline: TIMELINE, number: 0, count: 1 });
  expect(parseShardId(`${TIMELINE}-3of4`)).toEqual({ timeline: TIMELINE, number: 3, count: 4 });
  const again = `${TIMELINE}-3of4-12`;
  expect(shardId(TIMELINE, { ...layout(4), attempt: 12, number: 3 })).toBe(again);
  expect(parseShardId(again)).toEqual({ timeline: TIMELINE, number: 3, count: 4, attempt: 12 });
  const wrongEnds = ['-4of4', '-0of3', '-1of2x', '-1of2-0', '-1of2-', '-1'].map((end) => TIMELINE + end);
  for (const wrong of ['', 'x', ...wrongEnds]) {
    expect(parseShardId(wrong)).toBeUndefined();
  }
});

it('refuses numbers of shards that are no power of two', () => {
  for (const count of [1, 2, 4, 8]) checkShardCount(count);
  for (const count of [0, 3, 16, 1.5, -2, Number.NaN]) {
    expect(() => checkShardCount(count)).toThrow('a project cannot have');
  }
});
