/**
 * Everything around computes, small: a bus, real safekeeper processes, a page service over a template cluster, and real
 * compute hosts. For tests of the compute's side.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ComputeSpec } from '../../actors/compute/spec.ts';
import type { NodeId } from '../../protocols/ids.ts';
import { LocalComputeHosts, type LocalComputeHostsOptions } from '../../runtime/adapters/compute-hosts.ts';
import { createLog } from '../../runtime/adapters/pino-log.ts';
import {
  buildTemplateCluster,
  findPostgres,
  type PostgresBinaries,
  postgresUser,
  reachablePostgres,
} from '../../runtime/adapters/postgres-binaries.ts';
import { BusHub } from '../../runtime/adapters/socket-bus.ts';
import { SocketChannelNetwork } from '../../runtime/adapters/socket-channel.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { SystemRandom } from '../../runtime/adapters/system-random.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import { MemoryBus } from '../../runtime/bus/memory-bus.ts';
import { ChannelDoor } from '../../runtime/channels/door.ts';
import { ROOT } from '../support/source-files.ts';
import { StockPageServer } from './stock-page-server.ts';

export interface ComputeWorldOptions {
  safekeepers: number;
  /** Whether the page service tells of the template's own shutdown checkpoint. */
  knowsCheckpoint?: boolean;
  hosts?: Partial<LocalComputeHostsOptions>;
}

export class ComputeWorld {
  readonly folder: string;
  readonly clock = new SystemClock();
  readonly network = new SocketChannelNetwork();
  readonly log = createLog({ level: 'error' });
  readonly bus: MemoryBus;
  readonly members: NodeId[];
  pageServer!: StockPageServer;
  hosts!: LocalComputeHosts;
  readonly #safekeepers = new Map<NodeId, ChildProcess>();
  #hub: BusHub;
  #door!: ChannelDoor;

  private constructor(safekeepers: number) {
    this.folder = mkdtempSync(join(tmpdir(), 'cw-'));
    chmodSync(this.folder, 0o755);
    this.bus = new MemoryBus({ clock: this.clock });
    this.#hub = new BusHub({ bus: this.bus, network: this.network, log: this.log });
    this.members = Array.from({ length: safekeepers }, (_, i) => `sk${i + 1}` as NodeId);
  }

  static async create(options: ComputeWorldOptions): Promise<ComputeWorld> {
    const world = new ComputeWorld(options.safekeepers);
    await world.#hub.listen(`unix:${world.folder}/bus.sock`);
    const binaries = reachablePostgres(findPostgres(17), postgresUser(), world.folder);
    const cluster = join(world.folder, 'template');
    await buildTemplateCluster({ binaries, directory: cluster });
    world.pageServer = new StockPageServer(cluster, options.knowsCheckpoint ?? false);
    world.#door = new ChannelDoor(world.network, `unix:${world.folder}/ps1.sock`, { bus: world.bus });
    await world.#door.listen();
    for (const node of world.members) world.startSafekeeper(node);
    world.hosts = world.#createHosts(binaries, options.hosts ?? {});
    return world;
  }

  startSafekeeper(node: NodeId): void {
    const objects = { kind: 'local', directory: join(this.folder, 'objects') };
    const argument = {
      node,
      dataDir: join(this.folder, node),
      objects,
      runDir: this.folder,
      logLevel: 'warn',
    };
    const child = spawn(process.execPath, [`${ROOT}deploy/node/safekeeper.ts`, JSON.stringify(argument)], {
      stdio: ['pipe', 'inherit', 'inherit'],
    });
    this.#safekeepers.set(node, child);
  }

  /** Stops a safekeeper's process, or lets it go on. */
  signalSafekeeper(node: NodeId, signal: 'SIGSTOP' | 'SIGCONT'): void {
    this.#safekeepers.get(node)!.kill(signal);
  }

  async killSafekeeper(node: NodeId): Promise<void> {
    const child = this.#safekeepers.get(node)!;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await ended;
  }

  /** Creates a timeline on the template and returns what its compute is to be. */
  async createTimeline(timeline: string): Promise<ComputeSpec> {
    const { systemId, pgVersion, endLsn } = this.pageServer.origin();
    const tenant = 'ab'.repeat(16);
    const create = {
      type: 'create',
      tenant,
      timeline,
      startLsn: endLsn,
      pgVersion,
      systemId,
      members: this.members,
    };
    for (const node of this.members) await this.#create(node, create);
    this.#door.serve('pageserver', timeline, (channel) => this.pageServer.serve(channel));
    const roles = [{ name: 'postgres', password: 'secret' }];
    return { tenant, timeline, pgVersion, systemId, startLsn: endLsn, safekeepers: this.members, roles };
  }

  async close(): Promise<void> {
    await this.hosts.close();
    for (const child of this.#safekeepers.values()) child.kill('SIGKILL');
    await this.#door.close();
    await this.#hub.close();
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** Safekeepers need a moment to come up. */
  async #create(node: NodeId, command: { type: string }): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      try {
        await sendCommand(this.bus, 'safekeeper-node', node, command, { timeoutMs: 5000 });
        return;
      } catch (error) {
        if (attempt > 100) throw error;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  }

  #createHosts(binaries: PostgresBinaries, options: Partial<LocalComputeHostsOptions>): LocalComputeHosts {
    mkdirSync(join(this.folder, 'run'), { mode: 0o755 });
    return new LocalComputeHosts({
      clock: this.clock,
      log: this.log,
      random: new SystemRandom(),
      bus: this.bus,
      busAddress: `unix:${this.folder}/bus.sock`,
      scriptPath: `${ROOT}deploy/node/compute-host.ts`,
      computesDirectory: join(this.folder, 'computes'),
      runDirectory: join(this.folder, 'run'),
      logDirectory: join(this.folder, 'logs'),
      pgVersion: 17,
      binariesOf: () => binaries,
      user: postgresUser(),
      logLevel: 'info',
      ...options,
    });
  }
}
