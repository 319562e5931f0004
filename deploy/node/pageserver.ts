/**
 * The process of one pageserver.
 *
 *   node pageserver.ts '{"node":"ps1","dataDir":…,"objects":{"kind":"local",…},"runDir":…,"busAddress":…}'
 *
 * It ends when its standard input closes (its parent is gone), when the bus is lost, and on SIGTERM. Its data directory
 * is a cache: kill -9 at any moment, or the loss of the directory, loses nothing.
 */
import { ChunkPool } from '../../actors/pageserver/arena.ts';
import { pageserverDefinition } from '../../actors/pageserver/definition.ts';
import { LayerStore } from '../../actors/pageserver/layer-store.ts';
import { PageCache } from '../../actors/pageserver/page-cache.ts';
import { PageRedo } from '../../actors/pageserver/page-redo.ts';
import { RelationTable } from '../../actors/pageserver/relation-table.ts';
import type { ShardTools } from '../../actors/pageserver/tools.ts';
import { Turns } from '../../actors/safekeeper/turns.ts';
import { readCommittedWal } from '../../actors/safekeeper/wal-client.ts';
import type { TimelineStatus } from '../../actors/timeline/events.ts';
import { type NodeId, replicaId, type TimelineId } from '../../protocols/ids.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import { openChannel } from '../../runtime/channels/door.ts';
import { SupervisedActor } from '../../runtime/host/supervisor.ts';
import { PageserverNode } from './pageserver-node.ts';
import {
  runStorageProcess,
  type StorageProcess,
  type StorageProcessConfiguration,
} from './storage-process.ts';

interface PageserverConfiguration extends StorageProcessConfiguration {
  /** Memory for materialised pages. */
  pageCacheBytes?: number;
  /** Bytes of local layer files; without it all that is fetched stays. */
  diskBytesMax?: number;
  /** Memory for WAL that is not in layer files yet, of all timelines. */
  openLayerBytes?: number;
}

const MIB = 1024 * 1024;
const PAGE_CACHE_BYTES = 40 * MIB;
const OPEN_LAYER_BYTES = 48 * MIB;
const INDEX_BYTES = 16 * MIB;
/** Writing the last layers may take a moment; after this the process ends anyway, and loses nothing. */
const CLOSE_TIMEOUT_MS = 8_000;
const DIAL_TIMEOUT_MS = 2_000;
const VALIDATE_TIMEOUT_MS = 5_000;

const configuration = JSON.parse(process.argv[2] ?? '{}') as PageserverConfiguration;

await runStorageProcess(
  configuration,
  { what: 'pageserver', closeTimeoutMs: CLOSE_TIMEOUT_MS, asksSoon: true },
  async (services) => {
    const { fail, metrics } = services;
    const pagesServed = metrics.counter('palimpsest_pages_served', 'Pages that were sent to computes.');
    return new PageserverNode({
      ...services,
      tools: await makeTools(services),
      diskBytesMax: configuration.diskBytesMax,
      onPagesServed: (_, pages) => pagesServed.add(pages),
      async startActor(id) {
        const actor = new SupervisedActor(pageserverDefinition, id, services, {
          onDown: (reason) => fail(`a shard's actor is down: ${reason}`),
        });
        await actor.start();
        return actor;
      },
    });
  },
);

async function makeTools({
  disk,
  objects,
  clock,
  network,
  bus,
  log,
  walReader,
}: StorageProcess): Promise<ShardTools> {
  const relations = new RelationTable();
  const dialSafekeeper = (member: NodeId, timeline: string) =>
    openChannel(bus, network, 'safekeeper', replicaId(timeline as TimelineId, member), {
      timeoutMs: DIAL_TIMEOUT_MS,
      admission: walReader?.(timeline),
    });
  return {
    clock,
    log,
    disk,
    objects,
    relations,
    store: new LayerStore({
      disk,
      objects,
      log,
      folder: 'layers',
      indexBytesMax: INDEX_BYTES,
      diskBytesMax: configuration.diskBytesMax,
    }),
    cache: new PageCache(configuration.pageCacheBytes ?? PAGE_CACHE_BYTES),
    redo: new PageRedo(relations),
    pool: new ChunkPool(configuration.openLayerBytes ?? OPEN_LAYER_BYTES),
    background: new Turns(1),
    async validateGeneration(timeline, generation) {
      const request = { timeoutMs: VALIDATE_TIMEOUT_MS };
      const status = await sendCommand<TimelineStatus>(
        bus,
        'timeline',
        timeline,
        { type: 'status' },
        request,
      );
      return status.generation === generation;
    },
    dialSafekeeper,
    readWal: ({ timeline, safekeepers }, from, length) =>
      readCommittedWal({ clock, dial: (node) => dialSafekeeper(node, timeline), safekeepers }, from, length),
  };
}
