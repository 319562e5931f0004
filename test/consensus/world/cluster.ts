/**
 * Safekeepers and competing computes in one virtual world, with what must always hold checked as it happens:
 *
 *   one leader per term; a new leader starts at or after everything that was committed before it was elected; bytes
 *   that were committed never change; a replica's commit LSN never lies beyond what a proposer committed.
 */
import type { SafekeeperCommand } from '../../../actors/safekeeper/decide.ts';
import { safekeeperDefinition } from '../../../actors/safekeeper/definition.ts';
import type { SafekeeperEvent } from '../../../actors/safekeeper/events.ts';
import { PeerRecovery } from '../../../actors/safekeeper/peer-recovery.ts';
import { Replica } from '../../../actors/safekeeper/replica.ts';
import { Walproposer } from '../../../actors/walproposer/walproposer.ts';
import type { NodeId } from '../../../protocols/ids.ts';
import type { Lsn } from '../../../protocols/lsn.ts';
import { WalBuilder } from '../../../protocols/postgres/wal/record-builder.ts';
import { WalStreamDecoder } from '../../../protocols/postgres/wal/stream-decoder.ts';
import type { Log } from '../../../runtime/ports/log.ts';
import { TestActor } from '../test-actor.ts';
import { Scheduler, Seeded, WorldClock } from './scheduler.ts';
import { Platters, WorldDisk } from './world-disk.ts';
import { WorldNetwork } from './world-network.ts';

const PG_VERSION = 17;
const SYSTEM_ID = 77n;

export interface ClusterOptions {
  seed: number;
  members: number;
  startLsn: Lsn;
  lagMs?: number;
  /** Receives the lines of actors' logs, for a failing seed. */
  trace?: (line: string) => void;
}

export class Cluster {
  readonly scheduler = new Scheduler();
  readonly random: Seeded;
  readonly network: WorldNetwork;
  readonly members: NodeId[];
  readonly startLsn: Lsn;
  readonly nodes = new Map<NodeId, SafekeeperProcess>();
  readonly options: ClusterOptions;
  /** The bytes that some proposer committed, from startLsn on. */
  #committed: Uint8Array = new Uint8Array(0);
  readonly #leaders = new Map<number, string>();

  constructor(options: ClusterOptions) {
    this.options = options;
    this.random = new Seeded(options.seed);
    this.network = new WorldNetwork(this.scheduler, new Seeded(options.seed ^ 0x5eed));
    this.members = Array.from({ length: options.members }, (_, i) => `sk${i + 1}` as NodeId);
    this.startLsn = options.startLsn;
    for (const node of this.members) this.nodes.set(node, new SafekeeperProcess(this, node));
  }

  async start(): Promise<void> {
    await Promise.all([...this.nodes.values()].map((node) => this.scheduler.until(node.boot(), 1000)));
  }

  get committedEnd(): number {
    return this.startLsn + this.#committed.length;
  }

  log(name: string): Log {
    const line = (level: string) => (fields: object, message: string) =>
      this.options.trace?.(
        `${this.scheduler.now.toFixed(2)} ${name} ${level} ${message} ${JSON.stringify(fields)}`,
      );
    const log: Log = {
      debug: line('debug'),
      info: line('info'),
      warn: line('warn'),
      error: line('error'),
      child: () => log,
    };
    return log;
  }

  compute(name: string): ComputeProcess {
    return new ComputeProcess(this, name);
  }

  noteLeader(term: number, name: string): void {
    const other = this.#leaders.get(term);
    if (other !== undefined && other !== name)
      throw new Error(`term ${term} has leaders ${other} and ${name}`);
    this.#leaders.set(term, name);
  }

