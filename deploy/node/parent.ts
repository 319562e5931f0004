/**
 * The embedded system: one parent process with the bus, the control actors and the gateway, and the processes below it.
 *
 * Order of a start: lock, port, bus and event log, storage processes, control actors, (on the first start) the first
 * project, clients. Order of a stop: clients, computes (suspended: everything is committed), control actors, storage
 * processes, event log and bus, lock. Whatever a start has begun is undone by the same stop when it fails half-way.
 */
import { statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Gateway } from '../../actors/gateway/gateway.ts';
import { importTemplate } from '../../actors/pageserver/import-template.ts';
import type { TenantStatus } from '../../actors/tenant/events.ts';
import manifest from '../../package.json' with { type: 'json' };
import { PalimpsestError } from '../../protocols/errors.ts';
import { LocalComputeHosts } from '../../runtime/adapters/compute-hosts.ts';
import { LocalDirectoryReader } from '../../runtime/adapters/directory-reader.ts';
import { LocalObjects } from '../../runtime/adapters/local-objects.ts';
import {
  findPostgres,
  type PostgresBinaries,
  postgresUser,
  reachablePostgres,
} from '../../runtime/adapters/postgres-binaries.ts';
import { NodeSockets } from '../../runtime/adapters/tcp-server.ts';
import { sendCommand, serveCommands } from '../../runtime/bus/command.ts';
import { collectMetrics, serveMetrics } from '../../runtime/metrics/collect.ts';
import {
  CONTROL_ID,
  CONTROL_KIND,
  type ControlCommand,
  DEFAULT_PROJECT,
  type DiskView,
} from '../client/control.ts';
import { Computes } from './computes.ts';
import { ControlActors } from './control-actors.ts';
import { ControlService } from './control-service.ts';
import { openDataDirectory } from './data-directory.ts';
import { ParentRuntime } from './parent-runtime.ts';
import { busAddress } from './run-paths.ts';
import { StorageProcesses } from './storage-processes.ts';
import { Templates } from './templates.ts';

const HOST = '127.0.0.1';
const PAGESERVER = 'ps1';
const FULL_DISK_BYTES = 64 * 1024 * 1024;
const STORAGE_READY_TIMEOUT_MS = 30_000;
const WAKE_RETRY_CODES = new Set(['unavailable', 'timeout']);

export interface SystemOptions {
  dataDir: string;
  port: number;
  /** 0: computes stay until they are suspended by hand. */
  suspendAfterSeconds: number;
  pgVersion: number;
  pgBin?: string;
  /** Only for a new data directory. */
  safekeepers?: number;
  /** Aborted when the start is to be given up. */
  signal?: AbortSignal;
  onStep?(text: string): void;
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

/** Undoes what a start has done, newest first; one failure does not keep the rest from being undone. */
class Undo {
  readonly #steps: { what: string; undo: () => Promise<void> | void }[] = [];

  add(what: string, undo: () => Promise<void> | void): void {
    this.#steps.push({ what, undo });
  }

