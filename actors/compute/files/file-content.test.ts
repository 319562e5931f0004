import { describe, expect, it } from 'vitest';
import { type Lsn, PAGE_BYTES } from '../../../protocols/lsn.ts';
import { FileContent, type FileStorage } from './file-content.ts';
import { SlotPool } from './slot-pool.ts';
import { MemorySlots, makePage, VersionedSource } from './test-storage.ts';

const TAG = { spc: 1663, db: 5, rel: 16384, fork: 0 };
const START = 0x2000000;

function world(slots = 16, remotePages = 8) {
  const source = new VersionedSource();
  let committed = START;
  const storage: FileStorage = {
    source,
    startLsn: START as Lsn,
    committedLsn: () => committed,
    statistics: { fetchRequests: 0, fetchedPages: 0, overlayPages: 0, writtenPages: 0 },
  };
  const store = new MemorySlots();
  const pool = new SlotPool(store, slots * PAGE_BYTES);
  for (let block = 0; block < remotePages; block++) {
    source.put(TAG, block, START - 100, makePage(START - 100, 1000 + block));
  }
  const content = (pages = remotePages, mayEvict = true) =>
    new FileContent({
      storage,
      pool,
      remote: { tag: TAG, firstBlock: 0, pages },
      mayEvict: () => mayEvict,
    });
  return {
    source,
    storage,
    store,
    pool,
    content,
    commit(lsn: number) {
      committed = lsn;
    },
  };
}

const scratch = Buffer.alloc(PAGE_BYTES * 64);

async function page(content: FileContent, index: number): Promise<Uint8Array> {
  return Uint8Array.from(await content.read(index * PAGE_BYTES, PAGE_BYTES, scratch));
}

async function mark(content: FileContent, index: number): Promise<number> {
  return new DataView((await page(content, index)).buffer).getUint32(8, true);
}

function write(content: FileContent, index: number, lsn: number, value: number) {
  return content.write(index * PAGE_BYTES, makePage(lsn, value));
}

describe('a file of storage', () => {
  it('is read page by page from storage, in runs, until pages are written', async () => {
    const { content, source } = world();
    const file = content();
    expect(file.size).toBe(8 * PAGE_BYTES);
    expect(await mark(file, 3)).toBe(1003);
    write(file, 3, START + 8, 7);
    source.requests = 0;
    const all = await file.read(0, file.size, scratch);
    expect(source.requests).toBe(2);
    const marks = Array.from({ length: 8 }, (_, i) => all.readUInt32LE(i * PAGE_BYTES + 8));
    expect(marks).toEqual([1000, 1001, 1002, 7, 1004, 1005, 1006, 1007]);
  });

  it('answers without waiting when nothing is remote', () => {
    const { content } = world();
    const file = content();
    write(file, 0, START + 8, 7);
    expect(file.read(0, PAGE_BYTES, scratch)).toBeInstanceOf(Buffer);
  });

  it('reads zeros beyond a truncation, never an older image', async () => {
    const { content } = world();
    const file = content();
    file.resize(2 * PAGE_BYTES);
    file.resize(5 * PAGE_BYTES);
    expect(await mark(file, 1)).toBe(1001);
    expect((await page(file, 3)).every((byte) => byte === 0)).toBe(true);
  });

  it('merges a partial write with the page of storage', async () => {
    const { content } = world();
    const file = content();
    await file.write(2 * PAGE_BYTES + 100, Uint8Array.of(1, 2, 3));
    const merged = await page(file, 2);
    expect([merged[99], merged[100], merged[101], merged[102], merged[103]]).toEqual([
      1002 & 0xff,
      1,
      2,
      3,
      1002 & 0xff,
    ]);
  });

  it('fails a read that storage does not answer, and recovers', async () => {
    const { content, source } = world();
    const file = content();
    source.failing = true;
    await expect(page(file, 0)).rejects.toThrow('storage is down');
    source.failing = false;
    expect(await mark(file, 0)).toBe(1000);
  });

  it('keeps no slot for zeros beyond its end', () => {
    const { content, pool } = world();
    const file = content();
    file.write(8 * PAGE_BYTES, new Uint8Array(4 * PAGE_BYTES));
    expect([file.size, pool.statistics().usedSlots]).toEqual([12 * PAGE_BYTES, 0]);
  });
});

describe('pages written together', () => {
  it('lie together, are written and read at once, also over pages that were there', async () => {
    const { content, store } = world(64, 0);
    const file = content(0);
    const pages = (from: number, count: number, mark: number) =>
      Buffer.concat(Array.from({ length: count }, (_, i) => makePage(START + 8, mark + from + i)));
    file.write(0, pages(0, 8, 100));
    expect(store.writes).toBe(1);
    file.write(4 * PAGE_BYTES, pages(4, 8, 200));
    expect(store.writes).toBe(3);
    const all = await file.read(0, 12 * PAGE_BYTES, scratch);
    const marks = Array.from({ length: 12 }, (_, i) => all.readUInt32LE(i * PAGE_BYTES + 8));
    expect(marks).toEqual([100, 101, 102, 103, 204, 205, 206, 207, 208, 209, 210, 211]);
  });

  it('take the slots of dropped ones, none of which is still in use', async () => {
    const { content, source, commit, pool } = world(16, 64);
    const file = content(64);
    for (let i = 0; i < 16; i++) {
      write(file, i, START + 8, i);
      source.put(TAG, i, START + 8, makePage(START + 8, i));
    }
    commit(START + 1000);
    const batch = Buffer.concat(Array.from({ length: 24 }, (_, i) => makePage(START + 2000, 500 + i)));
    file.write(8 * PAGE_BYTES, batch);
    expect(pool.statistics().evictedPages).toBeGreaterThan(0);
    for (let i = 0; i < 8; i++) expect(await mark(file, i)).toBe(i);
    for (let i = 0; i < 24; i++) expect(await mark(file, 8 + i)).toBe(500 + i);
  });
});

