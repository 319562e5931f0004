/**
 * Walks all entries of a layer file in order, reading ahead in pieces; for merging.
 */
import type { Block } from '../../protocols/layers/block.ts';
import type { LayerIndex } from '../../protocols/layers/reader.ts';
import type { RelationTag } from '../../protocols/pages/types.ts';
import type { FileLayer } from './file-layer.ts';
import type { LayerStore } from './layer-store.ts';

/** Stored bytes that are read at once. */
const PIECE_BYTES = 256 * 1024;

export class LayerCursor {
  readonly layer: FileLayer;
  readonly index: LayerIndex;
  readonly #store: LayerStore;
  #pieceFirst = 0;
  #piece: Uint8Array[] = [];
  #blockNumber = -1;
  #block: Block | undefined;
  #entry = -1;
  #tag: RelationTag | undefined;
  #tagOf = -1;

  private constructor(layer: FileLayer, index: LayerIndex, store: LayerStore) {
    this.layer = layer;
    this.index = index;
    this.#store = store;
  }

  static async open(layer: FileLayer, store: LayerStore): Promise<LayerCursor> {
    const cursor = new LayerCursor(layer, await store.loadIndex(layer), store);
    await cursor.next();
    return cursor;
  }

  get isAtEnd(): boolean {
    return this.#block === undefined;
  }

  get tag(): RelationTag {
    const relation = this.#block!.relation[this.#entry]!;
    if (relation !== this.#tagOf) {
      this.#tag = this.index.relations.tag(relation);
      this.#tagOf = relation;
    }
    return this.#tag!;
  }

  get block(): number {
    return this.#block!.block[this.#entry]!;
  }

  get lsn(): number {
    return this.#block!.lsn[this.#entry]!;
  }

  get flags(): number {
    return this.#block!.flags[this.#entry]!;
  }

  get bytes(): Uint8Array {
    return this.#block!.bytes(this.#entry);
  }

  /** Goes to the next entry; a promise only when bytes must be read. */
  next(): Promise<void> | undefined {
    this.#entry++;
    if (this.#block && this.#entry < this.#block.entryCount) return undefined;
    this.#blockNumber++;
    this.#entry = 0;
    if (this.#blockNumber >= this.index.blockCount) {
      this.#block = undefined;
      return undefined;
    }
    const stored = this.#piece[this.#blockNumber - this.#pieceFirst];
    if (!stored) return this.#readPiece();
    this.#open(stored);
    return undefined;
  }

  async #readPiece(): Promise<void> {
    const { blockStored, blockCount } = this.index;
    const first = this.#blockNumber;
    let end = first;
    for (let bytes = 0; end < blockCount && (end === first || bytes < PIECE_BYTES); end++) {
      bytes += blockStored[end]!;
    }
    this.#pieceFirst = first;
    this.#piece = await this.#store.readStored(this.layer, this.index, first, end);
    this.#open(this.#piece[0]!);
  }

  #open(stored: Uint8Array): void {
    this.#block = this.index.openBlock(this.layer.descriptor.key, this.#blockNumber, stored);
  }
}
