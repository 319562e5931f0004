/**
 * One node of a cluster: a parent process that joins the NATS cluster, and the processes of its roles below it.
 *
 * Order of a start: lock of the data directory, NATS and the cluster's identity, the node's own entry in the registry (which
 * refuses a second node of its name), storage processes, computes, gateway, control. A stop undoes it, after what can run elsewhere has
 * been taken away (`node-leave.ts`): clients, computes (stopped cleanly: everything is committed), processes, entry, lock.
 */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Role } from '../../actors/placement/plan.ts';
import { LocalComputeHosts } from '../../runtime/adapters/compute-hosts.ts';
import { checkCredentials } from '../../runtime/adapters/credentials.ts';
import { NatsBus } from '../../runtime/adapters/nats-bus.ts';
import { NatsConnection } from '../../runtime/adapters/nats-connection.ts';
import { natsLeases } from '../../runtime/adapters/nats-leases.ts';
import { prepareStreams } from '../../runtime/adapters/nats-streams.ts';
import { formatObjectsLocation, type ObjectsLocation } from '../../runtime/adapters/objects-location.ts';
import { MetricsRegistry } from '../../runtime/adapters/open-metrics.ts';
import { openObjects } from '../../runtime/adapters/open-objects.ts';
import { createLog } from '../../runtime/adapters/pino-log.ts';
import { postgresUser, reachablePostgres } from '../../runtime/adapters/postgres-binaries.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { SystemRandom } from '../../runtime/adapters/system-random.ts';
import { NodeSockets } from '../../runtime/adapters/tcp-server.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import { BusChannels } from '../../runtime/channels/bus-channels.ts';
import type { ChannelNetwork } from '../../runtime/ports/channel.ts';
import type { Log } from '../../runtime/ports/log.ts';
import { ClusterAccess } from '../node/cluster-access.ts';
import { type DataDirectory, openDataDirectory } from '../node/data-directory.ts';
import type { MarkOwner } from '../node/fenced-objects.ts';
import { type NatsLocation, natsOptions } from '../node/join-bus.ts';
import { KnownBinaries } from '../node/known-binaries.ts';
import { claimObjects } from '../node/objects-mark.ts';
import { busAddress } from '../node/run-paths.ts';
import {
  PAGESERVER_FLAGS,
  PAGESERVER_NICENESS,
  SAFEKEEPER_FLAGS,
  StorageProcess,
  type StorageProcessSpec,
} from '../node/storage-processes.ts';
import { UndoStack } from '../node/undo-stack.ts';
import { VERSION } from '../version.ts';
import { ComputeNode } from './compute-node.ts';
import { bindDirectory, type ClusterIdentity, joinCluster } from './identity.ts';
import { nodeGateway } from './node-gateway.ts';
import { askToLeave } from './node-leave.ts';
import { pageserverNode, Registration, safekeeperNode, serveNode } from './registry.ts';
import { Relay } from './relay.ts';
import { RELAY_SUBJECTS, RelaysOverBus } from './relay-over-bus.ts';
import { hostCredentials } from './security/host-credentials.ts';

const STOP_COMPUTES_TIMEOUT_MS = 30_000;
/** Storage processes that do not come up are started again and again; the node is there without them. */
const STORAGE_READY_TIMEOUT_MS = 30_000;
const STORAGE_ASK_TIMEOUT_MS = 1_000;
const STORAGE_RETRY_MS = 50;
const CONTROL_FLAGS = ['--max-semi-space-size=8', '--disable-warning=ExperimentalWarning'];

export interface NodeOptions {
  name: string;
  zone: string;
  roles: Role[];
  nats: NatsLocation;
  objects: ObjectsLocation;
  dataDir: string;
  /** Address of this machine for other nodes; every port of this node is on it. */
  host: string;
  /** For clients, of a gateway. */
  port: number;
  pgVersion: number;
  pgBin?: string;
  suspendAfterSeconds: number;
  /** A safekeeper whose node is gone for so long is replaced (role control). */
  replaceAfterSeconds: number;
  /** How long tokens of computes live (role control). */
  tokenLifeSeconds: number;
  onStep?(text: string): void;
}

export interface RunningNode {
  /** Port for clients; undefined without the role gateway. */
  port: number | undefined;
  cluster: string;
  dataDir: string;
  failed: Promise<Error>;
  stop(): Promise<void>;
}

/** Starts a node; resolves when it is registered and its processes have been started. */
export async function startNode(options: NodeOptions): Promise<RunningNode> {
  const node = new ClusterNode(options);
  try {
    return await node.start();
  } catch (error) {
    await node.stop();
    throw error;
  }
}

class ClusterNode {
  readonly #options: NodeOptions;
  readonly #undo = new UndoStack();
  readonly #binaries: KnownBinaries;
  readonly #clock = new SystemClock();
  readonly #random = new SystemRandom();
  readonly #metrics = new MetricsRegistry();
  /** Different for each life of this process. */
  readonly #life = randomBytes(4).toString('hex');
  #log!: Log;
  #directory!: DataDirectory;
  #connection!: NatsConnection;
  #bus!: NatsBus;
  #registration!: Registration;
  #access: ClusterAccess | undefined;
  #channels: ChannelNetwork | undefined;

