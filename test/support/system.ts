/**
 * A whole Palimpsest with real processes, driven as a user drives it: by the command line and the connection string.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, type PalimpsestClient } from '../../deploy/client/index.ts';
import { runDirectoryOf } from '../../deploy/node/data-directory.ts';
import { PgClient, type PgTarget, parsePgUrl } from './pg-client.ts';
import { allToEnd, eventually, type ProcessInfo, processTree, type Role, signal } from './processes.ts';
import { type RunResult, run } from './programs.ts';
import { ROOT } from './source-files.ts';

const CLI = join(ROOT, 'deploy/cli/palimpsest.js');

export interface SystemOptions {
  /** A folder of its own below the temporary folder when absent; then it is removed at the end. */
  dataDir?: string;
  port?: number;
  safekeepers?: 1 | 3 | 5;
  /** Seconds; 0 means never. */
  suspendAfter?: number;
  args?: string[];
  env?: Record<string, string>;
  startLimitMs?: number;
}

/** Starts a system and stops it when `work` ends, however it ends. */
export async function withSystem<T>(
  options: SystemOptions,
  work: (system: TestSystem) => Promise<T>,
): Promise<T> {
  const system = new TestSystem(options);
  try {
    await system.start();
    return await work(system);
  } catch (error) {
    if (error instanceof Error)
      error.message += `\n--- last output of palimpsest start ---\n${system.output()}`;
    throw error;
  } finally {
    await system.destroy();
  }
}

export class TestSystem {
  readonly dataDir: string;
  readonly #options: SystemOptions;
  readonly #ownsData: boolean;
  #port: number | undefined;
  #child: ChildProcess | undefined;
  #output = '';
  #urls = new Map<string, string>();

  constructor(options: SystemOptions = {}) {
    this.#options = options;
    this.#ownsData = options.dataDir === undefined;
    this.dataDir = options.dataDir ?? join(mkdtempSync(join(tmpdir(), 'palimpsest-test-')), 'data');
    this.#port = options.port;
  }

