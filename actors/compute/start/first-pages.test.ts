import { beforeEach, describe, expect, it } from 'vitest';
import { LATEST_LSN, type Lsn, PAGE_BYTES } from '../../../protocols/lsn.ts';
import type { PageTag } from '../../../protocols/pages/messages.ts';
import type { ReadPoint, RelationTag } from '../../../protocols/pages/types.ts';
import { ManualClock } from '../../../test/support/manual-clock.ts';
import { decodePages, encodePages, FirstPages, type FirstPagesSource } from './first-pages.ts';

const LSN = 5000 as Lsn;
const page = (rel: number, block: number): PageTag => ({ spc: 1663, db: 5, rel, fork: 0, block });

/** Pages that carry their relation and block; counts what it is asked. */
class CountingSource implements FirstPagesSource {
  single = 0;
  lists = 0;
  failing = false;
  readonly #release: (() => void)[] = [];
  holding = false;

  async getPages(
    request: ReadPoint & RelationTag & { firstBlock: number; count: number },
    into = new Uint8Array(request.count * PAGE_BYTES),
  ): Promise<Uint8Array> {
    this.single++;
    for (let i = 0; i < request.count; i++)
      into.set([request.rel, request.firstBlock + i, 1], i * PAGE_BYTES);
    return into;
  }

  async getPageList({ pages }: ReadPoint & { pages: PageTag[] }): Promise<Uint8Array> {
    this.lists++;
    if (this.holding) await new Promise<void>((resolve) => this.#release.push(resolve));
    if (this.failing) throw new Error('storage is down');
    const bytes = new Uint8Array(pages.length * PAGE_BYTES);
    pages.forEach(({ rel, block }, i) => {
      bytes.set([rel, block, 2], i * PAGE_BYTES);
    });
    return bytes;
  }

  async getDirectory() {
    return [];
  }

  release(): void {
    for (const resolve of this.#release) resolve();
  }
}

const read = (
  first: FirstPages,
  rel: number,
  firstBlock: number,
  more: { count?: number; since?: number } = {},
) =>
  first.getPages({
    ...page(rel, 0),
    firstBlock,
    count: more.count ?? 1,
    lsn: LATEST_LSN,
    notModifiedSince: (more.since ?? LSN) as Lsn,
  });

describe('the pages that a compute reads first', () => {
  let source: CountingSource;
  let clock: ManualClock;
  let first: FirstPages;

  beforeEach(() => {
    source = new CountingSource();
    clock = new ManualClock();
    first = new FirstPages({ source, clock });
  });

  it('are fetched ahead in few requests and handed out once', async () => {
    const pages = Array.from({ length: 100 }, (_, i) => page(7, i));
    first.begin(encodePages(pages), LSN);
    expect(source.lists).toBe(2);
    expect((await read(first, 7, 3)).subarray(0, 3)).toEqual(Uint8Array.of(7, 3, 2));
    const two = await read(first, 7, 4, { count: 2 });
    expect(two.subarray(PAGE_BYTES, PAGE_BYTES + 3)).toEqual(Uint8Array.of(7, 5, 2));
    expect(source.single).toBe(0);
    expect((await read(first, 7, 3)).subarray(0, 3)).toEqual(Uint8Array.of(7, 3, 1));
    expect(source.single).toBe(1);
  });

  it('are waited for when they are on their way', async () => {
    source.holding = true;
    first.begin(encodePages([page(7, 0)]), LSN);
    const reading = read(first, 7, 0);
    source.release();
    expect((await reading)[2]).toBe(2);
    expect(source.single).toBe(0);
  });

  it('come from storage when the fetch fails, when not all of a read is there, and when a newer version is wanted', async () => {
    source.failing = true;
    first.begin(encodePages([page(7, 0)]), LSN);
    expect((await read(first, 7, 0))[2]).toBe(1);
    source.failing = false;
    first.begin(encodePages([page(8, 0)]), LSN);
    expect((await read(first, 8, 0, { count: 2 }))[2]).toBe(1);
    expect((await read(first, 8, 0, { since: LSN + 1 }))[2]).toBe(1);
    expect((await read(first, 8, 0))[2]).toBe(2);
  });

  it('are kept for the next compute when enough of them are new, scans left out', async () => {
    first.begin(undefined, LSN);
    await read(first, 9, 0, { count: 64 });
    for (let block = 0; block < 7; block++) await read(first, 7, block);
    expect(first.listToKeep()).toBeUndefined();
    await read(first, 7, 7);
    const list = first.listToKeep()!;
    expect(decodePages(list)).toEqual(Array.from({ length: 8 }, (_, i) => page(7, i)));

    const next = new FirstPages({ source, clock });
    next.begin(list, LSN);
    for (let block = 0; block < 8; block++) await read(next, 7, block);
    expect(next.listToKeep()).toBeUndefined();
  });

  it('are only those of the first seconds, and what nobody took is dropped', async () => {
    first.begin(encodePages([page(7, 0)]), LSN);
    await clock.advance(20_000);
    expect((await read(first, 7, 0))[2]).toBe(1);
    for (let block = 0; block < 20; block++) await read(first, 7, block);
    expect(first.listToKeep()).toBeUndefined();
  });

  it('a list that cannot be read is as good as none', () => {
    expect(decodePages(new Uint8Array(18))).toEqual([]);
    first.begin(new Uint8Array(5), LSN);
    expect(source.lists).toBe(0);
  });
});
