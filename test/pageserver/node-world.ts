/**
 * Pageserver nodes in this process over one object store, each with a disk of its own, fed with recorded WAL up to where the test
 * lets it; their lives end at a chosen step.
 */
import { join } from 'node:path';
import { ChunkPool } from '../../actors/pageserver/arena.ts';
import type { CompactionOptions } from '../../actors/pageserver/compaction-plan.ts';
import { PAGESERVER_KIND, pageserverDefinition } from '../../actors/pageserver/definition.ts';
import { findIndex } from '../../actors/pageserver/index-object.ts';
import { LayerStore } from '../../actors/pageserver/layer-store.ts';
import { PageCache } from '../../actors/pageserver/page-cache.ts';
import { PageClient } from '../../actors/pageserver/page-client.ts';
import { PageRedo } from '../../actors/pageserver/page-redo.ts';
import { RelationTable } from '../../actors/pageserver/relation-table.ts';
import type { SecondaryStatus } from '../../actors/pageserver/secondary-layers.ts';
import { Turns } from '../../actors/safekeeper/turns.ts';
import type { PageserverNodeCommand } from '../../deploy/node/pageserver-commands.ts';
import { PageserverNode } from '../../deploy/node/pageserver-node.ts';
import {
  FRAME_START_WAL,
  FRAME_WAL,
  packWalHeader,
  readStartWal,
} from '../../protocols/consensus/wal-frames.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { NodeId } from '../../protocols/ids.ts';
import type { Lsn } from '../../protocols/lsn.ts';
import { timelinePrefix } from '../../protocols/object-keys.ts';
import { crc32c } from '../../protocols/postgres/crc32c.ts';
import { eventSubject } from '../../protocols/subjects.ts';
import { FileJournalStore } from '../../runtime/adapters/file-journal.ts';
import { LocalObjects } from '../../runtime/adapters/local-objects.ts';
import { MemoryChannelNetwork, memoryChannelPair } from '../../runtime/adapters/memory-channel.ts';
import { NodeDisk } from '../../runtime/adapters/node-disk.ts';
import { SystemRandom } from '../../runtime/adapters/system-random.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import { MemoryBus } from '../../runtime/bus/memory-bus.ts';
import { ChannelDoor, openChannel } from '../../runtime/channels/door.ts';
import { SupervisedActor } from '../../runtime/host/supervisor.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import { CrashingDisk, crashingObjects, Life } from './crashing.ts';
import type { Moment } from './reference.ts';
import { readWalFiles, type ShardWorld } from './shard-world.ts';

export const TIMELINE = '1'.repeat(32);
const TIMEOUT = { timeoutMs: 30_000 };
const POLL_MS = 5;

export interface NodeStatus {
  generation: number;
  lastLsn: number;
  diskConsistentLsn: number;
  remoteConsistentLsn: number;
  layers: number;
  levelZero: number;
}

export class TestNode {
  readonly life: Life;
  readonly deleted: string[] = [];
  readonly store: LayerStore;
  readonly #world: ShardWorld;
  readonly #bus: MemoryBus;
  readonly #network = new MemoryChannelNetwork();
  readonly #node: PageserverNode;
  readonly #door: ChannelDoor;
  readonly #channels: (() => void)[] = [];
  #walEnd: number;

