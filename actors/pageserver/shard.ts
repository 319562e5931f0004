/**
 * A shard at work: the bytes of one timeline on this pageserver. Lifecycle and layer map are the actor's (machine.ts);
 * this is the plain code that ingests, flushes and reads.
 *
 * 1. `lastLsn` only grows; a read at or below it sees every change up to its LSN and none after.
 * 2. A layer in memory is given up in the same step in which its file takes its place.
 * 3. A layer is in the index object only after its own object is durable.
 * 4. A failed shard answers every request with the reason.
 */
import { PalimpsestError, toWireError } from '../../protocols/errors.ts';
import { formatLsn, LATEST_LSN, type Lsn, PAGE_BYTES } from '../../protocols/lsn.ts';
import { TimelineStateFold } from '../../protocols/postgres/state/fold.ts';
import { encodeTimelineState } from '../../protocols/postgres/state/snapshot.ts';
import { WalStreamDecoder } from '../../protocols/postgres/wal/stream-decoder.ts';
import { ownsPage } from '../../protocols/shard-layout.ts';
import { WalStream } from '../safekeeper/wal-client.ts';
import { Arena } from './arena.ts';
import { BulkPace } from './bulk-pace.ts';
import { Collector } from './collector.ts';
import type { CompactionOptions } from './compaction-plan.ts';
import type { ShardSpec } from './events.ts';
import { HeadState } from './head-state.ts';
import { Ingest } from './ingest.ts';
import type { LayerDescriptor } from './layer-descriptor.ts';
import { LsnWaiters } from './lsn-waiters.ts';
import { MemoryLayer, NO_CUT } from './memory-layer.ts';
import { type Ancestor, PageHistory } from './page-history.ts';
import { PageReader } from './page-reader.ts';
import { type KnownLayers, ShardLayers } from './shard-layers.ts';
import { type StateView, stateAt } from './state-history.ts';
import { StateLog } from './state-log.ts';
import type { ShardJournal, ShardTools } from './tools.ts';
import { foldTo, foldToTime, type WalSource } from './wal-scan.ts';

/** The open layer is frozen when its versions take this much. */
export const LAYER_BYTES_MAX = 24 * 1024 * 1024;
/** A layer that nothing was added to for this long is written, if it is worth a file. */
const IDLE_FLUSH_MS = 15_000;
const IDLE_FLUSH_BYTES_MIN = 4 * 1024 * 1024;
/** A layer that is older is written whatever its size. */
const AGE_FLUSH_MS = 10 * 60 * 1000;
/** A layer with nothing in it is worth a file only for the WAL that it stands for. */
const EMPTY_FLUSH_WAL_BYTES = 16 * 1024 * 1024;
const COPY_BATCH_PAGES = 256;

/** Where a shard's history goes on below its own layers: another shard, or a template. */
export interface ShardParent extends Ancestor {
  /** The folded state after the last record that ends at or before an LSN of the parent. */
  foldAt(lsn: number): Promise<TimelineStateFold>;
  /** LSN of the last commit at or before a time, looking no further than `limit`. */
  foldAtTime(timeMs: number, limit: number): Promise<TimelineStateFold | undefined>;
}

export interface ShardOptions extends KnownLayers {
  spec: ShardSpec;
  parent: ShardParent | undefined;
  tools: ShardTools;
  journal: ShardJournal;
  layerBytesMax?: number;
  compaction?: Partial<CompactionOptions>;
}

export class Shard {
  readonly spec: ShardSpec;
  readonly history: PageHistory;
  readonly reader: PageReader;
  readonly #options: ShardOptions;
  readonly #tools: ShardTools;
  readonly #parent: ShardParent | undefined;
  readonly #waiters: LsnWaiters;
  readonly #pace: BulkPace;
  readonly layers: ShardLayers;
  readonly collector: Collector;
  readonly #layerBytesMax: number;
  #ingest!: Ingest;
  #decoder!: WalStreamDecoder;
  #stream: WalStream | undefined;
  #lastLsn: number;
  #lastIngestAt = 0;
  #openSince = 0;
  /** While a database is copied. */
  #copying = false;
  #failure: PalimpsestError | undefined;
  #closed = false;

