/**
 * Where each page of a file is: in a slot of the overlay, evicted to storage, or as it was when the file appeared.
 *
 * Sparse: chunks exist only around pages that were written, since a segment has 131,072 pages and most are never
 * written.
 */
const CHUNK_PAGES = 256;

/** Never written here: what storage has below the file's storage size, zeros beyond. */
export const PAGE_UNTOUCHED = -1;
/** Written here, then dropped because storage has it. */
export const PAGE_EVICTED = -2;

export class PageStates {
  #chunks: (Int32Array | undefined)[] = [];

  /** A slot number, or one of the constants above. */
  get(page: number): number {
    const chunk = this.#chunks[Math.floor(page / CHUNK_PAGES)];
    return chunk ? chunk[page % CHUNK_PAGES]! : PAGE_UNTOUCHED;
  }

  set(page: number, state: number): void {
    const index = Math.floor(page / CHUNK_PAGES);
    let chunk = this.#chunks[index];
    if (!chunk) {
      if (state === PAGE_UNTOUCHED) return;
      chunk = new Int32Array(CHUNK_PAGES).fill(PAGE_UNTOUCHED);
      this.#chunks[index] = chunk;
    }
    chunk[page % CHUNK_PAGES] = state;
  }

  /** Forgets all pages from `first` on, calling back for each slot. */
  clearFrom(first: number, onSlot: (slot: number) => void): void {
    const firstChunk = Math.floor(first / CHUNK_PAGES);
    for (let index = firstChunk; index < this.#chunks.length; index++) {
      const chunk = this.#chunks[index];
      if (!chunk) continue;
      const start = index === firstChunk ? first % CHUNK_PAGES : 0;
      for (let i = start; i < CHUNK_PAGES; i++) {
        const state = chunk[i]!;
        if (state >= 0) onSlot(state);
        chunk[i] = PAGE_UNTOUCHED;
      }
      if (start === 0) this.#chunks[index] = undefined;
    }
    this.#chunks.length = Math.min(this.#chunks.length, firstChunk + 1);
  }

  /** Calls back for each page that is in a slot, in order. */
  forEachSlot(visit: (page: number, slot: number) => void): void {
    for (let index = 0; index < this.#chunks.length; index++) {
      const chunk = this.#chunks[index];
      if (!chunk) continue;
      for (let i = 0; i < CHUNK_PAGES; i++) {
        if (chunk[i]! >= 0) visit(index * CHUNK_PAGES + i, chunk[i]!);
      }
    }
  }
}
