/**
 * A whole cluster with real processes: NATS servers and nodes on loopback, driven as a user drives it.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, type PalimpsestClient } from '../../deploy/client/index.ts';
import { runDirectoryOf } from '../../deploy/node/data-directory.ts';
import { freePorts, NatsCluster } from './nats-server.ts';
import { allToEnd, eventually, type ProcessInfo, processTree, signal } from './processes.ts';
import { type RunResult, run } from './programs.ts';
import { ROOT } from './source-files.ts';
import { OUTSIDE, TestNetwork } from './test-network.ts';

const CLI = join(ROOT, 'deploy/cli/palimpsest.js');

export interface NodeSpec {
  name: string;
  zone: string;
  roles: string;
  /** Its own loopback address; 127.0.0.1 without. */
  host?: string;
  /** In a secured cluster: of which credentials of `cluster init`; those of all roles without. */
  credentials?: string;
}

export interface ClusterOptions {
  /** With keys of `palimpsest cluster init`: TLS, logins, tokens. */
  secured?: boolean;
  nodeArguments?: string[];
  /** Arguments that say where objects are; a folder without. */
  objects?: string[];
  /** Each node in a network of its own, which can be cut. */
  network?: boolean;
}

/** Makes keys in `folder/keys` and starts three servers with them. */
async function securedNats(folder: string): Promise<NatsCluster> {
  const ports = await freePorts(9);
  const places = [0, 1, 2].map((i) => {
    const [port, routePort, monitorPort] = ports.slice(i * 3, i * 3 + 3) as [number, number, number];
    return { name: `n${i + 1}`, host: '127.0.0.1', port, routePort, monitorPort };
  });
  const list = places.map((p) => `${p.name}=${p.host}:${p.port}:${p.routePort}:${p.monitorPort}`).join(',');
  const keys = join(folder, 'keys');
  const store = join(folder, 'store-{name}');
  const made = await run(
    process.execPath,
    [CLI, 'cluster', 'init', keys, '--servers', list, '--store-dir', store],
    {
      cwd: ROOT,
    },
  );
  if (made.code !== 0) throw new Error(`palimpsest cluster init failed: ${made.stderr}`);
  return NatsCluster.fromFiles(join(keys, 'nats'), places);
}

/** The smallest cluster in which every role can be lost once. */
export const SIX_NODES: NodeSpec[] = [
  { name: 'a', zone: 'z1', roles: 'safekeeper,control' },
  { name: 'b', zone: 'z2', roles: 'safekeeper,control' },
  { name: 'c', zone: 'z3', roles: 'safekeeper,gateway' },
  { name: 'd', zone: 'z1', roles: 'pageserver,safekeeper' },
  { name: 'e', zone: 'z2', roles: 'pageserver,compute,safekeeper' },
  // Clients have another gateway when one is started anew.
  { name: 'f', zone: 'z3', roles: 'compute,gateway', host: '127.0.0.2' },
];

export class TestNode {
  readonly spec: NodeSpec;
  readonly #line: string[];
  readonly #dataDir: string;
  #child: ChildProcess | undefined;
  #output = '';
  #ready = false;
  #frozen: ProcessInfo[] = [];

