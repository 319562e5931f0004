/**
 * Background work on a shard's layers, one piece after the other: merges of level 0, images, and removals that somebody else
 * decided. All shards of a process take turns, so that memory and I/O stay bounded.
 *
 * 1. Results are durable files before the event that makes them count; until then nobody knows of them.
 * 2. The layer map changes in one step, after the event is durable. Readers on their way look again.
 * 3. Local files of removed layers go at once, their objects when the index without them is durable (layer-uploader.ts).
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { RedoError } from '../../protocols/postgres/redo/errors.ts';
import { CorruptWalError, UnsupportedRecordError } from '../../protocols/postgres/wal/errors.ts';
import type { Timer } from '../../runtime/ports/clock.ts';
import {
  COMPACTION,
  type CompactionOptions,
  type Coverage,
  deservesImage,
  type Partition,
  partitionOfShard,
  planMerge,
  type SizedRelation,
} from './compaction-plan.ts';
import { FileLayer } from './file-layer.ts';
import { writeImage } from './image-writer.ts';
import type { LayerDescriptor } from './layer-descriptor.ts';
import type { LayerPlace } from './layer-file-writer.ts';
import { mergeLayers } from './merge-layers.ts';
import { Pacer } from './pacer.ts';
import type { PageHistory } from './page-history.ts';
import type { PageReader } from './page-reader.ts';
import { stateAt } from './state-history.ts';
import type { Waypoint } from './state-log.ts';
import { writeThinState } from './thin-states.ts';
import type { ShardJournal, ShardTools } from './tools.ts';

const RETRY_MS = 30_000;
/** With so many merges' worth of level 0 waiting, work does not yield more than it must; with more, ingest waits. */
const URGENT_MERGES = 2;
const FULL_MERGES = 4;

export interface CompactorOptions {
  tools: ShardTools;
  place: LayerPlace;
  history: PageHistory;
  reader: PageReader;
  journal: ShardJournal;
  /** Before this LSN layers may be missing. */
  gcCutoff(): number;
  /** Called after the layer map has changed. */
  onChange(added: LayerDescriptor[], removed: FileLayer[]): void;
  compaction?: Partial<CompactionOptions> | undefined;
}

export class Compactor {
  readonly #options: CompactorOptions;
  readonly #rules: CompactionOptions;
  readonly #pacer: Pacer;
  /** Tail of the queue of work. */
  #queue: Promise<unknown> = Promise.resolve();
  #scheduled: Promise<void> | undefined;
  #retry: Timer | undefined;
  readonly #closing = new AbortController();
  #closed = false;
  /** Levels of images were looked at for the layers up to here. */
  #imagesPlannedAt = -1;

  constructor(options: CompactorOptions) {
    this.#options = options;
    this.#rules = { ...COMPACTION, ...options.compaction };
    this.#pacer = new Pacer(options.tools.clock, () => this.#hasLevelZero(URGENT_MERGES));
  }

