/**
 * A whole cluster with real processes: NATS servers and nodes on loopback, driven as a user drives it.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, type PalimpsestClient } from '../../deploy/client/index.ts';
import { freePorts, NatsCluster } from './nats-server.ts';
import { eventually, isAlive, type ProcessInfo, processTree, signal } from './processes.ts';
import { type RunResult, run } from './programs.ts';
import { ROOT } from './source-files.ts';

const CLI = join(ROOT, 'deploy/cli/palimpsest.js');

export interface NodeSpec {
  name: string;
  zone: string;
  roles: string;
}

/** The smallest cluster in which every role can be lost once. */
export const SIX_NODES: NodeSpec[] = [
  { name: 'a', zone: 'z1', roles: 'safekeeper,control' },
  { name: 'b', zone: 'z2', roles: 'safekeeper,control' },
  { name: 'c', zone: 'z3', roles: 'safekeeper,gateway' },
  { name: 'd', zone: 'z1', roles: 'pageserver,safekeeper' },
  { name: 'e', zone: 'z2', roles: 'pageserver,compute,safekeeper' },
  { name: 'f', zone: 'z3', roles: 'compute' },
];

export class TestNode {
  readonly spec: NodeSpec;
  readonly #arguments: string[];
  #child: ChildProcess | undefined;
  #output = '';
  #ready = false;

  constructor(spec: NodeSpec, args: string[]) {
    this.spec = spec;
    this.#arguments = args;
  }

  get pid(): number {
    if (this.#child?.pid === undefined) throw new Error(`node ${this.spec.name} was not started`);
    return this.#child.pid;
  }

  get alive(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  async start(): Promise<void> {
    this.#ready = false;
    this.#output = '';
    const child = spawn(process.execPath, [CLI, ...this.#arguments], {
      cwd: ROOT,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#child = child;
    child.stdout!.on('data', (chunk: Buffer) => {
      this.#output = (this.#output + chunk).slice(-4_000);
      if (this.#output.includes('"cluster"')) this.#ready = true;
    });
    child.stderr!.on('data', (chunk: Buffer) => {
      this.#output = (this.#output + chunk).slice(-4_000);
    });
    await eventually(`node ${this.spec.name} runs`, () => this.#ready || !this.alive, { limitMs: 60_000 });
    if (!this.#ready) throw new Error(`node ${this.spec.name} ended:\n${this.#output}`);
  }

  processes(): ProcessInfo[] {
    return processTree(this.pid);
  }

  /** Kills its parent process; everything below follows. */
  async kill(): Promise<void> {
    if (!this.alive) return;
    const tree = this.processes();
    signal(this.pid, 'SIGKILL');
    await eventually('all processes of the node end', () => tree.every(({ pid }) => !isAlive(pid)), {
      limitMs: 20_000,
    });
  }

  async stop(): Promise<void> {
    if (!this.alive) return;
    const tree = this.processes();
    const ended = new Promise((resolve) => this.#child!.once('exit', resolve));
    signal(this.pid, 'SIGINT');
    const timer = setTimeout(() => signal(this.pid, 'SIGKILL'), 40_000);
    await ended;
    clearTimeout(timer);
    await eventually('all processes of the node end', () => tree.every(({ pid }) => !isAlive(pid)), {
      limitMs: 20_000,
    });
  }
}

export class TestCluster {
  readonly nats: NatsCluster;
  readonly nodes = new Map<string, TestNode>();
  readonly folder: string;
  readonly port: number;
  #client: PalimpsestClient | undefined;

  private constructor(nats: NatsCluster, folder: string, port: number) {
    this.nats = nats;
    this.folder = folder;
    this.port = port;
  }

  static async start(specs: NodeSpec[] = SIX_NODES): Promise<TestCluster> {
    const nats = await NatsCluster.start();
    const folder = await mkdtemp(join(tmpdir(), 'pal-cluster-'));
    const [port] = (await freePorts(1)) as [number];
    const cluster = new TestCluster(nats, folder, port);
    try {
      for (const spec of specs) cluster.nodes.set(spec.name, new TestNode(spec, cluster.#arguments(spec)));
      await Promise.all([...cluster.nodes.values()].map((node) => node.start()));
      return cluster;
    } catch (error) {
      await cluster.stop();
      throw error;
    }
  }

  #arguments({ name, zone, roles }: NodeSpec): string[] {
    const places = ['--data', join(this.folder, name), '--objects', join(this.folder, 'objects')];
    const about = ['--name', name, '--zone', zone, '--roles', roles, '--port', String(this.port)];
    const times = ['--suspend-after', '0', '--replace-after', '8s'];
    return ['node', ...about, ...places, '--nats', this.nats.url, ...times, '--json'];
  }

  node(name: string): TestNode {
    return this.nodes.get(name)!;
  }

  async client(): Promise<PalimpsestClient> {
    this.#client ??= await connect({ nats: this.nats.url });
    return this.#client;
  }

  /** Runs a command of the CLI against the cluster. */
  cli(...args: string[]): Promise<RunResult> {
    return run(process.execPath, [CLI, ...args, '--nats', this.nats.url], { cwd: ROOT, timeoutMs: 90_000 });
  }

  async stop(): Promise<void> {
    await this.#client?.close().catch(() => {});
    for (const node of this.nodes.values()) await node.kill().catch(() => {});
    await this.nats.stop();
    await rm(this.folder, { recursive: true, force: true });
  }
}
