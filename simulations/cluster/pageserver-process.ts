/**
 * A pageserver process on a simulated machine: what `deploy/node/pageserver.ts` does, over the simulated ports. The node,
 * its shards, layers and redo are those of production.
 */
import { ChunkPool } from '../../actors/pageserver/arena.ts';
import { pageserverDefinition } from '../../actors/pageserver/definition.ts';
import { LayerStore } from '../../actors/pageserver/layer-store.ts';
import { PageCache } from '../../actors/pageserver/page-cache.ts';
import { PageRedo } from '../../actors/pageserver/page-redo.ts';
import { RelationTable } from '../../actors/pageserver/relation-table.ts';
import { TEMPLATE_FORMAT } from '../../actors/pageserver/template.ts';
import type { ShardTools } from '../../actors/pageserver/tools.ts';
import { Turns } from '../../actors/safekeeper/turns.ts';
import { readCommittedWal } from '../../actors/safekeeper/wal-client.ts';
import { PageserverNode, type PageserverNodeOptions } from '../../deploy/node/pageserver-node.ts';
import { type NodeId, replicaId, type TimelineId } from '../../protocols/ids.ts';
import { KIND_IMAGE } from '../../protocols/layers/format.ts';
import { LayerWriter } from '../../protocols/layers/writer.ts';
import { TimelineStateFold } from '../../protocols/postgres/state/fold.ts';
import { newClusterState } from '../../protocols/postgres/state/new-cluster.ts';
import { encodeTimelineState } from '../../protocols/postgres/state/snapshot.ts';
import { FileJournalStore } from '../../runtime/adapters/file-journal.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import { ChannelDoor, openChannel } from '../../runtime/channels/door.ts';
import type { HostServices } from '../../runtime/host/actor-host.ts';
import { SupervisedActor } from '../../runtime/host/supervisor.ts';
import type { JournalStore } from '../../runtime/ports/journal.ts';
import type { ReplayOracle } from '../oracles/replay-oracle.ts';
import type { SimMachine, SimProcess } from '../world/machine.ts';
import { type SimBucket, SimObjects } from '../world/objects.ts';
import type { PageserverBug } from './canaries.ts';
import { observeActor, observedJournals, snapshotsOf } from './observe.ts';
import { previousJournals, previousObjects, watchedUpgrade } from './previous-release.ts';
import type { Timeline } from './sim-postgres.ts';

const DIAL_TIMEOUT_MS = 2000;
const MEGABYTE = 2 ** 20;
/** Small numbers, so that layers are merged and imaged within seconds of simulated work. */
const SMALL_LAYERS = {
  layerBytesMax: 64 * 1024,
  compaction: { mergeLayers: 3, targetBytes: 64 * 1024, imagePages: 64 },
};
/** A layer that is frozen early holds the changes of a few transactions. */
const EARLY_BYTES = 3_000;
export const TEMPLATE_KEY = 'templates/simulated/index.json';

/** Who gives out generations: each life of the process is one, or the timeline's actor, which is asked over the bus. */
export type GenerationOwner = 'life' | 'timeline';

export class PageserverMachine {
  readonly #sizes: NonNullable<PageserverNodeOptions['sizes']>;
  readonly machine: SimMachine;
  readonly #bucket: SimBucket;
  readonly #onExit: (process: SimProcess) => void;
  readonly #bug: PageserverBug;
  readonly #owner: GenerationOwner;
  /** Whose process is started next; an earlier release leaves journals and indexes in other shapes. */
  release: 'earlier' | 'current' | undefined;
  /** Compares what the journals give after a crash with the live states. */
  replays: ReplayOracle | undefined;
  #lives = 0;

  constructor(
    machine: SimMachine,
    bucket: SimBucket,
    onExit: (process: SimProcess) => void,
    bug: PageserverBug = {},
    owner: GenerationOwner = 'life',
    sizes: NonNullable<PageserverNodeOptions['sizes']> = SMALL_LAYERS,
  ) {
    this.#sizes = sizes;
    this.machine = machine;
    this.#bucket = bucket;
    this.#onExit = onExit;
    this.#bug = bug;
    this.#owner = owner;
  }

  get node(): NodeId {
    return this.machine.name as NodeId;
  }

  /** Processes that have run here: each attachment's generation. */
  get lives(): number {
    return this.#lives;
  }

