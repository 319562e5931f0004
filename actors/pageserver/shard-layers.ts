/**
 * The layer files of one shard and the work on them: frozen layers to files (layer-keeper.ts), files to objects and away from there
 * (layer-uploader.ts), merges and images (compactor.ts). The layer map that they share is `history.files`.
 */
import type { CompactionOptions } from './compaction-plan.ts';
import { Compactor } from './compactor.ts';
import type { ShardSpec } from './events.ts';
import { FileLayer } from './file-layer.ts';
import type { LayerDescriptor } from './layer-descriptor.ts';
import { type LayerPlace, TEMPORARY_SUFFIX } from './layer-file-writer.ts';
import { LayerKeeper } from './layer-keeper.ts';
import { LayerUploader } from './layer-uploader.ts';
import type { MemoryLayer } from './memory-layer.ts';
import type { PageHistory } from './page-history.ts';
import type { PageReader } from './page-reader.ts';
import type { Waypoint } from './state-log.ts';
import type { ShardJournal, ShardTools } from './tools.ts';

/** What the journal knows of a shard's layers. */
export interface KnownLayers {
  layers: (LayerDescriptor & { uploaded: boolean })[];
  /** Keys of objects that wait to be deleted. */
  deletions?: string[];
  gcCutoff?: number;
}

export interface ShardLayersOptions {
  spec: ShardSpec;
  tools: ShardTools;
  journal: ShardJournal;
  history: PageHistory;
  reader: PageReader;
  known: KnownLayers;
  compaction?: Partial<CompactionOptions> | undefined;
}

export class ShardLayers {
  readonly #options: ShardLayersOptions;
  readonly #keeper: LayerKeeper;
  readonly #uploader: LayerUploader;
  readonly #compactor: Compactor;
  #gcCutoff: number;

