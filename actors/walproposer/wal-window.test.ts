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

test('views stay as they were when the window is cut and goes on', () => {
  const window = new WalWindow(START, 1 << 30);
  window.push(pattern(1000));
  const view = window.slice((START + 500) as Lsn, 500);
  window.cut((START + 600) as Lsn);
  window.push(pattern(1000, 9));
  expect(view).toEqual(pattern(1000).slice(500));
  expect(readAll(window, START)).toEqual(new Uint8Array(Buffer.concat([pattern(600), pattern(1000, 9)])));
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