  /** A proposer says that `log`, which begins at startLsn, is committed up to `commitLsn`. */
  noteCommit(name: string, log: Uint8Array, commitLsn: Lsn): void {
    const length = commitLsn - this.startLsn;
    if (length > log.length) throw new Error(`${name} commits beyond its own log`);
    this.#compare(`${name} at its commit LSN`, log.subarray(0, length));
    if (length > this.#committed.length) this.#committed = log.slice(0, length);
  }

  /** Everything that any replica believes to be committed is, and equals what was. */
  async checkReplicas(): Promise<void> {
    for (const process of this.nodes.values()) {
      const replica = process.replica;
      if (!replica) continue;
      const length = replica.commitLsn - this.startLsn;
      if (length > this.#committed.length) {
        throw new Error(`${process.node} believes ${replica.commitLsn} committed, nobody committed that`);
      }
      const bytes = await process.read(length);
      if (bytes) this.#compare(`${process.node} below its commit LSN`, bytes);
    }
  }

  #compare(who: string, bytes: Uint8Array): void {
    const length = Math.min(bytes.length, this.#committed.length);
    const same = Buffer.compare(bytes.subarray(0, length), this.#committed.subarray(0, length)) === 0;
    if (same) return;
    let at = 0;
    while (bytes[at] === this.#committed[at]) at++;
    throw new Error(`${who}: byte ${this.startLsn + at} differs from what was committed`);
  }
}

/** One safekeeper: its disk and journal live on when its process dies. */
export class SafekeeperProcess {
  readonly node: NodeId;
  readonly platters = new Platters();
  readonly #cluster: Cluster;
  readonly #events: SafekeeperEvent[] = [];
  #clock: WorldClock | undefined;
  #disk: WorldDisk | undefined;
  #recovery: PeerRecovery | undefined;
  replica: Replica | undefined;

  constructor(cluster: Cluster, node: NodeId) {
    this.#cluster = cluster;
    this.node = node;
  }

  get isUp(): boolean {
    return this.#clock !== undefined;
  }

  async boot(): Promise<void> {
    const { scheduler, random, network, members, startLsn } = this.#cluster;
    const clock = new WorldClock(scheduler);
    this.#clock = clock;
    const disk = new WorldDisk(this.platters, scheduler, random, clock);
    this.#disk = disk;
    const log = this.#cluster.log(this.node);
    const actor = new TestActor<SafekeeperCommand, SafekeeperEvent>(safekeeperDefinition, {
      id: this.node,
      events: [...this.#events],
      keep: (events) => this.#keep(clock, events),
    });
    await actor.dispatch({
      type: 'create',
      tenant: 't',
      timeline: 'l',
      node: this.node,
      pgVersion: PG_VERSION,
      systemId: String(SYSTEM_ID),
      startLsn,
      members,
    });
    const replica = await Replica.open({ actor, disk, directory: 'wal', clock, log, tell: () => {} });
    this.replica = replica;
    network.listen(this.node, clock, (channel) => replica.accept(channel));
    this.#recovery = new PeerRecovery({
      replica,
      peers: () => members.filter((member) => member !== this.node),
      dial: (peer) => network.dial({ name: this.node, clock }, peer),
      clock,
      log,
    });
  }

  /** kill -9: memory is gone, writes under way are torn. */
  kill(): void {
    const clock = this.#clock;
    if (!clock) return;
    clock.die();
    this.#disk!.crash();
    this.#recovery?.close();
    this.#cluster.network.cutOf(clock);
    this.replica = undefined;
    this.#clock = undefined;
  }

  /** The first `length` bytes of the log, or undefined when the process dies meanwhile. */
  async read(length: number): Promise<Uint8Array | undefined> {
    const { replica } = this;
    if (!replica) return undefined;
    const bytes = new Uint8Array(length);
    let count: number | undefined;
    const reading = replica.read(this.#cluster.startLsn, bytes).then((n) => {
      count = n;
    });
    reading.catch(() => {});
    for (let i = 0; i < 1000 && count === undefined && this.replica === replica; i++) {
      await this.#cluster.scheduler.run(1);
    }
    if (count === undefined) return undefined;
    if (count < length) throw new Error(`${this.node} cannot read what it says to have`);
    return bytes;
  }

  /** A decision takes a while to become durable; at a crash it may or may not have. */
  #keep(clock: WorldClock, events: SafekeeperEvent[]): Promise<void> {
    const { scheduler, random } = this.#cluster;
    return new Promise((resolve) => {
      scheduler.at(random.between(0.1, 2), () => {
        if (clock.isDead && random.chance(0.5)) return;
        if (clock.isDead && this.#clock) return;
        this.#events.push(...structuredClone(events));
        if (!clock.isDead) resolve();
      });
    });
  }
}

/** One compute: wins the timeline, then writes records as a walsender would, cut anywhere. */
export class ComputeProcess {
  readonly name: string;
  readonly #cluster: Cluster;
  readonly #clock: WorldClock;
  readonly proposer: Walproposer;
  /** Its view of the timeline's log, from startLsn on. */
  #log: Uint8Array = new Uint8Array(0);
  deposed = false;
  leading = false;

