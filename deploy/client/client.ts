/**
 * The client of a running Palimpsest: commands, and events from any point, over its bus socket.
 *
 * Events are read from the durable log; the bus only says when there is something new. So a subscriber that connects
 * again, or starts at a point in the past, misses nothing and sees nothing twice.
 */
import { resolve } from 'node:path';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { EventEnvelope } from '../../protocols/events.ts';
import { readCredentials } from '../../runtime/adapters/credentials.ts';
import { SocketBus } from '../../runtime/adapters/socket-bus.ts';
import { SocketChannelNetwork } from '../../runtime/adapters/socket-channel.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { SystemRandom } from '../../runtime/adapters/system-random.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { Log } from '../../runtime/ports/log.ts';
import { runningProcess } from '../node/data-directory.ts';
import { natsOptions } from '../node/join-bus.ts';
import type { RecoveredBranch } from '../node/recovered-branches.ts';
import { busAddress } from '../node/run-paths.ts';
import {
  type BranchStart,
  type BranchView,
  CONTROL_ID,
  CONTROL_KIND,
  type ControlCommand,
  type EventsView,
  type FoundMoment,
  type GcView,
  type HistoryView,
  type MomentView,
  type NodeView,
  type PlacementView,
  type ProjectView,
  type StatusView,
} from './control.ts';

const COMMAND_TIMEOUT_MS = 90_000;
/** Commands that only look, each for so long at a time. */
const QUESTIONS: ReadonlySet<string> = new Set([
  'status',
  'project.list',
  'branch.list',
  'branch.url',
  'node.list',
  'placement',
  'events.read',
]);
const QUESTION_TIMEOUT_MS = 3_000;
/** Images of a large branch take a while. */
const GC_TIMEOUT_MS = 330_000;
const ARCHIVE_TIMEOUT_MS = 200_000;
const DETACH_TIMEOUT_MS = 3_610_000;
/** The end of each branch's WAL is read. */
const IMPORT_TIMEOUT_MS = 3_600_000;
const CONNECT_TIMEOUT_MS = 5_000;
/** When the process that controls a cluster dies, what it was just asked for is not waited for any longer. */
const WATCH = { clock: new SystemClock(), random: new SystemRandom() };
const EVENTS_PER_READ = 500;
/** Most events of a durable subscription that are handled before they are acknowledged. */
const DURABLE_EVENTS = 50;
/** A library does not write to its user's terminal; failures reach the caller as errors. */
const QUIET: Log = { debug() {}, info() {}, warn() {}, error() {}, child: () => QUIET };
/** A subscriber looks at least this often, should the hint that there is something new be lost. */
const POLL_MS = 1_000;

export interface ConnectOptions {
  /** NATS servers of a cluster (`nats://host:4222`, several separated by commas), instead of a data directory. */
  nats?: string;
  /** For a cluster with logins by credentials or with a certificate authority of its own. */
  credentialsFile?: string;
  caFile?: string;
  /** For a secured cluster: the file of credentials, as `palimpsest cluster init` makes it. */
  credentials?: string;
  /** Data directory of the system. Default: `.palimpsest` in the working folder. */
  dataDir?: string;
}

export interface SubscribeOptions {
  /** Milliseconds since 1970, or 'now' (the default): only events after it. */
  from?: number | 'now';
  /**
   * A name under which the system remembers how far this subscription has got: it goes on there when it is made again, and `from` counts only
   * the first time. What was handled is acknowledged for up to `DURABLE_EVENTS` events at once, so an event may come again.
   */
  durable?: string;
  /** False: ends at the newest event instead of waiting for more. */
  follow?: boolean;
  signal?: AbortSignal;
}

type EventPosition = { after: number } | { sinceMs: number };

