import { expect, test } from 'vitest';
import { InPlaceWrites } from './in-place-writes.ts';

function policy() {
  const clock = { nowMs: 1000 };
  return { clock, writes: new InPlaceWrites(() => clock.nowMs) };
}

test('small writes of the only log are made in place, after a moment in which no other was written', () => {
  const { clock, writes } = policy();
  const log = {};
  expect(writes.allows(log, 100)).toBe(false);
  clock.nowMs += 50;
  expect(writes.allows(log, 100)).toBe(true);
  expect(writes.allows(log, 128 * 1024)).toBe(false);
  expect(writes.allows(log, 64 * 1024)).toBe(true);
});

test('two logs that are written by turns never hold up each other', () => {
  const { clock, writes } = policy();
  const logs = [{}, {}];
  for (let i = 0; i < 100; i++) {
    clock.nowMs += 20;
    expect(writes.allows(logs[i % 2]!, 100)).toBe(false);
  }
});

test('a disk that is slow holds up the thread once, and then not for a while', () => {
  const { clock, writes } = policy();
  const log = {};
  writes.allows(log, 100);
  clock.nowMs += 50;
  expect(writes.allows(log, 100)).toBe(true);
  const beganMs = clock.nowMs;
  clock.nowMs += 300;
  writes.ended(beganMs);
  expect(writes.allows(log, 100)).toBe(false);
  clock.nowMs += 1_999;
  expect(writes.allows(log, 100)).toBe(false);
  clock.nowMs += 1;
  expect(writes.allows(log, 100)).toBe(true);
});
