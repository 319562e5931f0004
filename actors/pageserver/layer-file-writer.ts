/**
 * A layer that is being written to a local file: under a temporary name, in pieces, and durable before it gets its own.
 */
import { formatKey, type PageKey } from '../../protocols/layers/key.ts';
import { LayerWriter } from '../../protocols/layers/writer.ts';
import type { Disk, DiskFile } from '../../runtime/ports/disk.ts';
import { type LayerDescriptor, type LayerKind, layerKey, type ShardOwner } from './layer-descriptor.ts';
import type { LayerStore } from './layer-store.ts';

/** The file is written in pieces of about this size. */
const PIECE_BYTES = 256 * 1024;
const KINDS: Record<LayerKind, number> = { delta: 1, image: 2, state: 3 };
export const TEMPORARY_SUFFIX = '.tmp';

let lastTemporary = 0;

export interface LayerShape {
  kind: LayerKind;
  level: number;
  startLsn: number;
  endLsn: number;
}

/** Where a timeline's layers are written. */
export interface LayerPlace {
  disk: Disk;
  store: LayerStore;
  spec: ShardOwner & { pgVersion: number; generation: number };
  /** Whether a key is in use, or waits for its object to be deleted. */
  isTaken(key: string): boolean;
}

export class LayerFileWriter {
  readonly writer: LayerWriter;
  readonly #place: LayerPlace;
  readonly #shape: LayerShape & { generation: number };
  readonly #temporary: string;
  readonly #file: DiskFile;

  private constructor(place: LayerPlace, shape: LayerShape, temporary: string, file: DiskFile) {
    this.#place = place;
    this.#shape = { ...shape, generation: place.spec.generation };
    this.#temporary = temporary;
    this.#file = file;
    const { pgVersion } = place.spec;
    this.writer = new LayerWriter({ ...shape, kind: KINDS[shape.kind], pgVersion });
  }

  static async open(place: LayerPlace, shape: LayerShape): Promise<LayerFileWriter> {
    const { disk, store, spec } = place;
    const folder = store.folderOf(spec);
    await disk.makeDirectory(folder);
    const temporary = `${folder}/${++lastTemporary}.layer${TEMPORARY_SUFFIX}`;
    const file = await disk.open(temporary, { create: true });
    await file.truncate(0);
    return new LayerFileWriter(place, shape, temporary, file);
  }

  /** Writes what waits when it is worth it; returns undefined when nothing was done. */
  drain(): Promise<void> | undefined {
    if (this.writer.bufferedBytes < PIECE_BYTES) return undefined;
    const piece = this.writer.take();
    return this.#file.write([piece.bytes], piece.position);
  }

  /** Ends the layer: it is durable under its own name when this resolves. `range` narrows its range of keys. */
  async finish(range: { firstKey?: PageKey; lastKey?: PageKey } = {}): Promise<LayerDescriptor> {
    const { disk, store, spec, isTaken } = this.#place;
    this.writer.narrow(range);
    let bytes: number;
    try {
      const last = this.writer.finish();
      await this.#file.write([last.bytes], last.position);
      bytes = last.position + last.bytes.length;
      await this.#file.sync();
    } catch (error) {
      await this.abandon();
      throw error;
    }
    await this.#file.close();
    const { firstKey, lastKey } = this.writer.keyRange;
    const layer = { ...this.#shape, firstKey: formatKey(firstKey), lastKey: formatKey(lastKey) };
    const key = layerKey(spec, layer, isTaken);
    await disk.rename(this.#temporary, store.pathOf(key));
    await disk.syncDirectory(store.folderOf(spec));
    return { key, ...layer, bytes };
  }

  /** Gives up: nothing of the layer stays. */
  async abandon(): Promise<void> {
    await this.#file.close().catch(() => {});
    await this.#place.disk.remove(this.#temporary).catch(() => {});
  }
}
