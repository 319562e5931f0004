/**
 * What every page holds at every LSN, worked out from the agreed history alone: a page is its newest image at or before the
 * LSN, stamped with the end of the record that held it. A branch has what its ancestor had where it begins.
 */
import type { Lsn } from '../../protocols/lsn.ts';
import { PAGE_BYTES } from '../../protocols/lsn.ts';
import type { RelationTag } from '../../protocols/pages/types.ts';
import type { DecodedRecord } from '../../protocols/postgres/wal/record.ts';
import type { SimRandom } from '../world/random.ts';

export interface ModelPage extends RelationTag {
  block: number;
  /** Oldest first. */
  versions: { lsn: Lsn; bytes: Uint8Array }[];
}

export class PageModel {
  readonly #pages = new Map<string, ModelPage>();
  readonly #list: ModelPage[] = [];
  readonly #records: { start: Lsn; end: Lsn }[] = [];
  readonly #ancestor: { model: PageModel; lsn: Lsn } | undefined;
  #last: Lsn;

  constructor(ancestor?: { model: PageModel; lsn: Lsn }) {
    this.#ancestor = ancestor;
    this.#last = ancestor?.lsn ?? (0 as Lsn);
  }

  get pages(): readonly ModelPage[] {
    return this.#list;
  }

  /** End of the last record that was taken in. */
  get lastLsn(): Lsn {
    return this.#last;
  }

  /** Takes in a committed record. */
  record(record: DecodedRecord): void {
    this.#last = record.end as Lsn;
    this.#records.push({ start: record.lsn as Lsn, end: record.end as Lsn });
    for (let id = 0; id <= record.maxBlock; id++) {
      if (!record.hasBlock(id) || !record.hasAppliedImage(id)) continue;
      this.#page(record, id).versions.push({ lsn: record.end as Lsn, bytes: restore(record, id) });
    }
  }

  /** The page's bytes at an LSN; undefined when it did not exist. */
  at(page: ModelPage, lsn: Lsn): Uint8Array | undefined {
    const own = this.#pages.get(keyOf(page))?.versions.findLast((version) => version.lsn <= lsn);
    if (own || !this.#ancestor) return own?.bytes;
    return this.#ancestor.model.at(page, Math.min(lsn, this.#ancestor.lsn) as Lsn);
  }

  /** How many blocks the relations of a database have at an LSN, by `<relation>/<fork>`. */
  sizesAt(lsn: Lsn, db: number): Map<string, number> {
    const inherited = this.#ancestor;
    const sizes = inherited ? inherited.model.sizesAt(Math.min(lsn, inherited.lsn) as Lsn, db) : new Map();
    for (const page of this.#list) {
      if (page.db !== db || page.versions[0]!.lsn > lsn) continue;
      const name = `${page.rel}/${page.fork}`;
      sizes.set(name, Math.max(sizes.get(name) ?? 0, page.block + 1));
    }
    return sizes;
  }

  /** Some committed record. */
  pickRecord(random: SimRandom): { start: Lsn; end: Lsn } | undefined {
    return this.#records.length === 0 ? undefined : random.pick(this.#records);
  }

  /** Some page and an LSN at which it existed. */
  pick(random: SimRandom): { page: ModelPage; lsn: Lsn } | undefined {
    const isInherited = this.#list.length === 0 || random.chance(0.3);
    if (isInherited && this.#ancestor) return this.#pickInherited(random, this.#ancestor);
    if (this.#list.length === 0) return undefined;
    const page = random.pick(this.#list);
    const lsn = random.chance(0.4) ? this.#last : random.pick(page.versions).lsn;
    return { page, lsn };
  }

  /** A page that existed where the branch begins, at an LSN of the branch. */
  #pickInherited(random: SimRandom, ancestor: { model: PageModel; lsn: Lsn }) {
    const picked = ancestor.model.pick(random);
    if (!picked || !ancestor.model.at(picked.page, ancestor.lsn)) return undefined;
    const record = random.chance(0.5) ? this.pickRecord(random) : undefined;
    return { page: picked.page, lsn: record?.end ?? this.#last };
  }

  #page(record: DecodedRecord, id: number): ModelPage {
    const tag = { spc: record.spc[id]!, db: record.db[id]!, rel: record.rel[id]!, fork: record.fork[id]! };
    const block = record.block[id]!;
    const key = keyOf({ ...tag, block });
    let page = this.#pages.get(key);
    if (!page) {
      page = { ...tag, block, versions: [] };
      this.#pages.set(key, page);
      this.#list.push(page);
    }
    return page;
  }
}

function keyOf({ spc, db, rel, fork, block }: RelationTag & { block: number }): string {
  return `${spc}/${db}/${rel}/${fork}/${block}`;
}

function restore(record: DecodedRecord, id: number): Uint8Array {
  const page = new Uint8Array(PAGE_BYTES);
  const from = record.imageOffset[id]!;
  const image = record.bytes.subarray(from, from + record.imageLength[id]!);
  const hole = record.holeLength[id]! > 0 ? record.holeOffset[id]! : image.length;
  page.set(image.subarray(0, hole));
  page.set(image.subarray(hole), hole + record.holeLength[id]!);
  const view = new DataView(page.buffer);
  view.setUint32(0, Math.floor(record.end / 2 ** 32), true);
  view.setUint32(4, record.end % 2 ** 32, true);
  return page;
}
