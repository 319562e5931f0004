/**
 * The process of one pageserver.
 *
 *   node pageserver.ts '{"node":"ps1","dataDir":…,"objectsDir":…,"runDir":…,"busAddress":…}'
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
import { readCommittedWal } from '../../actors/safekeeper/wal-client.ts';
import { type NodeId, replicaId, type TimelineId } from '../../protocols/ids.ts';
import { FileJournalStore } from '../../runtime/adapters/file-journal.ts';
import { LocalObjects } from '../../runtime/adapters/local-objects.ts';
import { NodeDisk } from '../../runtime/adapters/node-disk.ts';
import { MetricsRegistry } from '../../runtime/adapters/open-metrics.ts';
import { createLog, type LogLevel } from '../../runtime/adapters/pino-log.ts';
import { SocketBus } from '../../runtime/adapters/socket-bus.ts';
import { SocketChannelNetwork } from '../../runtime/adapters/socket-channel.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { SystemRandom } from '../../runtime/adapters/system-random.ts';
import { ChannelDoor, openChannel } from '../../runtime/channels/door.ts';
import type { HostServices } from '../../runtime/host/actor-host.ts';
import { SupervisedActor } from '../../runtime/host/supervisor.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { Log } from '../../runtime/ports/log.ts';
import { PageserverNode } from './pageserver-node.ts';
import { busAddress, doorAddress } from './run-paths.ts';

export interface PageserverConfiguration {
  node: NodeId;
  /** This node's own folder. */
  dataDir: string;
  /** Object storage as a local directory. */
  objectsDir: string;
  /** Where the sockets of the installation are. */
  runDir: string;
  /** The parent's bus; by default in the run directory. */
  busAddress?: string;
  logLevel?: LogLevel;
  /** Memory for materialised pages. */
  pageCacheBytes?: number;
  /** Memory for WAL that is not in layer files yet, of all timelines. */
  openLayerBytes?: number;
}

const EXIT_FAILED = 1;
const MIB = 1024 * 1024;
const PAGE_CACHE_BYTES = 40 * MIB;
const OPEN_LAYER_BYTES = 48 * MIB;
const INDEX_BYTES = 16 * MIB;
/** Writing the last layers may take a moment; after this the process ends anyway, and loses nothing. */
const CLOSE_TIMEOUT_MS = 8_000;
const DIAL_TIMEOUT_MS = 2_000;
/** The process before this one may need a moment to leave the socket. */
const LISTEN_TRIES = 20;
const LISTEN_RETRY_MS = 100;

const configuration = JSON.parse(process.argv[2] ?? '{}') as PageserverConfiguration;
const log = createLog({ level: configuration.logLevel ?? 'info', bindings: { node: configuration.node } });

try {
  await main();
} catch (error) {
  log.error({ error }, 'the pageserver cannot start');
  process.exit(EXIT_FAILED);
}

async function main(): Promise<void> {
  const { node, dataDir, runDir } = configuration;
  const clock = new SystemClock();
  const network = new SocketChannelNetwork();
  const disk = new NodeDisk(dataDir);
  await disk.makeDirectory('.');
  const bus = await SocketBus.connect({
    network,
    address: configuration.busAddress ?? busAddress(runDir),
    clock,
    log,
  });
  // Listening first keeps a second process of this node, or one that is still ending, away from the files.
  const door = new ChannelDoor(network, doorAddress(runDir, node), bus);
  await listen(door, clock);
  const journals = new FileJournalStore({ disk, clock, log });
  const metrics = new MetricsRegistry();
  const services: HostServices = { journals, bus, clock, random: new SystemRandom(), log, metrics };
  const pagesServed = metrics.counter('palimpsest_pages_served', 'Pages that were sent to computes.');
  const host = new PageserverNode({
    node,
    bus,
    door,
    journals,
    tools: await makeTools(disk, clock, network, bus, log),
    onPagesServed: (_, pages) => pagesServed.add(pages),
    async startActor(id) {
      const actor = new SupervisedActor(pageserverDefinition, id, services, {
        onDown: (reason) => end(EXIT_FAILED, `a shard's actor is down: ${reason}`),
      });
      await actor.start();
      return actor;
    },
  });

  let ending = false;
  function end(code: number, reason: string): void {
    if (ending) return;
    ending = true;
    log.info({ reason }, 'the pageserver ends');
    clock.setTimer(CLOSE_TIMEOUT_MS, () => process.exit(EXIT_FAILED));
    void host
      .close()
      .then(() => door.close())
      .finally(() => process.exit(code));
  }

  process.stdin.on('end', () => end(0, 'the parent is gone')).on('error', () => end(0, 'the parent is gone'));
  process.stdin.resume();
  process.on('SIGTERM', () => end(0, 'asked to'));
  process.on('SIGINT', () => end(0, 'asked to'));
  bus.onClose(() => end(EXIT_FAILED, 'the bus is lost'));
  await host.start();
  log.info({}, 'the pageserver is ready');
}

async function makeTools(
  disk: NodeDisk,
  clock: SystemClock,
  network: SocketChannelNetwork,
  bus: Bus,
  shardLog: Log,
): Promise<ShardTools> {
  const { dataDir, objectsDir } = configuration;
  const objects = await LocalObjects.open(objectsDir, { localRoot: dataDir });
  const relations = new RelationTable();
  const dialSafekeeper = (member: NodeId, timeline: string) =>
    openChannel(bus, network, 'safekeeper', replicaId(timeline as TimelineId, member), {
      timeoutMs: DIAL_TIMEOUT_MS,
    });
  return {
    clock,
    log: shardLog,
    disk,
    objects,
    relations,
    store: new LayerStore({ disk, objects, log: shardLog, folder: 'layers', indexBytesMax: INDEX_BYTES }),
    cache: new PageCache(configuration.pageCacheBytes ?? PAGE_CACHE_BYTES),
    redo: new PageRedo(relations),
    pool: new ChunkPool(configuration.openLayerBytes ?? OPEN_LAYER_BYTES),
    dialSafekeeper,
    readWal: ({ timeline, safekeepers }, from, length) =>
      readCommittedWal({ clock, dial: (node) => dialSafekeeper(node, timeline), safekeepers }, from, length),
  };
}

async function listen(door: ChannelDoor, clock: SystemClock): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await door.listen();
      return;
    } catch (error) {
      if (attempt === LISTEN_TRIES) throw error;
      await clock.sleep(LISTEN_RETRY_MS);
    }
  }
}
