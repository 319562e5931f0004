/**
 * Host processes of computes in a world, for the process that starts and watches them: on a single machine the control plane's, in a
 * cluster that of a node. They end with it, as soon as they notice.
 */
import { COMPUTE_HOST_KIND, type HostReport, type StartedReply } from '../../actors/compute/host-protocol.ts';
import { type ComputeHandle, type ComputeHosts, failStart } from '../../actors/compute/hosts.ts';
import type { ComputeEnd, ComputeSpec } from '../../actors/compute/spec.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import type { SimProcess } from '../world/machine.ts';
import { ComputeHostProcess, type ComputeSurroundings } from './compute-host-process.ts';

/** What a process writes to its standard output is read so much later. */
const PIPE_MS = 0.2;
/** A request to a host that has just died fails before its end is known. */
const LOST_HOST_GRACE_MS = 200;

export interface SimComputeHostsOptions {
  /** The process that watches them. */
  owner: SimProcess;
  surroundings: ComputeSurroundings;
  /** The process of the machine that the next one is to run on. Throws when there is none. */
  place(): SimProcess;
  onHost(host: SimComputeHost): void;
}

export class SimComputeHosts implements ComputeHosts {
  readonly #options: SimComputeHostsOptions;
  readonly #all = new Map<string, SimComputeHost>();

  constructor(options: SimComputeHostsOptions) {
    this.#options = options;
  }

  async start(spec: ComputeSpec, { timeoutMs }: { timeoutMs: number }): Promise<ComputeHandle> {
    const { owner } = this.#options;
    const { clock, bus } = owner.ports;
    const host = this.#spawn();
    try {
      await host.ready;
      const started = await Promise.race([
        sendCommand<StartedReply>(bus, COMPUTE_HOST_KIND, host.id, { type: 'start', spec } as never, {
          timeoutMs,
          watch: owner.ports,
        }),
        host.ended.then((end) => failStart(end)),
      ]);
      return host.handle(started);
    } catch (error) {
      await Promise.race([host.ended, clock.sleep(LOST_HOST_GRACE_MS)]);
      host.kill();
      await host.ended;
      throw error;
    }
  }

  isLive(hostId: string): boolean {
    return this.#all.has(hostId);
  }

  async close(): Promise<void> {
    for (const host of this.#all.values()) host.kill();
  }

  #spawn(): SimComputeHost {
    const { owner, place, surroundings, onHost } = this.#options;
    const id = `h${Buffer.from(owner.ports.random.bytes(4)).toString('hex')}`;
    const host = new SimComputeHost({ id, owner, machine: place(), surroundings });
    this.#all.set(id, host);
    void host.ended.then(() => this.#all.delete(id));
    onHost(host);
    return host;
  }
}

interface HostOptions {
  id: string;
  owner: SimProcess;
  machine: SimProcess;
  surroundings: ComputeSurroundings;
}

/** One host process, as the process sees it that started it. */
export class SimComputeHost {
  readonly id: string;
  readonly process: SimProcess;
  readonly program: ComputeHostProcess;
  readonly ready: Promise<void>;
  readonly ended: Promise<ComputeEnd>;
  readonly #owner: SimProcess;
  readonly #ready = Promise.withResolvers<void>();
  readonly #ended = Promise.withResolvers<ComputeEnd>();
  #end: ComputeEnd | undefined;
  #activity: ((sinceMs: number | undefined) => void) | undefined;
  /** A report that came before anybody listened. */
  #lastActivity: { sinceMs: number | undefined } | undefined;

  constructor({ id, owner, machine, surroundings }: HostOptions) {
    const { world } = surroundings;
    this.id = id;
    this.#owner = owner;
    this.ready = this.#ready.promise;
    this.ready.catch(() => {});
    this.ended = this.#ended.promise;
    const report = (message: HostReport) =>
      void world.after(PIPE_MS, owner, 'pipe', () => this.#take(message));
    this.process = machine.spawn(() => void this.program.serve());
    this.program = new ComputeHostProcess({ id, process: this.process, surroundings, report });
    this.process.onDeath(() => world.after(PIPE_MS, owner, 'pipe', () => this.#close()));
    // One that is paused notices when it goes on.
    owner.onDeath(() => world.after(PIPE_MS, this.process, 'pipe', () => this.process.kill()));
    if (this.process.isDead) world.after(PIPE_MS, owner, 'pipe', () => this.#close());
  }

  kill(): void {
    this.process.kill();
  }

  handle(started: StartedReply): ComputeHandle {
    const { ports } = this.#owner;
    return {
      compute: { hostId: this.id, warm: false, ...started },
      ended: this.ended,
      onActivity: (listener) => {
        this.#activity = listener;
        if (this.#lastActivity) listener(this.#lastActivity.sinceMs);
      },
      stop: ({ timeoutMs, ...condition }) => {
        const command = { type: 'stop', ...condition };
        return sendCommand(ports.bus, COMPUTE_HOST_KIND, this.id, command as never, {
          timeoutMs,
          watch: ports,
        });
      },
      kill: () => this.kill(),
    };
  }

  #take(report: HostReport): void {
    if (report.type === 'ready') this.#ready.resolve();
    else if (report.type === 'end') this.#end = report.end;
    else {
      this.#lastActivity = { sinceMs: report.sinceMs };
      this.#activity?.(report.sinceMs);
    }
  }

  #close(): void {
    const detail = 'the compute host ended without a word';
    this.#ready.reject(new PalimpsestError('unavailable', detail));
    this.#ended.resolve(this.#end ?? { reason: 'crashed', detail });
  }
}