  /** Looks for work, unless it does already. */
  schedule(): void {
    if (this.#closed || this.#scheduled || this.#retry || !this.#mayHaveWork()) return;
    this.#scheduled = this.#inTurn(() => this.#compact(), true).then(
      () => {
        this.#scheduled = undefined;
        this.schedule();
      },
      (error) => {
        this.#scheduled = undefined;
        if (this.#closed) return;
        this.#options.tools.log.warn({ error: String(error) }, 'compaction failed, will be tried again');
        this.#retry = this.#options.tools.clock.setTimer(RETRY_MS, () => {
          this.#retry = undefined;
          this.schedule();
        });
      },
    );
  }

  /** Resolves when no work is planned or under way. */
  async settled(): Promise<void> {
    while (this.#scheduled) await this.#scheduled;
    await this.#queue.catch(() => {});
  }

  /** Resolves at once unless level 0 is so far behind that ingest should wait. */
  async room(): Promise<void> {
    while (!this.#closed && this.#hasLevelZero(FULL_MERGES) && this.#scheduled) await this.#scheduled;
  }

  /**
   * Makes images at `lsn` (which must be in layer files) of all keys that have deltas between their newest image before it and it.
   * Returns how many layers were made. A part with a page that cannot be built is left out.
   */
  createImages(lsn: number): Promise<number> {
    return this.#inTurn(async () => {
      let made = 0;
      for (const part of await this.#partitionsAt(lsn)) {
        const coverage = await this.#coverageOf(part, lsn);
        if (coverage.imageLsn === lsn || coverage.deltas === 0) continue;
        if (await this.#makeImage(part, lsn)) made++;
      }
      return made;
    }, true);
  }

  /** Merges the level 0 deltas that end at or before `lsn`, so that garbage collection can deal with them. */
  mergeUpTo(lsn: number): Promise<void> {
    return this.#inTurn(async () => {
      for (;;) {
        const { levelZero } = this.#options.history.files;
        const open = levelZero.map(({ descriptor }) => descriptor).filter(({ endLsn }) => endLsn <= lsn);
        if (open.length === 0) return;
        await this.#merge(open.toReversed().slice(0, this.#rules.mergeLayersMax));
      }
    }, true);
  }

  /** Puts one layer that tells only `moments` in the place of state layers that follow one another (see thin-states.ts). */
  thinStates(keys: readonly string[], moments: readonly Waypoint[]): Promise<void> {
    return this.#inTurn(async () => {
      const { history, place, journal } = this.#options;
      const layers = keys.map((key) => history.files.get(key));
      if (layers.some((layer) => layer === undefined)) return;
      const thin = await writeThinState(layers as FileLayer[], moments, { place, pacer: this.#pacer });
      const removed = [...keys];
      await journal.record([{ type: 'layers.compacted', added: [thin], removed }]);
      this.#change([thin], removed);
    }, true);
  }

  /** Takes layers out of the map for good. Whether something still needs them is the caller's decision. */
  async removeLayers(keys: string[], reason: string): Promise<void> {
    if (keys.length === 0) return;
    // Costs next to nothing: it need not wait until other shards have merged.
    await this.#inTurn(async () => {
      const { history, journal } = this.#options;
      const known = keys.filter((key) => history.files.get(key));
      if (known.length === 0) return;
      await journal.record([{ type: 'layers.removed', keys: known, reason }]);
      this.#change([], known);
    }, false);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#closing.abort();
    this.#retry?.cancel();
    this.#pacer.stop();
    await this.#queue.catch(() => {});
  }

  /** One after the other; what `isHeavy` takes turns with other shards, too. */
  #inTurn<T>(work: () => Promise<T>, isHeavy: boolean): Promise<T> {
    const run = () => {
      if (this.#closed) throw new PalimpsestError('unavailable', 'the pageserver is stopping');
      return isHeavy ? this.#options.tools.background.run(work, this.#closing.signal) : work();
    };
    const turn = this.#queue.then(run, run);
    this.#queue = turn;
    turn.catch(() => {});
    return turn;
  }

  #hasLevelZero(merges: number): boolean {
    return this.#options.history.files.levelZero.length >= merges * this.#rules.mergeLayers;
  }

  #mayHaveWork(): boolean {
    const layers = this.#options.history.files.levelZero.map(({ descriptor }) => descriptor);
    return planMerge(layers, this.#rules).length > 0 || this.#imagesPlannedAt !== this.#mergedLsn();
  }

  /** Everything up to here is in layers of level 1. */
  #mergedLsn(): number {
    const { levelZero, states } = this.#options.history.files;
    return levelZero.at(-1)?.startLsn ?? states.at(-1)?.endLsn ?? -1;
  }

  async #compact(): Promise<void> {
    const { files } = this.#options.history;
    const open = files.levelZero.map(({ descriptor }) => descriptor);
    const inputs = planMerge(open, this.#rules);
    if (inputs.length > 0) await this.#merge(inputs);
    // Level 0 first: images of what is still there would soon be old.
    if (planMerge(open.slice(0, -inputs.length || undefined), this.#rules).length > 0) return;
    await this.#imagesWhereDue(this.#mergedLsn());
  }

  async #merge(inputs: LayerDescriptor[]): Promise<void> {
    const { history, place, journal, tools } = this.#options;
    const layers = inputs.map(({ key }) => history.files.get(key)!);
    const began = tools.clock.monotonic();
    const options = { place, pacer: this.#pacer, targetBytes: this.#rules.targetBytes };
    const added = await mergeLayers(layers, options);
    const removed = inputs.map(({ key }) => key);
    await journal.record([{ type: 'layers.compacted', added, removed }]);
    this.#change(added, removed);
    const bytes = (of: LayerDescriptor[]) => of.reduce((total, layer) => total + layer.bytes, 0);
    tools.log.info(
      {
        inputs: inputs.length,
        inputBytes: bytes(inputs),
        outputs: added.length,
        outputBytes: bytes(added),
        ms: Math.round(tools.clock.monotonic() - began),
      },
      'merged layers',
    );
  }

  /** Images as of the end of level 1, or of the cutoff when that is later: what is before it cannot be read any more. */
  async #imagesWhereDue(mergedLsn: number): Promise<void> {
    const lsn = Math.max(mergedLsn, this.#options.gcCutoff());
    if (lsn <= (this.#options.history.files.endLsn ?? -1)) await this.#imagesAt(lsn);
    this.#imagesPlannedAt = mergedLsn;
  }

  async #imagesAt(lsn: number): Promise<void> {
    const hasDeltas = [...this.#options.history.files.all()].some(
      ({ descriptor }) => descriptor.level === 1 && descriptor.kind === 'delta',
    );
    if (!hasDeltas) return;
    for (const part of await this.#partitionsAt(lsn)) {
      if (deservesImage(part, await this.#coverageOf(part, lsn))) await this.#makeImage(part, lsn);
    }
  }

  async #makeImage(part: Partition, lsn: number): Promise<boolean> {
    const { place, reader, journal, tools } = this.#options;
    let image: LayerDescriptor;
    try {
      image = await writeImage(part, lsn, { place, reader, pacer: this.#pacer });
    } catch (error) {
      if (!isAboutPage(error)) throw error;
      tools.log.warn({ error: String(error) }, 'no image of pages of which one cannot be built');
      return false;
    }
    await journal.record([{ type: 'layers.compacted', added: [image], removed: [] }]);
    this.#change([image], []);
    return true;
  }

  async #partitionsAt(lsn: number): Promise<Partition[]> {
    const { history, tools, place } = this.#options;
    const view = await stateAt(history, lsn, tools);
    const relations: SizedRelation[] = [];
    view.forEachSize((relation, blocks) => {
      relations.push({ relation, blocks, ...tools.relations.tag(relation) });
    });
    return partitionOfShard(relations, this.#rules.imagePages, place.spec.shard);
  }

  async #coverageOf(part: Partition, lsn: number): Promise<Coverage> {
    const { history, tools } = this.#options;
    const images = new Set<FileLayer>();
    let imageLsn = Number.POSITIVE_INFINITY;
    const columns = history.files.columnsOf(part.firstKey, part.lastKey);
    for (const column of columns) {
      const newest = column.images.find((image) => image.endLsn <= lsn);
      if (newest) images.add(newest);
      imageLsn = Math.min(imageLsn, newest?.endLsn ?? -1);
    }
    const deltas = new Set<FileLayer>();
    for (const column of columns) {
      for (const delta of column.deltas) {
        if (delta.endLsn > imageLsn && delta.startLsn < lsn) deltas.add(delta);
      }
    }
    let deltaBytes = 0;
    let count = 0;
    for (const delta of deltas) {
      const index = delta.index ?? (await tools.store.loadIndex(delta));
      const bytes = index.storedBytesBetween(part.firstKey, part.lastKey);
      deltaBytes += bytes;
      if (bytes > 0) count++;
    }
    let imageBytes = 0;
    for (const { descriptor } of images) imageBytes += descriptor.bytes;
    return { imageLsn, imageBytes, deltas: count, deltaBytes };
  }

  #change(added: LayerDescriptor[], removed: string[]): void {
    const { history, onChange } = this.#options;
    const layers = added.map((layer) => new FileLayer(layer));
    onChange(added, history.files.replace(layers, removed));
  }
}

/** Whether a read failed because of the page's own records. */
function isAboutPage(error: unknown): boolean {
  return (
    error instanceof RedoError || error instanceof UnsupportedRecordError || error instanceof CorruptWalError
  );
}