  private constructor(
    world: ShardWorld,
    options: {
      folder: string;
      walEnd: number;
      life: Life;
      compaction: Partial<CompactionOptions>;
      layerBytesMax: number;
      diskBytesMax?: number | undefined;
    },
    objects: LocalObjects,
  ) {
    this.#world = world;
    this.#walEnd = options.walEnd;
    this.life = options.life;
    const { clock, log } = world.tools;
    this.#bus = new MemoryBus({ clock });
    this.#door = new ChannelDoor(this.#network, 'mem:ps1', { bus: this.#bus });
    const disk = new CrashingDisk(new NodeDisk(join(world.folder, options.folder)), this.life);
    const ownObjects = crashingObjects(objects, this.life, (key) => this.deleted.push(key));
    const journals = new FileJournalStore({ disk, clock, log });
    const relations = new RelationTable();
    this.store = new LayerStore({
      disk,
      objects: ownObjects,
      log,
      folder: 'layers',
      indexBytesMax: 2 ** 22,
      diskBytesMax: options.diskBytesMax,
    });
    this.#node = new PageserverNode({
      node: 'ps1' as NodeId,
      bus: this.#bus,
      door: this.#door,
      journals,
      sizes: { compaction: options.compaction, layerBytesMax: options.layerBytesMax },
      diskBytesMax: options.diskBytesMax,
      tools: {
        ...world.tools,
        disk,
        objects: ownObjects,
        store: this.store,
        relations,
        cache: new PageCache(2 ** 20),
        redo: new PageRedo(relations),
        pool: new ChunkPool(2 ** 26),
        background: new Turns(1),
        dialSafekeeper: async () => {
          const [ours, theirs] = memoryChannelPair();
          this.#serveWal(theirs);
          return ours;
        },
      },
      startActor: async (id) => {
        const services = { journals, bus: this.#bus, clock, random: new SystemRandom(), log };
        const actor = new SupervisedActor(pageserverDefinition, id, services);
        await actor.start();
        return actor;
      },
    });
  }

  static async start(
    world: ShardWorld,
    options: {
      /** Folder of the node's own files, below the world's. */
      folder: string;
      /** WAL is there up to here. */
      walEnd: number;
      life?: Life;
      compaction?: Partial<CompactionOptions>;
      layerBytesMax?: number;
      diskBytesMax?: number;
    },
  ): Promise<TestNode> {
    const dataDir = join(world.folder, options.folder);
    await new NodeDisk(dataDir).makeDirectory('.');
    const objects = await LocalObjects.open(join(world.folder, 'objects'), { localRoot: dataDir });
    const node = new TestNode(
      world,
      {
        life: new Life(Number.POSITIVE_INFINITY, false),
        compaction: { mergeLayers: 3, targetBytes: 64 * 1024, imagePages: 200 },
        layerBytesMax: 100_000,
        ...options,
      },
      objects,
    );
    await node.#door.listen();
    await node.#node.start();
    return node;
  }

  async attach(generation: number): Promise<void> {
    this.#world.generation = Math.max(this.#world.generation, generation);
    const spec = this.#world.spec(TIMELINE, { startLsn: this.#world.template.startLsn });
    const command = { type: 'attach', ...spec, generation };
    await sendCommand(this.#bus, 'pageserver-node', 'ps1', command, TIMEOUT);
  }

  /** Makes it the warm secondary of the timeline, or of nothing. */
  async keepReady(isWanted: boolean): Promise<void> {
    const { tenant } = this.#world.spec(TIMELINE, { startLsn: this.#world.template.startLsn });
    const projects = isWanted ? [{ tenant, timelines: [TIMELINE] }] : [];
    const command: PageserverNodeCommand = { type: 'keep-ready', projects };
    await sendCommand(this.#bus, 'pageserver-node', 'ps1', command, TIMEOUT);
  }

  /** Tells it that another node has written the timeline's index. */
  indexWritten(): void {
    const { tenant } = this.#world.spec(TIMELINE, { startLsn: this.#world.template.startLsn });
    this.#bus.publish(eventSubject(tenant, TIMELINE, PAGESERVER_KIND, 'index.uploaded'), new Uint8Array(0));
  }

  async secondary(): Promise<SecondaryStatus> {
    const command = { type: 'status' };
    const status = await sendCommand<{ secondary: SecondaryStatus }>(
      this.#bus,
      'pageserver-node',
      'ps1',
      command,
      TIMEOUT,
    );
    return status.secondary;
  }

  status(): Promise<NodeStatus> {
    return sendCommand(this.#bus, PAGESERVER_KIND, TIMELINE, { type: 'status' }, TIMEOUT);
  }

  /** Lets more WAL come. */
  release(walEnd: number): void {
    this.#walEnd = walEnd;
    for (const send of this.#channels) send();
  }

  /** Waits until all WAL that was released is ingested, then until it is in objects that the index lists. */
  async settle(): Promise<NodeStatus> {
    const { clock } = this.#world.tools;
    for (const deadline = clock.monotonic() + TIMEOUT.timeoutMs; ; ) {
      this.life.check();
      const status = await this.status();
      if (status.lastLsn >= this.#walEnd) {
        await sendCommand(this.#bus, PAGESERVER_KIND, TIMELINE, { type: 'flush' }, TIMEOUT);
        const after = await this.status();
        const isMerged = after.levelZero < 3;
        if (isMerged && after.remoteConsistentLsn >= this.#walEnd) return after;
      }
      if (clock.monotonic() > deadline) {
        throw new PalimpsestError('timeout', `not settled: ${JSON.stringify(await this.status())}`);
      }
      await clock.sleep(POLL_MS);
    }
  }

  /** Compares the relations of one database at a moment; findings in words. */
  async compare(moment: Moment, db: number): Promise<string[]> {
    const channel = await openChannel(this.#bus, this.#network, PAGESERVER_KIND, TIMELINE, TIMEOUT);
    const client = new PageClient({ clock: this.#world.tools.clock, channel, timeoutMs: TIMEOUT.timeoutMs });
    const findings: string[] = [];
    try {
      const point = { lsn: moment.lsn as Lsn, notModifiedSince: moment.lsn as Lsn };
      for (const [key, checksums] of moment.relations) {
        const [spc, relationDb, rel, fork] = key.split('/').map(Number) as [number, number, number, number];
        if (relationDb !== db || rel < 16_384 || checksums.length === 0) continue;
        for (let firstBlock = 0; firstBlock < checksums.length; firstBlock += 128) {
          const count = Math.min(128, checksums.length - firstBlock);
          const pages = await client.getPages({ ...point, spc, db, rel, fork, firstBlock, count });
          for (let i = 0; i < count; i++) {
            if (crc32c(pages, i * 8192, (i + 1) * 8192) === checksums[firstBlock + i]) continue;
            findings.push(`${key} block ${firstBlock + i} differs at ${moment.lsn}`);
          }
        }
      }
    } finally {
      client.close();
    }
    return findings;
  }

  async close(): Promise<void> {
    // What a killed process was about to do never ends.
    const closing = this.#node.close().catch(() => {});
    await (this.life.isOver ? Promise.race([closing, this.#world.tools.clock.sleep(100)]) : closing);
    await this.#bus.close();
  }

  #serveWal(channel: Channel): void {
    channel.onFrame((type, body) => {
      if (type !== FRAME_START_WAL) return;
      let at = readStartWal(body) as number;
      const send = () => {
        for (; at < this.#walEnd; ) {
          const bytes = readWalFiles(this.#world.walFolder, at, Math.min(50_000, this.#walEnd - at));
          channel.send(FRAME_WAL, packWalHeader(at as Lsn, this.#walEnd as Lsn), bytes);
          at += bytes.length;
        }
      };
      this.#channels.push(send);
      send();
    });
  }
}

/** What is wrong with the objects of the timeline: listed and missing, or there and not listed. */
export async function objectFindings(world: ShardWorld): Promise<string[]> {
  const spec = world.spec(TIMELINE, { startLsn: world.template.startLsn });
  const index = await findIndex(world.objects, { ...spec, generation: world.generation });
  const listed = new Set(index?.layers.map(({ key }) => key));
  const findings: string[] = [];
  const indexes: string[] = [];
  for await (const { key } of world.objects.list(`${timelinePrefix(spec)}/`)) {
    if (key.includes('/index-')) indexes.push(key);
    else if (!listed.delete(key)) findings.push(`not listed: ${key}`);
  }
  for (const key of listed) findings.push(`missing: ${key}`);
  if (indexes.length !== 1) findings.push(`indexes: ${indexes.join(' ')}`);
  return findings;
}
