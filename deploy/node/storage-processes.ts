/**
 * The storage processes of the embedded system: started, watched, started again with backoff, and stopped in order.
 *
 * Each child gets one JSON argument and a pipe as its standard input: when this process dies, however it dies, the pipe
 * closes and the child ends. What it prints goes to its own file in the log directory.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, renameSync, statSync } from 'node:fs';
import { setPriority } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ObjectsLocation } from '../../runtime/adapters/objects-location.ts';
import type { Clock, Timer } from '../../runtime/ports/clock.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { MarkOwner } from './fenced-objects.ts';

const BACKOFF_FIRST_MS = 100;
const BACKOFF_MAX_MS = 10_000;
/** A process that lived this long had started well: the next failure begins with a short backoff. */
const HEALTHY_MS = 30_000;
const STOP_TIMEOUT_MS = 10_000;
/** Young generations of a few MiB: what lives there is short-lived buffers' handles, and there are several processes. */
export const SAFEKEEPER_FLAGS = ['--max-semi-space-size=4', '--disable-warning=ExperimentalWarning'];
/**
 * A pageserver gives way to what commits wait for: Postgres, its host and the safekeepers. What it has not taken yet it takes when
 * they rest, and when it falls too far behind writers are slowed down (commit-throttle.ts).
 */
export const PAGESERVER_NICENESS = 5;
export const PAGESERVER_FLAGS = ['--max-semi-space-size=16', '--disable-warning=ExperimentalWarning'];
const LOG_BYTES_MAX = 20 * 1024 * 1024;

export interface StorageProcessSpec {
  /** Name of the node, also of its log file. */
  node: string;
  /** File name in this folder. */
  script: string;
  /** Flags for Node. */
  flags: string[];
  /** How far it gives way to other processes: 0 (default) to 19. */
  niceness?: number;
  /** The one argument. */
  argument: object;
}

export interface StorageProcessOptions {
  logDirectory: string;
  clock: Clock;
  log: Log;
  /** Called each time the process has been started again after it had ended by itself. */
  onRestart(node: string): void;
}

export interface ProcessStatus {
  node: string;
  pid: number | undefined;
  restarts: number;
}

/** One child process that should run as long as this object is not stopped. */
export class StorageProcess {
  readonly #spec: StorageProcessSpec;
  readonly #options: StorageProcessOptions;
  #child: ChildProcess | undefined;
  #ended: Promise<void> = Promise.resolve();
  #timer: Timer | undefined;
  #backoffMs = BACKOFF_FIRST_MS;
  #startedMs = 0;
  #restarts = 0;
  #stopping = false;

  constructor(spec: StorageProcessSpec, options: StorageProcessOptions) {
    this.#spec = spec;
    this.#options = options;
  }