  constructor(options: NodeOptions) {
    this.#options = options;
    this.#binaries = new KnownBinaries(options);
  }

  async start(): Promise<RunningNode> {
    const { dataDir, objects, roles, name, nats, pgVersion } = this.#options;
    this.#access = ClusterAccess.read(nats.credentials, this.#clock);
    if (this.#access) {
      checkCredentials(this.#access.credentials, { nowMs: this.#clock.now(), wanted: roles });
    }
    if (this.#has('compute') || this.#has('control')) await this.#binaries.obtain(pgVersion);
    this.#directory = await openDataDirectory(dataDir, { objects });
    this.#undo.add('data directory', () => this.#directory.release());
    const { root } = this.#directory;
    this.#log = createLog({ file: join(root, 'logs', 'node.log'), bindings: { node: name } });
    const failed = new Promise<Error>((resolve) => {
      process.on('uncaughtException', (error) => {
        this.#log.error({ error }, 'unexpected failure');
        resolve(error);
      });
    });
    this.#step('joining the cluster');
    const clock = this.#clock;
    const options = natsOptions(nats, this.#access?.credentials.nats);
    this.#connection = await NatsConnection.connect({
      ...options,
      name: `node ${name}`,
      clock,
      log: this.#log,
    });
    this.#undo.add('NATS', () => this.#connection.close());
    this.#bus = new NatsBus(this.#connection, clock);
    const cluster = await this.#join();
    this.#step(`starting ${roles.join(', ')}`);
    this.#startStorage({ installation: cluster.id, epoch: 0 });
    await this.#startComputes();
    const port = await this.#startGateway();
    if (this.#has('control')) this.#startControl();
    this.#undo.add('leaving', () => this.#leave());
    await this.#untilStorageAnswers();
    await this.#directory.publish(port ?? 0);
    this.#log.info({ roles, cluster: cluster.id, pid: process.pid }, 'the node is ready');
    return { port, cluster: cluster.id, dataDir: root, failed, stop: () => this.stop() };
  }

  stop(): Promise<void> {
    return this.#undo.run((what, error) =>
      this.#log?.error({ error, what }, 'a part could not be stopped in order'),
    );
  }

  /** Whoever starts all nodes anew, one after another, may stop the next one when this one keeps WAL again. */
  async #untilStorageAnswers(): Promise<void> {
    const { name } = this.#options;
    const roles = [
      { role: 'safekeeper', kind: 'safekeeper-node', node: safekeeperNode(name) },
      { role: 'pageserver', kind: 'pageserver-node', node: pageserverNode(name) },
    ] as const;
    const deadline = this.#clock.monotonic() + STORAGE_READY_TIMEOUT_MS;
    for (const { role, kind, node } of roles) {
      while (this.#has(role) && !(await this.#answers(kind, node))) {
        if (this.#clock.monotonic() > deadline) {
          this.#log.error({ node }, 'a storage process is not ready yet; see its log');
          break;
        }
        await this.#clock.sleep(STORAGE_RETRY_MS);
      }
    }
  }

