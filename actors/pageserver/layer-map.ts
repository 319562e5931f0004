/**
 * The layer files of one timeline, as reads find them.
 *
 * Level 0 deltas hold all keys and are few: they are kept by LSN. All others hold a range of keys: the key space is cut
 * at the ends of their ranges, and every interval has its layers in a column, newest first. A page's column is found by a binary
 * search over the cuts, the newest image in it by another one over LSNs; what a read looks at then is the deltas above that image.
 *
 * 1. Level 0 deltas and state layers together cover one range of LSNs without a gap and without an overlap.
 * 2. All level 0 deltas are newer than all other deltas.
 * 3. Of one column, deltas do not overlap in LSNs. An image holds every page of its range that exists at its LSN.
 */
import { BLOCK_MAX, compareKeys, type PageKey, parseKey } from '../../protocols/layers/key.ts';
import type { FileLayer } from './file-layer.ts';
import type { RelationTable } from './relation-table.ts';

/** Where to look for a page: an image, and the deltas above it. */
export interface PageLayers {
  /** Newest image at or before the LSN. */
  image: FileLayer | undefined;
  /** Level 1 deltas, newest first; those that begin at `from` and later reach the LSN. */
  deltas: readonly FileLayer[];
  from: number;
}

interface Column {
  images: FileLayer[];
  deltas: FileLayer[];
}

const NOTHING: Column = { images: [], deltas: [] };

export class LayerMap {
  /** Level 0 deltas, newest first. */
  #open: FileLayer[] = [];
  /** Layers with the small state, ascending. */
  #states: FileLayer[] = [];
  readonly #byKey = new Map<string, FileLayer>();
  /** Rebuilt at the first read after a change. */
  #bounds: PageKey[] | undefined;
  #columns: Column[] = [];
  readonly #found: PageLayers = { image: undefined, deltas: [], from: 0 };

  constructor(layers: Iterable<FileLayer> = []) {
    this.replace(layers, []);
  }

  get size(): number {
    return this.#byKey.size;
  }

  /** Level 0 deltas, newest first. */
  get levelZero(): readonly FileLayer[] {
    return this.#open;
  }

  /** Layers with the small state, ascending by LSN. */
  get states(): readonly FileLayer[] {
    return this.#states;
  }

  /** Everything up to here is in layers; undefined when there are none. */
  get endLsn(): number | undefined {
    return this.#states.at(-1)?.endLsn;
  }

  get(key: string): FileLayer | undefined {
    return this.#byKey.get(key);
  }

  all(): IterableIterator<FileLayer> {
    return this.#byKey.values();
  }

  /** Puts new layers in the place of others, in one step. The others are marked: their bytes may be gone. */
  replace(added: Iterable<FileLayer>, removed: Iterable<string>): FileLayer[] {
    const gone: FileLayer[] = [];
    for (const key of removed) {
      const layer = this.#byKey.get(key);
      if (!layer) continue;
      layer.isRetired = true;
      this.#byKey.delete(key);
      gone.push(layer);
    }
    for (const layer of added) this.#byKey.set(layer.descriptor.key, layer);
    const layers = [...this.#byKey.values()];
    this.#open = layers.filter(isOpenDelta).sort((a, b) => b.endLsn - a.endLsn);
    this.#states = layers.filter(hasState).sort((a, b) => a.startLsn - b.startLsn || a.endLsn - b.endLsn);
    this.#bounds = undefined;
    return gone;
  }

  /** The layer that tells the small state at `lsn`: the one that covers it, or the last one before it. */
  stateLayerAt(lsn: number): FileLayer | undefined {
    let low = 0;
    let high = this.#states.length - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      if (this.#states[middle]!.reaches(lsn)) low = middle + 1;
      else high = middle - 1;
    }
    return this.#states[high];
  }

  /** Where a page is to be looked for below level 0. The result is reused by the next call. */
  find(relations: RelationTable, relation: number, block: number, lsn: number): PageLayers {
    const { images, deltas } = this.#columnOf(relations, relation, block);
    const found = this.#found;
    found.image = images[firstAtOrBefore(images, lsn)];
    found.deltas = deltas;
    found.from = firstThatReaches(deltas, lsn);
    return found;
  }

