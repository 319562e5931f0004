/**
 * Merges level 0 deltas that follow one another into deltas sorted by key (level 1) of a target size, and one layer with the
 * small state of their whole range, whose start it repeats once instead of once per layer.
 *
 * Streaming: of each input a piece, of the output a buffer are in memory, whatever the sizes. The relative order of versions of
 * a page is that of the inputs, as these do not overlap in LSNs; records and images are copied as they are.
 */
import { compareKeys, type PageKey, parseKey } from '../../protocols/layers/key.ts';
import type { LayerRelations } from '../../protocols/layers/reader.ts';
import type { LayerState } from '../../protocols/layers/state.ts';
import type { RelationTag } from '../../protocols/pages/types.ts';
import type { FileLayer } from './file-layer.ts';
import { LayerCursor } from './layer-cursor.ts';
import type { LayerDescriptor } from './layer-descriptor.ts';
import { LayerFileWriter, type LayerPlace } from './layer-file-writer.ts';
import type { Pacer } from './pacer.ts';

export interface MergeOptions {
  place: LayerPlace;
  pacer: Pacer;
  /** Size at which an output file is ended. */
  targetBytes: number;
  /** Which pages go into the output; all when absent. */
  keeps?: (relation: RelationTag, block: number) => boolean;
}

/** Merges `layers` (oldest first, without gaps); the outputs are durable when this resolves, and nobody knows of them yet. */
export async function mergeLayers(layers: FileLayer[], options: MergeOptions): Promise<LayerDescriptor[]> {
  return new Merge(layers, options).run();
}

/**
 * Copies those pages of a level 1 delta or image that `keeps` chooses, with the range of keys that the layer has. The copy is durable when
 * this resolves, and nobody knows of it yet.
 */
export async function copyChosenPages(
  layer: FileLayer,
  options: Omit<MergeOptions, 'targetBytes'>,
): Promise<LayerDescriptor> {
  const merge = new Merge([layer], { ...options, targetBytes: Number.POSITIVE_INFINITY });
  return merge.copy(layer.descriptor);
}

class Merge {
  readonly #layers: FileLayer[];
  readonly #options: MergeOptions;
  readonly #startLsn: number;
  readonly #endLsn: number;
  readonly #outputs: LayerDescriptor[] = [];
  #cursors: LayerCursor[] = [];
  #file: LayerFileWriter | undefined;
  /** First key of the present file, when the file before ends in the middle of a relation. */
  #goesOnFrom: PageKey | undefined;
  #written: RelationTag | undefined;

  constructor(layers: FileLayer[], options: MergeOptions) {
    this.#layers = layers;
    this.#options = options;
    this.#startLsn = layers[0]!.startLsn;
    this.#endLsn = layers.at(-1)!.endLsn;
  }

