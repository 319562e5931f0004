/**
 * A page source that reads a stopped stock cluster: stands in for a pageserver where only the compute's side is tested.
 */
import { closeSync, openSync, readdirSync, readSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { PageSource } from '../../actors/compute/files/file-content.ts';
import { parseRelationFileName, relationFileName, SEGMENT_BLOCKS } from '../../actors/compute/files/names.ts';
import { PAGE_BYTES } from '../../protocols/lsn.ts';
import type { RelationEntry, RelationTag } from '../../protocols/pages/types.ts';

export class StockPageSource implements PageSource {
  readonly #cluster: string;
  /** Set to let requests fail, as a storage that is down. */
  failing = false;
  delayMs = 0;

  constructor(cluster: string) {
    this.#cluster = cluster;
  }

  async getPages(
    request: RelationTag & { firstBlock: number; count: number },
    into = new Uint8Array(request.count * PAGE_BYTES),
  ): Promise<Uint8Array> {
    await this.#wait();
    const { firstBlock, count } = request;
    for (let i = 0; i < count; i++) {
      const block = firstBlock + i;
      const segment = Math.floor(block / SEGMENT_BLOCKS);
      const page = into.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
      const path = join(this.#folder(request.db), relationFileName(request.rel, request.fork, segment));
      readPage(path, (block % SEGMENT_BLOCKS) * PAGE_BYTES, page);
    }
    return into;
  }

  async getDirectory({ db }: { db: number }): Promise<RelationEntry[]> {
    await this.#wait();
    const folder = this.#folder(db);
    const entries = new Map<string, RelationEntry>();
    for (const name of readdirSync(folder)) {
      const parsed = parseRelationFileName(name);
      if (!parsed) continue;
      const key = `${parsed.rel}/${parsed.fork}`;
      const tag = { spc: db === 0 ? 1664 : 1663, db, rel: parsed.rel, fork: parsed.fork };
      const entry = entries.get(key) ?? { ...tag, blocks: 0 };
      entry.blocks += Math.ceil(statSync(join(folder, name)).size / PAGE_BYTES);
      entries.set(key, entry);
    }
    return [...entries.values()];
  }

  #folder(db: number): string {
    return db === 0 ? join(this.#cluster, 'global') : join(this.#cluster, 'base', String(db));
  }

  async #wait(): Promise<void> {
    if (this.delayMs > 0) await new Promise((resolve) => setTimeout(resolve, this.delayMs));
    if (this.failing) throw new Error('the test storage is down');
  }
}

function readPage(path: string, position: number, page: Uint8Array): void {
  page.fill(0);
  const descriptor = openSync(path, 'r');
  try {
    readSync(descriptor, page, 0, PAGE_BYTES, position);
  } finally {
    closeSync(descriptor);
  }
}
