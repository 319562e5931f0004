/**
 * A pageserver node: all shards of one process, each with its actor, its layers, its commands and its channels.
 *
 * Shards are opened by `attach`, which the timelines' owner sends again after every start of this process: what this node
 * keeps on disk is a cache of object storage and the safekeepers.
 */

import { copyAncestor, ownTemplatePrefix } from '../../actors/pageserver/copy-ancestor.ts';
import type { ShardCommand } from '../../actors/pageserver/decide.ts';
import { PAGESERVER_KIND } from '../../actors/pageserver/definition.ts';
import type { ShardEvent, ShardSpec } from '../../actors/pageserver/events.ts';
import { findIndex, type ShardIndex } from '../../actors/pageserver/index-object.ts';
import { upcastDescriptor } from '../../actors/pageserver/layer-descriptor.ts';
import type { LayerState, ShardSnapshot } from '../../actors/pageserver/machine.ts';
import { PageService } from '../../actors/pageserver/page-service.ts';
import { SecondaryLayers } from '../../actors/pageserver/secondary-layers.ts';
import { Shard, type ShardOptions } from '../../actors/pageserver/shard.ts';
import { resolveLsn, resolveTime } from '../../actors/pageserver/shard-queries.ts';
import { SPLIT_GENERATION, type SplitReport, splitLayers } from '../../actors/pageserver/split-layers.ts';
import type { ShardTools } from '../../actors/pageserver/tools.ts';
import { layersWithoutGap } from '../../actors/pageserver/usable-layers.ts';
import { PalimpsestError, toWireError } from '../../protocols/errors.ts';
import type { NodeId } from '../../protocols/ids.ts';
import { shardPrefix } from '../../protocols/object-keys.ts';
import { parseShardId, shardId } from '../../protocols/shard-layout.ts';
import { RIGHT_GET_PAGE } from '../../protocols/tokens.ts';
import { serveCommands } from '../../runtime/bus/command.ts';
import type { ChannelDoor } from '../../runtime/channels/door.ts';
import type { ActorHandle } from '../../runtime/host/definition.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import type { Timer } from '../../runtime/ports/clock.ts';
import type { JournalStore } from '../../runtime/ports/journal.ts';
import type { Metrics } from '../../runtime/ports/metrics.ts';
import {
  type AttachCommand,
  growsFrom,
  type PageserverCommand,
  type PageserverNodeCommand,
  type ShardName,
  shardStatus,
} from './pageserver-commands.ts';
import { checkReplaced, deleteShardObjects, deleteTimelineObjects } from './shard-objects.ts';
import { ShardParents } from './shard-parents.ts';

/** How long a request waits for WAL to arrive, and an attach for its ancestor. */
const WAIT_TIMEOUT_MS = 8_000;
const TICK_MS = 500;
/** At a stop an open layer of at least this size is written; less is quickly ingested again. */
const STOP_FLUSH_BYTES_MIN = 8 * 1024 * 1024;

/** A shard whose objects are being made. */
interface Split {
  report: Promise<SplitReport>;
  stop: AbortController;
}

type DetachCommand = Extract<PageserverNodeCommand, { type: 'detach' | 'delete' | 'delete-shard' }>;

export interface PageserverNodeOptions {
  node: NodeId;
  bus: Bus;
  door: ChannelDoor;
  journals: JournalStore;
  tools: ShardTools;
  /** Sizes at which a shard's layers are ended and merged; the usual ones where absent. */
  sizes?: Pick<ShardOptions, 'layerBytesMax' | 'compaction'>;
  /** Disk budget of layer files, if there is one. */
  diskBytesMax?: number | undefined;
  metrics?: Metrics;
  startActor(id: string): Promise<ActorHandle<ShardCommand>>;
  onPagesServed?(milliseconds: number, pages: number): void;
}

interface Presence {
  close(): void;
}

