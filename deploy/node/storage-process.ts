/**
 * What the processes of safekeepers and pageservers have in common: they join the bus of their parent, listen on one
 * socket, serve their figures, and end cleanly when their standard input closes (the parent is gone), when the bus is
 * lost, and on a signal.
 */
import type { NodeId } from '../../protocols/ids.ts';
import { FileJournalStore } from '../../runtime/adapters/file-journal.ts';
import { NodeDisk } from '../../runtime/adapters/node-disk.ts';
import type { ObjectsLocation } from '../../runtime/adapters/objects-location.ts';
import { MetricsRegistry } from '../../runtime/adapters/open-metrics.ts';
import { openObjects } from '../../runtime/adapters/open-objects.ts';
import { createLog, type LogLevel } from '../../runtime/adapters/pino-log.ts';
import { SocketChannelNetwork, type SocketChannelOptions } from '../../runtime/adapters/socket-channel.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { SystemRandom } from '../../runtime/adapters/system-random.ts';
import { type Admission, ChannelDoor, type DoorOptions } from '../../runtime/channels/door.ts';
import { serveMetrics } from '../../runtime/metrics/collect.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { ChannelNetwork } from '../../runtime/ports/channel.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { Objects } from '../../runtime/ports/objects.ts';
import { ClusterAccess } from './cluster-access.ts';
import { FencedObjects, type MarkOwner } from './fenced-objects.ts';
import { channelNetwork, joinBus, type NatsLocation } from './join-bus.ts';
import { busAddress, doorAddress } from './run-paths.ts';

export interface StorageProcessConfiguration {
  node: NodeId;
  /** This node's own folder. */
  dataDir: string;
  /** Where the sockets of the installation are. */
  runDir: string;
  /** Where the objects of the installation are. */
  objects: ObjectsLocation;
  /** Whose objects they are; without it nobody asks. */
  owner?: MarkOwner;
  /** The parent's bus; by default in the run directory. */
  busAddress?: string;
  /** The bus of a cluster instead; then channels are accepted on TCP at `host`. */
  nats?: NatsLocation;
  host?: string;
  logLevel?: LogLevel;
}

export interface StorageProcess {
  node: NodeId;
  bus: Bus;
  network: ChannelNetwork;
  door: ChannelDoor;
  /** How safekeepers let this node in, where channels need tokens. */
  walReader: ((timeline: string) => Admission) | undefined;
  disk: NodeDisk;
  objects: Objects;
  journals: FileJournalStore;
  clock: SystemClock;
  random: SystemRandom;
  log: Log;
  metrics: MetricsRegistry;
  /** Ends the process cleanly, once. */
  fail(reason: string): void;
}

/** What runs in the process. */
export interface StorageHost {
  start(): Promise<void>;
  close(): Promise<void>;
}

const EXIT_FAILED = 1;
/** The process before this one may need a moment to leave the socket. */
const LISTEN_TRIES = 20;
const LISTEN_RETRY_MS = 100;

/**
 * Runs `makeHost`'s host until the process has to end. `what` names it in the log; a close that takes longer than
 * `closeTimeoutMs` is given up, which loses nothing.
 */
export async function runStorageProcess(
  configuration: StorageProcessConfiguration,
  { what, closeTimeoutMs, ...channels }: { what: string; closeTimeoutMs: number } & SocketChannelOptions,
  makeHost: (process: StorageProcess) => Promise<StorageHost>,
): Promise<void> {
  const { node, dataDir, runDir } = configuration;
  const log = createLog({ level: configuration.logLevel ?? 'info', bindings: { node } });
  try {
    const clock = new SystemClock();
    const random = new SystemRandom();
    const access = ClusterAccess.read(configuration.nats?.credentials, clock);
    const sockets = new SocketChannelNetwork(access?.identity, channels);
    const disk = new NodeDisk(dataDir);
    await disk.makeDirectory('.');
    const address = configuration.busAddress ?? busAddress(runDir);
    const login = access?.credentials.nats;
    const bus = await joinBus({
      ...configuration,
      login,
      name: node,
      busAddress: address,
      network: sockets,
      clock,
      log,
    });
    // Listening first keeps a second process of this node, or one that is still ending, away from the files.
    const guard = new ChannelDoor(sockets, doorAddress(runDir, node), {
      bus: configuration.nats ? undefined : bus,
    });
    await listen(guard, clock);
    const network = channelNetwork(sockets, { ...configuration, bus, clock, random, name: node, log });
    const door = configuration.nats
      ? await openTcpDoor(network, configuration.host, { bus, judge: access?.judge() })
      : guard;
    const { owner } = configuration;
    const opened = await openObjects(configuration.objects, { clock, random, localRoot: dataDir });
    const objects = owner ? new FencedObjects(opened, owner, clock) : opened;
    const journals = new FileJournalStore({ disk, clock, log });
    const metrics = new MetricsRegistry();
    serveMetrics(bus, node, metrics);
    const fail = (reason: string) => end(EXIT_FAILED, reason);
    const host = await makeHost({
      node,
      bus,
      network,
      door,
      walReader: access?.walReader(),
      disk,
      objects,
      journals,
      clock,
      random,
      log,
      metrics,
      fail,
    });
    let ending = false;
    function end(code: number, reason: string): void {
      if (ending) return;
      ending = true;
      log.info({ reason }, `the ${what} ends`);
      clock.setTimer(closeTimeoutMs, () => process.exit(EXIT_FAILED));
      void host
        .close()
        .then(() => door.close())
        .finally(() => process.exit(code));
    }
    const orphaned = () => end(0, 'the parent is gone');
    process.stdin.on('end', orphaned).on('error', orphaned).resume();
    process.on('SIGTERM', () => end(0, 'asked to'));
    process.on('SIGINT', () => end(0, 'asked to'));
    bus.onClose(() => fail('the bus is lost'));
    await host.start();
    log.info({}, `the ${what} is ready`);
  } catch (error) {
    log.error({ error }, `the ${what} cannot start`);
    process.exit(EXIT_FAILED);
  }
}

/** Peers of a cluster are on other machines. */
async function openTcpDoor(
  network: ChannelNetwork,
  host: string | undefined,
  options: DoorOptions,
): Promise<ChannelDoor> {
  const door = new ChannelDoor(network, `tcp:${host ?? '127.0.0.1'}:0`, options);
  await door.listen();
  return door;
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