  #answers(kind: string, node: string): Promise<boolean> {
    return sendCommand(this.#bus, kind, node, { type: 'list' }, { timeoutMs: STORAGE_ASK_TIMEOUT_MS }).then(
      () => true,
      () => false,
    );
  }

  /** Nothing of it is missed when this node ends. */
  async #leave(): Promise<void> {
    if (!this.#has('compute') && !this.#has('pageserver')) return;
    await this.#registration.tell({ leaving: true });
    await askToLeave(this.#bus, this.#options.name);
  }

  #step(text: string): void {
    this.#options.onStep?.(text);
  }

  #has(role: Role): boolean {
    return this.#options.roles.includes(role);
  }

  async #join(): Promise<ClusterIdentity> {
    const { name, zone, roles, host, objects } = this.#options;
    const clock = this.#clock;
    // Where there are roles by credentials, only control may make what a new cluster needs; the others wait for it.
    const mayCreate = this.#access === undefined || this.#has('control');
    const jetstream = await prepareStreams({ connection: this.#connection, clock, mayCreate });
    const newId = mayCreate
      ? (this.#access?.credentials.cluster ?? randomBytes(16).toString('hex'))
      : undefined;
    const cluster = await joinCluster(jetstream, { newId, objects });
    await bindDirectory(this.#directory.root, cluster.id);
    await claimObjects(await openObjects(objects, { clock, random: this.#random }), {
      installation: cluster.id,
      epoch: 0,
      place: formatObjectsLocation(objects),
      isNew: true,
      isPrivate: false,
    });
    const record = {
      name,
      zone,
      roles,
      host,
      version: VERSION,
      startedMs: clock.now(),
      ...(this.#has('pageserver') ? { pageserverLife: `${this.#life}/0` } : {}),
    };
    this.#registration = new Registration(natsLeases(jetstream, clock), record, { clock, log: this.#log });
    const serving = serveNode(this.#bus, name);
    this.#undo.add('answers', () => serving.unsubscribe());
    await this.#registration.register();
    this.#undo.add('registration', () => this.#registration.leave());
    return cluster;
  }

  #startStorage(owner: MarkOwner): void {
    const { name, host, nats, objects } = this.#options;
    const { root, runDirectory } = this.#directory;
    const common = { objects, owner, nats, host, runDir: runDirectory };
    if (this.#has('safekeeper')) {
      const node = safekeeperNode(name);
      const argument = { ...common, node, dataDir: join(root, 'safekeepers', node) };
      this.#run({ node, script: 'safekeeper.ts', flags: SAFEKEEPER_FLAGS, argument });
    }
    if (this.#has('pageserver')) {
      const node = pageserverNode(name);
      const argument = { ...common, node, dataDir: join(root, 'pageserver') };
      const pageserver = this.#run(
        { node, script: 'pageserver.ts', flags: PAGESERVER_FLAGS, niceness: PAGESERVER_NICENESS, argument },
        () => {
          const pageserverLife = `${this.#life}/${pageserver.status().restarts}`;
          void this.#registration.tell({ pageserverLife }).catch(() => {});
        },
      );
    }
  }

  #startControl(): void {
    const {
      name,
      nats,
      objects,
      pgVersion,
      pgBin,
      suspendAfterSeconds,
      replaceAfterSeconds,
      tokenLifeSeconds,
    } = this.#options;
    const argument = {
      node: name,
      nats,
      objects,
      workDir: join(this.#directory.root, 'templates'),
      pgVersion,
      ...(pgBin === undefined ? {} : { pgBin }),
      suspendAfterSeconds,
      replaceAfterSeconds,
      tokenLifeSeconds,
    };
    this.#run({ node: `control-${name}`, script: '../cluster/control.ts', flags: CONTROL_FLAGS, argument });
  }

  #run(spec: StorageProcessSpec, onRestart: () => void = () => {}): StorageProcess {
    const process = new StorageProcess(spec, {
      logDirectory: join(this.#directory.root, 'logs'),
      clock: this.#clock,
      log: this.#log,
      onRestart,
    });
    process.start();
    this.#undo.add(spec.node, () => process.stop());
    return process;
  }

  async #startComputes(): Promise<void> {
    if (!this.#has('compute')) return;
    const { name, host, nats, pgVersion } = this.#options;
    const { root, runDirectory } = this.#directory;
    const user = postgresUser();
    const hosts = new LocalComputeHosts({
      clock: this.#clock,
      log: this.#log,
      random: this.#random,
      bus: this.#bus,
      busAddress: busAddress(runDirectory),
      nats,
      credentialsOf: this.#access && hostCredentials(this.#access.credentials),
      scriptPath: fileURLToPath(new URL('../node/compute-host.ts', import.meta.url)),
      computesDirectory: join(root, 'computes'),
      runDirectory,
      logDirectory: join(root, 'logs'),
      pgVersion,
      binariesOf: (version) => reachablePostgres(this.#binaries.of(version), user, runDirectory),
      user,
    });
    this.#undo.add('compute hosts', () => hosts.close());
    const channels = this.#relayChannels();
    const relays = new RelaysOverBus({
      channels,
      sockets: new NodeSockets(),
      clock: this.#clock,
      node: name,
    });
    await relays.listen();
    const computes = new ComputeNode({
      node: name,
      bus: this.#bus,
      clock: this.#clock,
      hosts,
      openRelay: async (socketPath) => {
        const relay = await Relay.open(host, socketPath, this.#access?.identity);
        const overBus = relays.serve(relay.address, socketPath);
        const close = () => {
          overBus.close();
          relay.close();
        };
        return { address: relay.address, close };
      },
    });
    await computes.serve();
    this.#undo.add('computes', () => computes.suspendAll(STOP_COMPUTES_TIMEOUT_MS));
    hosts.fillReserve();
  }

  async #startGateway(): Promise<number | undefined> {
    if (!this.#has('gateway')) return undefined;
    const gateway = nodeGateway({
      bus: this.#bus,
      clock: this.#clock,
      log: this.#log,
      metrics: this.#metrics,
      isConnected: () => this.#connection.connected,
      identity: this.#access?.identity,
      channels: this.#relayChannels(),
    });
    const port = await gateway.listen({ host: this.#options.host, port: this.#options.port });
    gateway.open();
    this.#undo.add('gateway', () => gateway.close());
    await this.#registration.tell({ port });
    return port;
  }

  /** How clients go over NATS: both ends of this node's by one subscription. */
  #relayChannels(): ChannelNetwork {
    this.#channels ??= new BusChannels({
      bus: this.#bus,
      clock: this.#clock,
      random: this.#random,
      name: this.#options.name,
      subjects: RELAY_SUBJECTS,
    });
    return this.#channels;
  }
}
