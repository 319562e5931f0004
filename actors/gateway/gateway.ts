/**
 * The gateway: one Postgres port for all branches.
 *
 * It reads which branch a client means, wakes that branch's compute, and passes bytes between the two. Passwords are
 * checked by Postgres itself.
 *
 * Invariants
 * 1. At most `connectionsMax` clients are served; the next one gets an error, not a wait.
 * 2. A client that has not said what it wants within `startupTimeoutMs` is dropped.
 * 3. A cancel request reaches only the connection whose key it carries.
 */
import type { WireError } from '../../protocols/errors.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { Counter, Gauge, Metrics } from '../../runtime/ports/metrics.ts';
import type { ByteSocket, SocketListener, Sockets, SocketTarget } from '../../runtime/ports/sockets.ts';
import { Session } from './session.ts';

/** What a name in `options=endpoint=…` leads to. */
export type BranchLookup =
  /** `timeline` is the id of the compute: the branch's timeline, or a moment of one. */
  | { status: 'found'; timeline: string }
  /** The branch has no such moment, or it cannot be found out now. */
  | { status: 'no-moment'; error: WireError }
  | { status: 'unknown-project'; projects: string[] }
  | { status: 'unknown-branch'; branches: string[] };

export interface BranchDirectory {
  /** `project` and `branch` are as the client wrote them; undefined means the default. */
  find(project: string | undefined, branch: string | undefined): BranchLookup | Promise<BranchLookup>;
}

export interface Computes {
  /** Starts the compute when it does not run; resolves with its socket when it accepts clients. */
  wake(timeline: string, options: { timeoutMs: number }): Promise<SocketTarget>;
}

export interface GatewayLimits {
  connectionsMax: number;
  /** For the first packet. */
  startupTimeoutMs: number;
  /** How long a client is held while its compute starts. */
  wakeTimeoutMs: number;
}

export const DEFAULT_LIMITS: GatewayLimits = {
  connectionsMax: 1_000,
  startupTimeoutMs: 15_000,
  wakeTimeoutMs: 30_000,
};

export interface GatewayOptions {
  sockets: Sockets;
  clock: Clock;
  log: Log;
  metrics: Metrics;
  directory: BranchDirectory;
  computes: Computes;
  limits?: Partial<GatewayLimits>;
  /** Told whenever the number of a branch's clients changes. */
  onConnections?(timeline: string, count: number): void;
}

export class Gateway {
  readonly options: GatewayOptions;
  readonly limits: GatewayLimits;
  readonly #sessions = new Set<Session>();
  readonly #byKey = new Map<string, Session>();
  readonly #counts = new Map<string, number>();
  readonly #accepted: Counter;
  readonly #refused: Counter;
  readonly #open: Gauge;
  readonly unknownCommits: Counter;
  #listener: SocketListener | undefined;
  /** Sessions that came before `open`. */
  #early: Session[] | undefined = [];

  constructor(options: GatewayOptions) {
    this.options = options;
    this.limits = { ...DEFAULT_LIMITS, ...options.limits };
    const { metrics } = options;
    this.#accepted = metrics.counter('palimpsest_gateway_accepted', 'Client connections accepted.');
    this.#refused = metrics.counter('palimpsest_gateway_refused', 'Client connections refused.');
    this.#open = metrics.gauge('palimpsest_gateway_open_connections', 'Client connections that are open.');
    this.unknownCommits = metrics.counter(
      'palimpsest_gateway_unknown_commits',
      'Connections ended because the outcome of a commit is unknown.',
    );
  }

  /** Takes the port; clients are held until `open`. Throws PalimpsestError `already-exists` when it is taken. */
  async listen(target: { host: string; port: number }): Promise<number> {
    this.#listener = await this.options.sockets.listen(target, (socket) => this.#accept(socket));
    return this.#listener.port;
  }

  /** Begins to serve: the directory is complete. */
  open(): void {
    const early = this.#early ?? [];
    this.#early = undefined;
    for (const session of early) session.start();
  }

  /** Clients of a branch, connected or waiting for its compute. */
  connections(timeline: string): number {
    return this.#counts.get(timeline) ?? 0;
  }

  /**
   * A branch's compute is at `target` now: sessions that are still with an earlier one end. It may be on a machine that was
   * suspended or cut off, which closes no connection.
   */
  replaced(timeline: string, target: SocketTarget): void {
    for (const session of [...this.#sessions]) {
      if (session.timeline !== timeline || !session.target || sameTarget(session.target, target)) continue;
      session.endBackend({
        severity: 'FATAL',
        code: '57P01',
        message: 'terminating connection because the compute of this branch was replaced by another',
        hint: 'Connect again. Whether a transaction whose commit was not answered took effect is not known.',
      });
    }
  }

  /** Stops accepting and ends all sessions with an error that says why. */
  async close(): Promise<void> {
    await this.#listener?.close();
    for (const session of [...this.#sessions]) {
      session.fail({
        severity: 'FATAL',
        code: '57P01',
        message: 'terminating connection because Palimpsest is stopping',
      });
    }
  }

  #accept(socket: ByteSocket): void {
    const session = new Session(this, socket);
    if (this.#sessions.size >= this.limits.connectionsMax) {
      this.#refused.add(1);
      session.fail({
        severity: 'FATAL',
        code: '53300',
        message: `too many connections: the gateway serves ${this.limits.connectionsMax} at once`,
        hint: 'Close connections that are not needed, or use a connection pool in the application.',
      });
      return;
    }
    this.#accepted.add(1);
    this.#sessions.add(session);
    this.#open.set(this.#sessions.size);
    if (this.#early) this.#early.push(session);
    else session.start();
  }

  /** A session has learnt which branch it is for. */
  joined(timeline: string): void {
    this.#count(timeline, 1);
  }

  /** A session is over. */
  left(session: Session): void {
    if (!this.#sessions.delete(session)) return;
    this.#open.set(this.#sessions.size);
    if (session.timeline !== undefined) this.#count(session.timeline, -1);
    if (session.key !== undefined && this.#byKey.get(session.key) === session)
      this.#byKey.delete(session.key);
  }

  /** Remembers the key that a session's client will use to cancel. */
  keyed(session: Session, key: string): void {
    this.#byKey.set(key, session);
  }

  /** Passes a cancel request to the compute of the connection that has this key. No answer, as in Postgres. */
  async cancel(key: string, packet: Uint8Array): Promise<void> {
    const target = this.#byKey.get(key)?.target;
    if (target === undefined) return;
    try {
      const socket = await this.options.sockets.dial(target, { timeoutMs: this.limits.startupTimeoutMs });
      socket.onData(() => {});
      socket.write(packet);
      socket.end();
    } catch (error) {
      this.options.log.warn({ error: String(error) }, 'a cancel request could not be delivered');
    }
  }

  #count(timeline: string, change: number): void {
    const count = this.connections(timeline) + change;
    if (count === 0) this.#counts.delete(timeline);
    else this.#counts.set(timeline, count);
    this.options.onConnections?.(timeline, count);
  }
}

function sameTarget(a: SocketTarget, b: SocketTarget): boolean {
  if ('path' in a) return 'path' in b && a.path === b.path;
  return !('path' in b) && a.host === b.host && a.port === b.port;
}