/** Connects to the system that runs with a data directory. Throws PalimpsestError `unavailable` when none does. */
export async function connect(options: ConnectOptions = {}): Promise<PalimpsestClient> {
  if (options.nats !== undefined) return connectToCluster(options.nats, options);
  const dataDir = resolve(options.dataDir ?? '.palimpsest');
  const running = await runningProcess(dataDir);
  if (!running) throw new NotRunningError(dataDir);
  const bus = await SocketBus.connect({
    network: new SocketChannelNetwork(),
    address: busAddress(running.runDirectory),
    clock: new SystemClock(),
    timeoutMs: CONNECT_TIMEOUT_MS,
  });
  return new PalimpsestClient(bus);
}

async function connectToCluster(servers: string, options: ConnectOptions): Promise<PalimpsestClient> {
  // Only here, because loading it takes longer than most commands to one machine do.
  const [{ NatsBus }, { NatsConnection }] = await Promise.all([
    import('../../runtime/adapters/nats-bus.ts'),
    import('../../runtime/adapters/nats-connection.ts'),
  ]);
  const clock = new SystemClock();
  const login = options.credentials === undefined ? undefined : readCredentials(options.credentials).nats;
  const connection = await NatsConnection.connect({
    ...natsOptions({ ...options, servers }, login),
    name: 'palimpsest client',
    clock,
    log: QUIET,
  });
  return new PalimpsestClient(new NatsBus(connection, clock));
}

/** No process uses the data directory that was named. */
export class NotRunningError extends PalimpsestError {
  constructor(dataDir: string) {
    super('unavailable', `nothing runs in ${dataDir}`, 'start it with: palimpsest start');
    this.name = 'NotRunningError';
  }
}

export class PalimpsestClient {
  readonly #bus: Bus;

  constructor(bus: Bus) {
    this.#bus = bus;
  }

  status(): Promise<StatusView> {
    return this.command({ type: 'status' });
  }

  /** The connection string of a branch, for any Postgres driver; with `at` of its state at that moment, read-only. */
  async url(branch = 'main', options: { project?: string; at?: BranchStart } = {}): Promise<string> {
    const { url } = await this.command<{ url: string }>({ type: 'branch.url', name: branch, ...options });
    return url;
  }

  /** The exact position of a moment in a branch's history; of its newest state without `at`. */
  findMoment(name: string, options: { project?: string; at?: BranchStart } = {}): Promise<FoundMoment> {
    return this.command({ type: 'moment.find', name, ...options });
  }

  async projects(): Promise<ProjectView[]> {
    return (await this.command<{ projects: ProjectView[] }>({ type: 'project.list' })).projects;
  }

  createProject(
    name: string,
    options: { pgVersion?: number; history?: Partial<HistoryView>; shards?: number } = {},
  ): Promise<ProjectView> {
    return this.command({ type: 'project.create', name, ...options });
  }

  /** Sets how much of the past stays readable; what is left out stays as it is. */
  setHistory(project: string, history: Partial<HistoryView>): Promise<ProjectView> {
    return this.command({ type: 'project.set', name: project, history });
  }

  /** Begins to spread the pages of a project over more shards, in a cluster; `projects` tells how far that is. */
  splitProject(project: string, shards: number): Promise<ProjectView> {
    return this.command({ type: 'project.split', name: project, shards });
  }

  /** Gives up a split whose shards do not take over yet: everything stays as it was. `projects` tells when nothing is left of it. */
  cancelSplit(project: string): Promise<ProjectView> {
    return this.command({ type: 'project.split-cancel', name: project });
  }

  async deleteProject(name: string): Promise<void> {
    await this.command({ type: 'project.delete', name });
  }

  async branches(options: { project?: string } = {}): Promise<BranchView[]> {
    return (await this.command<{ branches: BranchView[] }>({ type: 'branch.list', ...options })).branches;
  }

  /** Makes a branch of the newest state of `from`, or of its state at an LSN or a time. */
  createBranch(
    name: string,
    options: { project?: string; from?: string; at?: BranchStart } = {},
  ): Promise<BranchView> {
    return this.command({ type: 'branch.create', name, ...options });
  }

