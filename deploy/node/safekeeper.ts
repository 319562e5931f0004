/**
 * The process of one safekeeper.
 *
 *   node safekeeper.ts '{"node":"sk1","dataDir":…,"runDir":…,"busAddress":…}'
 *
 * It ends when its standard input closes (its parent is gone), when the bus is lost, and on SIGTERM; kill -9 at any moment
 * loses nothing that was acknowledged.
 */
import { safekeeperDefinition } from '../../actors/safekeeper/definition.ts';
import { walFigures } from '../../actors/safekeeper/wal-store.ts';
import type { NodeId } from '../../protocols/ids.ts';
import { FileJournalStore } from '../../runtime/adapters/file-journal.ts';
import { NodeDisk } from '../../runtime/adapters/node-disk.ts';
import { MetricsRegistry } from '../../runtime/adapters/open-metrics.ts';
import { createLog, type LogLevel } from '../../runtime/adapters/pino-log.ts';
import { SocketBus } from '../../runtime/adapters/socket-bus.ts';
import { SocketChannelNetwork } from '../../runtime/adapters/socket-channel.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { SystemRandom } from '../../runtime/adapters/system-random.ts';
import { ChannelDoor } from '../../runtime/channels/door.ts';
import type { HostServices } from '../../runtime/host/actor-host.ts';
import { SupervisedActor } from '../../runtime/host/supervisor.ts';
import { serveMetrics } from '../../runtime/metrics/collect.ts';
import { busAddress, doorAddress } from './run-paths.ts';
import { SafekeeperNode } from './safekeeper-node.ts';

export interface SafekeeperConfiguration {
  node: NodeId;
  /** This node's own folder. */
  dataDir: string;
  /** Where the sockets of the installation are. */
  runDir: string;
  /** The parent's bus; by default in the run directory. */
  busAddress?: string;
  logLevel?: LogLevel;
}

const EXIT_FAILED = 1;
/** A process that hangs while it closes must still end. */
const CLOSE_TIMEOUT_MS = 5_000;
/** The process before this one may need a moment to leave the socket. */
const LISTEN_TRIES = 20;
const LISTEN_RETRY_MS = 100;

const configuration = JSON.parse(process.argv[2] ?? '{}') as SafekeeperConfiguration;
const log = createLog({ level: configuration.logLevel ?? 'info', bindings: { node: configuration.node } });

try {
  await main();
} catch (error) {
  log.error({ error }, 'the safekeeper cannot start');
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
  serveMetrics(bus, node, metrics);
  const services: HostServices = {
    journals,
    bus,
    clock,
    random: new SystemRandom(),
    log,
    metrics,
  };
  const host = new SafekeeperNode({
    node,
    bus,
    network,
    door,
    disk,
    journals,
    clock,
    log,
    figures: walFigures(metrics),
    async startActor(id) {
      const actor = new SupervisedActor(safekeeperDefinition, id, services, {
        onDown: (reason) => end(EXIT_FAILED, `a replica's actor is down: ${reason}`),
      });
      await actor.start();
      return actor;
    },
  });

  let ending = false;
  function end(code: number, reason: string): void {
    if (ending) return;
    ending = true;
    log.info({ reason }, 'the safekeeper ends');
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
  log.info({}, 'the safekeeper is ready');
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