  status(): ProcessStatus {
    return { node: this.#spec.node, pid: this.#child?.pid, restarts: this.#restarts };
  }

  start(): void {
    const { script, flags, niceness = 0, argument, node } = this.#spec;
    const output = openLog(this.#options.logDirectory, node);
    const path = fileURLToPath(new URL(script, import.meta.url));
    const child = spawn(process.execPath, [...flags, path, JSON.stringify(argument)], {
      stdio: ['pipe', output, output],
      // Ctrl-C in a terminal goes to the whole foreground group; these are stopped in order by their parent instead.
      detached: true,
    });
    closeSync(output);
    if (niceness > 0 && child.pid !== undefined) giveWay(child.pid, niceness);
    child.stdin!.on('error', () => {});
    this.#child = child;
    this.#startedMs = this.#options.clock.monotonic();
    this.#ended = new Promise((resolve) => {
      child.once('error', (error) => {
        this.#options.log.error({ node, error }, 'a storage process could not be started');
        resolve();
      });
      child.once('exit', (code, signal) => {
        if (!this.#stopping) this.#restartLater(code ?? signal ?? 'unknown');
        resolve();
      });
    });
  }

  /** Asks it to end by closing its input; kills it when it takes too long. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#timer?.cancel();
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    child.stdin!.end();
    child.kill('SIGTERM');
    const timer = this.#options.clock.setTimer(STOP_TIMEOUT_MS, () => {
      this.#options.log.warn(
        { node: this.#spec.node },
        'a storage process did not end in time and is killed',
      );
      child.kill('SIGKILL');
    });
    await this.#ended;
    timer.cancel();
  }

  #restartLater(reason: number | string): void {
    const lived = this.#options.clock.monotonic() - this.#startedMs;
    if (lived > HEALTHY_MS) this.#backoffMs = BACKOFF_FIRST_MS;
    const delayMs = this.#backoffMs;
    this.#backoffMs = Math.min(this.#backoffMs * 2, BACKOFF_MAX_MS);
    this.#options.log.error(
      { node: this.#spec.node, reason, delayMs },
      'a storage process ended; it is started again',
    );
    this.#timer = this.#options.clock.setTimer(delayMs, () => {
      if (this.#stopping) return;
      this.#restarts++;
      this.start();
      this.#options.onRestart(this.#spec.node);
    });
  }
}

/** What a pageserver may use. */
export interface PageserverLimits {
  /** Bytes of local layer files; without it all that is fetched stays. */
  diskBytesMax?: number | undefined;
  /** Memory for materialised pages. */
  pageCacheBytes?: number | undefined;
}

export interface StorageProcessesOptions {
  safekeepers: number;
  pageserver: string;
  root: string;
  runDirectory: string;
  objects: ObjectsLocation;
  pageserverLimits?: PageserverLimits | undefined;
  owner: MarkOwner;
  clock: Clock;
  log: Log;
  onRestart(node: string): void;
}

/** The pageserver of an installation on one machine. */
export const PAGESERVER = 'ps1';

/** Its safekeepers. */
export function safekeeperNames(count: number): string[] {
  return Array.from({ length: count }, (_, index) => `sk${index + 1}`);
}

/** The safekeepers and the pageserver of one installation. */
export class StorageProcesses {
  readonly safekeeperNodes: string[];
  readonly #processes: StorageProcess[];

  constructor(options: StorageProcessesOptions) {
    const { root, runDirectory, objects, owner, pageserver, pageserverLimits, ...rest } = options;
    this.safekeeperNodes = safekeeperNames(options.safekeepers);
    const runDir = runDirectory;
    const specs: StorageProcessSpec[] = this.safekeeperNodes.map((node) => ({
      node,
      script: 'safekeeper.ts',
      flags: SAFEKEEPER_FLAGS,
      argument: { node, dataDir: join(root, 'safekeepers', node), objects, owner, runDir },
    }));
    specs.push({
      node: pageserver,
      script: 'pageserver.ts',
      flags: PAGESERVER_FLAGS,
      niceness: PAGESERVER_NICENESS,
      argument: {
        node: pageserver,
        dataDir: join(root, 'pageserver'),
        objects,
        owner,
        runDir,
        ...pageserverLimits,
      },
    });
    this.#processes = specs.map(
      (spec) => new StorageProcess(spec, { logDirectory: join(root, 'logs'), ...rest }),
    );
  }

  start(): void {
    for (const process of this.#processes) process.start();
  }

  status(): ProcessStatus[] {
    return this.#processes.map((process) => process.status());
  }

  async stop(): Promise<void> {
    await Promise.all(this.#processes.map((process) => process.stop()));
  }
}

/** Opens a node's log for appending; one older generation is kept. */
function openLog(directory: string, node: string): number {
  mkdirSync(directory, { recursive: true });
  const path = join(directory, `${node}.log`);
  try {
    if (statSync(path).size > LOG_BYTES_MAX) renameSync(path, `${path}.1`);
  } catch {
    // There is none yet.
  }
  return openSync(path, 'a', 0o600);
}

/** Before it has other threads: they take over what the first one has. */
function giveWay(pid: number, niceness: number): void {
  try {
    setPriority(pid, niceness);
  } catch {
    // It has just ended, which is noticed elsewhere.
  }
}
