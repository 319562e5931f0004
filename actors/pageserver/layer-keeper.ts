/**
 * Brings a shard's frozen layers to files, and the files to object storage, each in its own queue behind ingest.
 *
 * 1. Layers are written in the order in which they were frozen: the files always cover one range of LSNs without a gap.
 * 2. An event is recorded only for what is durable: a file after its fsync, an object after its put, an index after that.
 * 3. On a full disk a write is tried again until there is room, a failed upload for ever; any other failure of a write
 *    stops the shard.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Timer } from '../../runtime/ports/clock.ts';
import { writeDelta } from './delta-writer.ts';
import type { ShardSpec } from './events.ts';
import { FileLayer } from './file-layer.ts';
import { makeIndex, putIndex } from './index-object.ts';
import { FIRST_KEY_TEXT, LAST_KEY_TEXT, type LayerDescriptor, layerKey } from './layer-descriptor.ts';
import type { MemoryLayer } from './memory-layer.ts';
import type { PageHistory } from './page-history.ts';
import type { ShardJournal, ShardTools } from './tools.ts';

const RETRY_MS = 1000;

export interface LayerKeeperOptions {
  spec: ShardSpec;
  tools: ShardTools;
  journal: ShardJournal;
  history: PageHistory;
  /** Keys of layers that object storage has. */
  uploaded: string[];
  readPage(relation: number, block: number, lsn: number): Promise<Uint8Array>;
}

export class LayerKeeper {
  readonly #options: LayerKeeperOptions;
  readonly #uploadedKeys: Set<string>;
  #writing: Promise<void> = Promise.resolve();
  #uploading: Promise<void> | undefined;
  #waiting = 0;
  /** A layer could not be written: none after it may be. */
  #broken = false;
  #remoteConsistentLsn: number;
  #retry: Timer | undefined;
  #closed = false;

  constructor(options: LayerKeeperOptions) {
    this.#options = options;
    this.#uploadedKeys = new Set(options.uploaded);
    this.#remoteConsistentLsn = this.#uploadedLayers().at(-1)?.endLsn ?? options.spec.startLsn;
  }

  get remoteConsistentLsn(): number {
    return this.#remoteConsistentLsn;
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

  /** Starts to upload what object storage does not have. */
  uploadMissing(): void {
    if (this.#closed || this.#uploading || this.#missing().length === 0) return;
    this.#uploading = this.#upload().then(
      () => {
        this.#uploading = undefined;
        this.uploadMissing();
      },
      (error) => {
        this.#uploading = undefined;
        this.#options.tools.log.warn({ error: String(error) }, 'upload failed, will be tried again');
        this.#retry = this.#options.tools.clock.setTimer(RETRY_MS, () => this.uploadMissing());
      },
    );
  }

  /** Resolves when object storage has every layer file, or the present attempt failed. */
  async uploaded(): Promise<void> {
    while (this.#uploading) await this.#uploading;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#retry?.cancel();
    await this.#writing;
    await this.#uploading;
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
    const { spec, tools, history } = this.#options;
    const shape = {
      kind: 'delta',
      level: 0,
      firstKey: FIRST_KEY_TEXT,
      lastKey: LAST_KEY_TEXT,
      startLsn: layer.startLsn,
      endLsn: layer.endLsn,
      generation: spec.generation,
    } as const;
    const key = layerKey(spec, shape, () => false);
    const path = tools.store.pathOf(key);
    await tools.disk.makeDirectory(path.slice(0, path.lastIndexOf('/')));
    const bytes = await writeDelta(layer, path, {
      disk: tools.disk,
      relations: tools.relations,
      redo: tools.redo,
      pgVersion: spec.pgVersion,
      readPage: (relation, block) => this.#options.readPage(relation, block, layer.endLsn),
    });
    const descriptor: LayerDescriptor = { key, ...shape, bytes };
    await this.#options.journal.record([{ type: 'layer.flushed', layer: descriptor }]);
    history.files = [new FileLayer(descriptor), ...history.files];
    history.memory = history.memory.filter((other) => other !== layer);
    layer.arena.release();
    this.uploadMissing();
  }

  async #upload(): Promise<void> {
    const { tools, journal, spec } = this.#options;
    for (const layer of this.#missing()) {
      await tools.objects.putFile(layer.key, tools.store.pathOf(layer.key));
      this.#uploadedKeys.add(layer.key);
      await journal.record([{ type: 'layer.uploaded', key: layer.key }]);
    }
    const layers = this.#uploadedLayers();
    const key = await putIndex(tools.objects, makeIndex(spec, layers, 0));
    const remoteConsistentLsn = layers.at(-1)?.endLsn ?? spec.startLsn;
    await journal.record([{ type: 'index.uploaded', key, remoteConsistentLsn }]);
    this.#remoteConsistentLsn = remoteConsistentLsn;
  }

  #missing(): LayerDescriptor[] {
    return this.#layers().filter((layer) => !this.#uploadedKeys.has(layer.key));
  }

  #uploadedLayers(): LayerDescriptor[] {
    return this.#layers().filter((layer) => this.#uploadedKeys.has(layer.key));
  }

  /** All layer files, oldest first. */
  #layers(): LayerDescriptor[] {
    return this.#options.history.files.map((layer) => layer.descriptor).reverse();
  }
}