  /** All layers of a range of keys by interval, for the planner: images and level 1 deltas, newest first. */
  columnsOf(first: PageKey, last: PageKey): { images: readonly FileLayer[]; deltas: readonly FileLayer[] }[] {
    const bounds = this.#bounds ?? this.#build();
    const columns: Column[] = [];
    for (let i = 0; i < this.#columns.length; i++) {
      const begins = i === 0 ? undefined : bounds[i - 1]!;
      const ends = bounds[i];
      const isBefore = ends !== undefined && compareKeys(ends, first) <= 0;
      const isBehind = begins !== undefined && compareKeys(begins, last) > 0;
      if (!isBefore && !isBehind) columns.push(this.#columns[i]!);
    }
    return columns;
  }

  #columnOf(relations: RelationTable, relation: number, block: number): Column {
    const bounds = this.#bounds ?? this.#build();
    const spc = relations.spc[relation]!;
    const db = relations.db[relation]!;
    const rel = relations.rel[relation]!;
    const fork = relations.fork[relation]!;
    let low = 0;
    let high = bounds.length - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      const bound = bounds[middle]!;
      const order =
        bound.spc - spc || bound.db - db || bound.rel - rel || bound.fork - fork || bound.block - block;
      if (order <= 0) low = middle + 1;
      else high = middle - 1;
    }
    return this.#columns[low] ?? NOTHING;
  }

  /** Cuts the key space: column i holds the keys from bound i-1 (inclusive) up to bound i. */
  #build(): PageKey[] {
    const layers = [...this.#byKey.values()].filter((layer) => !isOpenDelta(layer) && hasPages(layer));
    const ranges = layers.map(({ descriptor }) => ({
      first: parseKey(descriptor.firstKey),
      end: keyAfter(parseKey(descriptor.lastKey)),
    }));
    const keys: PageKey[] = [];
    for (const { first, end } of ranges) {
      keys.push(first);
      if (end) keys.push(end);
    }
    keys.sort(compareKeys);
    const bounds = keys.filter((key, i) => i === 0 || compareKeys(keys[i - 1]!, key) !== 0);
    const columns: Column[] = Array.from({ length: bounds.length + 1 }, () => ({ images: [], deltas: [] }));
    layers.forEach((layer, i) => {
      const { first, end } = ranges[i]!;
      const from = indexOf(bounds, first) + 1;
      const to = end ? indexOf(bounds, end) + 1 : columns.length;
      for (let at = from; at < to; at++) {
        const column = columns[at]!;
        (layer.descriptor.kind === 'image' ? column.images : column.deltas).push(layer);
      }
    });
    for (const { images, deltas } of columns) {
      images.sort(newestFirst);
      deltas.sort(newestFirst);
    }
    this.#columns = columns;
    this.#bounds = bounds;
    return bounds;
  }
}

/** The key that follows; undefined after the last. */
export function keyAfter({ spc, db, rel, fork, block }: PageKey): PageKey | undefined {
  if (block < BLOCK_MAX) return { spc, db, rel, fork, block: block + 1 };
  if (fork < 0xff) return { spc, db, rel, fork: fork + 1, block: 0 };
  if (rel < BLOCK_MAX) return { spc, db, rel: rel + 1, fork: 0, block: 0 };
  if (db < BLOCK_MAX) return { spc, db: db + 1, rel: 0, fork: 0, block: 0 };
  return spc < BLOCK_MAX ? { spc: spc + 1, db: 0, rel: 0, fork: 0, block: 0 } : undefined;
}

function isOpenDelta({ descriptor }: FileLayer): boolean {
  return descriptor.level === 0 && descriptor.kind === 'delta';
}

function hasState({ descriptor }: FileLayer): boolean {
  return descriptor.level === 0 || descriptor.kind === 'state';
}

function hasPages({ descriptor }: FileLayer): boolean {
  return descriptor.kind !== 'state';
}

function newestFirst(a: FileLayer, b: FileLayer): number {
  return b.endLsn - a.endLsn;
}

/** The newest of layers (newest first) that ends at or before `lsn`. */
function firstAtOrBefore(layers: readonly FileLayer[], lsn: number): number {
  let low = 0;
  let high = layers.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (layers[middle]!.endLsn <= lsn) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** The newest of deltas (newest first, without overlap) that begins before `lsn`. */
function firstThatReaches(layers: readonly FileLayer[], lsn: number): number {
  let low = 0;
  let high = layers.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (layers[middle]!.startLsn < lsn) high = middle;
    else low = middle + 1;
  }
  return low;
}

function indexOf(bounds: PageKey[], key: PageKey): number {
  let low = 0;
  let high = bounds.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (compareKeys(bounds[middle]!, key) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}
