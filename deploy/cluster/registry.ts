/**
 * The nodes of a cluster: each holds the lease `node.<name>` and renews it as its sign of life; what it tells with it is its
 * entry in the registry.
 */
import type { Role } from '../../actors/placement/plan.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { commandSubject } from '../../protocols/subjects.ts';
import { packMessage, serveCommands } from '../../runtime/bus/command.ts';
import type { Bus, Subscription } from '../../runtime/ports/bus.ts';
import type { Clock, Timer } from '../../runtime/ports/clock.ts';
import type { Lease, Leases, LeaseView } from '../../runtime/ports/leases.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { NodeView } from '../client/control.ts';

const NAME = /^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$/;
const PREFIX = 'node';
/** A node that was silent for so long is taken for dead. */
export const NODE_TTL_MS = 2_500;
const HEARTBEAT_MS = 600;
const NODE_KIND = 'node';
/** Two signs of life did not come. */
const PROBE_AFTER_MS = 2 * HEARTBEAT_MS;
const PROBE_TIMEOUT_MS = 200;
/** A node that was killed may come back at once: its own last sign of life has to run out first. */
const REGISTER_TIMEOUT_MS = 15_000;
const REGISTER_RETRY_MS = 250;

export interface NodeRecord {
  name: string;
  zone: string;
  roles: Role[];
  /** Where other nodes reach it. */
  host: string;
  version: string;
  startedMs: number;
  /** Different for every life of the node's process, and of its pageserver: what was attached there is to be attached again. */
  pageserverLife?: string;
  /** Port for clients, of a gateway. */
  port?: number;
  /** It is being stopped. */
  leaving?: boolean;
}

export interface KnownNode extends NodeRecord {
  alive: boolean;
  /** Milliseconds since 1970 of its last sign of life. */
  seenMs: number;
  /** Milliseconds for which an observer has seen no new sign of life. */
  silentMs: number;
}

/** What is known of the pageserver of a node, if it has one. */
export type PageserverLife = Pick<KnownNode, 'name' | 'alive' | 'pageserverLife'>;

/** Throws `invalid-argument` unless `name` can name a node or a zone. */
export function checkNodeName(name: string, what = 'node'): string {
  if (NAME.test(name)) return name;
  throw new PalimpsestError(
    'invalid-argument',
    `"${name}" cannot name a ${what}`,
    'use at most 32 lower-case letters, digits and dashes',
  );
}

/** A node's own entry, from its registration until it leaves. */
export class Registration {
  readonly #leases: Leases;
  readonly #clock: Clock;
  readonly #log: Log;
  #record: NodeRecord;
  #lease: Lease | undefined;
  #timer: Timer | undefined;
  #closed = false;

  constructor(leases: Leases, record: NodeRecord, { clock, log }: { clock: Clock; log: Log }) {
    this.#leases = leases;
    this.#record = record;
    this.#clock = clock;
    this.#log = log;
  }

  /** Throws `conflict` when another process uses the name. */
  async register(): Promise<void> {
    const deadline = this.#clock.monotonic() + REGISTER_TIMEOUT_MS;
    while (!(await this.#take())) {
      if (this.#clock.monotonic() > deadline) {
        throw new PalimpsestError(
          'conflict',
          `another process is node "${this.#record.name}" of this cluster`,
          'choose another --name, or stop the other one',
        );
      }
      await this.#clock.sleep(REGISTER_RETRY_MS);
    }
    this.#beatLater();
  }

  /** Changes what is told, at once. */
  async tell(changes: Partial<NodeRecord>): Promise<void> {
    this.#record = { ...this.#record, ...changes };
    await this.#lease?.renew(this.#record);
  }

  async leave(): Promise<void> {
    this.#closed = true;
    this.#timer?.cancel();
    await this.#lease?.release().catch(() => {});
  }

  async #take(): Promise<boolean> {
    const holder = `${this.#record.name}/${this.#record.startedMs}`;
    this.#lease = await this.#leases.acquire(`${PREFIX}.${this.#record.name}`, holder, {
      ttlMs: NODE_TTL_MS,
      data: this.#record,
    });
    return this.#lease !== undefined;
  }

  #beatLater(): void {
    if (this.#closed) return;
    this.#timer = this.#clock.setTimer(
      HEARTBEAT_MS,
      () => void this.#beat().finally(() => this.#beatLater()),
    );
  }

  async #beat(): Promise<void> {
    try {
      const renewal = this.#lease ? await this.#lease.renew(this.#record) : 'lost';
      // Nobody else may be this node; an own entry that ran out while no server was reachable is taken again.
      if (renewal === 'lost' && !this.#closed) await this.#take();
    } catch (error) {
      this.#log.debug({ error }, 'a sign of life could not be given');
    }
  }
}

/** All nodes that ever registered and did not leave. */
export async function knownNodes(
  leases: Leases,
  isAlive: (view: LeaseView) => boolean,
): Promise<KnownNode[]> {
  const views = await leases.list(PREFIX);
  return views
    .filter(({ holder }) => holder !== undefined)
    .map((view) => ({
      ...(view.data as NodeRecord),
      alive: isAlive(view),
      seenMs: view.renewedMs,
      silentMs: view.unchangedMs,
    }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** A node answers here for as long as its process is connected to NATS. */
export function serveNode(bus: Bus, name: string): Subscription {
  return serveCommands(bus, NODE_KIND, name, async () => ({}));
}

/**
 * Nodes whose process has ended are found before their last sign of life has run out: the servers close its connection, and
 * nobody responds in its name. One that is suspended or cut off still has its connection; it is waited for.
 */
export async function withoutEnded(bus: Bus, nodes: KnownNode[]): Promise<KnownNode[]> {
  return Promise.all(
    nodes.map(async (node) => {
      if (!isSilent(node)) return node;
      const request = packMessage({ type: 'ping' });
      const answer = await bus
        .request(commandSubject(NODE_KIND, node.name), request, { timeoutMs: PROBE_TIMEOUT_MS })
        .catch(() => undefined);
      return answer?.status === 'no-responders' ? { ...node, alive: false } : node;
    }),
  );
}

/** Whether it may have ended, or been cut off: it is alive as far as is known, and says nothing. */
export function isSilent({ alive, silentMs }: KnownNode): boolean {
  return alive && silentMs >= PROBE_AFTER_MS;
}

/** As an observer who looks all the time judges. */
export function aliveByObservation(view: LeaseView): boolean {
  return view.unchangedMs <= view.ttlMs;
}

/** The name of a node's safekeeper. */
export function safekeeperNode(node: string): string {
  return `sk-${node}`;
}

/** The name of a node's pageserver. */
export function pageserverNode(node: string): string {
  return `ps-${node}`;
}

/** The node behind the name of its safekeeper or pageserver. */
export function nodeOf(name: string): string {
  return name.replace(/^(sk|ps)-/, '');
}

/** A node as the command line shows it. */
export function nodeView(
  { name, zone, roles, host, version, alive, seenMs, startedMs }: KnownNode,
  { draining, control }: { draining: boolean; control: boolean },
): Omit<NodeView, 'computes'> {
  return {
    name,
    zone,
    roles,
    host,
    version,
    state: alive ? (draining ? 'draining' : 'alive') : 'gone',
    seenAt: new Date(seenMs).toISOString(),
    startedAt: new Date(startedMs).toISOString(),
    control,
  };
}
