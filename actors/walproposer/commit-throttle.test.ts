/** Writers are slowed down while the pageserver is behind, and never stopped. */
import { expect, it } from 'vitest';
import type { Lsn } from '../../protocols/lsn.ts';
import { ManualClock } from '../../test/support/manual-clock.ts';
import { CommitThrottle, DELAY_MAX_MS, FREE_BYTES, LIMIT_BYTES, STALLED_MS } from './commit-throttle.ts';

const MIB = 1024 * 1024;

function throttleWorld() {
  const clock = new ManualClock();
  const warnings: string[] = [];
  const acknowledged: number[] = [];
  const silent = {
    debug() {},
    info() {},
    warn: (_: object, text: string) => void warnings.push(text),
    error() {},
  };
  const throttle = new CommitThrottle({
    clock,
    log: { ...silent, child: () => silent as never },
    acknowledge: (lsn) => void acknowledged.push(lsn),
  });
  const commit = (lsn: number, follower?: number) =>
    throttle.committed(lsn as Lsn, follower as Lsn | undefined);
  /** Milliseconds until everything is acknowledged. */
  const delay = async (): Promise<number> => {
    const before = acknowledged.length;
    for (let ms = 0; ms <= 1000; ms++) {
      if (acknowledged.length > before) return ms;
      await clock.advance(1);
    }
    throw new Error('never acknowledged');
  };
  return { clock, throttle, commit, delay, acknowledged, warnings };
}

it('acknowledges at once while the pageserver keeps up, or is not heard of', () => {
  const { commit, acknowledged, warnings, clock } = throttleWorld();
  commit(FREE_BYTES, 0);
  commit(LIMIT_BYTES * 3, undefined);
  expect(acknowledged).toEqual([FREE_BYTES, LIMIT_BYTES * 3]);
  expect(clock.pending).toBe(0);
  expect(warnings).toEqual([]);
});

it('waits longer the further behind the pageserver is, up to a bound, and gathers commits meanwhile', async () => {
  const { commit, delay, acknowledged, warnings } = throttleWorld();
  const delays: number[] = [];
  for (const lag of [FREE_BYTES + 32 * MIB, FREE_BYTES + 128 * MIB, LIMIT_BYTES, LIMIT_BYTES * 4]) {
    commit(lag + 1000, 1000);
    delays.push(await delay());
  }
  expect(delays[0]).toBeGreaterThan(0);
  expect(delays[1]).toBeGreaterThan(delays[0]!);
  expect(delays.slice(2)).toEqual([DELAY_MAX_MS, DELAY_MAX_MS]);
  acknowledged.length = 0;
  for (let lsn = LIMIT_BYTES * 5; lsn < LIMIT_BYTES * 5 + 10; lsn++) commit(lsn, 1000);
  await delay();
  expect(acknowledged).toEqual([LIMIT_BYTES * 5 + 9]);
  expect(warnings).toHaveLength(1);
});

it('gives up on a pageserver that takes nothing any more, and begins again when it does', async () => {
  const { clock, commit, delay, acknowledged, warnings } = throttleWorld();
  commit(LIMIT_BYTES * 2, 1000);
  await delay();
  await clock.advance(STALLED_MS);
  commit(LIMIT_BYTES * 2 + 8, 1000);
  expect(acknowledged.at(-1)).toBe(LIMIT_BYTES * 2 + 8);
  commit(LIMIT_BYTES * 2 + 16, 2000);
  expect(await delay()).toBe(DELAY_MAX_MS);
  commit(LIMIT_BYTES * 2 + 24, LIMIT_BYTES * 2);
  expect(acknowledged.at(-1)).toBe(LIMIT_BYTES * 2 + 24);
  expect(warnings.map((text) => text.replace(/\d+/g, 'N'))).toEqual([
    'the pageserver is N MiB behind: commits are slowed down',
    'the pageserver has taken no WAL for N s: commits are not slowed down any more',
    'the pageserver is N MiB behind: commits are slowed down',
    'the pageserver has caught up: commits go at full speed',
  ]);
});

it('holds nothing back when the compute stops', () => {
  const { throttle, commit, acknowledged, clock } = throttleWorld();
  commit(LIMIT_BYTES * 2, 1000);
  expect(acknowledged).toEqual([]);
  throttle.close();
  commit(LIMIT_BYTES * 2 + 8, 1000);
  expect(acknowledged).toEqual([LIMIT_BYTES * 2, LIMIT_BYTES * 2 + 8]);
  expect(clock.pending).toBe(0);
});