  get port(): number {
    if (this.#port === undefined) throw new Error('the system was not started');
    return this.#port;
  }

  get pid(): number {
    if (this.#child?.pid === undefined) throw new Error('the system was not started');
    return this.#child.pid;
  }

  /** Whether `palimpsest start` is no more. */
  get hasEnded(): boolean {
    const child = this.#child;
    return child !== undefined && (child.exitCode !== null || child.signalCode !== null);
  }

  /** The last 6,000 characters that `palimpsest start` wrote. */
  output(): string {
    return this.#output;
  }

  /** Runs `palimpsest start` and resolves with the milliseconds until it said that it is ready. */
  async start(more: { args?: string[] } = {}): Promise<number> {
    this.#port ??= await freePort();
    const started = performance.now();
    const child = this.#spawn(more.args ?? []);
    const limitMs = this.#options.startLimitMs ?? 90_000;
    const ended = () => child.exitCode !== null || child.signalCode !== null;
    await eventually('palimpsest start to be ready', () => this.#ready || ended(), { limitMs, everyMs: 5 });
    if (!this.#ready) throw new StartFailed(child.exitCode ?? 1, this.#output);
    return performance.now() - started;
  }

  #ready = false;

  #spawn(more: string[]): ChildProcess {
    const { safekeepers, suspendAfter, args = [] } = this.#options;
    const all = ['start', '--data', this.dataDir, '--port', String(this.#port), '--json'];
    if (safekeepers !== undefined) all.push('--safekeepers', String(safekeepers));
    all.push('--suspend-after', String(suspendAfter ?? 0));
    const child = spawn(process.execPath, [CLI, ...all, ...args, ...more], {
      cwd: ROOT,
      env: { ...process.env, ...this.#options.env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#child = child;
    this.#ready = false;
    this.#output = '';
    let line = '';
    child.stdout!.on('data', (chunk: Buffer) => {
      this.#remember(chunk);
      line += chunk;
      const lines = line.split('\n');
      line = lines.pop() ?? '';
      if (lines.some(isReadyLine)) this.#ready = true;
    });
    child.stderr!.on('data', (chunk: Buffer) => this.#remember(chunk));
    return child;
  }

  #remember(chunk: Buffer): void {
    this.#output = (this.#output + chunk).slice(-6000);
  }

  /** Ends it as Ctrl-C does; resolves with the exit code. */
  async stop(limitMs = 60_000): Promise<number> {
    const child = this.#child;
    if (!child) return 0;
    const ended = waitForExit(child);
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGINT');
    const timer = setTimeout(() => child.kill('SIGKILL'), limitMs);
    const code = await ended;
    clearTimeout(timer);
    return code;
  }

  /** Kills the parent with SIGKILL and waits until everything below it is gone. */
  async crash(): Promise<void> {
    const tree = processTree(this.pid);
    signal(this.pid, 'SIGKILL');
    await waitForExit(this.#child!);
    await allToEnd(tree, 'with their parent', 20_000);
  }

  /** Stops everything and removes the data when it was this system's own. */
  async destroy(): Promise<void> {
    try {
      const tree = this.#child?.pid === undefined ? [] : processTree(this.#child.pid);
      await this.stop(20_000);
      await allToEnd(tree, 'after a stop', 10_000).catch((error) => {
        for (const { pid } of tree) signal(pid, 'SIGKILL');
        throw error;
      });
    } finally {
      // One that was killed has left it.
      rmSync(runDirectoryOf(this.dataDir), { recursive: true, force: true });
      if (this.#ownsData) rmSync(join(this.dataDir, '..'), { recursive: true, force: true });
    }
  }

  /** Runs a command of the CLI against this system's data directory. Never throws for an exit code. */
  run(args: string[], options: { timeoutMs?: number; input?: string } = {}): Promise<RunResult> {
    const env = this.#options.env ?? {};
    return run(process.execPath, [CLI, ...args, '--data', this.dataDir], { cwd: ROOT, env, ...options });
  }

  /** Runs a command with `--json` and returns what it printed; throws with its error when it fails. */
  async json<T = Record<string, unknown>>(args: string[], options: { timeoutMs?: number } = {}): Promise<T> {
    const result = await this.run([...args, '--json'], options);
    if (result.code !== 0) throw new CommandFailed(args, result);
    return JSON.parse(result.stdout) as T;
  }

  /** The connection string of a branch, as `palimpsest url` prints it. */
  async url(branch = 'main'): Promise<string> {
    const known = this.#urls.get(branch);
    if (known) return known;
    const result = await this.run(['url', branch]);
    if (result.code !== 0) throw new CommandFailed(['url', branch], result);
    const url = result.stdout.trim().split('\n').at(-1)!;
    this.#urls.set(branch, url);
    return url;
  }

  async target(branch = 'main', more: Partial<PgTarget> = {}): Promise<PgTarget> {
    return { ...parsePgUrl(await this.url(branch)), ...more };
  }

  async connect(branch = 'main', more: Partial<PgTarget> = {}): Promise<PgClient> {
    return PgClient.connect(await this.target(branch, more));
  }

  /** Connects, runs `work`, closes. */
  async with<T>(branch: string, work: (client: PgClient) => Promise<T>): Promise<T> {
    const client = await this.connect(branch);
    try {
      return await work(client);
    } finally {
      await client.close();
    }
  }

  /** Uses the client library, as other programs do. */
  async withClient<T>(work: (client: PalimpsestClient) => Promise<T>): Promise<T> {
    const client = await connect({ dataDir: this.dataDir });
    try {
      return await work(client);
    } finally {
      await client.close();
    }
  }

  suspend(branch = 'main'): Promise<unknown> {
    return this.withClient((client) => client.suspend(branch));
  }

  resume(branch = 'main'): Promise<unknown> {
    return this.withClient((client) => client.resume(branch));
  }

  /** Makes a branch: of the head of `from`, at an LSN, or at a time. */
  createBranch(name: string, options: BranchOptions = {}): Promise<Record<string, unknown>> {
    return this.json(branchArguments(name, options), { timeoutMs: 60_000 });
  }

  /** The state of a branch's compute, as the status says it. */
  async computeState(branch = 'main'): Promise<string> {
    const branches = await this.withClient((client) => client.branches());
    const found = branches.find(({ name }) => name === branch);
    if (!found) throw new Error(`there is no branch ${branch}`);
    return found.compute;
  }

  /** The processes of a branch's running compute, which is started for this; not those of the host in reserve. */
  async computeProcesses(branch = 'main'): Promise<{ host: ProcessInfo; postmaster: ProcessInfo }> {
    const socket = await this.with(branch, (client) => client.value('show unix_socket_directories'));
    const hostId = socket.split('/').at(-2)!;
    const host = this.processes('compute-host').find(({ command }) => command.includes(`"${hostId}"`));
    const postmaster = host && processTree(host.pid).find(({ role }) => role === 'postmaster');
    if (!host || !postmaster) throw new Error(`no processes of the compute at ${socket}`);
    return { host, postmaster };
  }

  processes(role?: Role): ProcessInfo[] {
    const tree = processTree(this.pid);
    return role ? tree.filter((info) => info.role === role) : tree;
  }
}

export interface BranchOptions {
  /** `main` when absent. */
  from?: string;
  /** An LSN or a moment in time; the head when absent. */
  at?: string;
}

/** The words of `palimpsest branch create`. */
export function branchArguments(name: string, { from, at }: BranchOptions): string[] {
  const args = ['branch', 'create', name];
  if (from !== undefined) args.push('--from', from);
  if (at !== undefined) args.push('--at', at);
  return args;
}

/** `palimpsest start` ended instead of becoming ready. */
export class StartFailed extends Error {
  readonly code: number;

  constructor(code: number, output: string) {
    super(`palimpsest start ended with exit code ${code}:\n${output}`);
    this.name = 'StartFailed';
    this.code = code;
  }
}

/** A command of the CLI ended with an exit code other than 0. */
export class CommandFailed extends Error {
  readonly code: number;
  readonly stderr: string;

  constructor(args: string[], result: RunResult) {
    super(`palimpsest ${args.join(' ')} ended with ${result.code}:\n${result.stdout}\n${result.stderr}`);
    this.name = 'CommandFailed';
    this.code = result.code;
    this.stderr = result.stderr;
  }
}

/** With `--json`, `start` prints one object with the connection string when it is ready. */
function isReadyLine(line: string): boolean {
  try {
    const value = JSON.parse(line) as { url?: unknown };
    return typeof value.url === 'string';
  } catch {
    return false;
  }
}

function waitForExit(child: ChildProcess): Promise<number> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve(child.exitCode ?? 1);
  return new Promise((resolve) => child.once('exit', (code) => resolve(code ?? 1)));
}

/** A TCP port of the loopback address that nobody uses at this moment. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** What the Postgres client programs need in their environment to reach a branch. */
export function clientEnvironment(target: PgTarget): Record<string, string> {
  return {
    PGHOST: target.host,
    PGPORT: String(target.port),
    PGUSER: target.user,
    PGPASSWORD: target.password ?? '',
    PGDATABASE: target.database,
    PGOPTIONS: target.options ?? '',
    PGCONNECT_TIMEOUT: '30',
  };
}
