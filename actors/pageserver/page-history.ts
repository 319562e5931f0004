/**
 * The history of one timeline's pages, as reads see it: layers in memory, layers in files, and the ancestor that it
 * grew from. `readPage` is synchronous; what it lacks from files is noted in the context (see file-layer.ts).
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { PAGE_BYTES } from '../../protocols/lsn.ts';
import { collectFromFile, type ReadContext } from './file-layer.ts';
import { LayerMap } from './layer-map.ts';
import type { MemoryLayer } from './memory-layer.ts';
import type { PageCache } from './page-cache.ts';
import type { PageRedo } from './page-redo.ts';
import { VersionChain } from './version-chain.ts';

export interface PageHistoryTools {
  cache: PageCache;
  redo: PageRedo;
}

/** Where the history goes on below; `history` throws `unavailable` while it cannot be read up to `lsn`. */
export interface Ancestor {
  readonly history: PageHistory;
  readonly lsn: number;
}

/** A page that was read into `PageHistory.readPage`'s buffer. */
export interface PageVersion {
  /** LSN of the newest change that the page contains. */
  pageLsn: number;
  /** Whether some history keeps the page in the cache. */
  isCached: boolean;
}

let lastSource = 0;

export class PageHistory {
  /** Key of this history in the page cache. */
  readonly source = ++lastSource;
  readonly pgVersion: number;
  readonly #tools: PageHistoryTools;
  /** Newest first: the open layer, then frozen ones. */
  memory: MemoryLayer[] = [];
  readonly files = new LayerMap();
  ancestor: Ancestor | undefined;
  #isClosed = false;

  readonly #chain = new VersionChain();
  readonly #version: PageVersion = { pageLsn: 0, isCached: false };

  constructor(pgVersion: number, tools: PageHistoryTools) {
    this.pgVersion = pgVersion;
    this.#tools = tools;
  }

  /** Ends all reads: what is left of the layers would give wrong pages. */
  close(): void {
    this.#isClosed = true;
  }

  /**
   * Reads a page as of `lsn` into `page` (8192 bytes). Returns undefined when the context lacks bytes; the result is
   * reused by the next call. Throws when a record cannot be applied.
   */
  readPage(
    relation: number,
    block: number,
    lsn: number,
    context: ReadContext,
    page: Uint8Array,
  ): PageVersion | undefined {
    if (this.#isClosed)
      throw new PalimpsestError('unavailable', 'the timeline was detached from this pageserver');
    const { cache } = this.#tools;
    const version = this.#version;
    const slot = cache.find(this.source, relation, block);
    const isUsable = slot >= 0 && cache.pageLsn[slot]! <= lsn;
    if (isUsable && lsn <= cache.asOf[slot]!) {
      cache.hits++;
      cache.copyTo(slot, page, 0);
      version.pageLsn = cache.pageLsn[slot]!;
      version.isCached = true;
      return version;
    }
    cache.misses++;
    const chain = this.#chain;
    chain.reset();
    const floor = isUsable ? cache.asOf[slot]! : -1;
    if (!this.#collect(relation, block, floor, lsn, chain, context)) return undefined;
    version.pageLsn = chain.count > 0 ? chain.endLsns[0]! : chain.imageLsn;
    version.isCached = false;
    if (chain.complete) {
      this.#tools.redo.layBase(chain, page);
    } else if (isUsable) {
      cache.copyTo(slot, page, 0);
      if (chain.count === 0) version.pageLsn = cache.pageLsn[slot]!;
    } else if (this.ancestor) {
      const below = this.#readAncestor(relation, block, lsn, context, page);
      if (!below) return undefined;
      if (chain.count === 0) {
        version.pageLsn = below.pageLsn;
        version.isCached = below.isCached;
      }
    } else {
      page.fill(0, 0, PAGE_BYTES);
    }
    if (chain.count > 0) this.#tools.redo.apply(chain, this.pgVersion, relation, block, page);
    if (!version.isCached && context.keepsPages) {
      version.isCached = cache.put(
        { source: this.source, relation, block },
        { pageLsn: version.pageLsn, asOf: lsn },
        page,
        0,
      );
    }
    return version;
  }

  /** Walks the layers from newest to oldest; false when the context lacks bytes. */
  #collect(
    relation: number,
    block: number,
    floor: number,
    lsn: number,
    chain: VersionChain,
    context: ReadContext,
  ): boolean {
    for (const layer of this.memory) {
      if (layer.startLsn >= lsn) continue;
      if (layer.endLsn <= floor) return true;
      layer.collect(relation, block, floor, lsn, chain);
      if (chain.complete) return true;
    }
    const page = { relation, block };
    const found = this.files.find(context.relations, relation, block, lsn);
    const { image, deltas, from } = found;
    // What an image holds needs no versions from before it.
    const range = { floor: image ? Math.max(floor, image.endLsn) : floor, lsn };
    for (const layer of this.files.levelZero) {
      if (layer.startLsn >= lsn) continue;
      if (layer.endLsn <= range.floor) break;
      if (!collectFromFile(layer, page, range, chain, context)) return false;
      if (chain.complete) return true;
    }
    for (let i = from; i < deltas.length && deltas[i]!.endLsn > range.floor; i++) {
      if (!collectFromFile(deltas[i]!, page, range, chain, context)) return false;
      if (chain.complete) return true;
    }
    if (!image || image.endLsn <= floor) return true;
    return collectFromFile(image, page, { floor, lsn }, chain, context);
  }

  #readAncestor(
    relation: number,
    block: number,
    lsn: number,
    context: ReadContext,
    page: Uint8Array,
  ): PageVersion | undefined {
    const { history, lsn: branchLsn } = this.ancestor!;
    return history.readPage(relation, block, Math.min(lsn, branchLsn), context, page);
  }
}
