/**
 * The program of a compute host, run by compute-host.ts once it is loaded: prepares everything that does not depend on a
 * database, then waits on the bus for `start`.
 *
 * Reports go to the standard output, one JSON object a line: `ready`, `idle` (with `sinceMs`, or without while
 * somebody uses the compute) and, always last, `end`.
 */
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, chownSync, mkdirSync, writeSync } from 'node:fs';
import { flushCompileCache } from 'node:module';
import { join } from 'node:path';
import { ComputeRun } from '../../actors/compute/compute-run.ts';
import type { FileStorage } from '../../actors/compute/files/file-content.ts';
import type { HostReport } from '../../actors/compute/host-protocol.ts';
import {
  COMPUTE_HOST_KIND,
  type HostCommand,
  type StartedReply,
  type StoppedReply,
} from '../../actors/compute/host-protocol.ts';
import { tooEarlyToStop } from '../../actors/compute/idle-watch.ts';
import { ReadOnlyRun } from '../../actors/compute/read-only-run.ts';
import type { ComputeEnd, ComputeSpec } from '../../actors/compute/spec.ts';
import { FirstPages } from '../../actors/compute/start/first-pages.ts';
import {
  FILE_EXTEND_METHOD,
  forcedSettings,
  postgresArguments,
} from '../../actors/compute/start/settings.ts';
import { TimelinePages } from '../../actors/compute/timeline-pages.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { type NodeId, replicaId, type TimelineId } from '../../protocols/ids.ts';
import { lsn, ZERO_LSN } from '../../protocols/lsn.ts';
import { type ComputeMount, prepareRelationFiles } from '../../runtime/adapters/compute-mount.ts';
import { type ClusterCredentials, parseCredentials } from '../../runtime/adapters/credentials.ts';
import { LocalDataFiles } from '../../runtime/adapters/data-files.ts';
import { createLog } from '../../runtime/adapters/pino-log.ts';
import { isReachable } from '../../runtime/adapters/postgres-binaries.ts';
import { LocalPostgres } from '../../runtime/adapters/postgres-process.ts';
import { SocketChannelNetwork } from '../../runtime/adapters/socket-channel.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { SystemRandom } from '../../runtime/adapters/system-random.ts';
import { NodeSockets } from '../../runtime/adapters/tcp-server.ts';
import { serveCommands } from '../../runtime/bus/command.ts';
import { findDoor, openChannel, openDoor } from '../../runtime/channels/door.ts';
import { TokenKeeper } from '../../runtime/channels/token-keeper.ts';
import { configuration, preparation } from './host-preparation.ts';
import { channelNetwork, joinBus } from './join-bus.ts';

const PORT = 5432;
const CHANNEL_TIMEOUT_MS = 5_000;
/** Beyond the page time limit, so that the kernel's own limit never strikes first. */
const KERNEL_GRACE_SECONDS = 30;
/** A start that is on its way comes first. */
const RUN_AHEAD_DELAY_MS = 50;
const EXIT_FAILED = 1;

const log = createLog({ level: configuration.logLevel, bindings: { host: configuration.hostId } });
const clock = new SystemClock();
const sockets = new NodeSockets();

let run: ComputeRun | ReadOnlyRun | undefined;
let lazy = true;

function report(message: HostReport): void {
  try {
    writeSync(1, `${JSON.stringify(message)}\n`);
  } catch {
    // The parent is gone: the end of the input ends this process.
  }
}

process.on('uncaughtException', (error) => {
  log.error({ err: error }, 'unexpected failure');
  if (run) run.fail(error.message);
  else {
    report({ type: 'end', end: { reason: 'crashed', detail: `a compute host failed: ${error.message}` } });
    process.exit(EXIT_FAILED);
  }
});
// The parent decides when to end; a terminal's Ctrl-C goes to it.
process.on('SIGINT', () => {});
process.on('SIGTERM', () => process.exit(EXIT_FAILED));
process.stdin.resume();
process.stdin.on('error', () => process.exit(EXIT_FAILED));
process.stdin.on('end', () => process.exit(EXIT_FAILED));

/** What this process may do in a secured cluster, as its parent says on the standard input. */
async function credentialsFromInput(): Promise<ClusterCredentials | undefined> {
  if (!configuration.credentialsOnInput) return undefined;
  let text = '';
  while (!text.includes('\n')) {
    const [chunk] = (await once(process.stdin, 'data')) as [Buffer];
    text += chunk.toString('utf8');
  }
  return parseCredentials(text, 'the standard input');
}