  async run(): Promise<LayerDescriptor[]> {
    const { store } = this.#options.place;
    try {
      for (const layer of this.#layers) this.#cursors.push(await LayerCursor.open(layer, store));
      for (const tag of allRelations(this.#cursors.map(({ index }) => index))) await this.#mergeRelation(tag);
      await this.#endFile(undefined);
      await this.#writeState();
      return this.#outputs;
    } catch (error) {
      await this.#file?.abandon();
      for (const { key } of this.#outputs) {
        await this.#options.place.disk.remove(store.pathOf(key)).catch(() => {});
      }
      throw error;
    }
  }

  /** One file of the same shape and range, whatever is in it. */
  async copy({ kind, level, firstKey, lastKey }: LayerDescriptor): Promise<LayerDescriptor> {
    const { place } = this.#options;
    const shape = { kind, level, startLsn: this.#startLsn, endLsn: this.#endLsn };
    const file = await LayerFileWriter.open(place, shape);
    this.#file = file;
    try {
      this.#cursors.push(await LayerCursor.open(this.#layers[0]!, place.store));
      for (const tag of allRelations(this.#cursors.map(({ index }) => index))) await this.#mergeRelation(tag);
    } catch (error) {
      await file.abandon();
      throw error;
    }
    return file.finish({ firstKey: parseKey(firstKey), lastKey: parseKey(lastKey) });
  }

  async #mergeRelation(tag: RelationTag): Promise<void> {
    if (this.#isFull()) await this.#endFile(undefined);
    const cuts = this.#cutsOf(tag);
    if (cuts.length > 0) await this.#beginRelation(tag, cuts, 0);
    for (;;) {
      const block = this.#lowestBlock(tag);
      if (block === undefined) return;
      if (this.#options.keeps?.(tag, block) === false) {
        await this.#skipPage(tag, block);
        continue;
      }
      if (this.#isFull()) await this.#endFile({ ...tag, block });
      if (!this.#file || this.#written !== tag) await this.#beginRelation(tag, cuts, block);
      await this.#copyPage(tag, block);
      await this.#file!.drain();
      const rest = this.#options.pacer.rest();
      if (rest) await rest;
    }
  }

  #isFull(): boolean {
    return this.#file !== undefined && this.#file.writer.bytes >= this.#options.targetBytes;
  }

  #lowestBlock(tag: RelationTag): number | undefined {
    let lowest: number | undefined;
    for (const cursor of this.#cursors) {
      if (cursor.isAtEnd || !isSame(cursor.tag, tag)) continue;
      if (lowest === undefined || cursor.block < lowest) lowest = cursor.block;
    }
    return lowest;
  }

  async #copyPage(tag: RelationTag, block: number): Promise<void> {
    const { writer } = this.#file!;
    for (const cursor of this.#cursors) {
      while (!cursor.isAtEnd && cursor.block === block && isSame(cursor.tag, tag)) {
        writer.entry(block, cursor.lsn, cursor.flags, cursor.bytes);
        const reading = cursor.next();
        if (reading) await reading;
      }
    }
  }

  async #skipPage(tag: RelationTag, block: number): Promise<void> {
    for (const cursor of this.#cursors) {
      while (!cursor.isAtEnd && cursor.block === block && isSame(cursor.tag, tag)) {
        const reading = cursor.next();
        if (reading) await reading;
      }
    }
    const rest = this.#options.pacer.rest();
    if (rest) await rest;
  }

  async #beginRelation(tag: RelationTag, cuts: [number, number][], block: number): Promise<void> {
    if (!this.#file) {
      const range = { startLsn: this.#startLsn, endLsn: this.#endLsn };
      this.#file = await LayerFileWriter.open(this.#options.place, { kind: 'delta', level: 1, ...range });
    }
    this.#file.writer.relation(tag);
    for (const [lsn, cutTo] of cuts) this.#file.writer.cut(lsn, cutTo);
    if (this.#goesOnFrom && isSame(this.#goesOnFrom, tag) && this.#goesOnFrom.block === block) {
      this.#file.writer.narrow({ firstKey: this.#goesOnFrom });
    }
    this.#goesOnFrom = undefined;
    this.#written = tag;
  }

  /** Ends the present file before the page `next`, if one is being written. */
  async #endFile(next: PageKey | undefined): Promise<void> {
    if (!this.#file) return;
    const file = this.#file;
    this.#file = undefined;
    const splits = next !== undefined && this.#written !== undefined && isSame(this.#written, next);
    // The cuts of a relation count for all its blocks: those behind the split are the next file's.
    const range = splits ? { lastKey: { ...next, block: next.block - 1 } } : {};
    this.#outputs.push(await file.finish(range));
    this.#goesOnFrom = splits ? next : undefined;
    this.#written = undefined;
  }

  /** Cuts of a relation in all inputs, oldest first. */
  #cutsOf(tag: RelationTag): [number, number][] {
    const cuts: [number, number][] = [];
    for (const { index } of this.#cursors) {
      const relation = index.relations.find(tag.spc, tag.db, tag.rel, tag.fork);
      if (relation >= 0) index.forEachCut(relation, (lsn, cutTo) => cuts.push([lsn, cutTo]));
    }
    return cuts;
  }

  async #writeState(): Promise<void> {
    const { place, pacer } = this.#options;
    const states: LayerState[] = [];
    for (const layer of this.#layers) states.push(await place.store.loadState(layer));
    const range = { startLsn: this.#startLsn, endLsn: this.#endLsn };
    const file = await LayerFileWriter.open(place, { kind: 'state', level: 1, ...range });
    this.#file = file;
    for (const tag of allRelations(states)) {
      file.writer.relation(tag);
      forEachSize(tag, states, this.#layers, (lsn, blocks, cutTo) => file.writer.size(lsn, blocks, cutTo));
      await file.drain();
      const rest = pacer.rest();
      if (rest) await rest;
    }
    forEachValue(states, this.#layers, (key, lsn, data) => file.writer.value(key, lsn, data));
    let lastWaypoint = -1;
    states.forEach((state) => {
      state.forEachWaypoint((lsn, data) => {
        if (lsn > lastWaypoint) file.writer.waypoint(lsn, data);
        lastWaypoint = Math.max(lastWaypoint, lsn);
      });
    });
    this.#outputs.push(await file.finish());
    this.#file = undefined;
  }
}

/** The relations that any of some parts of layers mentions, in order. */
export function allRelations(parts: readonly { relations: LayerRelations }[]): RelationTag[] {
  const tags = new Map<string, RelationTag>();
  for (const { relations } of parts) {
    for (let i = 0; i < relations.count; i++) {
      const tag = relations.tag(i);
      tags.set(`${tag.spc}/${tag.db}/${tag.rel}/${tag.fork}`, tag);
    }
  }
  return [...tags.values()].sort((a, b) => compareKeys({ ...a, block: 0 }, { ...b, block: 0 }));
}

/** The sizes of a relation in the small states of `layers` (oldest first), each once. */
export function forEachSize(
  { spc, db, rel, fork }: RelationTag,
  states: readonly LayerState[],
  layers: readonly FileLayer[],
  visit: (lsn: number, blocks: number, cutTo: number) => void,
): void {
  states.forEach((state, i) => {
    const relation = state.relations.find(spc, db, rel, fork);
    if (relation < 0) return;
    state.forEachSize(relation, (lsn, blocks, cutTo) => {
      if (!isRepeated(layers, i, lsn)) visit(lsn, blocks, cutTo);
    });
  });
}

/** The values in the small states of `layers` (oldest first), each once. */
export function forEachValue(
  states: readonly LayerState[],
  layers: readonly FileLayer[],
  visit: (key: string, lsn: number, data: Uint8Array | null) => void,
): void {
  states.forEach((state, i) => {
    state.forEachValue((key, lsn, data) => {
      if (!isRepeated(layers, i, lsn)) visit(key, lsn, data);
    });
  });
}

/** Whether a layer's small state of `lsn` is known from the one before it: what holds at its start is the end of that. */
function isRepeated(layers: readonly FileLayer[], input: number, lsn: number): boolean {
  return input > 0 && lsn <= layers[input]!.startLsn;
}

function isSame(a: RelationTag, b: RelationTag): boolean {
  return a.rel === b.rel && a.db === b.db && a.fork === b.fork && a.spc === b.spc;
}