  constructor(spec: NodeSpec, line: string[], dataDir: string) {
    this.spec = spec;
    this.#line = line;
    this.#dataDir = dataDir;
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
    const child = spawn(this.#line[0]!, this.#line.slice(1), {
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

  /** Stops all its processes where they are, as a machine that is suspended. */
  freeze(): void {
    // From the top: whoever is stopped starts no others.
    this.#frozen = this.processes();
    for (const { pid } of this.#frozen) signal(pid, 'SIGSTOP');
  }

  thaw(): void {
    for (const { pid } of this.#frozen) signal(pid, 'SIGCONT');
    this.#frozen = [];
  }

  /** Removes what a node that was killed leaves outside of its disk. */
  async removeRunDirectory(): Promise<void> {
    await rm(runDirectoryOf(this.#dataDir), { recursive: true, force: true });
  }

  /** Loses everything that the node, which does not run, has on its disk. */
  async wipe(): Promise<void> {
    await rm(this.#dataDir, { recursive: true, force: true });
  }

  /** Kills its parent process; everything below follows. */
  async kill(): Promise<void> {
    if (!this.alive) return;
    this.thaw();
    const tree = this.processes();
    signal(this.pid, 'SIGKILL');
    await allToEnd(tree, 'with their node', 20_000);
  }

  async stop(): Promise<void> {
    if (!this.alive) return;
    const tree = this.processes();
    const ended = new Promise((resolve) => this.#child!.once('exit', resolve));
    signal(this.pid, 'SIGINT');
    const timer = setTimeout(() => signal(this.pid, 'SIGKILL'), 40_000);
    await ended;
    clearTimeout(timer);
    await allToEnd(tree, 'with their node', 20_000);
  }
}

export class TestCluster {
  readonly nats: NatsCluster;
  readonly nodes = new Map<string, TestNode>();
  readonly folder: string;
  readonly port: number;
  readonly #network: TestNetwork | undefined;
  readonly #gatewayPorts = new Map<string, number>();
  #client: PalimpsestClient | undefined;

  readonly #secured: boolean;
  readonly #extra: string[];
  readonly #objects: string[];

  private constructor(
    nats: NatsCluster,
    place: { folder: string; port: number; network: TestNetwork | undefined },
    options: ClusterOptions,
  ) {
    this.nats = nats;
    this.folder = place.folder;
    this.port = place.port;
    this.#network = place.network;
    this.#secured = options.secured ?? false;
    this.#extra = options.nodeArguments ?? [];
    this.#objects = options.objects ?? ['--objects', join(place.folder, 'objects')];
  }

  static async start(specs: NodeSpec[] = SIX_NODES, options: ClusterOptions = {}): Promise<TestCluster> {
    const folder = await mkdtemp(join(tmpdir(), 'pal-cluster-'));
    const nats = options.secured ? await securedNats(folder) : await NatsCluster.start();
    const [port] = (await freePorts(1)) as [number];
    const network = options.network ? await TestNetwork.create(folder) : undefined;
    const cluster = new TestCluster(nats, { folder, port, network }, options);
    try {
      await cluster.#network?.letOut(nats.servers.map(({ url }) => Number(new URL(url).port)));
      for (const spec of specs) await cluster.#add(spec);
      await Promise.all([...cluster.nodes.values()].map((node) => node.start()));
      return cluster;
    } catch (error) {
      await cluster.stop();
      throw error;
    }
  }

  /** Credentials that `palimpsest cluster init` made; undefined unless the cluster is secured. */
  credentials(name: string): string | undefined {
    return this.#secured ? join(this.folder, 'keys', 'credentials', `${name}.json`) : undefined;
  }

  #login(name: string): string[] {
    const file = this.credentials(name);
    return file === undefined ? [] : ['--credentials', file];
  }

  /** The network of the nodes, which was asked for. */
  get network(): TestNetwork {
    if (!this.#network) throw new Error('the cluster was started without networks of its nodes');
    return this.#network;
  }

  async #add(spec: NodeSpec): Promise<void> {
    const { name } = spec;
    const address = await this.#network?.add(name);
    const dataDir = join(this.folder, name);
    const line = [process.execPath, CLI, ...this.#arguments(spec, dataDir, address)];
    const node = new TestNode(spec, this.#network ? this.#network.command(name, ...line) : line, dataDir);
    this.nodes.set(name, node);
  }

  /** `address`: of the node in a network of its own. */
  #arguments(spec: NodeSpec, dataDir: string, address: string | undefined): string[] {
    const { name, zone, roles, host, credentials = 'node' } = spec;
    const places = ['--data', dataDir, ...this.#objects];
    const about = ['--name', name, '--zone', zone, '--roles', roles, '--port', String(this.port)];
    const times = ['--suspend-after', '0', '--replace-after', '8s'];
    const servers = address === undefined ? this.nats.url : this.nats.url.replaceAll('127.0.0.1', OUTSIDE);
    const nats = ['--nats', servers, ...this.#login(credentials)];
    const own = address === undefined ? undefined : ['--host', address, '--insecure-network'];
    const reached = own ?? (host === undefined ? [] : ['--host', host]);
    return ['node', ...about, ...reached, ...places, ...nats, ...times, ...this.#extra, '--json'];
  }

  node(name: string): TestNode {
    return this.nodes.get(name)!;
  }

  async client(): Promise<PalimpsestClient> {
    const credentials = this.credentials('client');
    this.#client ??= await connect({ nats: this.nats.url, ...(credentials ? { credentials } : {}) });
    return this.#client;
  }

  /** The connection string of a branch, as this process reaches it; by that of the first gateway. */
  async url(branch?: string): Promise<string> {
    return (await this.urls(branch))[0]!;
  }

  /** The same, by each of the gateways. */
  async urls(branch?: string): Promise<string[]> {
    const url = new URL(await (await this.client()).url(branch));
    const gateways = [...this.nodes.values()].filter(({ spec }) => spec.roles.includes('gateway'));
    const urls: string[] = [];
    for (const { spec } of gateways) {
      const by = new URL(url);
      by.host = await this.#gatewayAddress(spec);
      urls.push(by.href);
    }
    return urls;
  }

  async #gatewayAddress({ name, host }: NodeSpec): Promise<string> {
    if (!this.#network) return `${host ?? '127.0.0.1'}:${this.port}`;
    const port = this.#gatewayPorts.get(name) ?? (await this.#network.letIn(name, this.port));
    this.#gatewayPorts.set(name, port);
    return `127.0.0.1:${port}`;
  }

  /** Runs a command of the CLI against the cluster. */
  cli(...args: string[]): Promise<RunResult> {
    return run(process.execPath, [CLI, ...args, '--nats', this.nats.url, ...this.#login('client')], {
      cwd: ROOT,
      timeoutMs: 90_000,
    });
  }

  /** Runs a command of the CLI that needs no cluster. */
  cliAlone(...args: string[]): Promise<RunResult> {
    return run(process.execPath, [CLI, ...args], { cwd: ROOT, timeoutMs: 90_000 });
  }

  async stop(): Promise<void> {
    await this.#client?.close().catch(() => {});
    for (const node of this.nodes.values()) await node.kill().catch(() => {});
    for (const node of this.nodes.values()) await node.removeRunDirectory();
    this.#network?.close();
    await this.nats.stop();
    await rm(this.folder, { recursive: true, force: true });
  }
}