  start(): void {
    this.#lives++;
    this.machine.start((process) => {
      this.#main(process).catch((error: Error) => {
        process.ports.log.error({}, `the pageserver cannot start: ${error.message}`);
        this.#onExit(process);
      });
    });
  }

  crash(): void {
    this.replays?.crashed(this.node);
    this.machine.crash();
  }

  /** Its disk is lost with all that is on it. */
  loseDisk(): void {
    this.crash();
    this.replays?.lost(this.node);
    this.machine.storage.wipe();
  }

  async #main(process: SimProcess): Promise<void> {
    const { clock, random, log, metrics, disk, network, bus } = process.ports;
    await disk.makeDirectory('.');
    const door = new ChannelDoor(network, `tcp:${this.node}`, { bus });
    await door.listen();
    const tools = this.#tools(process);
    const own = new FileJournalStore({ disk, clock, log });
    const { journals: released, sizes, snapshotEvery } = this.#asReleased(own, tools);
    const journals = observedJournals(process, released);
    const services: HostServices = { journals, bus, clock, random, log, metrics, snapshotEvery };
    const node = new PageserverNode({
      node: this.node,
      bus,
      door,
      journals,
      sizes,
      tools,
      startActor: async (id) => {
        const actor = new SupervisedActor(this.#definition(), id, services, {
          onDown: () => this.#onExit(process),
        });
        await actor.start();
        observeActor(process, actor);
        this.replays?.started(this.node, actor);
        return actor;
      },
    });
    await node.start();
  }

  /** Between the process and what it leaves behind, where releases matter. */
  #asReleased(journals: JournalStore, tools: ShardTools) {
    if (this.release === undefined) return { journals, ...this.#rarely() };
    if (this.release === 'current') {
      const watched = watchedUpgrade(this.machine.surroundings.world, journals, tools.objects);
      tools.objects = watched.objects;
      return { journals: watched.journals, sizes: this.#sizes };
    }
    tools.objects = previousObjects(tools.objects);
    // The earlier release knew no merging.
    const compaction = { ...SMALL_LAYERS.compaction, mergeLayers: Number.MAX_SAFE_INTEGER };
    return { journals: previousJournals(journals), sizes: { ...SMALL_LAYERS, compaction }, snapshotEvery: 6 };
  }

  /** Its sizes, and how often its journals are snapshotted. */
  #rarely() {
    const { process, surroundings } = this.machine;
    const layerBytesMax = surroundings.world.rare.happens('layer-ends-early') ? EARLY_BYTES : undefined;
    const sizes = layerBytesMax ? { ...this.#sizes, layerBytesMax } : this.#sizes;
    return { sizes, ...snapshotsOf(process!) };
  }

  #definition(): typeof pageserverDefinition {
    const { upcast } = this.#bug;
    // The bug came with the newer release.
    if (!upcast || this.release === 'earlier') return pageserverDefinition;
    return { ...pageserverDefinition, upcast: (event) => upcast(pageserverDefinition.upcast!(event), event) };
  }

  #validator(process: SimProcess): ShardTools['validateGeneration'] {
    if (this.#owner === 'life') return async (_, generation) => generation === this.#lives;
    return async (timeline, generation) => {
      const status = await sendCommand<{ generation: number }>(
        process.ports.bus,
        'timeline',
        timeline,
        { type: 'status' },
        { timeoutMs: DIAL_TIMEOUT_MS },
      );
      return status.generation === generation;
    };
  }

  #tools(process: SimProcess): ShardTools {
    const { clock, log, disk, network, bus } = process.ports;
    const { objects: changeObjects, cache: changeCache } = this.#bug;
    const bucket = new SimObjects(this.#bucket, process, disk);
    const objects = changeObjects?.(bucket, clock) ?? bucket;
    const cache = new PageCache(MEGABYTE);
    const relations = new RelationTable();
    const dialSafekeeper = async (member: NodeId, timeline: string) => {
      const id = replicaId(timeline as TimelineId, member);
      const channel = await openChannel(bus, network, 'safekeeper', id, { timeoutMs: DIAL_TIMEOUT_MS });
      return this.#bug.wrapWalChannel?.(channel) ?? channel;
    };
    return {
      clock,
      log,
      disk,
      objects,
      relations,
      store: new LayerStore({ disk, objects, log, folder: 'layers', indexBytesMax: MEGABYTE }),
      cache: changeCache?.(cache) ?? cache,
      redo: new PageRedo(relations),
      pool: new ChunkPool(16 * MEGABYTE),
      background: new Turns(1),
      validateGeneration: this.#bug.validateGeneration ?? this.#validator(process),
      dialSafekeeper,
      readWal: ({ timeline, safekeepers }, from, length) =>
        readCommittedWal(
          { clock, dial: (node) => dialSafekeeper(node, timeline), safekeepers },
          from,
          length,
        ),
    };
  }
}

/** Puts an empty cluster into the bucket, as the template that the timeline begins with. */
export function storeEmptyTemplate(
  bucket: SimBucket,
  timeline: Pick<Timeline, 'startLsn' | 'pgVersion' | 'systemId'>,
): void {
  const { startLsn, pgVersion } = timeline;
  const writer = new LayerWriter({ kind: KIND_IMAGE, level: 0, pgVersion, startLsn, endLsn: startLsn });
  writer.value('control', startLsn, new Uint8Array(8192));
  writer.waypoint(startLsn, encodeTimelineState(emptyState(startLsn), pgVersion));
  const bytes = writer.finish().bytes.slice();
  const layerKey = 'templates/simulated/empty.layer';
  bucket.put(layerKey, bytes, {});
  const index = {
    format: TEMPLATE_FORMAT,
    pgVersion,
    systemId: String(timeline.systemId),
    startLsn,
    layer: { key: layerKey, kind: 'image', startLsn, endLsn: startLsn, bytes: bytes.length },
  };
  bucket.put(TEMPLATE_KEY, new TextEncoder().encode(JSON.stringify(index)), {});
}

function emptyState(startLsn: Timeline['startLsn']): TimelineStateFold {
  return new TimelineStateFold(
    newClusterState({
      checkpoint: { redo: startLsn, nextXid: 731, nextOid: 16_384, oldestXid: 722 },
      lastRecordEnd: startLsn,
    }),
  );
}
