/**
 * The pages that a compute reads first, remembered from one life to the next: catalogs mostly, some sixty of them before
 * the first row, each a wait of its own. Known ahead, they are asked for in few requests while Postgres still starts.
 *
 * 1. A page that was fetched ahead at the start's LSN is what storage would answer for as long as this compute has not
 *    written it: reads say so by `notModifiedSince`, and any other read goes to storage.
 * 2. Each is handed out once: after that the kernel has it. What nobody took is dropped after a while.
 * 3. A fetch ahead that fails costs nothing but its gain.
 */
import { type Lsn, PAGE_BYTES } from '../../../protocols/lsn.ts';
import type { PageTag } from '../../../protocols/pages/messages.ts';
import type { ReadPoint, RelationEntry, RelationTag } from '../../../protocols/pages/types.ts';
import type { Clock } from '../../../runtime/ports/clock.ts';
import type { PageSource } from '../files/file-content.ts';

/** Name of the list among the files that are kept for the next compute. */
export const FIRST_PAGES_FILE = 'palimpsest.first-pages';

const PAGES_MAX = 256;
/** Few enough that the first ones arrive early. */
const PAGES_PER_REQUEST = 64;
/** What is read in longer runs is a scan, which reads ahead by itself. */
const RUN_PAGES_MAX = 4;
/** The list is made of what is read in this time. */
const RECORD_MS = 3_000;
const KEEP_MS = 15_000;
/** A list is kept anew when so many of its pages were missing in the one before. */
const NEW_PAGES_MIN = 8;
/** u32 tablespace, u32 database, u32 relation, u32 block, u8 fork; little endian. */
const ITEM_BYTES = 17;

export interface FirstPagesSource extends PageSource {
  /** Pages of many relations at one moment, in the order asked. */
  getPageList(request: ReadPoint & { pages: PageTag[] }): Promise<Uint8Array>;
}

type PagesRequest = ReadPoint & RelationTag & { firstBlock: number; count: number };

export class FirstPages implements PageSource {
  readonly #source: FirstPagesSource;
  readonly #clock: Clock;
  /** What the last life left, by key. */
  #given = new Map<string, PageTag>();
  /** What this life has asked for, by key; undefined once the time for that is over. */
  #asked: Map<string, PageTag> | undefined;
  /** Content or, until it is there, the fetch that brings it. */
  readonly #ahead = new Map<string, Uint8Array | Promise<void>>();
  #lsn = -1;
  readonly #recorded: Map<string, PageTag>;

  constructor(options: { source: FirstPagesSource; clock: Clock }) {
    this.#source = options.source;
    this.#clock = options.clock;
    this.#recorded = this.#asked = new Map();
  }

  /** Begins: `list` is what the last compute kept, if there was one. Reads at `lsn` are answered from it. */
  begin(list: Uint8Array | undefined, lsn: Lsn): void {
    this.#lsn = lsn;
    const pages = list ? decodePages(list) : [];
    this.#given = new Map(pages.map((page) => [keyOf(page, page.block), page]));
    for (let at = 0; at < pages.length; at += PAGES_PER_REQUEST)
      this.#fetch(pages.slice(at, at + PAGES_PER_REQUEST), lsn);
    this.#clock.setTimer(RECORD_MS, () => {
      this.#asked = undefined;
    });
    this.#clock.setTimer(KEEP_MS, () => this.#ahead.clear());
  }

  getPages(request: PagesRequest, into?: Uint8Array): Promise<Uint8Array> {
    if (request.count > RUN_PAGES_MAX) return this.#source.getPages(request, into);
    if (this.#asked && this.#asked.size < PAGES_MAX) this.#note(this.#asked, request);
    if (this.#ahead.size === 0 || request.notModifiedSince !== this.#lsn) {
      return this.#source.getPages(request, into);
    }
    return this.#takeAhead(request, into);
  }

  getDirectory(request: ReadPoint & { db: number }): Promise<RelationEntry[]> {
    return this.#source.getDirectory(request);
  }

  /** The list for the next compute; undefined when the one that it has will do. */
  listToKeep(): Uint8Array | undefined {
    let fresh = 0;
    for (const key of this.#recorded.keys()) if (!this.#given.has(key)) fresh++;
    if (fresh < NEW_PAGES_MIN) return undefined;
    const union = new Map([...this.#recorded, ...this.#given]);
    return encodePages([...union.values()].slice(0, PAGES_MAX));
  }

  #note(asked: Map<string, PageTag>, { spc, db, rel, fork, firstBlock, count }: PagesRequest): void {
    for (let block = firstBlock; block < firstBlock + count; block++) {
      const page = { spc, db, rel, fork, block };
      asked.set(keyOf(page, block), page);
    }
  }

  #fetch(pages: PageTag[], lsn: Lsn): void {
    const fetching = this.#source.getPageList({ lsn, notModifiedSince: lsn, pages }).then(
      (bytes) => {
        pages.forEach((page, i) => {
          const key = keyOf(page, page.block);
          // Given up meanwhile?
          if (this.#ahead.get(key) !== fetching) return;
          this.#ahead.set(key, bytes.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES));
        });
      },
      () => {
        for (const page of pages) this.#ahead.delete(keyOf(page, page.block));
      },
    );
    for (const page of pages) this.#ahead.set(keyOf(page, page.block), fetching);
  }

  async #takeAhead(request: PagesRequest, into: Uint8Array | undefined): Promise<Uint8Array> {
    const { firstBlock, count } = request;
    const keys = Array.from({ length: count }, (_, i) => keyOf(request, firstBlock + i));
    for (const key of keys) {
      const content = this.#ahead.get(key);
      if (content instanceof Promise) await content;
    }
    const contents = keys.map((key) => this.#ahead.get(key));
    if (!contents.every((content) => content instanceof Uint8Array)) {
      return this.#source.getPages(request, into);
    }
    const pages = into ?? new Uint8Array(count * PAGE_BYTES);
    keys.forEach((key, i) => {
      pages.set(contents[i]!, i * PAGE_BYTES);
      this.#ahead.delete(key);
    });
    return pages;
  }
}

function keyOf({ spc, db, rel, fork }: RelationTag, block: number): string {
  return `${spc}/${db}/${rel}/${fork}/${block}`;
}

/** The bytes of a list, as it is kept. */
export function encodePages(pages: PageTag[]): Uint8Array {
  const bytes = new Uint8Array(pages.length * ITEM_BYTES);
  const view = new DataView(bytes.buffer);
  pages.forEach(({ spc, db, rel, fork, block }, i) => {
    const at = i * ITEM_BYTES;
    view.setUint32(at, spc, true);
    view.setUint32(at + 4, db, true);
    view.setUint32(at + 8, rel, true);
    view.setUint32(at + 12, block, true);
    view.setUint8(at + 16, fork);
  });
  return bytes;
}

/** Reads a kept list; one of an unexpected length is as good as none. */
export function decodePages(bytes: Uint8Array): PageTag[] {
  if (bytes.length % ITEM_BYTES !== 0 || bytes.length > PAGES_MAX * ITEM_BYTES) return [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return Array.from({ length: bytes.length / ITEM_BYTES }, (_, i) => {
    const at = i * ITEM_BYTES;
    return {
      spc: view.getUint32(at, true),
      db: view.getUint32(at + 4, true),
      rel: view.getUint32(at + 8, true),
      block: view.getUint32(at + 12, true),
      fork: view.getUint8(at + 16),
    };
  });
}