  renameBranch(name: string, to: string, options: { project?: string } = {}): Promise<BranchView> {
    return this.command({ type: 'branch.rename', name, to, ...options });
  }

  /**
   * Takes a branch back to an earlier moment of its past, in the same short time at any size. Its clients are disconnected;
   * the next one sees the restored state. What it held until now stays under the name `preserveUnder`, if given.
   */
  restoreBranch(
    name: string,
    at: BranchStart,
    options: { project?: string; preserveUnder?: string } = {},
  ): Promise<BranchView> {
    return this.command({ type: 'branch.restore', name, at, ...options });
  }

  /** The same with the newest state of its parent. */
  resetBranch(name: string, options: { project?: string; preserveUnder?: string } = {}): Promise<BranchView> {
    return this.command({ type: 'branch.reset', name, ...options });
  }

  /** Puts a branch away: no compute starts and nothing of it stays on local disks, until it is brought back. */
  archiveBranch(name: string, options: { project?: string } = {}): Promise<BranchView> {
    return this.command({ type: 'branch.archive', name, ...options }, { timeoutMs: ARCHIVE_TIMEOUT_MS });
  }

  unarchiveBranch(name: string, options: { project?: string } = {}): Promise<BranchView> {
    return this.command({ type: 'branch.unarchive', name, ...options }, { timeoutMs: ARCHIVE_TIMEOUT_MS });
  }

  /** Makes a branch independent of its parent, by a copy of what it had of it; its history begins where it started. */
  detachBranch(name: string, options: { project?: string } = {}): Promise<BranchView> {
    return this.command({ type: 'branch.detach', name, ...options }, { timeoutMs: DETACH_TIMEOUT_MS });
  }

  /** Removes a branch's history that is older than the project's window, now instead of in a minute. */
  collectGarbage(name: string, options: { project?: string } = {}): Promise<GcView> {
    return this.command({ type: 'branch.gc', name, ...options }, { timeoutMs: GC_TIMEOUT_MS });
  }

  /**
   * Deletes a branch with all its objects. Resolves with whether nothing of it is left; `false` when that takes long: it is
   * decided, nobody can use the branch any more, and its storage goes in the background, also after a restart.
   */
  async deleteBranch(name: string, options: { project?: string } = {}): Promise<boolean> {
    const { deleted } = await this.command<{ deleted: boolean }>({ type: 'branch.delete', name, ...options });
    return deleted;
  }

  /** Stops a branch's compute; what it holds stays, and the next client starts it again. */
  suspend(name: string, options: { project?: string } = {}): Promise<BranchView> {
    return this.command({ type: 'branch.suspend', name, ...options });
  }

  /** Stops the read-only compute of a moment. */
  suspendMoment(name: string, at: BranchStart, options: { project?: string } = {}): Promise<MomentView> {
    return this.command({ type: 'branch.suspend', name, at, ...options });
  }

  resume(name: string, options: { project?: string } = {}): Promise<BranchView> {
    return this.command({ type: 'branch.resume', name, ...options });
  }

  /** The nodes of a cluster. */
  async nodes(): Promise<NodeView[]> {
    return (await this.command<{ nodes: NodeView[] }>({ type: 'node.list' })).nodes;
  }

  /** Moves what can move away from a node of a cluster, or lets it be used again. */
  async drainNode(name: string, options: { undo?: boolean } = {}): Promise<NodeView[]> {
    const command = { type: 'node.drain' as const, name, draining: options.undo !== true };
    return (await this.command<{ nodes: NodeView[] }>(command)).nodes;
  }

  /** Has another node of a cluster keep the WAL that `node` keeps; resolves with what was begun. */
  async replaceSafekeeper(node: string, options: { with?: string } = {}): Promise<Record<string, string>[]> {
    const command = { type: 'safekeeper.replace' as const, node, ...options };
    return (await this.command<{ steps: Record<string, string>[] }>(command)).steps;
  }