const credentials = await credentialsFromInput();
const channelSockets = new SocketChannelNetwork(credentials?.channel);

/** The data directory's parent, at a place that Postgres' user can reach. */
function reachableDataDirectory(): string {
  const { dataDirectory, runDirectory, user, namespaces } = configuration;
  mkdirSync(dataDirectory, { recursive: true });
  if (isReachable(dataDirectory, user)) return dataDirectory;
  if (namespaces !== 'root') {
    throw new PalimpsestError('permission-denied', `user ${user.name} cannot reach ${dataDirectory}`);
  }
  const place = join(runDirectory, 'data');
  mkdirSync(place);
  const mounted = spawnSync('mount', ['--bind', dataDirectory, place]);
  if (mounted.status !== 0) {
    throw new PalimpsestError(
      'permission-denied',
      `user ${user.name} cannot reach ${dataDirectory}, and it cannot be mounted elsewhere: ${mounted.stderr}`,
      'make the parent folders of the data directory accessible (chmod o+x)',
    );
  }
  return place;
}

function prepareDirectories(): { data: string; socket: string; place: string } {
  const { runDirectory, user } = configuration;
  mkdirSync(runDirectory, { recursive: true });
  chmodSync(runDirectory, 0o755);
  const place = reachableDataDirectory();
  const socket = join(runDirectory, 's');
  mkdirSync(socket);
  // Whoever reaches the socket may become the internal superuser: only this user and root may.
  chmodSync(socket, 0o700);
  if (user.uid !== undefined) chownSync(socket, user.uid, user.gid!);
  return { data: join(place, 'pg'), socket, place };
}

const directories = prepareDirectories();
const files = new LocalDataFiles(directories.data, configuration.user);
files.writeSkeleton(configuration.binaries.version);

const postgres = new LocalPostgres({
  binaries: configuration.binaries,
  user: configuration.user,
  dataDirectory: directories.data,
  logFile: configuration.postgresLogFile,
  ...(configuration.namespaces === 'user' ? { dropRootIn: { uid: 1000, gid: 1000 } } : {}),
});

const storage: FileStorage = {
  source: {
    getPages: (request, into) => firstPages.getPages(request, into),
    getDirectory: (request) => pages.getDirectory(request),
  },
  startLsn: ZERO_LSN,
  committedLsn: () => run?.committedLsn ?? 0,
  statistics: { fetchRequests: 0, fetchedPages: 0, overlayPages: 0, writtenPages: 0 },
};
let pages: TimelinePages;
let firstPages: FirstPages;

const [bus, mount, ownSharedMemory] = await Promise.all([
  joinBus({
    ...configuration,
    login: credentials?.nats,
    name: `compute-host ${configuration.hostId}`,
    network: channelSockets,
    clock,
    log,
  }),
  prepareRelationFiles({
    clock,
    log,
    storage,
    files,
    user: configuration.user,
    mountPoint: preparation.mountPoint,
    device: preparation.device,
    overlayDirectory: directories.place,
    overlayBytesMax: configuration.overlayBytesMax,
    requestTimeoutSeconds: Math.ceil(configuration.pageTimeoutMs / 1000) + KERNEL_GRACE_SECONDS,
    onLostWrite: (reason) => run?.fail(`pages cannot be written to the local disk: ${reason.message}`),
    onUnmount: (reason) => {
      if (run) run.fail(`the mount ended${reason ? `: ${reason.message}` : ''}`);
      else process.exit(EXIT_FAILED);
    },
  }),
  preparation.ownSharedMemory,
]);
lazy = mount.relations.lazy;
const network = channelNetwork(channelSockets, {
  ...configuration,
  bus,
  clock,
  random: new SystemRandom(),
  name: configuration.hostId,
  log,
});
// Without the bus nobody can stop this compute any more, and the parent that owned it is gone.
bus.onClose(() => process.exit(EXIT_FAILED));

function runPostgresAhead(): void {
  if (run || !configuration.inReserve) return;
  const { socket, data } = directories;
  const fixed = { socketDirectory: socket, port: PORT, ownSharedMemory, readOnly: false };
  const forced = forcedSettings({ ...fixed, settings: {} });
  postgres.runAhead(postgresArguments(data, forced));
}

