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
import { SecondaryLayers, type SecondaryProject } from '../../actors/pageserver/secondary-layers.ts';
import { Shard, type ShardOptions, type ShardParent } from '../../actors/pageserver/shard.ts';
import { resolveLsn, resolveTime } from '../../actors/pageserver/shard-queries.ts';
import { openTemplate } from '../../actors/pageserver/template.ts';
import type { ShardTools } from '../../actors/pageserver/tools.ts';
import { layersWithoutGap } from '../../actors/pageserver/usable-layers.ts';
import { PalimpsestError, toWireError } from '../../protocols/errors.ts';
import { isHexId, type NodeId } from '../../protocols/ids.ts';
import { formatLsn } from '../../protocols/lsn.ts';
import { timelinePrefix } from '../../protocols/object-keys.ts';
import { RIGHT_GET_PAGE } from '../../protocols/tokens.ts';
import { serveCommands } from '../../runtime/bus/command.ts';
import type { ChannelDoor } from '../../runtime/channels/door.ts';
import type { ActorHandle } from '../../runtime/host/definition.ts';
import type { Bus, Subscription } from '../../runtime/ports/bus.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import type { Timer } from '../../runtime/ports/clock.ts';
import type { JournalStore } from '../../runtime/ports/journal.ts';
import type { Metrics } from '../../runtime/ports/metrics.ts';

/** How long a request waits for WAL to arrive, and an attach for its ancestor. */
const WAIT_TIMEOUT_MS = 8_000;
const TICK_MS = 500;
/** At a stop an open layer of at least this size is written; less is quickly ingested again. */
const STOP_FLUSH_BYTES_MIN = 8 * 1024 * 1024;

type AttachCommand = { type: 'attach' } & ShardSpec;

export type PageserverNodeCommand =
  | AttachCommand
  /** With `dropLocal` nothing of it stays on this node's disk; objects have what was uploaded, safekeepers the rest. */
  | { type: 'detach'; timeline: string; tenant?: string; dropLocal?: boolean }
  /** With `tenant` its objects are found also when nothing else is known of the timeline. */
  | { type: 'delete'; timeline: string; tenant?: string }
  /** This node is the warm secondary of these projects, and of no others. */
  | { type: 'keep-ready'; projects: readonly SecondaryProject[] }
  | { type: 'list' }
  | { type: 'status' };

export type PageserverCommand =
  | { type: 'status' }
  | { type: 'resolve'; lsn: number }
  | { type: 'resolve-time'; timeMs: number }
  /** Copies what the ancestor has where this one starts; answers with `{template}`, which can take the ancestor's place. */
  | { type: 'copy-ancestor' }
  /** Removes what is neither after the cutoff nor needed at a retained point; answers with a GcReport. */
  | { type: 'gc'; cutoffLsn: number; retained: number[] }
  | { type: 'flush' };

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

interface Hosted {
  actor: ActorHandle<ShardCommand>;
  shard: Shard;
  door: { close(): void };
  /** Those that are open: they end with the shard, which has no newest WAL any more once it is closed. */
  channels: Set<Channel>;
  subscription: Subscription;
}

