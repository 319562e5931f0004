/**
 * The embedded system: one parent process with the bus, the control actors and the gateway, and the processes below it.
 *
 * Order of a start: lock, bus and event log, port, storage processes, control actors, (on the first start) the first
 * project, clients. A stop undoes it in the opposite order: clients, computes (suspended: everything is committed), storage
 * processes, control actors, event log and bus, lock. A start that fails half-way is undone by the same steps.
 */
import { statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Gateway } from '../../actors/gateway/gateway.ts';
import { importTemplate } from '../../actors/pageserver/import-template.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { LocalComputeHosts } from '../../runtime/adapters/compute-hosts.ts';
import { LocalDirectoryReader } from '../../runtime/adapters/directory-reader.ts';
import { formatObjectsLocation, type ObjectsLocation } from '../../runtime/adapters/objects-location.ts';
import { openObjects, removeAbandonedUploads } from '../../runtime/adapters/open-objects.ts';
import {
  type PostgresUser,
  postgresUser,
  reachablePostgres,
} from '../../runtime/adapters/postgres-binaries.ts';
import { NodeSockets } from '../../runtime/adapters/tcp-server.ts';
import { sendCommand, serveCommands } from '../../runtime/bus/command.ts';
import { collectMetrics, serveMetrics } from '../../runtime/metrics/collect.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import type { Objects } from '../../runtime/ports/objects.ts';
import {
  CONTROL_ID,
  CONTROL_KIND,
  type ControlCommand,
  DEFAULT_PROJECT,
  type DiskView,
} from '../client/control.ts';
import { VERSION } from '../version.ts';
import { Computes } from './computes.ts';
import { ControlActors } from './control-actors.ts';
import { ControlService, type ControlServiceOptions } from './control-service.ts';
import { type DataDirectory, type InstallationFile, openDataDirectory } from './data-directory.ts';
import { FencedObjects, type MarkOwner } from './fenced-objects.ts';
import { GarbageCollector } from './garbage-collector.ts';
import { KnownBinaries } from './known-binaries.ts';
import { Leases } from './leases.ts';
import { Moments } from './moments.ts';
import { claimObjects } from './objects-mark.ts';
import { ParentRuntime } from './parent-runtime.ts';
import { ReplicaRepair } from './replica-repair.ts';
import { busAddress } from './run-paths.ts';
import { PAGESERVER, type PageserverLimits, StorageProcesses } from './storage-processes.ts';
import { Subscriptions } from './subscriptions.ts';
import { Templates } from './templates.ts';
import { UndoStack } from './undo-stack.ts';

const HOST = '127.0.0.1';
const STORAGE_READY_TIMEOUT_MS = 30_000;
const STORAGE_POLL_MS = 5;
/** A WAL segment must fit, on every safekeeper, or commits stop. */
const FULL_DISK_BYTES = 64 * 1024 * 1024;

export interface SystemOptions {
  dataDir: string;
  port: number;
  /** 0: computes stay until they are suspended by hand. */
  suspendAfterSeconds: number;
  /** Pause between two looks for old history; 0: only by hand. */
  gcIntervalSeconds: number;
  pgVersion: number;
  pgBin?: string;
  /** Only for a new data directory. */
  safekeepers?: number;
  /** Where objects are; an existing data directory knows. */
  objects?: ObjectsLocation;
  /** Bounds of the pageserver; its own defaults where absent. */
  pageserver?: PageserverLimits;
  /** What a recovery does in between. */
  recovery?: Recovery;
  /** Aborted when the start is to be given up. */
  signal?: AbortSignal;
  onStep?(text: string): void;
}

export interface Recovery {
  installation: string;
  epoch: number;
  /** Before the control actors are there, and the pageserver knows any timeline. */
  restore(services: { bus: Bus; objects: Objects }): Promise<void>;
  /** When everything works, and clients are not let in yet. */
  review(services: { bus: Bus; clock: Clock; control: ControlActors }): Promise<void>;
}

export interface RunningSystem {
  url: string;
  port: number;
  dataDir: string;
  pgVersion: number;
  /** Resolves with what makes it impossible to go on. */
  failed: Promise<Error>;
  /** Suspends, flushes and ends everything; nothing is left behind. */
  stop(): Promise<void>;
}