  constructor(options: ShardOptions) {
    const { spec, tools } = options;
    this.#options = options;
    this.#tools = tools;
    this.spec = spec;
    this.#parent = options.parent;
    this.#layerBytesMax = options.layerBytesMax ?? LAYER_BYTES_MAX;
    this.history = new PageHistory(spec.pgVersion, tools);
    this.history.ancestor = options.parent;
    this.reader = new PageReader(this.history, tools);
    this.#waiters = new LsnWaiters(tools.clock);
    this.#pace = new BulkPace(tools.clock);
    this.layers = new ShardLayers({
      spec,
      tools,
      journal: options.journal,
      history: this.history,
      reader: this.reader,
      known: options,
      compaction: options.compaction,
    });
    const { gcGainBytesMin } = options.compaction ?? {};
    this.collector = new Collector(this, { retained: spec.retained, gcGainBytesMin });
    this.#lastLsn = this.diskConsistentLsn;
  }

  /** Everything up to here is in layer files. */
  get diskConsistentLsn(): number {
    return this.layers.diskConsistentLsn;
  }

  /** Everything up to here is in objects that the index lists. */
  get remoteConsistentLsn(): number {
    return this.layers.remoteConsistentLsn;
  }

  /** WAL up to here is needed no more for its pages. */
  get releasedLsn(): number {
    return this.spec.isComing ? 0 : this.remoteConsistentLsn;
  }

  /** End of the last record that was ingested. */
  get lastLsn(): number {
    return this.#lastLsn;
  }

  get failure(): PalimpsestError | undefined {
    return this.#failure;
  }

  /** Bytes of WAL versions in the open layer. */
  get openBytes(): number {
    return this.#ingest.layer.arena.bytes;
  }

  get recordsIngested(): number {
    return this.#ingest.records;
  }