async function start(spec: ComputeSpec): Promise<StartedReply> {
  if (run) throw new PalimpsestError('conflict', `host ${configuration.hostId} has a compute already`);
  const keeper = spec.token && new TokenKeeper(spec.token, { bus, clock, log });
  const opening = () => ({ timeoutMs: CHANNEL_TIMEOUT_MS, admission: keeper?.admission });
  pages = new TimelinePages({
    clock,
    timeline: spec.timeline,
    layout: spec.shards,
    find: (shard) => findDoor(bus, 'pageserver', shard, { timeoutMs: CHANNEL_TIMEOUT_MS }),
    open: (address, shard) =>
      openDoor(network, address, { kind: 'pageserver', id: shard, ...opening(), answersSoon: true }),
    timeoutMs: configuration.pageTimeoutMs,
  });
  firstPages = new FirstPages({ source: pages, clock });
  const options = {
    clock,
    log: log.child({ timeline: spec.timeline }),
    sockets,
    files,
    relations: (mount as ComputeMount).relations,
    pages,
    firstPages,
    postgres,
    dialSafekeeper: (node: NodeId) =>
      openChannel(bus, network, 'safekeeper', replicaId(spec.timeline as TimelineId, node), opening()),
    dataDirectory: directories.data,
    socketDirectory: directories.socket,
    port: PORT,
    ownSharedMemory,
    defaults: configuration.binaries.hasFileExtendMethod ? FILE_EXTEND_METHOD : {},
    activityIntervalMs: configuration.activityIntervalMs,
    onIdle: (sinceMs: number | undefined) =>
      report(sinceMs === undefined ? { type: 'idle' } : { type: 'idle', sinceMs }),
    onEnd: (end: ComputeEnd) => {
      log.info({ end }, 'the compute has ended');
      report({ type: 'end', end });
      // The reply to a stop command still has to leave.
      setTimeout(
        () => process.exit(end.reason === 'stopped' ? 0 : EXIT_FAILED),
        end.reason === 'stopped' ? 20 : 0,
      );
    },
  };
  if (spec.fixedLsn === undefined) {
    run = new ComputeRun(options, spec);
  } else {
    storage.fixedLsn = lsn(spec.fixedLsn);
    run = new ReadOnlyRun(options, { ...spec, fixedLsn: storage.fixedLsn });
  }
  const started = await run.start();
  return { ...started, lazy, socketDirectory: directories.socket, port: PORT };
}

/** What it has compiled is kept for later hosts: among them those that somebody waits for while they are loaded. */
async function rehearse(mountPoint: string | undefined): Promise<void> {
  const { rehearseStart } = await import('./start-rehearsal.ts');
  await rehearseStart({ clock, mountPoint });
  flushCompileCache();
}

async function stop(ifIdleForMs: number | undefined): Promise<StoppedReply> {
  if (!run) {
    setTimeout(() => process.exit(0), 20);
    return { stopped: true, lsn: 0 };
  }
  if (ifIdleForMs !== undefined) {
    const tooEarly = tooEarlyToStop(await run.idleSince(), ifIdleForMs, clock.now());
    if (tooEarly) return tooEarly;
  }
  return { stopped: true, lsn: await run.stop() };
}

serveCommands<HostCommand>(bus, COMPUTE_HOST_KIND, configuration.hostId, async (command) => {
  switch (command.type) {
    case 'start':
      return start(command.spec);
    case 'stop':
      return stop(command.ifIdleForMs);
    case 'statistics':
      return {
        ...storage.statistics,
        ...(mount as ComputeMount).statistics(),
        committedLsn: run?.committedLsn ?? 0,
        memoryBytes: process.memoryUsage().rss,
      };
    default:
      throw new PalimpsestError('invalid-argument', 'unknown command of a compute host');
  }
});
await bus.flush();
report({ type: 'ready', lazy });
// Nobody waits for this: a start that comes before it has only less done ahead.
setTimeout(() => {
  runPostgresAhead();
  if (run || !configuration.inReserve) return;
  const mountPoint = lazy ? preparation.mountPoint : undefined;
  void rehearse(mountPoint);
}, RUN_AHEAD_DELAY_MS);