/** Starts everything; resolves when clients can connect. */
export async function startSystem(options: SystemOptions): Promise<RunningSystem> {
  const system = new EmbeddedSystem(options);
  try {
    return await system.start();
  } catch (error) {
    await system.stop();
    throw error;
  }
}

class EmbeddedSystem {
  readonly #options: SystemOptions;
  readonly #undo = new UndoStack();
  readonly #binaries: KnownBinaries;
  readonly #user: PostgresUser = postgresUser();
  #runtime!: ParentRuntime;
  #directory!: DataDirectory;
  #objects!: Objects;
  #computes: Computes | undefined;
  #repair: ReplicaRepair | undefined;

  constructor(options: SystemOptions) {
    this.#options = options;
    this.#binaries = new KnownBinaries(options);
  }

  async start(): Promise<RunningSystem> {
    const { safekeepers, objects, pgVersion, dataDir } = this.#options;
    await this.#binaries.obtain(pgVersion);
    this.#directory = await openDataDirectory(dataDir, {
      ...(safekeepers === undefined ? {} : { safekeepers }),
      ...(objects === undefined ? {} : { objects }),
      ...(this.#options.recovery ? { recovering: this.#options.recovery } : {}),
    });
    this.#undo.add('data directory', () => this.#directory.release());
    const { root, runDirectory } = this.#directory;
    this.#runtime = await ParentRuntime.start({ root, runDirectory });
    this.#undo.add('runtime', () => this.#runtime.close());
    const { bus, clock, log } = this.#runtime;

