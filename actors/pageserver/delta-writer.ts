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

  constructor(layer: MemoryLayer, file: LayerFileWriter, options: DeltaWriterOptions) {
    this.#layer = layer;
    this.#file = file;
    this.#options = options;
    this.#writer = file.writer;
  }

  /** Adds all of the layer. */
  async write(): Promise<void> {
    const pages = this.#sortedPages();
    for (const relation of this.#sortedRelations()) {
      this.#writer.relation(this.#options.relations.tag(relation));
      this.#addSizes(relation);
      const blocks = pages.get(relation);
      if (blocks) for (const block of blocks) await this.#addPage(relation, block);
      this.#writer.endRun();
    }
    const { state } = this.#layer;
    for (const [key, data] of state.base) this.#writer.value(key, this.#layer.startLsn, data);
    state.forEachChange((key, lsn, data) => this.#writer.value(key, lsn, data));
    for (const waypoint of state.waypoints) this.#writer.waypoint(waypoint.lsn, waypoint.state);
  }

  #sortedRelations(): number[] {
    const known = this.#layer.relations();
    const { baseSizes } = this.#layer;
    for (let relation = 0; relation < baseSizes.length; relation++) {
      if (baseSizes[relation]! >= 0) known.add(relation);
    }
    return [...known].sort((a, b) => this.#options.relations.compare(a, b));
  }

  #sortedPages(): Map<number, Float64Array> {
    const lists = new Map<number, number[]>();
    this.#layer.forEachPage((relation, block) => {
      const list = lists.get(relation);
      if (list) list.push(block);
      else lists.set(relation, [block]);
    });
    const sorted = new Map<number, Float64Array>();
    for (const [relation, list] of lists) sorted.set(relation, Float64Array.from(list).sort());
    return sorted;
  }

  #addSizes(relation: number): void {
    const base = relation < this.#layer.baseSizes.length ? this.#layer.baseSizes[relation]! : UNKNOWN_SIZE;
    if (base >= 0) this.#writer.size(this.#layer.startLsn, base, NO_CUT);
    this.#layer.forEachSize(relation, (lsn, blocks, cutTo) => this.#writer.size(lsn, blocks, cutTo));
  }

  async #addPage(relation: number, block: number): Promise<void> {
    const { arena } = this.#layer;
    this.#layer.forEachVersion(relation, block, (position, flags) => {
      const bytes = arena.buffer(position);
      const offset = arena.dataOffset(position);
      const endLsn = arena.endLsn(position);
      if (arena.isImage(position)) {
        this.#writer.image(block, endLsn, bytes.subarray(offset, offset + PAGE_BYTES));
      } else if ((flags & NODE_HAS_IMAGE) === 0 || !this.#addRestoredImage(relation, block, position)) {
        this.#writer.record(
          block,
          { startLsn: arena.startLsn(position), endLsn, initialises: (flags & NODE_INITIALISES) !== 0 },
          bytes,
          offset,
          arena.length(position),
        );
      }
    });
    if (this.#layer.depth(relation, block) >= IMAGE_DEPTH) await this.#addFinalImage(relation, block);
    await this.#file.drain();
  }

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
