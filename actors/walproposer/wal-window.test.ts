/** Recent WAL in memory. */
import { expect, test } from 'vitest';
import type { Lsn } from '../../protocols/lsn.ts';
import { WalWindow } from './wal-window.ts';

const START = 1000 as Lsn;

function pattern(length: number, seed = 0): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 31 + seed) & 255);
}

function readAll(window: WalWindow, from: Lsn): Uint8Array {
  const parts: Uint8Array[] = [];
  for (let at: number = from; at < window.end; at += parts.at(-1)!.length) {
    parts.push(window.slice(at as Lsn, 10_000));
  }
  return new Uint8Array(Buffer.concat(parts));
}

test('what was pushed is read from any position', () => {
  const window = new WalWindow(START, 1 << 30);
  const bytes = pattern(1_000_000);
  for (let at = 0; at < bytes.length; at += 33_333) window.push(bytes.subarray(at, at + 33_333));
  expect(window.end).toBe(START + bytes.length);
  expect(readAll(window, START)).toEqual(bytes);
  expect(readAll(window, (START + 654_321) as Lsn)).toEqual(bytes.slice(654_321));
});

test('a message is not cut where a slab ends', () => {
  const window = new WalWindow(START, 1 << 30);
  window.push(pattern(200_000));
  window.push(pattern(100_000, 5));
  expect(window.slice((START + 200_000) as Lsn, 1 << 20)).toEqual(pattern(100_000, 5));
});

test('after a cut the window goes on where it was cut', () => {
  const window = new WalWindow(START, 1 << 30);
  window.push(pattern(1000));
  window.cut((START + 600) as Lsn);
  window.push(pattern(1000, 9));
  expect(readAll(window, START)).toEqual(new Uint8Array(Buffer.concat([pattern(600), pattern(1000, 9)])));
});

test('memory of what was dropped is used again, and what is held stays right', () => {
  const window = new WalWindow(START, 600_000);
  const all = pattern(5_000_000, 3);
  for (let at = 0; at < all.length; at += 50_000) {
    window.push(all.subarray(at, at + 50_000));
    window.trim(window.end);
    const held = all.subarray(window.start - START, window.end - START);
    expect(Buffer.compare(readAll(window, window.start), held)).toBe(0);
  }
  expect(window.heldBytes).toBeLessThanOrEqual(600_000);
});

test('above the limit only what is durable somewhere is dropped', () => {
  const window = new WalWindow(START, 600_000);
  for (let i = 0; i < 10; i++) window.push(pattern(200_000, i));
  expect(window.isOverLimit).toBe(true);
  window.trim(START);
  expect(window.start).toBe(START);
  window.trim((START + 450_000) as Lsn);
  expect(window.start).toBeGreaterThan(START);
  expect(window.start).toBeLessThanOrEqual(START + 450_000);
  window.trim(window.end);
  expect(window.end - window.start).toBeLessThanOrEqual(600_000);
  expect(() => window.slice(START, 10)).toThrow(RangeError);
});

test('what somebody still needs is kept beyond the limit, but not without end', () => {
  const window = new WalWindow(START, 600_000, 1_500_000);
  for (let i = 0; i < 6; i++) window.push(pattern(200_000, i));
  window.trim(window.end, START);
  expect(window.start).toBe(START);
  window.trim(window.end, (START + 400_000) as Lsn);
  expect(window.start).toBe(START + 400_000);
  for (let i = 0; i < 10; i++) window.push(pattern(200_000, i));
  window.trim(window.end, (START + 400_000) as Lsn);
  expect(window.start).toBeGreaterThan(START + 400_000);
  expect(window.heldBytes).toBeLessThanOrEqual(1_500_000);
});
