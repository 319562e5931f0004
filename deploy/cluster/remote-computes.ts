/**
 * Computes on the nodes of a cluster, as the compute actors see them: started where placement says, watched by their nodes'
 * news and, since news may be lost, by asking. A compute whose node is dead has crashed, and its actor starts another.
 */
import type { StoppedReply } from '../../actors/compute/host-protocol.ts';
import type { ComputeHandle, ComputeHosts } from '../../actors/compute/hosts.ts';
import type { ComputeEnd, ComputeSpec, RunningCompute } from '../../actors/compute/spec.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { hexId } from '../../protocols/ids.ts';
import { sendCommand, serveCommands, unpackMessage } from '../../runtime/bus/command.ts';
import type { Bus, Subscription } from '../../runtime/ports/bus.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { Random } from '../../runtime/ports/random.ts';
import {
  COMPUTE_NODE_KIND,
  COMPUTE_START_KIND,
  type ComputeNews,
  type ComputeNodeView,
  type HostedCompute,
} from './compute-node.ts';

const ASK_TIMEOUT_MS = 2_000;
/** The node's own limit is the one that should speak. */
const GRACE_MS = 1_000;

export interface RemoteComputesOptions {
  bus: Bus;
  clock: Clock;
  log: Log;
  random: Random;
  /** Throws `unavailable` when no node takes computes. */
  choose(): string;
  /** Signs the token of a compute, where channels need one. */
  tokenFor?(spec: ComputeSpec, node: string): Uint8Array | undefined;
}

class RemoteHandle implements ComputeHandle {
  readonly compute: RunningCompute;
  readonly ended: Promise<ComputeEnd>;
  readonly #options: RemoteComputesOptions;
  #resolve: (end: ComputeEnd) => void = () => {};
  #listener: ((sinceMs: number | undefined) => void) | undefined;
  /** As the node told it, and by this clock. */
  #activity: { toldMs: number | undefined; sinceMs: number | undefined } | undefined;

  constructor(options: RemoteComputesOptions, compute: RunningCompute) {
    this.#options = options;
    this.compute = compute;
    this.ended = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  end(end: ComputeEnd): void {
    this.#resolve(end);
  }

  activity({ sinceMs: toldMs, idleMs }: Pick<HostedCompute, 'sinceMs' | 'idleMs'>): void {
    if (this.#activity && this.#activity.toldMs === toldMs) return;
    const sinceMs = idleMs === undefined ? toldMs : this.#options.clock.now() - idleMs;
    this.#activity = { toldMs, sinceMs };
    this.#listener?.(sinceMs);
  }

  onActivity(listener: (sinceMs: number | undefined) => void): void {
    this.#listener = listener;
    if (this.#activity) listener(this.#activity.sinceMs);
  }

  stop(options: { ifIdleForMs?: number; timeoutMs: number }): Promise<StoppedReply> {
    const command = { type: 'stop', hostId: this.compute.hostId, ...options };
    return sendCommand(this.#options.bus, COMPUTE_NODE_KIND, this.compute.node!, command, {
      timeoutMs: options.timeoutMs + GRACE_MS,
      watch: this.#options,
    });
  }

  kill(): void {
    const command = { type: 'kill', hostId: this.compute.hostId };
    // A node that does not answer is dead, or is asked again when it is seen to run what nobody wants.
    void sendCommand(this.#options.bus, COMPUTE_NODE_KIND, this.compute.node!, command, {
      timeoutMs: ASK_TIMEOUT_MS,
    }).catch(() => {});
  }
}

export class RemoteComputes implements ComputeHosts {
  readonly #options: RemoteComputesOptions;
  readonly #handles = new Map<string, RemoteHandle>();
  readonly #news: Subscription;
  /** Starts under way: their hosts are not known yet, and must not be taken for nobody's. */
  readonly #starting = new Set<{ node: string; gone: PromiseWithResolvers<never> }>();

  constructor(options: RemoteComputesOptions) {
    this.#options = options;
    this.#news = options.bus.subscribe('pal.node.*.compute', (message) =>
      this.#take(unpackMessage<ComputeNews>(message.data)),
    );
  }