describe('eviction', () => {
  it('drops committed pages and asks for them at their LSN or later', async () => {
    const { content, source, pool, commit } = world(16, 64);
    const file = content(64);
    for (let i = 0; i < 16; i++) {
      write(file, i, START + 8 * (i + 1), i);
      source.put(TAG, i, START + 8 * (i + 1), makePage(START + 8 * (i + 1), i));
    }
    commit(START + 1000);
    for (let i = 16; i < 40; i++) write(file, i, START + 2000, i);
    expect(pool.statistics().evictedPages).toBe(16);
    expect(await mark(file, 5)).toBe(5);
    expect(source.lastNotModifiedSince).toBeGreaterThanOrEqual(START + 48);
  });

  it('keeps what is not committed, not logged, or only marked, and grows instead', () => {
    const { content, pool, commit } = world(16, 200);
    const logged = content(200);
    const unlogged = content(200, false);
    commit(START);
    for (let i = 0; i < 20; i++) write(logged, i, START + 5000, i);
    for (let i = 0; i < 20; i++) write(unlogged, i, START - 8, i);
    for (let i = 20; i < 40; i++) write(logged, i, 1, i);
    expect(pool.statistics()).toMatchObject({ evictedPages: 0, usedSlots: 60, slotsBeyondBound: 44 });
  });

  it('keeps copies of older pages in a file that storage may not know yet', () => {
    const { content, pool, commit } = world(16, 0);
    commit(START + 10_000);
    const copied = content(0);
    for (let i = 0; i < 30; i++) write(copied, i, START + 100, i);
    expect(pool.statistics().evictedPages).toBe(0);
  });

  it('gives the disk back when the last page is gone', () => {
    const { content, pool, store } = world();
    const file = content();
    for (let i = 0; i < 8; i++) write(file, i, START + 8, i);
    file.discard();
    expect([pool.statistics().usedSlots, store.length]).toEqual([0, 0]);
  });
});

describe('a long random life', () => {
  for (const seed of [1, 2, 3, 4, 5, 6]) {
    it(`reads what a plain file would hold (seed ${seed})`, async () => {
      await randomLife(seed);
    });
  }
});

/** Writes, truncations, commits and evictions against a plain array; storage learns of a page only when it is committed. */
async function randomLife(seed: number): Promise<void> {
  const { content, source, pool, commit } = world(16, 24);
  const file = content(24);
  const model: Uint8Array[] = Array.from({ length: 24 }, (_, i) => makePage(START - 100, 1000 + i));
  let state = seed * 2654435761;
  const random = (bound: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * bound);
  };
  let lsn = START;
  let uncommitted: { block: number; lsn: number; page: Uint8Array }[] = [];
  for (let step = 0; step < 600; step++) {
    const action = random(10);
    if (action < 5) {
      const block = random(Math.min(60, model.length + 1));
      const batch: Uint8Array[] = [];
      for (let i = 0; i < (random(4) === 0 ? 1 + random(12) : 1); i++) {
        lsn += 8;
        const bytes = makePage(lsn, step * 16 + i);
        batch.push(bytes);
        model[block + i] = bytes;
        uncommitted.push({ block: block + i, lsn, page: bytes });
      }
      const all = Buffer.concat(batch);
      // A page may come in two halves.
      const cut = random(5) === 0 ? PAGE_BYTES / 2 : all.length;
      await file.write(block * PAGE_BYTES, all.subarray(0, cut));
      if (cut < all.length) await file.write(block * PAGE_BYTES + cut, all.subarray(cut));
    } else if (action === 5 && random(3) === 0) {
      const pages = Math.max(1, model.length - random(4));
      expect(file.resize(pages * PAGE_BYTES)).toBe(true);
      model.length = pages;
      // The truncation is in the WAL as well: storage will never serve what was cut off.
      uncommitted = uncommitted.filter(({ block }) => block < pages);
    } else if (action === 6) {
      for (const version of uncommitted) source.put(TAG, version.block, version.lsn, version.page);
      uncommitted = [];
      commit(lsn);
    } else {
      const block = random(model.length);
      const count = 1 + random(Math.min(8, model.length - block));
      const got = await file.read(block * PAGE_BYTES, count * PAGE_BYTES, scratch);
      const wanted = Buffer.concat(model.slice(block, block + count));
      expect(Buffer.compare(got, wanted), `step ${step}, blocks ${block}+${count}`).toBe(0);
    }
    expect(file.size).toBe(model.length * PAGE_BYTES);
  }
  expect(pool.statistics().evictedPages).toBeGreaterThan(0);
}
