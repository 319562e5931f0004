/**
 * The pages of one relation fork that a replay holds, by block: two levels of arrays, so that finding a page is two loads, and a
 * relation with few pages stays small.
 */
/** So many that the chunks' own headers stay in the processor's cache while pages are touched at random. */
const BLOCKS_PER_CHUNK = 1024;
const CHUNK_SHIFT = 10;
const NOT_CHANGED = 255;

class PageChunk {
  readonly pages: (Uint8Array | undefined)[] = new Array(BLOCKS_PER_CHUNK).fill(undefined);
  /** Resource manager that last changed each page. */
  readonly changedBy = new Uint8Array(BLOCKS_PER_CHUNK).fill(NOT_CHANGED);
}

export class PageTable {
  /** Becomes a sparse array by itself when a block far away is touched. */
  readonly #chunks: (PageChunk | undefined)[] = [];

  get(block: number): Uint8Array | undefined {
    const chunk = this.#chunks[block >>> CHUNK_SHIFT];
    return chunk === undefined ? undefined : chunk.pages[block & (BLOCKS_PER_CHUNK - 1)];
  }

  set(block: number, page: Uint8Array): void {
    this.#chunk(block).pages[block & (BLOCKS_PER_CHUNK - 1)] = page;
  }

  /** Notes which resource manager (0..254) changed a page that is here. */
  setChangedBy(block: number, rmid: number): void {
    this.#chunk(block).changedBy[block & (BLOCKS_PER_CHUNK - 1)] = rmid;
  }

  /** Resource manager that last changed the page, undefined for one that was not changed. */
  changedBy(block: number): number | undefined {
    const rmid = this.#chunks[block >>> CHUNK_SHIFT]?.changedBy[block & (BLOCKS_PER_CHUNK - 1)];
    return rmid === NOT_CHANGED ? undefined : rmid;
  }

  /** Forgets the pages from `first` up to, not including, `end`; what changed them stays known. */
  delete(first: number, end: number): void {
    for (const [block] of this.entries()) {
      if (block < first || block >= end) continue;
      this.#chunk(block).pages[block & (BLOCKS_PER_CHUNK - 1)] = undefined;
    }
  }

  /** Block and page, for all that are here. */
  *entries(): Generator<[number, Uint8Array]> {
    for (const key of Object.keys(this.#chunks)) {
      const first = Number(key) * BLOCKS_PER_CHUNK;
      const { pages } = this.#chunks[Number(key)]!;
      for (let i = 0; i < BLOCKS_PER_CHUNK; i++) if (pages[i] !== undefined) yield [first + i, pages[i]!];
    }
  }

  #chunk(block: number): PageChunk {
    const index = block >>> CHUNK_SHIFT;
    let chunk = this.#chunks[index];
    if (chunk === undefined) this.#chunks[index] = chunk = new PageChunk();
    return chunk;
  }
}
