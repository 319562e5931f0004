/**
 * The computes of one node: starts, stops and lists them when the control lease's holder asks, and tells it what happens to
 * them. They go on when nobody asks, so a change of the holder, or the loss of every NATS server, stops none.
 *
 *   pal.cmd.compute-node.<node>   start, stop, kill, list
 *   pal.cmd.compute-start.<id>    asked before a start: whether somebody still waits for it
 *   pal.node.<node>.compute       published: {hostId, type: 'activity' | 'end', …}
 *
 * What was sent to a node while it was suspended or cut off reaches it later. A start that nobody waits for any more would depose the
 * compute that runs elsewhere meanwhile; so the sender is asked first.
 */
import type { StoppedReply } from '../../actors/compute/host-protocol.ts';
import type { ComputeHandle, ComputeHosts } from '../../actors/compute/hosts.ts';
import type { ComputeEnd, ComputeSpec, RunningCompute } from '../../actors/compute/spec.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { packMessage, sendCommand, serveCommands } from '../../runtime/bus/command.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { Clock } from '../../runtime/ports/clock.ts';

export const COMPUTE_NODE_KIND = 'compute-node';
export const COMPUTE_START_KIND = 'compute-start';
const CONFIRM_TIMEOUT_MS = 2_000;

/** Ends that are remembered for a holder that comes late. */
const ENDS_MAX = 1_000;

export type ComputeNodeCommand =
  /** `id` is the sender's, by which it is asked. */
  | { type: 'start'; id: string; spec: ComputeSpec; timeoutMs: number }
  | { type: 'stop'; hostId: string; ifIdleForMs?: number; timeoutMs: number }
  | { type: 'kill'; hostId: string }
  | { type: 'list' };

export interface HostedCompute {
  compute: RunningCompute;
  /** Since when nobody uses it, by the node's clock, and how long that is; undefined when somebody does. */
  sinceMs?: number;
  idleMs?: number;
}

export interface ComputeNodeView {
  running: HostedCompute[];
  ended: { hostId: string; end: ComputeEnd }[];
}

export type ComputeNews =
  | { type: 'activity'; hostId: string; sinceMs?: number; idleMs?: number }
  | { type: 'end'; hostId: string; end: ComputeEnd };

export function computeNewsSubject(node: string): string {
  return `pal.node.${node}.compute`;
}

/** The way of gateways on other nodes to one compute. */
export interface ComputeRelay {
  readonly address: { host: string; port: number; key: string };
  close(): void;
}

export interface ComputeNodeOptions {
  node: string;
  bus: Bus;
  clock: Clock;
  hosts: ComputeHosts;
  /** Opens the way to the compute behind a socket of this machine. */
  openRelay(socketPath: string): Promise<ComputeRelay>;
}

interface Hosted {
  handle: ComputeHandle;
  compute: RunningCompute;
  relay: ComputeRelay;
  sinceMs: number | undefined;
}

export class ComputeNode {
  readonly #options: ComputeNodeOptions;
  readonly #hosted = new Map<string, Hosted>();
  readonly #ended = new Map<string, ComputeEnd>();
  #leaving = false;

  constructor(options: ComputeNodeOptions) {
    this.#options = options;
  }

  async serve(): Promise<void> {
    const { bus, node } = this.#options;
    serveCommands<ComputeNodeCommand>(bus, COMPUTE_NODE_KIND, node, async (command) => this.#handle(command));
    await bus.flush();
  }

  /** Stops all computes cleanly, for a node that leaves. */
  async suspendAll(timeoutMs: number): Promise<void> {
    this.#leaving = true;
    await Promise.all(
      [...this.#hosted.values()].map(async ({ handle }) => {
        await handle.stop({ timeoutMs }).catch(() => handle.kill());
        await handle.ended;
      }),
    );
  }

  #handle(command: ComputeNodeCommand): Promise<unknown> | unknown {
    switch (command.type) {
      case 'start':
        return this.#start(command);
      case 'stop':
        return this.#stop(command);
      case 'kill':
        this.#hosted.get(command.hostId)?.handle.kill();
        return {};
      case 'list':
        return this.#view();
      default:
        throw new PalimpsestError('unsupported', 'unknown command of a compute node');
    }
  }

  async #start({
    id,
    spec,
    timeoutMs,
  }: Extract<ComputeNodeCommand, { type: 'start' }>): Promise<RunningCompute> {
    const { hosts, node, bus, openRelay } = this.#options;
    if (this.#leaving) throw new PalimpsestError('unavailable', `node ${node} is being stopped`);
    await sendCommand(bus, COMPUTE_START_KIND, id, { type: 'confirm' }, { timeoutMs: CONFIRM_TIMEOUT_MS });
    const handle = await hosts.start(spec, { timeoutMs });
    const { hostId, socketDirectory, port } = handle.compute;
    const relay = await openRelay(`${socketDirectory}/.s.PGSQL.${port}`);
    const compute: RunningCompute = { ...handle.compute, node, address: relay.address };
    const hosted: Hosted = { handle, compute, relay, sinceMs: undefined };
    this.#hosted.set(hostId, hosted);
    handle.onActivity((sinceMs) => {
      hosted.sinceMs = sinceMs;
      this.#tell({ type: 'activity', hostId, ...this.#idleness(sinceMs) });
    });
    void handle.ended.then((end) => {
      relay.close();
      this.#hosted.delete(hostId);
      if (this.#ended.size >= ENDS_MAX) this.#ended.delete(this.#ended.keys().next().value!);
      this.#ended.set(hostId, end);
      this.#tell({ type: 'end', hostId, end });
    });
    return compute;
  }

  async #stop(command: Extract<ComputeNodeCommand, { type: 'stop' }>): Promise<StoppedReply> {
    const hosted = this.#hosted.get(command.hostId);
    if (!hosted) throw new PalimpsestError('not-found', `no compute runs in host ${command.hostId}`);
    const { timeoutMs, ifIdleForMs } = command;
    return hosted.handle.stop(ifIdleForMs === undefined ? { timeoutMs } : { timeoutMs, ifIdleForMs });
  }

  #view(): ComputeNodeView {
    return {
      running: [...this.#hosted.values()].map(({ compute, sinceMs }) => ({
        compute,
        ...this.#idleness(sinceMs),
      })),
      ended: [...this.#ended].map(([hostId, end]) => ({ hostId, end })),
    };
  }

  /** Clocks of nodes differ: what lasts is told, too. */
  #idleness(sinceMs: number | undefined): Pick<HostedCompute, 'sinceMs' | 'idleMs'> {
    return sinceMs === undefined ? {} : { sinceMs, idleMs: this.#options.clock.now() - sinceMs };
  }

  #tell(news: ComputeNews): void {
    this.#options.bus.publish(computeNewsSubject(this.#options.node), packMessage(news));
  }
}