  /** Has a cluster take over projects that were copied into its objects; resolves with what became of their branches. */
  importProjects(id: string): Promise<{ branches: RecoveredBranch[] }> {
    return this.command({ type: 'project.import', import: id }, { timeoutMs: IMPORT_TIMEOUT_MS });
  }

  /** What runs where in a cluster, and what is going to change. */
  placement(): Promise<PlacementView> {
    return this.command({ type: 'placement' });
  }

  /** Figures of all processes as OpenMetrics text. */
  async metrics(): Promise<string> {
    return (await this.command<{ text: string }>({ type: 'metrics' })).text;
  }

  /** The events of the durable log that match `pattern`, oldest first, up to the newest at this moment. */
  async *events(pattern = 'pal.evt.>', options: { from?: number } = {}): AsyncGenerator<EventEnvelope> {
    let position: EventPosition = { sinceMs: options.from ?? 0 };
    for (;;) {
      const page = await this.#read(pattern, position);
      yield* page.events;
      if (!page.more) return;
      position = { after: page.next };
    }
  }

  /**
   * Calls back with every event that matches, in order, from a point in time on; awaits the handler before the next one.
   * Resolves when the signal is aborted; throws when the system goes away.
   */
  async subscribe(
    pattern: string,
    options: SubscribeOptions,
    handle: (event: EventEnvelope) => void | Promise<void>,
  ): Promise<void> {
    let wake = () => {};
    let failure: Error | undefined;
    const news = this.#bus.subscribe(pattern, () => wake());
    this.#bus.onClose((reason) => {
      failure = reason ?? new PalimpsestError('unavailable', 'the system has stopped');
      wake();
    });
    const stop = () => wake();
    options.signal?.addEventListener('abort', stop);
    try {
      const { from = 'now' } = options;
      let position: EventPosition = { sinceMs: from === 'now' ? Date.now() : from };
      const { durable } = options;
      if (durable !== undefined) {
        const known = await this.command<{ after?: number }>({ type: 'events.position', name: durable });
        if (known.after !== undefined) position = { after: known.after };
      }
      const limit = durable === undefined ? EVENTS_PER_READ : DURABLE_EVENTS;
      while (!options.signal?.aborted) {
        if (failure) throw failure;
        const quiet = new Promise<void>((done) => {
          const timer = setTimeout(done, POLL_MS);
          wake = () => {
            clearTimeout(timer);
            done();
          };
        });
        const page: EventsView = await this.#read(pattern, position, limit);
        for (const event of page.events) {
          if (options.signal?.aborted) return;
          await handle(event);
        }
        position = { after: page.next };
        if (durable !== undefined) {
          await this.command({ type: 'events.acknowledge', name: durable, after: page.next });
        }
        if (!page.more && options.follow === false) return;
        if (!page.more) await quiet;
      }
    } finally {
      news.unsubscribe();
      options.signal?.removeEventListener('abort', stop);
    }
  }

  /** Sends a control command; throws the system's error. */
  async command<T = unknown>(command: ControlCommand, options: { timeoutMs?: number } = {}): Promise<T> {
    let leftMs = options.timeoutMs ?? COMMAND_TIMEOUT_MS;
    const send = (timeoutMs: number) =>
      sendCommand<T>(this.#bus, CONTROL_KIND, CONTROL_ID, command, { timeoutMs, watch: WATCH });
    if (!QUESTIONS.has(command.type)) return send(leftMs);
    // The process that controls a cluster may be suspended, and another take its place: a question can be asked again.
    for (; leftMs > QUESTION_TIMEOUT_MS; leftMs -= QUESTION_TIMEOUT_MS) {
      try {
        return await send(QUESTION_TIMEOUT_MS);
      } catch (error) {
        if (!(error instanceof PalimpsestError) || error.code !== 'timeout') throw error;
      }
    }
    return send(leftMs);
  }

  async close(): Promise<void> {
    await this.#bus.close();
  }

  #read(pattern: string, position: EventPosition, limit = EVENTS_PER_READ): Promise<EventsView> {
    return this.command({ type: 'events.read', pattern, ...position, limit });
  }
}
