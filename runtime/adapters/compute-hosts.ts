/**
 * Host processes of computes on this machine: spawned in namespaces of their own, one kept warm in reserve.
 *
 * The reserve is refilled only a moment after a start is over, so that the two do not compete for the processor while a
 * client waits. A host's folders are removed when its process is gone.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, rmSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import {
  COMPUTE_HOST_KIND,
  type HostReport,
  type StartedReply,
  type StoppedReply,
} from '../../actors/compute/host-protocol.ts';
import { type ComputeHandle, type ComputeHosts, failStart } from '../../actors/compute/hosts.ts';
import type { ComputeEnd, ComputeSpec, RunningCompute } from '../../actors/compute/spec.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { sendCommand } from '../bus/command.ts';
import type { Bus } from '../ports/bus.ts';
import type { Clock } from '../ports/clock.ts';
import type { Log } from '../ports/log.ts';
import type { Random } from '../ports/random.ts';
import { computeHostEnvironment } from './child-environment.ts';
import type { PostgresBinaries, PostgresUser } from './postgres-binaries.ts';

const READY_TIMEOUT_MS = 20_000;
/** The client that has waited for a start gets the processor first: its first queries come now. */
const REFILL_DELAY_MS = 400;
const RESERVE_RETRY_MS = 10_000;
/** A request to a host that has just died fails before its end is known. */
const LOST_HOST_GRACE_MS = 200;
/** How often a host is asked whether it still starts: somebody waits for that. */
const LOOK_MS = 1_000;

export interface LocalComputeHostsOptions {
  clock: Clock;
  log: Log;
  random: Random;
  bus: Bus;
  /** Where hosts connect to the same bus. */
  busAddress: string;
  /** The NATS cluster that is the bus instead. */
  nats?: { servers: string; credentialsFile?: string; caFile?: string };
  /** Makes the credentials of one host, in a secured cluster; the host is told them on its standard input. */
  credentialsOf?: ((hostId: string) => Promise<string>) | undefined;
  /** The script to run. */
  scriptPath: string;
  /** Each host gets a folder in here for its data directory; emptied at the start. */
  computesDirectory: string;
  /** Each host gets a folder in here for its socket and mount; Postgres' user can reach it. */
  runDirectory: string;
  logDirectory: string;
  /** Major version of the host in reserve. */
  pgVersion: number;
  binariesOf(pgVersion: number): PostgresBinaries;
  user: PostgresUser;
  overlayBytesMax?: number;
  pageTimeoutMs?: number;
  activityIntervalMs?: number;
  /** Fetch everything before a start, also where mounting would work. */
  withoutMount?: boolean;
  /** Hosts in reserve: 1 by default, 0 for none. */
  warmHosts?: number;
  logLevel?: string;
}

/** How far this machine lets a process have namespaces of its own. */
export type Namespaces = 'root' | 'user' | 'none';

/** Finds out once what `unshare` is allowed to do. */
export function availableNamespaces(): Namespaces {
  const isRoot = process.getuid?.() === 0;
  const result = spawnSync('unshare', [...unshareFlags(isRoot ? 'root' : 'user'), '--', 'true'], {
    timeout: 10_000,
    stdio: 'ignore',
  });
  if (result.status !== 0) return 'none';
  return isRoot ? 'root' : 'user';
}

/** Mounts, processes and shared memory of their own: all of it is gone when the first process is. */
function unshareFlags(namespaces: 'root' | 'user'): string[] {
  const user = namespaces === 'user' ? ['--user', '--map-root-user'] : [];
  return [...user, '--mount', '--ipc', '--fork', '--pid', '--kill-child'];
}

export class LocalComputeHosts implements ComputeHosts {
  readonly #options: LocalComputeHostsOptions;
  readonly #namespaces = availableNamespaces();
  readonly #all = new Set<HostProcess>();
  #reserve: HostProcess[] = [];
  #closing = false;

  constructor(options: LocalComputeHostsOptions) {
    this.#options = options;
    rmSync(options.computesDirectory, { recursive: true, force: true });
    mkdirSync(options.computesDirectory, { recursive: true });
    mkdirSync(options.runDirectory, { recursive: true });
    if (this.#namespaces === 'none') {
      options.log.warn(
        {},
        'no namespaces on this machine: computes run without a lazy mount, all pages are fetched at each start',
      );
    }
  }

  /** Starts hosts until the reserve is full. */
  fillReserve(): void {
    const wanted = this.#options.warmHosts ?? 1;
    while (!this.#closing && this.#reserve.length < wanted) {
      this.#reserve.push(this.#spawn(this.#options.pgVersion, true));
    }
  }

