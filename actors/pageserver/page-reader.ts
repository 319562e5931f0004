/**
 * Reads batches of pages: at once what memory holds; for the rest fetches what is missing, all of it together, and tries
 * again. A round goes one layer deeper, so that the number of rounds is bounded by the number of layers.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { PAGE_BYTES } from '../../protocols/lsn.ts';
import { ReadContext } from './file-layer.ts';
import type { LayerStore } from './layer-store.ts';
import type { PageHistory } from './page-history.ts';
import type { ReadMemory } from './read-memory.ts';
import type { RelationTable } from './relation-table.ts';

/** Far above what layers can need; a read that gets here goes round in circles. */
const ROUNDS_MAX = 10_000;

/** The pages of a request: relation numbers (-1: no such relation) and blocks. */
export interface PageBatch {
  relations: Int32Array;
  blocks: Float64Array;
}

export class PageReader {
  readonly #history: PageHistory;
  readonly #store: LayerStore;
  readonly #tools: { relations: RelationTable; memory: ReadMemory };
  readonly #page = new Uint8Array(PAGE_BYTES);

  constructor(history: PageHistory, tools: { store: LayerStore; relations: RelationTable }) {
    this.#history = history;
    this.#store = tools.store;
    this.#tools = { relations: tools.relations, memory: tools.store.readMemory };
  }

  /** Reads all pages of a batch as of `lsn` into `out`. Returns a promise only when something must be fetched. */
  read(
    batch: PageBatch,
    lsn: number,
    out: Uint8Array,
    options: { keepsPages?: boolean } = {},
  ): Promise<void> | undefined {
    const context = new ReadContext(this.#tools, options.keepsPages);
    let missing: number[] | undefined;
    for (let i = 0; i < batch.blocks.length; i++) {
      if (!this.#readOne(batch, i, lsn, context, out)) {
        if (missing) missing.push(i);
        else missing = [i];
      }
    }
    return missing && this.#fetch(batch, lsn, out, context, missing);
  }

  /** Reads one page; a new buffer. */
  async readPage(relation: number, block: number, lsn: number): Promise<Uint8Array> {
    const out = new Uint8Array(PAGE_BYTES);
    await this.read({ relations: Int32Array.of(relation), blocks: Float64Array.of(block) }, lsn, out);
    return out;
  }

  async #fetch(
    batch: PageBatch,
    lsn: number,
    out: Uint8Array,
    context: ReadContext,
    missing: number[],
  ): Promise<void> {
    let left = missing;
    try {
      for (let round = 0; left.length > 0; round++) {
        if (round > ROUNDS_MAX) throw new PalimpsestError('internal', 'a page read does not come to an end');
        await this.#store.supply(context);
        const still: number[] = [];
        for (const i of left) if (!this.#readOne(batch, i, lsn, context, out)) still.push(i);
        left = still;
      }
    } finally {
      context.release();
    }
  }

  #readOne(batch: PageBatch, i: number, lsn: number, context: ReadContext, out: Uint8Array): boolean {
    const relation = batch.relations[i]!;
    const offset = i * PAGE_BYTES;
    if (relation < 0) {
      out.fill(0, offset, offset + PAGE_BYTES);
      return true;
    }
    if (!this.#history.readPage(relation, batch.blocks[i]!, lsn, context, this.#page)) return false;
    out.set(this.#page, offset);
    return true;
  }
}