  /** Takes the state where the layer files end, and begins to follow the WAL from there. */
  async start(): Promise<void> {
    await this.load();
    this.#stream = new WalStream({
      clock: this.#tools.clock,
      log: this.#tools.log,
      dial: (node) => this.#tools.dialSafekeeper(node, this.spec.timeline),
      safekeepers: this.spec.safekeepers,
      from: this.#lastLsn as Lsn,
      onWal: (beginLsn, bytes, commitLsn) => this.#takeAtPace(beginLsn, bytes, commitLsn),
      onError: (error) => this.#fail(error),
      feedback: () => ({
        receivedLsn: this.#lastLsn as Lsn,
        remoteLsn: this.releasedLsn as Lsn,
        ...(this.spec.shard ? { shard: this.spec.shard } : {}),
      }),
    });
  }

  /** The first half of `start`: without a WAL stream, so that tests feed it themselves. */
  async load(): Promise<void> {
    const lsn = this.#lastLsn;
    const view = await stateAt(this.history, lsn, this.#tools);
    const head = new HeadState(await this.#foldBelow(lsn, view));
    view.forEachSize((relation, blocks) => head.setSize(relation, blocks));
    for (const [key, data] of view.values()) head.values.set(key, data);
    this.#ingest = new Ingest(this.#tools.relations, head, this.#newLayer(lsn, head), this.spec.shard);
    this.history.memory = [this.#ingest.layer];
    this.#decoder = new WalStreamDecoder(lsn, { pgVersion: this.spec.pgVersion });
    this.#lastIngestAt = this.#openSince = this.#tools.clock.monotonic();
    await this.layers.start();
  }

  /** Takes committed WAL; `bytes` may be reused after the call. Resolves when more may come. */
  takeWal(beginLsn: number, bytes: Uint8Array): void | Promise<void> {
    if (this.#failure || this.#closed) return undefined;
    try {
      this.#decoder.feed(beginLsn, bytes);
      return this.#drain();
    } catch (error) {
      this.#fail(error);
      throw error;
    }
  }

  /** Resolves when everything up to `lsn` is ingested. */
  waitFor(lsn: number, timeoutMs: number): Promise<void> | undefined {
    this.#throwFailure();
    if (lsn <= this.#lastLsn) return undefined;
    this.#pace.hurry();
    return this.#waiters.wait(lsn, this.#lastLsn, timeoutMs);
  }

  /** The LSN at which a request for `lsn` is answered. Throws `invalid-argument` when that state is not kept. */
  readLsn(lsn: number): number {
    this.#throwFailure();
    const at = Math.min(lsn, this.#lastLsn);
    this.collector.checkReadable(at);
    return at;
  }

  /** Sizes at `lsn` without waiting when it is the newest. */
  headSizeOf(relation: number): number {
    return this.#ingest.head.sizeOf(relation);
  }

  view(lsn: number): Promise<StateView> {
    return stateAt(this.history, lsn, this.#tools);
  }

  /** The folded state after the last record that ends at or before `lsn`. */
  async foldAt(lsn: number): Promise<TimelineStateFold> {
    if (lsn >= this.#lastLsn) return new TimelineStateFold(this.#ingest.head.fold.snapshot());
    if (lsn < this.spec.startLsn || (lsn === this.spec.startLsn && this.#parent)) {
      if (!this.#parent) throw this.#beforeBeginning(lsn);
      return this.#parent.foldAt(Math.min(lsn, this.#parent.lsn));
    }
    return this.#foldBelow(lsn, await this.view(lsn));
  }

  /** The state before the first commit later than `timeMs`; undefined when everything is later. */
  async foldAtTime(timeMs: number, limit: number = LATEST_LSN): Promise<TimelineStateFold | undefined> {
    const end = Math.min(limit, this.#lastLsn);
    const atEnd = await this.foldAt(end);
    if (atEnd.newestCommitTime <= timeMs) return atEnd;
    // Where a branch starts before the window only that point is kept.
    if (end < this.layers.gcCutoff && end > this.spec.startLsn) this.collector.checkReadable(end - 1);
    const waypoint = await this.#waypointBefore(timeMs, end);
    if (waypoint) return foldToTime(waypoint, end, timeMs, this.#walSource());
    return this.#parent?.foldAtTime(timeMs, this.#parent.lsn);
  }

  /** A newer attachment of this shard to this process: its objects carry the new number from now on. */
  adopt({ generation, retained = [], safekeepers, isComing }: ShardSpec): void {
    this.layers.adopt(generation);
    // What was told late is older than that it has come.
    if (!isComing) delete this.spec.isComing;
    if (String(safekeepers) !== String(this.spec.safekeepers)) {
      this.spec.safekeepers = safekeepers;
      this.#stream?.follow(safekeepers);
    }
    this.collector.retain(retained);
  }

  /** Writes the open layer to a file and waits until all layers are in files. */
  async flush(): Promise<void> {
    this.#freeze();
    await this.layers.written();
  }

  /** Waits until every layer file is uploaded and listed in the index, or, with `upTo`, those that hold what is before it. */
  uploaded(upTo?: number): Promise<void> {
    return this.layers.uploaded(upTo);
  }

  /**
   * Makes images at `lsn` of all keys that have deltas below it; waits for the WAL up to it to be in files. With them, older
   * layers are not needed for reads at `lsn` and after. Returns how many layers were made.
   */
  async createImages(lsn: number): Promise<number> {
    this.#throwFailure();
    if (lsn > this.#lastLsn) {
      throw new PalimpsestError('invalid-argument', `${formatLsn(lsn)} is not ingested yet`);
    }
    if (lsn > this.diskConsistentLsn) await this.flush();
    return this.layers.createImages(lsn);
  }

  /**
   * Takes layers out of the map for good, by the decision of whoever knows what must stay readable: journaled, then out of the
   * index, then their objects are deleted once this attachment is confirmed to be the current one.
   */
  async removeLayers(keys: string[], reason: string): Promise<void> {
    this.#throwFailure();
    await this.layers.removeLayers(keys, reason);
  }

  /** All layer files, in no order: what a decision about them starts from. */
  layerDescriptors(): LayerDescriptor[] {
    return Array.from(this.history.files.all(), ({ descriptor }) => descriptor);
  }

  /** Flushes an open layer that is old, or idle and large enough to be worth a file. */
  tick(): void {
    if (this.#failure) return;
    this.layers.tick();
    const { layer } = this.#ingest;
    // Safekeepers keep the WAL for it, also where hardly anything of that is about it: one of several shards may have a small share.
    if (layer.isEmpty && layer.endLsn - layer.startLsn < EMPTY_FLUSH_WAL_BYTES) return;
    const now = this.#tools.clock.monotonic();
    const isIdle = now - this.#lastIngestAt >= IDLE_FLUSH_MS && this.openBytes >= IDLE_FLUSH_BYTES_MIN;
    if (isIdle || now - this.#openSince >= AGE_FLUSH_MS) this.#freeze();
  }

  /** Freezes the open layer to make room for others. */
  relieve(): void {
    if (this.layers.waiting === 0) this.#freeze();
  }

  /** Stops; with `flushBytesMin` an open layer of at least that size is written first. */
  async close(flushBytesMin = Number.POSITIVE_INFINITY): Promise<void> {
    this.#stream?.close();
    if (!this.#failure && this.#ingest && this.openBytes >= flushBytesMin) await this.flush();
    this.#closed = true;
    this.#pace.hurry();
    this.#waiters.fail(new PalimpsestError('unavailable', 'the pageserver is stopping'));
    await this.layers.close();
    this.history.close();
    for (const layer of this.history.memory) layer.arena.release();
    this.history.memory = [];
    this.#tools.cache.forget(this.history.source);
  }

  #takeAtPace(beginLsn: number, bytes: Uint8Array, commitLsn: number): void | Promise<void> {
    const taking = this.takeWal(beginLsn, bytes);
    return taking ? taking.then(() => this.#restAt(commitLsn)) : this.#restAt(commitLsn);
  }

  #restAt(commitLsn: number): Promise<void> | undefined {
    if (this.#closed) return undefined;
    return this.#pace.taken(this.#lastLsn, commitLsn, !this.#waiters.isEmpty);
  }

  #drain(): void | Promise<void> {
    const { record } = this.#decoder;
    while (this.#decoder.next()) {
      this.#ingest.apply(record);
      if (this.#ingest.pendingCopy) return this.#copyAndGoOn();
    }
    this.#advance();
    const needsWork = this.#ingest.hotPages.length > 0 || this.openBytes >= this.#layerBytesMax;
    return needsWork ? this.#afterBatch() : undefined;
  }

  #advance(): void {
    this.#lastLsn = this.#decoder.position;
    this.#lastIngestAt = this.#tools.clock.monotonic();
    this.#waiters.advance(this.#lastLsn);
  }

  async #afterBatch(): Promise<void> {
    await this.#addHotImages();
    if (this.openBytes < this.#layerBytesMax) return;
    // One layer at a time waits for the disk: ingest waits with it rather than fill the memory.
    await this.layers.written();
    await this.layers.room();
    if (!this.#failure && !this.#closed) this.#freeze();
  }

  async #addHotImages(): Promise<void> {
    const { hotPages, layer } = this.#ingest;
    for (let i = 0; i < hotPages.length; i += 2) {
      const relation = hotPages[i]!;
      const block = hotPages[i + 1]!;
      const lsn = layer.newestLsn(relation, block);
      // A page that cannot be built keeps its records: a read names the one that is to blame.
      const page = await this.reader.readPage(relation, block, lsn).catch(() => undefined);
      if (page) layer.addImage(relation, block, lsn, page, 0);
    }
    hotPages.length = 0;
  }

  /** Nobody may read at the copy's LSN before all of it is there, and the open layer stays the same until then. */
  async #copyAndGoOn(): Promise<void> {
    this.#copying = true;
    try {
      await this.#copyDatabase();
    } finally {
      this.#copying = false;
    }
    await this.#drain();
  }

  /** Makes the pages that CREATE DATABASE with strategy FILE_COPY copied outside of the WAL. */
  async #copyDatabase(): Promise<void> {
    const copy = this.#ingest.pendingCopy!;
    this.#ingest.pendingCopy = undefined;
    const { relations } = this.#tools;
    const { head } = this.#ingest;
    // Pages of many relations are read together: with many layers below, each read looks into all of them.
    let batch = new CopyBatch();
    const sources = head.sizes.length;
    for (let relation = 0; relation < sources; relation++) {
      const blocks = head.sizes[relation]!;
      if (blocks < 0 || relations.db[relation] !== copy.sourceDb) continue;
      if (relations.spc[relation] !== copy.sourceSpc) continue;
      const { rel, fork } = relations.tag(relation);
      const target = relations.idOf(copy.targetSpc, copy.targetDb, rel, fork);
      this.#ingest.setSize(target, copy.lsn, blocks, NO_CUT);
      for (let block = 0; block < blocks; block++) {
        if (!ownsPage(this.spec.shard, { spc: copy.targetSpc, rel }, block)) continue;
        if (batch.add(relation, target, block) < COPY_BATCH_PAGES) continue;
        await this.#copyPages(batch, copy.lsn);
        batch = new CopyBatch();
      }
    }
    await this.#copyPages(batch, copy.lsn);
  }

  async #copyPages({ sources, targets, blocks }: CopyBatch, lsn: number): Promise<void> {
    const pages = new Uint8Array(blocks.length * PAGE_BYTES);
    const request = { relations: Int32Array.from(sources), blocks: Float64Array.from(blocks) };
    await this.reader.read(request, lsn, pages);
    const { layer } = this.#ingest;
    for (let i = 0; i < blocks.length; i++)
      layer.addImage(targets[i]!, blocks[i]!, lsn, pages, i * PAGE_BYTES);
  }

  #freeze(): void {
    const frozen = this.#ingest.layer;
    if (this.#copying) return;
    if (frozen.endLsn <= frozen.startLsn) return;
    this.#ingest.addWaypoint();
    const open = this.#newLayer(frozen.endLsn, this.#ingest.head);
    this.#ingest.layer = open;
    this.history.memory = [open, ...this.history.memory];
    this.#openSince = this.#tools.clock.monotonic();
    this.layers.write(frozen, (error) => this.#fail(error));
  }

  #newLayer(lsn: number, head: HeadState): MemoryLayer {
    const waypoint = { lsn, state: encodeTimelineState(head.fold, this.spec.pgVersion) };
    const state = new StateLog(new Map(head.values), waypoint);
    return new MemoryLayer(lsn, new Arena(this.#tools.pool), head.sizes.slice(), state);
  }

  async #foldBelow(lsn: number, view: StateView): Promise<TimelineStateFold> {
    if (lsn <= this.spec.startLsn && this.#parent) return this.#parent.foldAt(this.#parent.lsn);
    return foldTo(view.waypoint(), lsn, this.#walSource());
  }

  /** The newest own waypoint whose newest commit is not later than `timeMs`. */
  async #waypointBefore(timeMs: number, limit: number) {
    const bottom = Math.max(this.spec.startLsn, this.history.files.states[0]?.startLsn ?? 0);
    for (let lsn = limit; lsn > bottom; ) {
      const waypoints = (await this.view(lsn)).waypoints();
      const found = waypoints.findLast(
        (waypoint) => waypoint.lsn <= lsn && newestCommitTime(waypoint.state) <= timeMs,
      );
      if (found) return found;
      const first = waypoints[0]!.lsn;
      if (first >= lsn) break;
      lsn = first;
    }
    // Further back there may be nothing any more; before the own beginning the ancestor knows.
    if (bottom > this.spec.startLsn) this.collector.checkReadable(this.spec.startLsn);
    return undefined;
  }

  #walSource(): WalSource {
    const { pgVersion, timeline, safekeepers } = this.spec;
    const source = { timeline, safekeepers };
    return { pgVersion, read: (from, length) => this.#tools.readWal(source, from, length) };
  }

  #beforeBeginning(lsn: number): PalimpsestError {
    return new PalimpsestError(
      'not-found',
      `${formatLsn(lsn)} is before the beginning of the timeline at ${formatLsn(this.spec.startLsn)}`,
    );
  }

  #throwFailure(): void {
    if (this.#failure) throw this.#failure;
    if (this.#closed) throw new PalimpsestError('unavailable', 'the pageserver is stopping');
  }

  #fail(error: unknown): void {
    if (this.#failure || this.#closed) return;
    const wire = toWireError(error);
    this.#failure = PalimpsestError.fromWire(wire);
    this.#stream?.close();
    this.#waiters.fail(this.#failure);
    this.#tools.log.error({ timeline: this.spec.timeline, error: wire }, 'the shard cannot go on');
    void this.#options.journal.record([{ type: 'shard.failed', error: wire }]).catch(() => {});
  }
}

/** Pages to be copied, each from its source relation to its target at the same block. */
class CopyBatch {
  readonly sources: number[] = [];
  readonly targets: number[] = [];
  readonly blocks: number[] = [];

  /** Returns the number of pages in the batch. */
  add(source: number, target: number, block: number): number {
    this.sources.push(source);
    this.targets.push(target);
    return this.blocks.push(block);
  }
}

/** Where encodeTimelineState keeps the newest commit's time. */
function newestCommitTime(state: Uint8Array): number {
  return new DataView(state.buffer, state.byteOffset, state.byteLength).getFloat64(24, true);
}
