/**
 * Writes a frozen layer to a delta file, in pieces with the event loop free between them, and durably.
 */
import { NO_CUT } from '../../protocols/layers/format.ts';
import type { LayerWriter } from '../../protocols/layers/writer.ts';
import { PAGE_BYTES } from '../../protocols/lsn.ts';
import type { LayerDescriptor } from './layer-descriptor.ts';
import { LayerFileWriter, type LayerPlace } from './layer-file-writer.ts';
import { type MemoryLayer, NODE_HAS_IMAGE, NODE_INITIALISES, UNKNOWN_SIZE } from './memory-layer.ts';
import type { PageRedo } from './page-redo.ts';
import type { RelationTable } from './relation-table.ts';
import { VersionChain } from './version-chain.ts';

/** A page whose newest state takes this many records gets an image at the end of its versions. */
export const IMAGE_DEPTH = 32;

export interface DeltaWriterOptions {
  place: LayerPlace;
  relations: RelationTable;
  redo: PageRedo;
  readPage(relation: number, block: number, lsn: number): Promise<Uint8Array>;
}

/** Writes `layer` to a file, which appears whole. */
export async function writeDelta(layer: MemoryLayer, options: DeltaWriterOptions): Promise<LayerDescriptor> {
  const { startLsn, endLsn } = layer;
  const file = await LayerFileWriter.open(options.place, { kind: 'delta', level: 0, startLsn, endLsn });
  try {
    await new DeltaWriter(layer, file, options).write();
  } catch (error) {
    await file.abandon();
    throw error;
  }
  return file.finish();
}

class DeltaWriter {
  readonly #layer: MemoryLayer;
  readonly #file: LayerFileWriter;
  readonly #options: DeltaWriterOptions;
  readonly #writer: LayerWriter;
  readonly #page = new Uint8Array(PAGE_BYTES);
  readonly #chain = new VersionChain();
  /** Reused: there is one for each record. */
  readonly #version = { startLsn: 0, endLsn: 0, initialises: false };
  /** The page that is being added. */
  #relation = 0;
  #block = 0;

  constructor(layer: MemoryLayer, file: LayerFileWriter, options: DeltaWriterOptions) {
    this.#layer = layer;
    this.#file = file;
    this.#options = options;
    this.#writer = file.writer;
  }

  /** Adds all of the layer. */
  async write(): Promise<void> {
    const pages = this.#sortedPages();
    for (const relation of this.#sortedRelations(pages)) {
      this.#writer.relation(this.#options.relations.tag(relation));
      this.#addSizes(relation);
      const blocks = pages.get(relation);
      for (const block of blocks ?? []) {
        if (this.#addPage(relation, block) >= IMAGE_DEPTH) await this.#addFinalImage(relation, block);
        const writing = this.#file.drain();
        if (writing) await writing;
      }
      this.#writer.endRun();
    }
    const { state } = this.#layer;
    for (const [key, data] of state.base) this.#writer.value(key, this.#layer.startLsn, data);
    state.forEachChange((key, lsn, data) => this.#writer.value(key, lsn, data));
    for (const waypoint of state.waypoints) this.#writer.waypoint(waypoint.lsn, waypoint.state);
  }

  #sortedRelations(pages: Map<number, unknown>): number[] {
    const known = new Set([...pages.keys(), ...this.#layer.sizedRelations().keys()]);
    const { baseSizes } = this.#layer;
    for (let relation = 0; relation < baseSizes.length; relation++) {
      if (baseSizes[relation]! >= 0) known.add(relation);
    }
    return [...known].sort((a, b) => this.#options.relations.compare(a, b));
  }

  /** The blocks of each relation that has pages here, in order. */
  #sortedPages(): Map<number, Uint32Array> {
    const counts: number[] = [];
    this.#layer.forEachPage((relation) => {
      counts[relation] = (counts[relation] ?? 0) + 1;
    });
    const pages = new Map<number, Uint32Array>();
    const filled: Uint32Array[] = [];
    counts.forEach((count, relation) => {
      const blocks = new Uint32Array(count);
      filled[relation] = blocks;
      pages.set(relation, blocks);
      counts[relation] = 0;
    });
    this.#layer.forEachPage((relation, block) => {
      filled[relation]![counts[relation]!++] = block;
    });
    for (const blocks of pages.values()) blocks.sort();
    return pages;
  }

  #addSizes(relation: number): void {
    const base = relation < this.#layer.baseSizes.length ? this.#layer.baseSizes[relation]! : UNKNOWN_SIZE;
    if (base >= 0) this.#writer.size(this.#layer.startLsn, base, NO_CUT);
    this.#layer.forEachSize(relation, (lsn, blocks, cutTo) => this.#writer.size(lsn, blocks, cutTo));
  }

  /** Adds all versions of a page; returns how many a read of its newest state applies. */
  #addPage(relation: number, block: number): number {
    this.#relation = relation;
    this.#block = block;
    return this.#layer.forEachVersion(relation, block, this.#addVersion);
  }

  readonly #addVersion = (position: number, flags: number): void => {
    const { arena } = this.#layer;
    const block = this.#block;
    const bytes = arena.buffer(position);
    const offset = arena.dataOffset(position);
    const endLsn = arena.endLsn(position);
    if (arena.isImage(position)) {
      this.#writer.image(block, endLsn, bytes.subarray(offset, offset + PAGE_BYTES));
    } else if ((flags & NODE_HAS_IMAGE) === 0 || !this.#addRestoredImage(this.#relation, block, position)) {
      const version = this.#version;
      version.startLsn = arena.startLsn(position);
      version.endLsn = endLsn;
      version.initialises = (flags & NODE_INITIALISES) !== 0;
      this.#writer.record(block, version, bytes, offset, arena.length(position));
    }
  };

  /**
   * A record that carries images of many pages would be repeated whole for each of them: its image stands in for it.
   * False when the image cannot be restored: the record stays, and a read of the page tells.
   */
  #addRestoredImage(relation: number, block: number, position: number): boolean {
    const { arena } = this.#layer;
    const chain = this.#chain;
    chain.reset();
    chain.push(
      arena.buffer(position),
      arena.dataOffset(position),
      arena.length(position),
      arena.startLsn(position),
      arena.endLsn(position),
    );
    this.#page.fill(0);
    try {
      this.#options.redo.apply(chain, this.#options.place.spec.pgVersion, relation, block, this.#page);
    } catch {
      return false;
    }
    this.#writer.image(block, arena.endLsn(position), this.#page);
    return true;
  }

  /** A page that cannot be built keeps its records: a read names the one that is to blame. */
  async #addFinalImage(relation: number, block: number): Promise<void> {
    // As of its newest version: at the layer's end its relation may be gone.
    const lsn = this.#layer.newestLsn(relation, block);
    const page = await this.#options.readPage(relation, block, lsn).catch(() => undefined);
    if (page) this.#writer.image(block, lsn, page);
  }
}
