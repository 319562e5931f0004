/**
 * Real NATS servers for tests: one, or a cluster of three, on loopback with JetStream and everything synced before it is
 * acknowledged. Servers can be killed, frozen and started again, and are all ended with the test run.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { natsServerProgram } from './nats-package.ts';
import { eventually } from './processes.ts';

const READY_TIMEOUT_MS = 30_000;
const END_TIMEOUT_MS = 5_000;

export interface NatsOptions {
  servers?: number;
  /** Durable before it is acknowledged; false for a server that has to be refused. */
  syncAlways?: boolean;
  /** Whether clients may ask for the servers' settings. */
  tellSettings?: boolean;
}

/** Clients without a login are in the account of Palimpsest, which may ask for the servers' settings. */
const ACCOUNTS = `
accounts {
  SYS: { users: [{ user: system, password: system }]
         exports: [{ service: "$SYS.REQ.SERVER.PING.VARZ", response_type: stream, accounts: [PALIMPSEST] }] }
  PALIMPSEST: { jetstream: enabled, users: [{ user: palimpsest, password: palimpsest }]
         imports: [{ service: { account: SYS, subject: "$SYS.REQ.SERVER.PING.VARZ" } }] }
}
system_account: SYS
no_auth_user: palimpsest
`;

const running = new Set<ChildProcess>();
// The last resort: a worker that ends without its hooks takes its servers with it.
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

export class NatsCluster {
  readonly servers: NatsServer[];
  readonly #folder: string;

  private constructor(folder: string, servers: NatsServer[]) {
    this.#folder = folder;
    this.servers = servers;
  }

  /** Resolves when JetStream takes requests. */
  static async start(options: NatsOptions = {}): Promise<NatsCluster> {
    const program = await natsServerProgram();
    const folder = await mkdtemp(join(tmpdir(), 'pal-nats-'));
    const count = options.servers ?? 3;
    const ports = await freePorts(count * 3);
    const routes = Array.from({ length: count }, (_, i) => `nats://127.0.0.1:${ports[i * 3 + 1]}`);
    const servers: NatsServer[] = [];
    for (let i = 0; i < count; i++) {
      const [client, route, monitor] = ports.slice(i * 3, i * 3 + 3) as [number, number, number];
      const home = join(folder, `n${i + 1}`);
      await mkdir(home);
      const cluster =
        count === 1
          ? ''
          : `cluster { name: test, no_advertise: true, listen: "127.0.0.1:${route}", routes: [${routes.map((r) => `"${r}"`).join(', ')}] }\n`;
      const sync = (options.syncAlways ?? true) ? ', sync_interval: always' : '';
      const accounts = (options.tellSettings ?? true) ? ACCOUNTS : '';
      const text =
        `server_name: n${i + 1}\nlisten: "127.0.0.1:${client}"\nhttp: "127.0.0.1:${monitor}"\n` +
        `jetstream { store_dir: "${home}/store"${sync} }\n${cluster}${accounts}\n`;
      await writeFile(join(home, 'nats.conf'), text);
      servers.push(new NatsServer({ program, home, name: `n${i + 1}`, client, monitor }));
    }
    const all = new NatsCluster(folder, servers);
    try {
      for (const server of servers) server.start();
      await all.ready();
    } catch (error) {
      await all.stop();
      throw error;
    }
    return all;
  }

  /** Servers whose configuration is there already; each may write in its folder. */
  static async fromFiles(
    folder: string,
    places: { name: string; host: string; port: number; monitorPort: number }[],
  ): Promise<NatsCluster> {
    const program = await natsServerProgram();
    const servers = places.map(
      ({ name, host, port, monitorPort }) =>
        new NatsServer({ program, home: join(folder, name), name, host, client: port, monitor: monitorPort }),
    );
    const all = new NatsCluster(folder, servers);
    for (const server of servers) server.start();
    await all.ready();
    return all;
  }

  /** What clients connect to. */
  get url(): string {
    return this.servers.map((server) => server.url).join(',');
  }

  /** The server that leads JetStream's own group now. */
  async metaLeader(): Promise<NatsServer> {
    return eventually('a leader of the cluster', async () => {
      for (const server of this.servers.filter(({ alive }) => alive)) {
        const view = await server.monitor('jsz').catch(() => undefined);
        const leader = (view as { meta_cluster?: { leader?: string } })?.meta_cluster?.leader;
        const found = this.servers.find(({ name, alive }) => alive && name === leader);
        if (found) return found;
      }
      return undefined;
    });
  }

  /** Resolves when every server that runs is healthy. */
  async ready(): Promise<void> {
    await Promise.all(
      this.servers
        .filter(({ alive }) => alive)
        .map((server) =>
          eventually(
            `${server.name} is healthy`,
            async () => {
              if (!server.alive) throw new Error(`${server.name} ended: ${await server.log()}`);
              return (await server.monitor('healthz')) !== undefined;
            },
            { limitMs: READY_TIMEOUT_MS },
          ),
        ),
    );
  }

  async stop(): Promise<void> {
    await Promise.all(this.servers.map((server) => server.kill()));
    await rm(this.#folder, { recursive: true, force: true });
  }
}

export class NatsServer {
  readonly name: string;
  readonly url: string;
  readonly #program: string;
  readonly #home: string;
  readonly #monitor: string;
  #child: ChildProcess | undefined;

  constructor(options: {
    program: string;
    home: string;
    name: string;
    host?: string;
    client: number;
    monitor: number;
  }) {
    this.name = options.name;
    this.url = `nats://${options.host ?? '127.0.0.1'}:${options.client}`;
    this.#program = options.program;
    this.#home = options.home;
    this.#monitor = `http://127.0.0.1:${options.monitor}`;
  }

  get alive(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  get pid(): number | undefined {
    return this.alive ? this.#child!.pid : undefined;
  }

  start(): void {
    const log = join(this.#home, 'log');
    const child = spawn(this.#program, ['-c', join(this.#home, 'nats.conf'), '-l', log], { stdio: 'ignore' });
    child.on('error', () => {});
    running.add(child);
    child.once('exit', () => running.delete(child));
    this.#child = child;
  }

  /** Ends it as a power failure would, and resolves when it is gone. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (!child || !this.alive) return;
    const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    child.kill('SIGKILL');
    await Promise.race([
      ended,
      new Promise<void>((_, reject) =>
        setTimeout(() => reject(new Error(`${this.name} does not end`)), END_TIMEOUT_MS).unref(),
      ),
    ]);
  }

  signal(signal: 'SIGSTOP' | 'SIGCONT'): void {
    this.#child?.kill(signal);
  }

  /** A page of its monitoring address; throws unless it answers that all is well. */
  async monitor(page: string): Promise<unknown> {
    const answer = await fetch(`${this.#monitor}/${page}`, { signal: AbortSignal.timeout(2_000) });
    if (!answer.ok) throw new Error(`${this.name} answers ${answer.status} to ${page}`);
    return answer.json();
  }

  log(): Promise<string> {
    return readFile(join(this.#home, 'log'), 'utf8').catch(() => '');
  }
}

/** Ports that nobody uses at this moment. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer());
  const ports = await Promise.all(
    servers.map(
      (server) =>
        new Promise<number>((resolve, reject) => {
          server.once('error', reject);
          server.listen(0, '127.0.0.1', () => resolve((server.address() as { port: number }).port));
        }),
    ),
  );
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}