  constructor(cluster: Cluster, name: string) {
    this.#cluster = cluster;
    this.name = name;
    const { scheduler, network, members, startLsn } = cluster;
    const clock = new WorldClock(scheduler);
    this.#clock = clock;
    this.proposer = new Walproposer({
      clock,
      log: cluster.log(name),
      dial: (node) => network.dial({ name, clock }, node),
      spec: { tenant: 't', timeline: 'l', members, pgVersion: PG_VERSION, systemId: SYSTEM_ID, startLsn },
      lagMs: cluster.options.lagMs ?? 0,
    });
    this.proposer.onDeposed(() => {
      this.deposed = true;
    });
  }

  get isDead(): boolean {
    return this.#clock.isDead;
  }

  kill(): void {
    this.#clock.die();
    this.#cluster.network.cutOf(this.#clock);
    this.proposer.close();
  }

  /** Elects itself. Returns false when it could not. */
  async elect(timeoutMs: number): Promise<boolean> {
    const cluster = this.#cluster;
    const committedBefore = cluster.committedEnd;
    let elected: { term: number; lsn: Lsn };
    try {
      elected = await this.proposer.elect({ timeoutMs });
    } catch {
      this.kill();
      return false;
    }
    cluster.noteLeader(elected.term, this.name);
    if (elected.lsn < committedBefore) {
      throw new Error(`${this.name} starts at ${elected.lsn}, but ${committedBefore} was committed before`);
    }
    const base = await this.#readBase(elected.term, elected.lsn);
    if (!base) {
      this.kill();
      return false;
    }
    this.#log = base;
    cluster.noteCommit(this.name, base, elected.lsn);
    this.proposer.onCommit((commitLsn) => cluster.noteCommit(this.name, this.#log, commitLsn));
    this.leading = true;
    return true;
  }

  /** The log up to where this compute begins, from a replica that follows it. */
  async #readBase(term: number, lsn: Lsn): Promise<Uint8Array | undefined> {
    const length = lsn - this.#cluster.startLsn;
    for (const process of this.#cluster.nodes.values()) {
      const view = process.replica?.view;
      if (!view?.following || view.term !== term || process.replica!.flushLsn < lsn) continue;
      const bytes = new Uint8Array(length);
      const count = await process.replica!.read(this.#cluster.startLsn, bytes);
      if (count === length) return bytes;
    }
    return undefined;
  }

  /** Writes records of random sizes, with pauses, until killed, deposed or done. */
  async write(records: number): Promise<void> {
    const { random, startLsn } = this.#cluster;
    const start = (startLsn + this.#log.length) as Lsn;
    const builder = new WalBuilder({
      lsn: start,
      previousStart: lastRecordStart(this.#log, startLsn),
      pgVersion: PG_VERSION,
      systemId: SYSTEM_ID,
    });
    let sent = 0;
    for (let i = 0; i < records; i++) {
      const size = random.chance(0.1) ? random.int(30_000) : random.int(400);
      builder.logicalMessage(this.name, new Uint8Array(size).fill(random.int(256)));
      while (sent < builder.bytes.length) {
        if (this.isDead || this.deposed) return;
        const whole = builder.bytes.length - sent;
        const piece = builder.bytes.slice(sent, sent + (random.chance(0.7) ? whole : 1 + random.int(whole)));
        this.takeLog(piece);
        sent += piece.length;
        if (random.chance(0.5)) await this.#clock.sleep(random.between(0, 6));
      }
    }
    if (!this.isDead && !this.deposed) {
      await this.proposer.committed((start + sent) as Lsn, { timeoutMs: 60_000 }).catch(() => {});
    }
  }

  /** Appends bytes that follow its log. */
  takeLog(piece: Uint8Array): void {
    const at = this.endLsn;
    const log = new Uint8Array(this.#log.length + piece.length);
    log.set(this.#log);
    log.set(piece, this.#log.length);
    this.#log = log;
    this.proposer.append(at, piece);
  }

  get endLsn(): Lsn {
    return (this.#cluster.startLsn + this.#log.length) as Lsn;
  }
}

function lastRecordStart(log: Uint8Array, startLsn: Lsn): number {
  const decoder = new WalStreamDecoder(startLsn, { pgVersion: PG_VERSION });
  decoder.feed(startLsn, log);
  let last: number = startLsn - 8;
  while (decoder.next()) last = decoder.record.lsn;
  return last;
}
