/**
 * For tests beside this folder: slots in memory, and a storage that keeps every version of every page.
 */
import { PAGE_BYTES } from '../../../protocols/lsn.ts';
import type { ReadPoint, RelationEntry, RelationTag } from '../../../protocols/pages/types.ts';
import type { PageSource } from './file-content.ts';
import type { SlotStore } from './slot-pool.ts';

export class MemorySlots implements SlotStore {
  #bytes = new Uint8Array(0);
  /** After so many more writes the disk is full. */
  writesUntilFull = Number.POSITIVE_INFINITY;
  writes = 0;

  read(into: Uint8Array, offset: number, length: number, position: number): void {
    into.fill(0, offset, offset + length);
    into.set(this.#bytes.subarray(position, position + length), offset);
  }

  write(from: Uint8Array, offset: number, length: number, position: number): void {
    if (this.writesUntilFull-- <= 0) throw Object.assign(new Error('no space'), { code: 'ENOSPC' });
    this.writes++;
    if (position + length > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(position + length, this.#bytes.length * 2));
      grown.set(this.#bytes);
      this.#bytes = grown;
    }
    this.#bytes.set(from.subarray(offset, offset + length), position);
  }

  truncate(bytes: number): void {
    this.#bytes = this.#bytes.slice(0, bytes);
  }

  get length(): number {
    return this.#bytes.length;
  }
}

/** A page whose header carries an LSN and whose body tells what it is. */
export function makePage(lsn: number, mark: number): Uint8Array {
  const page = new Uint8Array(PAGE_BYTES).fill(mark & 0xff);
  const view = new DataView(page.buffer);
  view.setUint32(0, Math.floor(lsn / 2 ** 32), true);
  view.setUint32(4, lsn % 2 ** 32, true);
  view.setUint32(8, mark, true);
  return page;
}

export class VersionedSource implements PageSource {
  readonly #pages = new Map<string, { lsn: number; page: Uint8Array }[]>();
  readonly #relations = new Map<string, RelationEntry>();
  requests = 0;
  lastNotModifiedSince = 0;
  /** Set to let requests fail. */
  failing = false;

  relation(entry: RelationEntry): void {
    this.#relations.set(`${entry.db}/${entry.rel}/${entry.fork}`, entry);
  }

  put(tag: RelationTag, block: number, lsn: number, page: Uint8Array): void {
    const key = `${tag.db}/${tag.rel}/${tag.fork}/${block}`;
    this.#pages.set(key, [...(this.#pages.get(key) ?? []), { lsn, page }]);
  }

  async getPages(
    request: ReadPoint & RelationTag & { firstBlock: number; count: number },
    into = new Uint8Array(request.count * PAGE_BYTES),
  ): Promise<Uint8Array> {
    this.requests++;
    this.lastNotModifiedSince = request.notModifiedSince;
    await Promise.resolve();
    if (this.failing) throw new Error('storage is down');
    for (let i = 0; i < request.count; i++) {
      const key = `${request.db}/${request.rel}/${request.fork}/${request.firstBlock + i}`;
      // As old as the request allows: what it needs must be named by it.
      const versions = (this.#pages.get(key) ?? []).filter(({ lsn }) => lsn <= request.notModifiedSince);
      const page = into.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
      page.fill(0);
      const newest = versions.at(-1);
      if (newest) page.set(newest.page);
    }
    return into;
  }

  async getDirectory({ db }: { db: number }): Promise<RelationEntry[]> {
    this.requests++;
    await Promise.resolve();
    if (this.failing) throw new Error('storage is down');
    return [...this.#relations.values()].filter((entry) => entry.db === db);
  }
}
