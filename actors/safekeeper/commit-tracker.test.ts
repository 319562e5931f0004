/** The commit LSN of a replica is always one that a proposer named. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Lsn } from '../../protocols/lsn.ts';
import { CommitTracker } from './commit-tracker.ts';

test('a candidate beyond what is durable counts once it is', () => {
  const tracker = new CommitTracker(100 as Lsn);
  expect(tracker.hear(200 as Lsn, 150 as Lsn)).toBe(false);
  expect(tracker.flushed(199 as Lsn)).toBe(false);
  expect(tracker.flushed(230 as Lsn)).toBe(true);
  expect(tracker.commitLsn).toBe(200);
});

test('it never goes back, never beyond what is durable, and only to values that were heard', () => {
  const step = fc.record({ hear: fc.nat(5000), flush: fc.nat(200) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
      const tracker = new CommitTracker(0 as Lsn);
      const heard = new Set([0]);
      let flushLsn = 0;
      for (const { hear, flush } of steps) {
        const before = tracker.commitLsn;
        heard.add(hear);
        tracker.hear(hear as Lsn, flushLsn as Lsn);
        flushLsn += flush;
        tracker.flushed(flushLsn as Lsn);
        expect(tracker.commitLsn).toBeGreaterThanOrEqual(before);
        expect(tracker.commitLsn).toBeLessThanOrEqual(flushLsn);
        expect(heard).toContain(tracker.commitLsn);
      }
    }),
  );
});

test('a replica that catches up under a steady stream of candidates ends at the newest', () => {
  const tracker = new CommitTracker(0 as Lsn);
  for (let i = 1; i <= 1000; i++) tracker.hear((i * 10) as Lsn, 0 as Lsn);
  tracker.hear(10_010 as Lsn, 10_010 as Lsn);
  tracker.flushed(10_010 as Lsn);
  expect(tracker.commitLsn).toBe(10_010);
});