export class PageserverNode {
  readonly #options: PageserverNodeOptions;
  readonly #hosted = new Map<string, Hosted>();
  readonly #actors = new Map<string, ActorHandle<ShardCommand>>();
  readonly #templates = new Map<string, Promise<ShardParent>>();
  /** Commands on one timeline are taken one after the other. */
  readonly #turns = new Map<string, Promise<unknown>>();
  /** Copies of ancestors that are being made. */
  readonly #copies = new Map<string, Promise<string>>();
  readonly #secondary: SecondaryLayers;
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
      inTurn: (timeline, work) => this.#inTurn(timeline, work),
    });
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
        this.#secondary.release(command.timeline);
        return this.#inTurn(command.timeline, () => this.#attach(command));
      case 'detach':
        return this.#inTurn(command.timeline, () => this.#detach(command));
      case 'delete':
        return this.#inTurn(command.timeline, () => this.#detach(command));
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

  async #inTurn<T>(timeline: string, work: () => Promise<T>): Promise<T> {
    if (!isHexId(timeline)) throw new PalimpsestError('invalid-argument', `not a timeline id: ${timeline}`);
    const before = this.#turns.get(timeline);
    const turn = (before ?? Promise.resolve()).then(work, work);
    this.#turns.set(timeline, turn);
    try {
      return await turn;
    } finally {
      if (this.#turns.get(timeline) === turn) this.#turns.delete(timeline);
    }
  }

  async #attach(command: AttachCommand): Promise<void> {
    const { timeline } = command;
    // Looked for meanwhile; for one that is hosted there may be no need.
    const index = this.#hosted.has(timeline) ? undefined : findIndex(this.#options.tools.objects, command);
    index?.catch(() => {});
    const actor = await this.#actorOf(timeline);
    const isUnknown = index !== undefined && (actor.snapshot() as ShardSnapshot).value === 'detached';
    const isNew = isUnknown && (await index.catch(() => null)) === undefined;
    await actor.dispatch({ ...command, isNew });
    const hosted = this.#hosted.get(timeline);
    const isSame = hosted && growsFrom(hosted.shard.spec) === growsFrom(command);
    if (isSame && !hosted.shard.failure && !(await this.#wasElsewhere(command, hosted, actor))) {
      hosted.shard.adopt(command);
      return;
    }
    if (hosted) await this.#stopHosting(timeline, hosted);
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
    return index !== undefined && !generations.includes(index.generation);
  }

  async #open(
    command: AttachCommand,
    actor: ActorHandle<ShardCommand>,
    { finding, isNew }: { finding?: Promise<ShardIndex | undefined> | undefined; isNew?: boolean } = {},
  ): Promise<void> {
    const { type: _, ...spec } = command;
    const { tools, door, bus, onPagesServed } = this.#options;
    const { timeline } = spec;
    const parent = await this.#parentOf(spec);
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
      tools: { ...tools, log: tools.log.child({ actor: PAGESERVER_KIND, timeline }) },
      journal: { record },
      ...this.#options.sizes,
    });
    await shard.start();
    const service = { shard, tools, waitTimeoutMs: WAIT_TIMEOUT_MS, onServed: onPagesServed };
    const channels = new Set<Channel>();
    this.#hosted.set(timeline, {
      actor,
      shard,
      channels,
      door: door.serve(
        PAGESERVER_KIND,
        timeline,
        (channel) => {
          channels.add(channel);
          channel.onClose(() => channels.delete(channel));
          new PageService(channel, service);
        },
        { tenant: spec.tenant, timeline, rights: RIGHT_GET_PAGE },
      ),
      subscription: serveCommands<PageserverCommand>(bus, PAGESERVER_KIND, timeline, (request) =>
        this.#serveShard(shard, request),
      ),
    });
    await bus.flush();
  }

  /** An index that an earlier life of this node wrote tells nothing new about the map: the journal knows what came after it. */
  async #takeIndex(
    index: ShardIndex | undefined,
    actor: ActorHandle<ShardCommand>,
    record: (events: ShardEvent[]) => Promise<void>,
    replaces?: boolean,
  ): Promise<void> {
    const { generations = [] } = (actor.snapshot() as ShardSnapshot).context;
    await record([
      {
        type: 'attach.completed',
        layers: index?.layers ?? [],
        replaces: replaces ?? (index !== undefined && !generations.includes(index.generation)),
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

  async #parentOf(spec: ShardSpec): Promise<ShardParent | undefined> {
    if (spec.ancestor) {
      const { timeline, lsn } = spec.ancestor;
      const parent = this.#hosted.get(timeline);
      if (!parent) throw this.#notAttached(timeline);
      await parent.shard.waitFor(lsn, WAIT_TIMEOUT_MS);
      return this.#ancestor(timeline, lsn);
    }
    return spec.template === undefined ? undefined : this.#template(spec.template);
  }

  /** Looks the ancestor up at each use: it may have been attached again since. */
  #ancestor(timeline: string, lsn: number): ShardParent {
    const shard = () => {
      const hosted = this.#hosted.get(timeline);
      if (!hosted) throw this.#notAttached(timeline);
      if (hosted.shard.failure) throw hosted.shard.failure;
      if (hosted.shard.lastLsn < lsn) {
        throw new PalimpsestError(
          'unavailable',
          `ancestor ${timeline} is still behind ${formatLsn(lsn)}`,
          'Try again.',
        );
      }
      return hosted.shard;
    };
    return {
      get history() {
        return shard().history;
      },
      lsn,
      foldAt: async (at) => shard().foldAt(at),
      foldAtTime: async (timeMs, limit) => shard().foldAtTime(timeMs, limit),
    };
  }

  #template(key: string): Promise<ShardParent> {
    const known = this.#templates.get(key);
    if (known) return known;
    const opening = openTemplate(key, this.#options.tools);
    this.#templates.set(key, opening);
    opening.catch(() => this.#templates.delete(key));
    return opening;
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
        await shard.uploaded();
        return shardStatus(shard);
      default:
        throw new PalimpsestError(
          'invalid-argument',
          `unknown command '${(command as { type: string }).type}'`,
        );
    }
  }

  async #detach(command: Extract<PageserverNodeCommand, { type: 'detach' | 'delete' }>): Promise<void> {
    const { timeline } = command;
    const deleted = command.type === 'delete';
    const { tools, journals } = this.#options;
    const hosted = this.#hosted.get(timeline);
    const actor = await this.#actorOf(timeline);
    const { spec } = (actor.snapshot() as ShardSnapshot).context;
    const tenant = spec?.tenant ?? command.tenant;
    if (hosted) await this.#stopHosting(timeline, hosted);
    await actor.dispatch({ type: 'detach', deleted });
    if (!deleted && !(command.type === 'detach' && command.dropLocal)) return;
    await actor.stop();
    this.#actors.delete(timeline);
    await journals.remove(PAGESERVER_KIND, timeline);
    if (tenant === undefined) return;
    const prefix = timelinePrefix({ tenant, timeline });
    await tools.store.local.removeFolder(prefix);
    if (!deleted) return;
    this.#templates.delete(`${ownTemplatePrefix(timeline)}/index.json`);
    const keys: string[] = [];
    for (const folder of [prefix, ownTemplatePrefix(timeline)]) {
      for await (const { key } of tools.objects.list(`${folder}/`)) keys.push(key);
    }
    // The index goes first: what is listed must exist.
    keys.sort((a, b) => Number(b.includes('/index')) - Number(a.includes('/index')));
    for (const key of keys) await tools.objects.delete(key);
  }

  async #copyAncestor(shard: Shard): Promise<string> {
    const { timeline } = shard.spec;
    const known = this.#copies.get(timeline);
    if (known) return known;
    const copying = copyAncestor(shard, this.#options.tools).finally(() => this.#copies.delete(timeline));
    this.#copies.set(timeline, copying);
    return copying;
  }

  async #stopHosting(timeline: string, hosted: Hosted): Promise<void> {
    this.#hosted.delete(timeline);
    await this.#closeHosted(hosted, Number.POSITIVE_INFINITY);
  }

  async #closeHosted(hosted: Hosted, flushBytesMin: number): Promise<void> {
    hosted.subscription.unsubscribe();
    hosted.door.close();
    for (const channel of hosted.channels) channel.close();
    await hosted.shard.close(flushBytesMin);
  }

  async #actorOf(timeline: string): Promise<ActorHandle<ShardCommand>> {
    const known = this.#actors.get(timeline);
    if (known) return known;
    const actor = await this.#options.startActor(timeline);
    this.#actors.set(timeline, actor);
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

  #notAttached(timeline: string): PalimpsestError {
    return new PalimpsestError(
      'unavailable',
      `ancestor ${timeline} is not attached`,
      'Attach the ancestor first.',
    );
  }
}

/** What a timeline's history goes on in below its own. */
function growsFrom({ ancestor, template }: ShardSpec): string {
  return ancestor ? `${ancestor.timeline}/${ancestor.lsn}` : (template ?? '');
}

function shardStatus(shard: Shard) {
  return {
    timeline: shard.spec.timeline,
    state: shard.failure ? 'failed' : 'active',
    failure: shard.failure?.toWire(),
    generation: shard.spec.generation,
    lastLsn: shard.lastLsn,
    diskConsistentLsn: shard.diskConsistentLsn,
    remoteConsistentLsn: shard.remoteConsistentLsn,
    layers: shard.history.files.size,
    levelZero: shard.history.files.levelZero.length,
    openBytes: shard.openBytes,
    records: shard.recordsIngested,
  };
}