    const control = new ControlActors({ spawner: this.#runtime.actors, ...this.#runtime.services });
    const moments = new Moments({ actors: control, bus, clock });
    const { gateway, port } = await this.#openGateway(moments);
    await this.#openObjects();
    this.#step('starting storage');
    const storage = this.#startStorage(() => void this.#reattach(control));
    const hosts = this.#makeHosts();
    control.attachments.beginEpoch(() => this.#untilServed('pageserver-node', PAGESERVER));
    await this.#restore(storage);
    await control.load();
    control.keepManifests(this.#objects);
    await this.#makeComputes(control, hosts);
    await this.#untilStorageServes(control, storage);
    hosts.fillReserve();
    void control.attachments.attachAll(control.activeTimelines(() => false));
    const repair = new ReplicaRepair({
      bus,
      clock,
      log: log.child({ actor: 'repair' }),
      safekeepers: storage.safekeeperNodes,
      timelines: () => control.timelineStatuses(),
    });
    this.#repair = repair;
    this.#undo.add('repair of replicas', () => repair.stop());

    const createProject = await this.#projectMaker(control, storage);
    const garbage = new GarbageCollector({
      actors: control,
      bus,
      clock,
      random: this.#runtime.random,
      log: log.child({ actor: 'gc' }),
      metrics: this.#runtime.metrics,
      intervalMs: this.#options.gcIntervalSeconds * 1000,
    });
    this.#undo.add('garbage collection', () => garbage.stop());
    const service = new ControlService({
      actors: control,
      bus,
      about: {
        version: VERSION,
        pid: process.pid,
        port,
        dataDir: root,
        startedAt: new Date(clock.now()).toISOString(),
        safekeepers: this.#directory.installation.safekeepers,
        suspendAfterSeconds: this.#options.suspendAfterSeconds,
      },
      moments,
      momentStatuses: () => this.#computes?.moments() ?? [],
      disk: () => diskView(root),
      processes: () => storage.status(),
      connections: (timeline) => gateway.connections(timeline),
      createProject,
      collectGarbage: (timeline) => garbage.collect(timeline),
      readEvents: (query) => this.#runtime.readEvents(query),
      subscriptions: new Subscriptions(this.#runtime.journals),
      metrics: () => collectMetrics(bus, ['parent', PAGESERVER, ...storage.safekeeperNodes], log),
    });
    const first = control.projects().find(({ name }) => name === DEFAULT_PROJECT);
    if (first?.state === 'deleting') await control.deleteProject(DEFAULT_PROJECT);
    if (first?.state !== 'active') await createProject(DEFAULT_PROJECT, undefined, undefined, undefined);
    const project = await control.projectReady(DEFAULT_PROJECT);
    this.#giveUpIfAsked();
    await this.#options.recovery?.review({ bus, clock, control });
    serveMetrics(bus, 'parent', this.#runtime.metrics);
    serveCommands<ControlCommand>(bus, CONTROL_KIND, CONTROL_ID, (command) => service.handle(command));
    gateway.open();
    garbage.start();
    // First of all when it stops: a client that comes back at once must not wake what is being suspended.
    this.#undo.add('clients', () => gateway.close());
    await this.#directory.publish(port);
    log.info({ port, pid: process.pid }, 'ready');
    return {
      url: service.url(undefined, project.branches.find(({ primary }) => primary)!.name),
      port,
      dataDir: root,
      pgVersion: project.pgVersion,
      failed: this.#runtime.failed,
      stop: () => this.stop(),
    };
  }

  /** Undoes what the start has done, newest first; one failure does not keep the rest from being undone. */
  stop(): Promise<void> {
    return this.#undo.run((what, error) =>
      this.#runtime?.log.error({ error, what }, 'a part could not be stopped in order'),
    );
  }

  #step(text: string): void {
    this.#giveUpIfAsked();
    this.#options.onStep?.(text);
  }

  #giveUpIfAsked(): void {
    if (this.#options.signal?.aborted) throw new PalimpsestError('unavailable', 'the start was interrupted');
  }

  /** Takes the port early, so that a taken one is known before anything is started; clients wait for `open`. */
  async #openGateway(directory: Moments) {
    const { clock, log, metrics } = this.#runtime;
    const gateway = new Gateway({
      sockets: new NodeSockets(),
      clock,
      log: log.child({ actor: 'gateway' }),
      metrics,
      directory,
      computes: {
        wake: async (timeline, options) => {
          const { socketDirectory, port } = await this.#computes!.wake(timeline, options);
          return { path: `${socketDirectory}/.s.PGSQL.${port}` };
        },
      },
    });
    const port = await gateway.listen({ host: HOST, port: this.#options.port });
    this.#undo.add('gateway', () => gateway.close());
    return { gateway, port };
  }

  /** Before anything is started: a place that cannot be used, or is another's, is known at once. */
  async #openObjects(): Promise<void> {
    const { objects: location, installation, objectsAreMarked } = this.#directory;
    const { clock, random } = this.#runtime;
    if (location.kind === 's3') this.#step(`looking at ${formatObjectsLocation(location)}`);
    const opened = await openObjects(location, { clock, random });
    const owner = ownerOf(installation);
    this.#objects = new FencedObjects(opened, owner, clock);
    await claimObjects(opened, {
      ...owner,
      place: formatObjectsLocation(location),
      isNew: installation.objectsMarked !== true,
      isPrivate: installation.objects === undefined,
    });
    await objectsAreMarked();
    removeAbandonedUploads(opened).catch((error: Error) =>
      this.#runtime.log.warn({ error: error.message }, 'abandoned uploads could not be looked for'),
    );
  }

  async #restore({ safekeeperNodes }: StorageProcesses): Promise<void> {
    const { recovery } = this.#options;
    if (!recovery) return;
    await Promise.all(safekeeperNodes.map((node) => this.#untilServed('safekeeper-node', node)));
    await recovery.restore({ bus: this.#runtime.bus, objects: this.#objects });
  }

  #startStorage(onPageserverRestart: () => void): StorageProcesses {
    const { root, runDirectory, installation, objects } = this.#directory;
    const storage = new StorageProcesses({
      safekeepers: installation.safekeepers,
      pageserver: PAGESERVER,
      root,
      runDirectory,
      objects,
      pageserverLimits: this.#options.pageserver,
      owner: ownerOf(installation),
      clock: this.#runtime.clock,
      log: this.#runtime.log,
      onRestart: (node) => {
        if (node === PAGESERVER) onPageserverRestart();
        else this.#repair?.safekeeperStarted(node);
      },
    });
    storage.start();
    this.#undo.add('storage processes', () => storage.stop());
    return storage;
  }

  #makeHosts(): LocalComputeHosts {
    const { root, runDirectory } = this.#directory;
    const { bus, clock, log, random } = this.#runtime;
    const hosts = new LocalComputeHosts({
      clock,
      log,
      random,
      bus,
      busAddress: busAddress(runDirectory),
      scriptPath: fileURLToPath(new URL('compute-host.ts', import.meta.url)),
      computesDirectory: join(root, 'computes'),
      runDirectory,
      logDirectory: join(root, 'logs'),
      pgVersion: this.#options.pgVersion,
      binariesOf: (version) => reachablePostgres(this.#binaries.of(version), this.#user, runDirectory),
      user: this.#user,
    });
    this.#undo.add('compute hosts', () => hosts.close());
    return hosts;
  }

  async #makeComputes(control: ControlActors, hosts: LocalComputeHosts): Promise<void> {
    const suspendAfterMs = this.#options.suspendAfterSeconds * 1000;
    const { bus, clock, log, journals, actors } = this.#runtime;
    const leases = new Leases({ bus, clock, log });
    const computes = new Computes({
      bus,
      clock,
      journals,
      spawner: actors,
      services: {
        hosts,
        specOf: async (id) => {
          const spec = await control.computeSpec(id);
          if (spec.fixedLsn !== undefined) await leases.hold(id, spec.timeline, spec.fixedLsn);
          return { spec, suspendAfterMs };
        },
      },
      onMomentEnded: (id) => void leases.release(id),
      tenantOf: (timeline) => control.timelineWithProject(timeline).project.tenant,
    });
    await computes.clean();
    computes.serve();
    this.#computes = computes;
    this.#undo.add('computes', () => computes.suspendAll());
  }

  /** The pageserver has started again and has forgotten everything. */
  async #reattach(control: ControlActors): Promise<void> {
    control.attachments.beginEpoch(() => this.#untilServed('pageserver-node', PAGESERVER));
    const needed = (timeline: string) => this.#computes?.status(timeline).state === 'running';
    await control.attachments.attachAll(control.activeTimelines(needed));
  }

  async #untilStorageServes(control: ControlActors, storage: StorageProcesses): Promise<void> {
    await Promise.all([
      control.attachments.pageserverReady(),
      ...storage.safekeeperNodes.map((node) => this.#untilServed('safekeeper-node', node)),
    ]);
    this.#giveUpIfAsked();
  }

  /** Asks until somebody answers; any answer comes from the process itself, so it is there. */
  async #untilServed(kind: string, node: string): Promise<void> {
    const { bus, clock } = this.#runtime;
    const deadline = clock.monotonic() + STORAGE_READY_TIMEOUT_MS;
    for (;;) {
      try {
        await sendCommand(bus, kind, node, { type: 'status' }, { timeoutMs: STORAGE_READY_TIMEOUT_MS });
        return;
      } catch (error) {
        if (!(error instanceof PalimpsestError && error.code === 'unavailable')) return;
        if (clock.monotonic() > deadline || this.#options.signal?.aborted) throw startFailure(node, error);
        await clock.sleep(STORAGE_POLL_MS);
      }
    }
  }

  async #projectMaker(
    control: ControlActors,
    storage: StorageProcesses,
  ): Promise<ControlServiceOptions['createProject']> {
    const { root } = this.#directory;
    const objects = this.#objects;
    const templates = new Templates({
      objects,
      workDirectory: join(root, 'templates'),
      binaries: (version) => this.#binaries.obtain(version),
      importCluster: async ({ directory, prefix }) => {
        const reader = new LocalDirectoryReader(directory);
        const imported = await importTemplate({ directory: reader, objects, key: prefix });
        const { indexKey, startLsn, systemId } = imported;
        return { key: indexKey, startLsn, systemId: systemId.toString() };
      },
      onStep: (text) => this.#step(text),
    });
    return async (name, pgVersion = this.#options.pgVersion, history) => {
      const spec = {
        name,
        pgVersion,
        template: await templates.get(pgVersion),
        safekeepers: storage.safekeeperNodes,
        pageserver: PAGESERVER,
      };
      return control.createProject(spec, history);
    };
  }
}

function ownerOf({ installation, epoch }: InstallationFile): MarkOwner {
  return { installation, epoch: epoch ?? 0 };
}

function startFailure(node: string, cause: PalimpsestError): PalimpsestError {
  return new PalimpsestError(
    'unavailable',
    `process ${node} does not become ready`,
    `its log in the data directory (logs/${node}.log) says why`,
    cause,
  );
}

async function diskView(path: string): Promise<DiskView> {
  const { bavail, blocks, bsize } = await statfs(path);
  const freeBytes = bavail * bsize;
  return { freeBytes, totalBytes: blocks * bsize, isFull: freeBytes < FULL_DISK_BYTES };
}