  async run(onFailure: (what: string, error: unknown) => void): Promise<void> {
    for (const { what, undo } of this.#steps.splice(0).reverse()) {
      try {
        await undo();
      } catch (error) {
        onFailure(what, error);
      }
    }
  }
}

/** Starts everything; resolves when clients can connect. */
export async function startSystem(options: SystemOptions): Promise<RunningSystem> {
  const undo = new Undo();
  let stopping: Promise<void> | undefined;
  const stop = () => (stopping ??= undo.run(() => {}));
  try {
    return await start(options, undo, stop);
  } catch (error) {
    await stop();
    throw error;
  }
}

async function start(options: SystemOptions, undo: Undo, stop: () => Promise<void>): Promise<RunningSystem> {
  const step = options.onStep ?? (() => {});
  const begun = (): void => {
    if (options.signal?.aborted) throw new PalimpsestError('unavailable', 'the start was interrupted');
  };
  const user = postgresUser();
  const binariesOf = binariesFinder(options.pgBin);
  binariesOf(options.pgVersion);

  const wanted = options.safekeepers === undefined ? {} : { safekeepers: options.safekeepers };
  const directory = await openDataDirectory(options.dataDir, wanted);
  undo.add('data directory', () => directory.release());
  const below = (name: string) => join(directory.root, name);

  const runtime = await ParentRuntime.start({ root: directory.root, runDirectory: directory.runDirectory });
  undo.add('runtime', () => runtime.close());
  const { bus, clock, random, log, metrics, journals } = runtime;

  let computes: Computes | undefined;
  const control = new ControlActors({ spawner: runtime.actors, journals, bus, clock, random, log });
  const gateway = new Gateway({
    sockets: new NodeSockets(),
    clock,
    log: log.child({ actor: 'gateway' }),
    metrics,
    directory: control,
    computes: {
      async wake(timeline, { timeoutMs }) {
        const compute = await computes!.wake(timeline, { timeoutMs });
        return { path: `${compute.socketDirectory}/.s.PGSQL.${compute.port}` };
      },
    },
  });
  const port = await gateway.listen({ host: HOST, port: options.port });
  undo.add('gateway', () => gateway.close());
  begun();

  step('starting storage');
  const objectsDirectory = below('objects');
  const storage = new StorageProcesses({
    safekeepers: directory.installation.safekeepers,
    pageserver: PAGESERVER,
    root: directory.root,
    runDirectory: directory.runDirectory,
    objectsDirectory,
    clock,
    log,
    onRestart: (node) => {
      if (node === PAGESERVER) void reattach();
    },
  });
  storage.start();
  undo.add('storage processes', () => storage.stop());

  const hosts = new LocalComputeHosts({
    clock,
    log,
    random,
    bus,
    busAddress: busAddress(directory.runDirectory),
    scriptPath: fileURLToPath(new URL('compute-host.ts', import.meta.url)),
    computesDirectory: below('computes'),
    runDirectory: directory.runDirectory,
    logDirectory: below('logs'),
    pgVersion: options.pgVersion,
    binariesOf: (version) => reachablePostgres(binariesOf(version), user, directory.runDirectory),
    user,
  });
  undo.add('compute hosts', () => hosts.close());

  await control.load();
  computes = new Computes({
    bus,
    clock,
    journals,
    spawner: runtime.actors,
    services: {
      hosts,
      specOf: async (timeline) => ({
        spec: await control.computeSpec(timeline),
        suspendAfterMs: options.suspendAfterSeconds * 1000,
      }),
    },
    tenantOf: (timeline) => control.timelineWithProject(timeline).project.tenant,
  });
  computes.serve();
  undo.add('computes', () => computes!.suspendAll());
  begun();

  const waitForNode = (kind: string, node: string) =>
    untilServed(
      () => sendCommand(bus, kind, node, { type: 'status' }, { timeoutMs: STORAGE_READY_TIMEOUT_MS }),
      clock,
    );
  const reattach = async () => {
    control.attachments.beginEpoch();
    await waitForNode('pageserver-node', PAGESERVER).catch(() => {});
    await control.attachments.attachAll(control.activeTimelines());
  };
  await Promise.all([
    waitForNode('pageserver-node', PAGESERVER),
    ...storage.safekeeperNodes.map((node) => waitForNode('safekeeper-node', node)),
  ]);
  begun();
  hosts.fillReserve();
  void control.attachments.attachAll(control.activeTimelines());

  const objects = await LocalObjects.open(objectsDirectory);
  const templates = new Templates({
    objects,
    workDirectory: below('templates'),
    binaries: binariesOf,
    importCluster: async ({ directory: cluster, prefix }) => {
      const reader = new LocalDirectoryReader(cluster);
      const imported = await importTemplate({ directory: reader, objects, key: prefix });
      const { indexKey, startLsn, systemId } = imported;
      return { key: indexKey, startLsn, systemId: systemId.toString() };
    },
    onStep: step,
  });
  const createProject = async (name: string, pgVersion = options.pgVersion): Promise<TenantStatus> => {
    const template = await templates.get(pgVersion);
    return control.createProject({
      name,
      pgVersion,
      template,
      safekeepers: storage.safekeeperNodes,
      pageserver: PAGESERVER,
    });
  };

  const service = new ControlService({
    actors: control,
    bus,
    about: {
      version: manifest.version,
      pid: process.pid,
      port,
      dataDir: directory.root,
      startedAt: new Date(clock.now()).toISOString(),
      safekeepers: directory.installation.safekeepers,
      suspendAfterSeconds: options.suspendAfterSeconds,
    },
    disk: () => diskView(directory.root),
    processes: () => storage.status(),
    connections: (timeline) => gateway.connections(timeline),
    createProject,
    readEvents: (query) => runtime.readEvents(query),
    metrics: () => collectMetrics(bus, ['parent', PAGESERVER, ...storage.safekeeperNodes], log),
  });
  if (!control.projects().some(({ name }) => name === DEFAULT_PROJECT)) {
    await createProject(DEFAULT_PROJECT);
  }
  begun();
  serveMetrics(bus, 'parent', metrics);
  serveCommands<ControlCommand>(bus, CONTROL_KIND, CONTROL_ID, (command) => service.handle(command));
  gateway.open();
  await directory.publish(port);
  log.info({ port, pid: process.pid }, 'ready');
  return {
    url: service.url(undefined, control.project().branches[0]!.name),
    port,
    dataDir: directory.root,
    pgVersion: control.project().pgVersion,
    failed: runtime.failed,
    stop,
  };
}

/** A WAL segment must fit, on every safekeeper, or commits stop. */
async function diskView(path: string): Promise<DiskView> {
  const { bavail, blocks, bsize } = await statfs(path);
  const freeBytes = bavail * bsize;
  return { freeBytes, totalBytes: blocks * bsize, isFull: freeBytes < FULL_DISK_BYTES };
}

/** Finds the programs of each version once; looking takes a process. */
function binariesFinder(pgBin: string | undefined): (version: number) => PostgresBinaries {
  const found = new Map<number, PostgresBinaries>();
  return (version) => {
    const known = found.get(version) ?? findPostgres(version, pgBin);
    found.set(version, known);
    return known;
  };
}

/** Repeats a request until somebody serves it. */
async function untilServed(
  request: () => Promise<unknown>,
  clock: { monotonic(): number; sleep(ms: number): Promise<void> },
): Promise<void> {
  const deadline = clock.monotonic() + STORAGE_READY_TIMEOUT_MS;
  for (;;) {
    try {
      await request();
      return;
    } catch (error) {
      const again = error instanceof PalimpsestError && WAKE_RETRY_CODES.has(error.code);
      // Any other answer comes from the process itself, so it is there.
      if (!again) return;
      if (clock.monotonic() > deadline) throw error;
      await clock.sleep(5);
    }
  }
}
