import fc from 'fast-check';
import { expect, test } from 'vitest';
import { PAGE_BYTES } from '../../protocols/lsn.ts';
import { PageCache } from './page-cache.ts';
import { PageMap } from './page-map.ts';
import { RelationTable } from './relation-table.ts';

function pageOf(byte: number): Uint8Array {
  return new Uint8Array(PAGE_BYTES).fill(byte);
}

test('the cache never gives a page under another name, whatever is evicted', () => {
  const cache = new PageCache(16 * PAGE_BYTES);
  const target = new Uint8Array(PAGE_BYTES);
  for (let i = 0; i < 2000; i++) {
    const key = { source: i % 3, relation: (i * 7) % 5, block: (i * 13) % 41 };
    const name = (key.source * 5 + key.relation) * 41 + key.block;
    cache.put(key, { pageLsn: i, asOf: i }, pageOf(name & 255), 0);
    for (let block = 0; block < 41; block++) {
      const slot = cache.find(key.source, key.relation, block);
      if (slot < 0) continue;
      cache.copyTo(slot, target, 0);
      expect(target[100]).toBe(((key.source * 5 + key.relation) * 41 + block) & 255);
    }
  }
});

test('a newer version is not replaced by an older one', () => {
  const cache = new PageCache(16 * PAGE_BYTES);
  const key = { source: 1, relation: 2, block: 3 };
  expect(cache.put(key, { pageLsn: 50, asOf: 90 }, pageOf(9), 0)).toBe(true);
  expect(cache.put(key, { pageLsn: 40, asOf: 45 }, pageOf(4), 0)).toBe(false);
  expect(cache.asOf[cache.find(1, 2, 3)]).toBe(90);
});

test('forgetting a source leaves the others', () => {
  const cache = new PageCache(64 * PAGE_BYTES);
  for (let block = 0; block < 20; block++) {
    for (const source of [1, 2])
      cache.put({ source, relation: 1, block }, { pageLsn: 1, asOf: 1 }, pageOf(source), 0);
  }
  cache.forget(1);
  for (let block = 0; block < 20; block++) {
    expect(cache.find(1, 1, block)).toBe(-1);
    expect(cache.find(2, 1, block)).toBeGreaterThanOrEqual(0);
  }
});

test('the page map equals a plain map', () => {
  const entry = fc.tuple(fc.nat(30), fc.nat(5000), fc.integer({ min: 1, max: 2 ** 31 - 1 }));
  fc.assert(
    fc.property(fc.array(entry, { maxLength: 2000 }), (entries) => {
      const map = new PageMap();
      const plain = new Map<string, number>();
      for (const [relation, block, value] of entries) {
        const key = `${relation}/${block}`;
        expect(map.exchange(relation, block, value)).toBe(plain.get(key) ?? 0);
        plain.set(key, value);
      }
      expect(map.size).toBe(plain.size);
      for (const [key, value] of plain) {
        const [relation, block] = key.split('/').map(Number) as [number, number];
        expect(map.get(relation, block)).toBe(value);
      }
      expect(map.get(31, 1)).toBe(0);
    }),
    { numRuns: 30 },
  );
});

test('a relation keeps its number while the table grows', () => {
  const table = new RelationTable();
  const ids = new Map<number, number>();
  for (let rel = 1; rel < 20_000; rel++) ids.set(rel, table.idOf(1663, rel % 7, rel, rel % 4));
  for (const [rel, id] of ids) {
    expect(table.find(1663, rel % 7, rel, rel % 4)).toBe(id);
    expect(table.tag(id)).toEqual({ spc: 1663, db: rel % 7, rel, fork: rel % 4 });
  }
  expect(table.find(1663, 1, 20_001, 0)).toBe(-1);
});