  async start(spec: ComputeSpec, { timeoutMs }: { timeoutMs: number }): Promise<ComputeHandle> {
    const { bus, choose, random, tokenFor } = this.#options;
    const start = { node: choose(), gone: Promise.withResolvers<never>() };
    start.gone.promise.catch(() => {});
    const token = tokenFor?.(spec, start.node);
    this.#starting.add(start);
    const id = hexId(random.bytes(16));
    const confirming = serveCommands(bus, COMPUTE_START_KIND, id, async () => ({}));
    try {
      const command = { type: 'start', id, spec: token ? { ...spec, token } : spec, timeoutMs };
      const limit = { timeoutMs: timeoutMs + GRACE_MS, watch: this.#options };
      const started = sendCommand<RunningCompute>(bus, COMPUTE_NODE_KIND, start.node, command, limit);
      return this.#keep(await Promise.race([started, start.gone.promise]));
    } finally {
      confirming.unsubscribe();
      this.#starting.delete(start);
    }
  }

  async adopt(compute: RunningCompute): Promise<ComputeHandle | undefined> {
    const known = this.#handles.get(compute.hostId);
    if (known) return known;
    if (compute.node === undefined) return undefined;
    const view = await this.#ask(compute.node);
    // Who asked at the same time got a handle already: only one of two would hear of the end.
    const quicker = this.#handles.get(compute.hostId);
    if (quicker) return quicker;
    const running = view?.running.find((hosted) => hosted.compute.hostId === compute.hostId);
    const ended = view?.ended.find(({ hostId }) => hostId === compute.hostId);
    if (!running && !ended) return undefined;
    const handle = this.#keep(compute);
    if (running) handle.activity(running);
    if (ended) this.#end(compute.hostId, ended.end);
    return handle;
  }

  isLive(hostId: string): boolean {
    return this.#handles.has(hostId);
  }

  /** Where computes run, for placement. */
  placed(): { id: string; node: string }[] {
    return [...this.#handles.values()].map(({ compute }) => ({ id: compute.hostId, node: compute.node! }));
  }

  /** A node is dead: whatever ran there is taken for crashed, and what was to start there does not. */
  nodeIsGone(node: string): void {
    for (const start of this.#starting) {
      if (start.node !== node) continue;
      start.gone.reject(
        new PalimpsestError('unavailable', `node ${node} gives no sign of life`, 'another one is taken'),
      );
    }
    for (const { compute } of [...this.#handles.values()]) {
      if (compute.node !== node) continue;
      const detail = `node ${node} gives no sign of life`;
      this.#end(compute.hostId, { reason: 'crashed', detail, withNode: true });
    }
  }

  /** Compares what a node runs with what is known: learns of lost news, and ends computes that nobody wants. */
  async reconcile(node: string): Promise<void> {
    const isStarting = () => [...this.#starting].some((start) => start.node === node);
    const startingBefore = isStarting();
    const knownBefore = [...this.#handles.values()].filter(({ compute }) => compute.node === node);
    const view = await this.#ask(node);
    if (!view) return;
    for (const { hostId, end } of view.ended) this.#end(hostId, end);
    const running = new Set(view.running.map(({ compute }) => compute.hostId));
    for (const { compute } of knownBefore) {
      if (!running.has(compute.hostId))
        this.#end(compute.hostId, { reason: 'crashed', detail: `node ${node} does not run it any more` });
    }
    for (const hosted of view.running) {
      const { compute } = hosted;
      const handle = this.#handles.get(compute.hostId);
      if (handle) handle.activity(hosted);
      else if (!startingBefore && !isStarting()) {
        this.#options.log.warn({ host: compute.hostId, node }, 'a compute that nobody wants is ended');
        new RemoteHandle(this.#options, compute).kill();
      }
    }
  }

  /** Computes go on: another process will watch them. */
  async close(): Promise<void> {
    this.#news.unsubscribe();
  }

  async #ask(node: string): Promise<ComputeNodeView | undefined> {
    try {
      return await sendCommand<ComputeNodeView>(
        this.#options.bus,
        COMPUTE_NODE_KIND,
        node,
        { type: 'list' },
        {
          timeoutMs: ASK_TIMEOUT_MS,
        },
      );
    } catch (error) {
      if (error instanceof PalimpsestError) return undefined;
      throw error;
    }
  }

  #keep(compute: RunningCompute): RemoteHandle {
    const handle = new RemoteHandle(this.#options, compute);
    this.#handles.set(compute.hostId, handle);
    return handle;
  }

  #take(news: ComputeNews): void {
    if (news.type === 'end') this.#end(news.hostId, news.end);
    else this.#handles.get(news.hostId)?.activity(news);
  }

  #end(hostId: string, end: ComputeEnd): void {
    const handle = this.#handles.get(hostId);
    if (!handle) return;
    this.#handles.delete(hostId);
    handle.end(end);
  }
}