  async start(spec: ComputeSpec, { timeoutMs }: { timeoutMs: number }): Promise<ComputeHandle> {
    if (this.#closing) throw new PalimpsestError('unavailable', 'Palimpsest is being stopped');
    const { clock } = this.#options;
    const deadline = clock.monotonic() + timeoutMs;
    try {
      const { host, warm } = this.#take(spec.pgVersion);
      return await this.#startIn(host, spec, { warm, timeoutMs }).catch((error) => {
        // A host of the reserve may have died, or be cut off, without anybody noticing: that is no fault of this start.
        const isDeaf = warm && error instanceof PalimpsestError && error.code === 'timeout';
        const leftMs = Math.floor(deadline - clock.monotonic());
        if ((!host.wasLost && !isDeaf) || leftMs <= 0 || this.#closing) throw error;
        return this.#startIn(this.#spawn(spec.pgVersion, false), spec, { warm: false, timeoutMs: leftMs });
      });
    } finally {
      clock.setTimer(REFILL_DELAY_MS, () => this.fillReserve());
    }
  }

  async #startIn(
    host: HostProcess,
    spec: ComputeSpec,
    { warm, timeoutMs }: { warm: boolean; timeoutMs: number },
  ): Promise<ComputeHandle> {
    const { clock, bus } = this.#options;
    const began = clock.monotonic();
    try {
      await host.ready;
      const readyMs = Math.round((clock.monotonic() - began) * 100) / 100;
      const command = { type: 'start', spec };
      const started = await Promise.race([
        // Its connection may just be lost, and with it what is sent to it.
        sendCommand<StartedReply>(bus, COMPUTE_HOST_KIND, host.id, command, {
          timeoutMs,
          watch: { ...this.#options, lookMs: LOOK_MS },
        }),
        host.ended.then((end) => failStart(end)),
      ]);
      return host.running(spec, started, { warm, phasesMs: { host: readyMs, ...started.phasesMs } });
    } catch (error) {
      await Promise.race([host.ended, clock.sleep(LOST_HOST_GRACE_MS)]);
      if (!host.hasEnded) host.kill();
      await host.ended;
      throw error;
    }
  }

  /** Ends all hosts; computes that should stop cleanly were stopped before. */
  async close(): Promise<void> {
    this.#closing = true;
    const hosts = [...this.#all];
    for (const host of hosts) host.kill();
    await Promise.all(hosts.map((host) => host.ended));
  }

  isLive(hostId: string): boolean {
    for (const host of this.#all) if (host.id === hostId) return !host.hasEnded;
    return false;
  }

  /** Process ids of the hosts, for the status. */
  processes(): { hostId: string; pid: number | undefined }[] {
    return [...this.#all].map((host) => ({ hostId: host.id, pid: host.pid }));
  }

  #take(pgVersion: number): { host: HostProcess; warm: boolean } {
    this.#reserve = this.#reserve.filter((host) => !host.hasEnded);
    const host = pgVersion === this.#options.pgVersion ? this.#reserve.shift() : undefined;
    return host ? { host, warm: host.isReady } : { host: this.#spawn(pgVersion, false), warm: false };
  }

  #spawn(pgVersion: number, inReserve: boolean): HostProcess {
    const { random } = this.#options;
    const id = `h${[...random.bytes(4)].map((byte) => byte.toString(16).padStart(2, '0')).join('')}`;
    const host = new HostProcess({ id, pgVersion, inReserve, namespaces: this.#namespaces }, this.#options);
    this.#all.add(host);
    void host.ended.then(() => {
      this.#all.delete(host);
      this.#replaceInReserve(host);
    });
    return host;
  }

  /** One that has died in reserve is replaced at once, unless it never came up: then after a while. */
  #replaceInReserve(host: HostProcess): void {
    if (!this.#reserve.includes(host)) return;
    this.#reserve = this.#reserve.filter((other) => other !== host);
    this.#options.clock.setTimer(host.isReady ? 0 : RESERVE_RETRY_MS, () => this.fillReserve());
  }
}

interface HostIdentity {
  id: string;
  pgVersion: number;
  inReserve: boolean;
  namespaces: Namespaces;
}

class HostProcess {
  readonly id: string;
  readonly ready: Promise<void>;
  readonly ended: Promise<ComputeEnd>;
  isReady = false;
  hasEnded = false;
  readonly #options: LocalComputeHostsOptions;
  readonly #child: ChildProcess;
  #end: ComputeEnd | undefined;
  #killed = false;
  #activity: ((sinceMs: number | undefined) => void) | undefined;
  /** A report that came before anybody listened. */
  #lastActivity: { sinceMs: number | undefined } | undefined;

  constructor({ id, pgVersion, inReserve, namespaces }: HostIdentity, options: LocalComputeHostsOptions) {
    this.id = id;
    this.#options = options;
    const folders = {
      dataDirectory: join(options.computesDirectory, id),
      runDirectory: join(options.runDirectory, id),
    };
    this.#child = spawnHost(
      options,
      {
        hostId: id,
        busAddress: options.busAddress,
        ...(options.nats ? { nats: options.nats } : {}),
        ...(options.credentialsOf ? { credentialsOnInput: true } : {}),
        ...folders,
        postgresLogFile: join(options.logDirectory, 'postgres.log'),
        binaries: options.binariesOf(pgVersion),
        user: options.user,
        overlayBytesMax: options.overlayBytesMax ?? 512 * 1024 * 1024,
        pageTimeoutMs: options.pageTimeoutMs ?? 20_000,
        activityIntervalMs: options.activityIntervalMs ?? 1_000,
        withoutMount: options.withoutMount ?? false,
        inReserve,
        namespaces,
        logLevel: options.logLevel ?? 'info',
      },
      namespaces,
    );
    void this.#tellCredentials();
    let markReady: () => void = () => {};
    let failReady: (error: Error) => void = () => {};
    this.ready = new Promise((resolve, reject) => {
      markReady = resolve;
      failReady = reject;
    });
    this.ready.catch(() => {});
    const late = options.clock.setTimer(READY_TIMEOUT_MS, () => this.kill());
    createInterface({ input: this.#child.stdout! }).on('line', (line) => {
      const report = parseReport(line);
      if (report?.type === 'ready') {
        this.isReady = true;
        late.cancel();
        markReady();
      } else if (report) this.#take(report);
    });
    this.ended = new Promise((resolve) => {
      this.#child.on('error', () => {});
      this.#child.on('close', (code, signal) => {
        late.cancel();
        this.hasEnded = true;
        const how = signal ? `signal ${signal}` : `exit code ${code}`;
        const detail =
          this.#end && 'detail' in this.#end
            ? this.#end.detail
            : `the compute host ended by ${how}; see ${hostLog(options)}`;
        failReady(new PalimpsestError('unavailable', detail));
        void this.#removeFolders(Object.values(folders)).finally(() =>
          resolve(this.#end ?? { reason: 'crashed', detail }),
        );
      });
    });
  }

  /** Not by an argument or a file: others on this machine, Postgres among them, may read those. */
  async #tellCredentials(): Promise<void> {
    const { credentialsOf, log } = this.#options;
    if (!credentialsOf) return;
    try {
      this.#child.stdin!.write(`${await credentialsOf(this.id)}\n`);
    } catch (error) {
      log.error({ error, host: this.id }, 'no credentials can be made for a compute host');
      this.kill();
    }
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  kill(): void {
    this.#killed = true;
    this.#child.kill('SIGKILL');
  }

  /** The handle of the compute that was started in this host. */
  running(
    spec: ComputeSpec,
    started: StartedReply,
    extra: Pick<RunningCompute, 'warm' | 'phasesMs'>,
  ): ComputeHandle {
    const { bus } = this.#options;
    const { term, startLsn, lazy, socketDirectory, port } = started;
    this.#options.log.info({ timeline: spec.timeline, host: this.id, ...extra }, 'a compute has started');
    return {
      compute: { hostId: this.id, term, startLsn, lazy, socketDirectory, port, ...extra },
      ended: this.ended,
      onActivity: (listener) => {
        this.#activity = listener;
        if (this.#lastActivity) listener(this.#lastActivity.sinceMs);
      },
      stop: ({ timeoutMs, ...condition }) =>
        sendCommand<StoppedReply>(bus, COMPUTE_HOST_KIND, this.id, { type: 'stop', ...condition } as never, {
          timeoutMs,
          watch: this.#options,
        }),
      kill: () => this.kill(),
    };
  }

  /** Whether its process ended without a word, and not because it was killed from here. */
  get wasLost(): boolean {
    return this.hasEnded && !this.#killed && this.#end === undefined;
  }

  #take(report: HostReport): void {
    if (report.type === 'end') this.#end = report.end;
    if (report.type === 'idle') {
      this.#lastActivity = { sinceMs: report.sinceMs };
      this.#activity?.(report.sinceMs);
    }
  }

  async #removeFolders(folders: string[]): Promise<void> {
    for (const folder of folders) {
      await rm(folder, { recursive: true, force: true, maxRetries: 3 }).catch((error: Error) =>
        this.#options.log.warn({ err: error, folder }, 'a folder of a compute could not be removed'),
      );
    }
  }
}

function spawnHost(
  options: LocalComputeHostsOptions,
  argument: object,
  namespaces: Namespaces,
): ChildProcess {
  const node = [
    process.execPath,
    '--disable-warning=DEP0111',
    '--max-semi-space-size=8',
    options.scriptPath,
    JSON.stringify(argument),
  ];
  const command = namespaces === 'none' ? node : ['unshare', ...unshareFlags(namespaces), '--', ...node];
  mkdirSync(options.logDirectory, { recursive: true });
  const log = openSync(hostLog(options), 'a', 0o600);
  try {
    const child = spawn(command[0]!, command.slice(1), {
      stdio: ['pipe', 'pipe', log],
      env: computeHostEnvironment(),
      // A terminal's Ctrl-C is for the parent, which stops computes in order.
      detached: true,
    });
    child.stdin!.on('error', () => {});
    return child;
  } finally {
    closeSync(log);
  }
}

function hostLog(options: LocalComputeHostsOptions): string {
  return join(options.logDirectory, 'computes.log');
}

function parseReport(line: string): HostReport | undefined {
  try {
    return JSON.parse(line) as HostReport;
  } catch {
    return undefined;
  }
}