interface Hosted {
  actor: ActorHandle<ShardCommand>;
  shard: Shard;
  /** Under the shard's own name, and under the timeline's where it answers for it. */
  own: Presence;
  face: Presence | undefined;
  serve(name: string): Presence;
  /** Those that are open: they end with the shard, which has no newest WAL any more once it is closed. */
  channels: Set<Channel>;
}

export class PageserverNode {
  readonly #options: PageserverNodeOptions;
  readonly #hosted = new Map<string, Hosted>();
  readonly #actors = new Map<string, ActorHandle<ShardCommand>>();
  readonly #parents: ShardParents;
  /** Commands on one shard are taken one after the other. */
  readonly #turns = new Map<string, Promise<unknown>>();
  /** Copies of ancestors that are being made. */
  readonly #copies = new Map<string, Promise<string>>();
  readonly #secondary: SecondaryLayers;
  /** New shards that are being made. */
  readonly #splits = new Map<string, Split>();
  #tick: Timer | undefined;

  constructor(options: PageserverNodeOptions) {
    this.#options = options;
    this.#secondary = new SecondaryLayers({
      ...options.tools,
      bus: options.bus,
      metrics: options.metrics,
      local: options.tools.store.local,
      diskBytesMax: options.diskBytesMax,
      isHosted: (timeline) => this.#hosted.has(timeline),
      inTurn: (timeline, work) => this.#inTurn({ timeline }, work),
    });
    const find = (id: string) => this.#hosted.get(id)?.shard;
    this.#parents = new ShardParents({ tools: options.tools, find, waitTimeoutMs: WAIT_TIMEOUT_MS });
  }

  async start(): Promise<void> {
    const { bus, node } = this.#options;
    serveCommands<PageserverNodeCommand>(bus, 'pageserver-node', node, (command) => this.#serve(command));
    await bus.flush();
    this.#armTick();
  }

  /** Writes what is worth it, and closes all shards. */
  async close(): Promise<void> {
    this.#tick?.cancel();
    await this.#secondary.close();
    const hosted = [...this.#hosted.values()];
    this.#hosted.clear();
    await Promise.allSettled(hosted.map((each) => this.#closeHosted(each, STOP_FLUSH_BYTES_MIN)));
    await Promise.allSettled([...this.#actors.values()].map((actor) => actor.stop()));
    await this.#options.tools.store.close();
  }

  async #serve(command: PageserverNodeCommand): Promise<unknown> {
    switch (command.type) {
      case 'attach':
        this.#secondary.release(shardId(command.timeline, command.shard));
        return this.#inTurn(command, () => this.#attach(command));
      case 'detach':
      case 'delete':
      case 'delete-shard':
        return this.#inTurn(command, () => this.#detach(command));
      case 'split':
        return this.#split(command);
      case 'keep-ready':
        return this.#secondary.keep(command.projects);
      case 'list':
        return [...this.#hosted.keys()];
      case 'status':
        return this.#status();
      default:
        throw new PalimpsestError(
          'invalid-argument',
          `unknown command '${(command as { type: string }).type}'`,
        );
    }
  }

  async #inTurn<T>({ timeline, shard }: ShardName, work: () => Promise<T>): Promise<T> {
    const id = shardId(timeline, shard);
    if (!parseShardId(id)) throw new PalimpsestError('invalid-argument', `not a timeline id: ${timeline}`);
    const before = this.#turns.get(id);
    const turn = (before ?? Promise.resolve()).then(work, work);
    this.#turns.set(id, turn);
    try {
      return await turn;
    } finally {
      if (this.#turns.get(id) === turn) this.#turns.delete(id);
    }
  }

  async #attach(command: AttachCommand): Promise<void> {
    const id = shardId(command.timeline, command.shard);
    // Looked for meanwhile; for one that is hosted there may be no need.
    const index = this.#hosted.has(id) ? undefined : findIndex(this.#options.tools.objects, command);
    index?.catch(() => {});
    const actor = await this.#actorOf(id);
    const isUnknown = index !== undefined && (actor.snapshot() as ShardSnapshot).value === 'detached';
    const isNew = isUnknown && (await index.catch(() => null)) === undefined;
    await actor.dispatch({ ...command, isNew });
    const hosted = this.#hosted.get(id);
    const isSame = hosted && growsFrom(hosted.shard.spec) === growsFrom(command);
    if (isSame && !hosted.shard.failure && !(await this.#wasElsewhere(command, hosted, actor))) {
      hosted.shard.adopt(command);
      if (command.shard) {
        this.#showFace(hosted, command.isFace);
        await this.#options.bus.flush();
      }
      return;
    }
    if (hosted) await this.#stopHosting(id, hosted);
    try {
      await this.#open(command, actor, { finding: index, isNew });
    } catch (error) {
      await actor.dispatch({
        type: 'record',
        events: [{ type: 'attach.failed', error: toWireError(error) }],
      });
      throw error;
    }
  }

  /**
   * Whether another node has written an index since this one was attached. It has deleted what its index does not list: the map
   * here, with layers that this node once uploaded, is no longer true.
   */
  async #wasElsewhere(
    command: AttachCommand,
    { shard }: Hosted,
    actor: ActorHandle<ShardCommand>,
  ): Promise<boolean> {
    if (command.generation <= shard.spec.generation) return false;
    const index = await findIndex(this.#options.tools.objects, command);
    const { generations = [] } = (actor.snapshot() as ShardSnapshot).context;
    // What a split made is what this attachment began with.
    const isOfAttachment = index !== undefined && index.generation !== SPLIT_GENERATION;
    return isOfAttachment && !generations.includes(index.generation);
  }

  async #open(
    command: AttachCommand,
    actor: ActorHandle<ShardCommand>,
    { finding, isNew }: { finding?: Promise<ShardIndex | undefined> | undefined; isNew?: boolean } = {},
  ): Promise<void> {
    const { type: _, ...spec } = command;
    const { tools, door, bus, onPagesServed } = this.#options;
    const id = shardId(spec.timeline, spec.shard);
    const parent = await this.#parents.of(spec);
    const index = await (finding ?? findIndex(tools.objects, spec));
    const record = async (events: ShardEvent[]) => {
      await actor.dispatch({ type: 'record', events });
    };
    if (!isNew) await this.#takeIndex(index, actor, record);
    const { deletions = [], gcCutoff = 0 } = (actor.snapshot() as ShardSnapshot).context;
    const shard = new Shard({
      spec,
      layers: await this.#usableLayers(spec, index, actor, record),
      deletions,
      gcCutoff,
      parent,
      tools: { ...tools, log: tools.log.child({ actor: PAGESERVER_KIND, timeline: id }) },
      journal: { record },
      ...this.#options.sizes,
    });
    await shard.start();
    const service = { shard, tools, waitTimeoutMs: WAIT_TIMEOUT_MS, onServed: onPagesServed };
    const channels = new Set<Channel>();
    const onChannel = (channel: Channel) => {
      channels.add(channel);
      channel.onClose(() => channels.delete(channel));
      new PageService(channel, service);
    };
    const serve = (name: string): Presence => {
      const scope = { tenant: spec.tenant, timeline: spec.timeline, rights: RIGHT_GET_PAGE };
      const opened = door.serve(PAGESERVER_KIND, name, onChannel, scope);
      const handle = (request: PageserverCommand) => this.#serveShard(shard, request);
      const subscription = serveCommands<PageserverCommand>(bus, PAGESERVER_KIND, name, handle);
      return {
        close: () => {
          subscription.unsubscribe();
          opened.close();
        },
      };
    };
    const hosted: Hosted = { actor, shard, channels, serve, own: serve(id), face: undefined };
    this.#hosted.set(id, hosted);
    this.#showFace(hosted, spec.isFace);
    await bus.flush();
  }

  /** The first of several shards answers under the timeline's own name, too; until it does, the one that was alone may still do so. */
  #showFace(hosted: Hosted, isFace = false): void {
    const { timeline, shard } = hosted.shard.spec;
    if (!shard) return;
    if (!isFace) {
      hosted.face?.close();
      hosted.face = undefined;
    } else hosted.face ??= hosted.serve(timeline);
  }

  /**
   * An index that an earlier life of this node wrote tells nothing new about the map: the journal knows what came after it; unless the
   * journal was lost with the disk, which shows in that it knows of no map yet.
   */
  async #takeIndex(
    index: ShardIndex | undefined,
    actor: ActorHandle<ShardCommand>,
    record: (events: ShardEvent[]) => Promise<void>,
    replaces?: boolean,
  ): Promise<void> {
    const { value, context } = actor.snapshot() as ShardSnapshot;
    const { generations = [] } = context;
    const isNews = index !== undefined && (value === 'attaching' || !generations.includes(index.generation));
    await record([
      {
        type: 'attach.completed',
        layers: index?.layers ?? [],
        replaces: replaces ?? isNews,
        gcCutoff: index?.gcCutoff ?? 0,
      },
    ]);
  }

  /** The layers whose bytes are somewhere and that leave no gap; drops the others from the map. */
  async #usableLayers(
    spec: ShardSpec,
    index: ShardIndex | undefined,
    actor: ActorHandle<ShardCommand>,
    record: (events: ShardEvent[]) => Promise<void>,
  ): Promise<LayerState[]> {
    const { store } = this.#options.tools;
    const layersNow = () => (actor.snapshot() as ShardSnapshot).context.layers.map(upcastDescriptor);
    const lost = new Set<string>();
    for (const layer of layersNow()) {
      if (!layer.uploaded && !(await store.local.isLocal(layer))) lost.add(layer.key);
    }
    // What a compaction has made is lost before it was in the index: its inputs are still what the index lists.
    if (layersNow().some(({ key, level }) => level > 0 && lost.has(key))) {
      await this.#takeIndex(index, actor, record, true);
    }
    const { gcCutoff = 0 } = (actor.snapshot() as ShardSnapshot).context;
    const usable = layersWithoutGap(layersNow(), { startLsn: spec.startLsn, gcCutoff, lost });
    const kept = new Set(usable.map(({ key }) => key));
    const dropped = layersNow().filter(({ key }) => !kept.has(key));
    if (dropped.length > 0) {
      await record(
        dropped.map(({ key }) => ({
          type: 'layer.removed',
          key,
          reason: lost.has(key)
            ? 'its file is gone and it was not uploaded'
            : 'it does not follow the layer before it',
        })),
      );
    }
    return layersNow();
  }

  async #serveShard(shard: Shard, command: PageserverCommand): Promise<unknown> {
    switch (command.type) {
      case 'status':
        return shardStatus(shard);
      case 'resolve':
        return resolveLsn(shard, command.lsn, WAIT_TIMEOUT_MS);
      case 'resolve-time':
        return resolveTime(shard, command.timeMs);
      case 'copy-ancestor':
        return { template: await this.#copyAncestor(shard) };
      case 'gc':
        return shard.collector.collect(command);
      case 'flush':
        await shard.flush();
        await shard.uploaded(shard.diskConsistentLsn);
        return shardStatus(shard);
      default:
        throw new PalimpsestError(
          'invalid-argument',
          `unknown command '${(command as { type: string }).type}'`,
        );
    }
  }

  async #detach(command: DetachCommand): Promise<void> {
    const { timeline, shard } = { shard: undefined, ...command };
    const id = shardId(timeline, shard);
    const split = this.#splits.get(id);
    split?.stop.abort();
    await split?.report.catch(() => {});
    const isDeleted = command.type !== 'detach';
    const { tools, journals } = this.#options;
    if (command.type === 'delete-shard' && command.replacedBy)
      await checkReplaced(tools.objects, command, command.replacedBy);
    const hosted = this.#hosted.get(id);
    const actor = await this.#actorOf(id);
    const { spec } = (actor.snapshot() as ShardSnapshot).context;
    const tenant = spec?.tenant ?? command.tenant;
    if (hosted) await this.#stopHosting(id, hosted);
    await actor.dispatch({ type: 'detach', deleted: isDeleted });
    if (!isDeleted && !(command.type === 'detach' && command.dropLocal)) return;
    await actor.stop();
    this.#actors.delete(id);
    await journals.remove(PAGESERVER_KIND, id);
    if (tenant === undefined) return;
    const prefix = shardPrefix({ tenant, timeline, ...(shard ? { shard } : {}) });
    await tools.store.local.removeFolder(prefix);
    if (command.type === 'delete-shard') await deleteShardObjects(tools.objects, prefix);
    if (command.type !== 'delete') return;
    this.#parents.forgetTemplate(`${ownTemplatePrefix(timeline)}/index.json`);
    await deleteTimelineObjects(tools.objects, { tenant, timeline });
  }

  /** Makes the objects of a new shard; it is not attached by this. Asked again meanwhile, it is waited for. */
  async #split({ type: _, from, ...spec }: Extract<PageserverNodeCommand, { type: 'split' }>) {
    const id = shardId(spec.timeline, spec.shard);
    const known = this.#splits.get(id);
    if (known) return known.report;
    const { tools } = this.#options;
    const before = shardId(spec.timeline, from);
    const stop = new AbortController();
    const splitting = splitLayers({ spec, from, tools, signal: stop.signal });
    const ended = splitting.finally(() => this.#splits.delete(id));
    this.#splits.set(id, { report: ended, stop });
    const report = await ended;
    tools.log.info({ shard: id, from: before, ...report }, 'a shard was made of another one');
    // What was fetched of one that is elsewhere is of no use here any more.
    const isInUse = this.#hosted.has(before) || this.#splits.size > 0;
    if (!isInUse) {
      await tools.store.local.removeFolder(shardPrefix({ ...spec, shard: from }));
    }
    return report;
  }

  async #copyAncestor(shard: Shard): Promise<string> {
    const id = shardId(shard.spec.timeline, shard.spec.shard);
    const known = this.#copies.get(id);
    if (known) return known;
    const copying = copyAncestor(shard, this.#options.tools).finally(() => this.#copies.delete(id));
    this.#copies.set(id, copying);
    return copying;
  }

  async #stopHosting(id: string, hosted: Hosted): Promise<void> {
    this.#hosted.delete(id);
    await this.#closeHosted(hosted, Number.POSITIVE_INFINITY);
  }

  async #closeHosted(hosted: Hosted, flushBytesMin: number): Promise<void> {
    hosted.own.close();
    hosted.face?.close();
    for (const channel of hosted.channels) channel.close();
    await hosted.shard.close(flushBytesMin);
  }

  async #actorOf(id: string): Promise<ActorHandle<ShardCommand>> {
    const known = this.#actors.get(id);
    if (known) return known;
    const actor = await this.#options.startActor(id);
    this.#actors.set(id, actor);
    return actor;
  }

  #armTick(): void {
    this.#tick = this.#options.tools.clock.setTimer(TICK_MS, () => {
      const shards = [...this.#hosted.values()].map(({ shard }) => shard);
      for (const shard of shards) shard.tick();
      if (this.#options.tools.pool.full && shards.length > 0) {
        shards.reduce((a, b) => (b.openBytes > a.openBytes ? b : a)).relieve();
      }
      this.#armTick();
    });
  }

  #status() {
    const { cache, pool, store, redo } = this.#options.tools;
    return {
      timelines: [...this.#hosted.values()].map(({ shard }) => shardStatus(shard)),
      cache: { pages: cache.capacity, hits: cache.hits, misses: cache.misses },
      openLayerBytes: pool.usedBytes,
      localBytes: store.local.bytes,
      downloads: store.local.downloads,
      rangedReads: store.local.rangedReads,
      evictions: store.local.evictions,
      secondary: this.#secondary.status(),
      recordsApplied: redo.recordsApplied,
    };
  }
}
