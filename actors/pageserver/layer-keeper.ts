/**
 * Brings a shard's frozen layers to files, in a queue behind ingest.
 *
 * 1. Layers are written in the order in which they were frozen: the files always cover one range of LSNs without a gap.
 * 2. An event is recorded only for what is durable: a file after its fsync.
 * 3. On a full disk a write is tried again until there is room; any other failure of a write stops the shard.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { writeDelta } from './delta-writer.ts';
import { FileLayer } from './file-layer.ts';
import type { LayerPlace } from './layer-file-writer.ts';
import type { MemoryLayer } from './memory-layer.ts';
import type { PageHistory } from './page-history.ts';
import type { ShardJournal, ShardTools } from './tools.ts';

const RETRY_MS = 1000;

export interface LayerKeeperOptions {
  place: LayerPlace;
  tools: ShardTools;
  journal: ShardJournal;
  history: PageHistory;
  readPage(relation: number, block: number, lsn: number): Promise<Uint8Array>;
  /** Called when a file has taken the place of a layer in memory. */
  onWritten(layer: FileLayer): void;
}

export class LayerKeeper {
  readonly #options: LayerKeeperOptions;
  #writing: Promise<void> = Promise.resolve();
  #waiting = 0;
  /** A layer could not be written: none after it may be. */
  #broken = false;
  #closed = false;

  constructor(options: LayerKeeperOptions) {
    this.#options = options;
  }

  /** Frozen layers that are not in files yet. */
  get waiting(): number {
    return this.#waiting;
  }

  /** Queues a frozen layer; `onError` is told when it cannot be written. */
  write(layer: MemoryLayer, onError: (error: unknown) => void): void {
    this.#waiting++;
    this.#writing = this.#writing
      .then(() => this.#writeWhenThereIsRoom(layer))
      .catch((error) => {
        this.#broken = true;
        onError(error);
      })
      .finally(() => {
        this.#waiting--;
      });
  }

  /** Resolves when everything that was queued is in files. */
  written(): Promise<void> {
    return this.#writing;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#writing;
  }

  /** A full disk is no reason to give up: ingest waits, reads go on, and what is in memory is on the safekeepers too. */
  async #writeWhenThereIsRoom(layer: MemoryLayer): Promise<void> {
    while (!this.#closed && !this.#broken) {
      try {
        return await this.#writeLayer(layer);
      } catch (error) {
        if (!(error instanceof PalimpsestError) || error.code !== 'disk-full') throw error;
        this.#options.tools.log.error(
          { error: error.message },
          'the disk is full: a layer waits to be written',
        );
        await this.#options.tools.clock.sleep(RETRY_MS);
      }
    }
  }

  async #writeLayer(layer: MemoryLayer): Promise<void> {
    const { tools, history, journal, place, onWritten } = this.#options;
    const descriptor = await writeDelta(layer, {
      place,
      relations: tools.relations,
      redo: tools.redo,
      readPage: this.#options.readPage,
    });
    await journal.record([{ type: 'layer.flushed', layer: descriptor }]);
    const written = new FileLayer(descriptor);
    history.files.replace([written], []);
    history.memory = history.memory.filter((other) => other !== layer);
    layer.arena.release();
    onWritten(written);
  }
}