  constructor(options: ShardLayersOptions) {
    this.#options = options;
    const { spec, tools, journal, history, reader, known, compaction } = options;
    const { store, disk } = tools;
    history.files.replace(
      known.layers.map((layer) => new FileLayer(layer)),
      [],
    );
    this.#gcCutoff = known.gcCutoff ?? 0;
    const uploaded = known.layers.filter((layer) => layer.uploaded);
    this.#uploader = new LayerUploader({
      spec,
      tools,
      journal,
      layers: history.files,
      uploaded: uploaded.map(({ key }) => key),
      deletions: known.deletions ?? [],
      remoteConsistentLsn: this.#uploadedUpTo(new Set(uploaded.map(({ key }) => key))),
      gcCutoff: () => this.#gcCutoff,
    });
    const place: LayerPlace = {
      disk,
      store,
      spec,
      isTaken: (key) => history.files.get(key) !== undefined || this.#uploader.deletions.has(key),
    };
    this.#keeper = new LayerKeeper({
      place,
      tools,
      journal,
      history,
      readPage: (relation, block, lsn) => reader.readPage(relation, block, lsn),
      onWritten: (layer) => {
        store.local.added(layer.descriptor);
        this.#uploader.kick();
        this.#compactor.schedule();
      },
    });
    this.#compactor = new Compactor({
      tools,
      place,
      history,
      reader,
      journal,
      compaction,
      gcCutoff: () => this.#gcCutoff,
      onChange: (added, removed) => this.#changed(added, removed),
    });
  }

  /** Everything up to here is in layer files. */
  get diskConsistentLsn(): number {
    return this.#options.history.files.endLsn ?? this.#options.spec.startLsn;
  }

  /** Everything up to here is in objects that the index lists. */
  get remoteConsistentLsn(): number {
    return this.#uploader.remoteConsistentLsn;
  }

  /** Before this LSN nothing needs to be readable; 0 while all of history is kept. */
  get gcCutoff(): number {
    return this.#gcCutoff;
  }

  /** Frozen layers that are not in files yet. */
  get waiting(): number {
    return this.#keeper.waiting;
  }

  /** What is stored carries at least this generation from now on. */
  adopt(generation: number): void {
    const { spec } = this.#options;
    if (generation <= spec.generation) return;
    spec.generation = generation;
    // An attempt for the generation before may just have been refused.
    this.#uploader.kick();
  }

  /** Removes local files that no layer of the map has, and goes on with what a life before has left. */
  async start(): Promise<void> {
    const { tools, spec, history } = this.#options;
    const folder = tools.store.folderOf(spec);
    const prefix = tools.store.pathOf('');
    for (const name of await tools.disk.list(folder)) {
      const path = `${folder}/${name}`;
      const layer = history.files.get(path.slice(prefix.length));
      if (layer) tools.store.local.added(layer.descriptor);
      else if (name.endsWith('.layer') || name.endsWith(TEMPORARY_SUFFIX)) await tools.disk.remove(path);
    }
    for (const { descriptor } of history.files.all()) {
      if (this.#uploader.isUploaded(descriptor.key)) tools.store.local.mayEvict(descriptor);
    }
    this.#uploader.kick();
    this.#compactor.schedule();
  }

  /** Queues a frozen layer; `onError` is told when it cannot be written. */
  write(layer: MemoryLayer, onError: (error: unknown) => void): void {
    this.#keeper.write(layer, onError);
  }

  /** Resolves when all frozen layers are in files. */
  written(): Promise<void> {
    return this.#keeper.written();
  }

  /** Resolves when ingest may go on: compaction is not far behind. */
  room(): Promise<void> {
    return this.#compactor.room();
  }

  /** Resolves when object storage is up to date (or all up to an LSN is there), or the present attempt to bring it there failed. */
  uploaded(upTo?: number): Promise<void> {
    return this.#uploader.settled(upTo);
  }

  /** Resolves when no compaction is due or under way. */
  compacted(): Promise<void> {
    return this.#compactor.settled();
  }

  /** See Compactor.createImages. */
  createImages(lsn: number): Promise<number> {
    return this.#compactor.createImages(lsn);
  }

  /** See Compactor.mergeUpTo. */
  mergeUpTo(lsn: number): Promise<void> {
    return this.#compactor.mergeUpTo(lsn);
  }

  /** See Compactor.thinStates. */
  thinStates(keys: readonly string[], moments: readonly Waypoint[]): Promise<void> {
    return this.#compactor.thinStates(keys, moments);
  }

  /** Takes layers away for good; their objects are deleted when that is safe. */
  removeLayers(keys: string[], reason: string): Promise<void> {
    return this.#compactor.removeLayers(keys, reason);
  }

  /** Moves the beginning of what must be readable; it never goes back. */
  async advanceCutoff(cutoffLsn: number): Promise<void> {
    if (cutoffLsn <= this.#gcCutoff) return;
    await this.#options.journal.record([{ type: 'cutoff.advanced', cutoffLsn }]);
    this.#gcCutoff = Math.max(this.#gcCutoff, cutoffLsn);
    this.#uploader.markDirty();
  }

  /** Looks for work: to be called now and then. */
  tick(): void {
    this.#uploader.kick();
    this.#compactor.schedule();
  }

  async close(): Promise<void> {
    const compactor = this.#compactor.close();
    await this.#keeper.close();
    await compactor;
    await this.#uploader.close();
    for (const layer of this.#options.history.files.all()) this.#options.tools.store.forget(layer);
  }

  #changed(added: LayerDescriptor[], removed: FileLayer[]): void {
    const { tools } = this.#options;
    for (const layer of added) tools.store.local.added(layer);
    for (const layer of removed) {
      tools.store.remove(layer).catch((error) => {
        tools.log.warn({ layer: layer.descriptor.key, error: String(error) }, 'a local file stays');
      });
    }
    this.#uploader.retire(removed);
  }

  /** The end of the layers that follow one another and are in objects, all that count for the time before it. */
  #uploadedUpTo(uploaded: Set<string>): number {
    const { history, spec } = this.#options;
    let end = spec.startLsn;
    for (const { descriptor } of history.files.all()) {
      if (descriptor.level > 0 && !uploaded.has(descriptor.key)) return end;
    }
    for (const { descriptor } of history.files.states) {
      if (!uploaded.has(descriptor.key)) break;
      end = descriptor.endLsn;
    }
    return end;
  }
}
