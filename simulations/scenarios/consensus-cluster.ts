/**
 * A timeline's safekeepers and its computes in a world: the machines of every consensus scenario, with their oracles.
 */
import type { OffloadTimings } from '../../actors/safekeeper/offloader.ts';
import type { Membership } from '../../protocols/consensus/membership.ts';
import type { NodeId } from '../../protocols/ids.ts';
import { formatLsn, type Lsn, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import { walPageHeaderBytes } from '../../protocols/postgres/wal/page-header.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import { type Canary, findCanary } from '../cluster/canaries.ts';
import { type ReplicaProbe, SafekeeperMachine } from '../cluster/safekeeper-process.ts';
import {
  SimPostgres,
  type SimPostgresOptions,
  type Timeline,
  type Workload,
} from '../cluster/sim-postgres.ts';
import { FaultInjector, type FaultTarget } from '../faults/injector.ts';
import { AgreedHistory } from '../oracles/agreed-history.ts';
import { CommitLedger } from '../oracles/commit-ledger.ts';
import { ReplicaOracle } from '../oracles/replica-oracle.ts';
import { checkReplicaWal } from '../oracles/replica-wal.ts';
import { WalObjectOracle } from '../oracles/wal-objects.ts';
import { SimBroker } from '../world/bus.ts';
import { SimMachine, type SimProcess, type Surroundings } from '../world/machine.ts';
import { type NetworkLimits, SimNetwork } from '../world/network.ts';
import { SimBucket } from '../world/objects.ts';
import type { ScenarioContext } from './scenario.ts';

const TENANT = '7e'.repeat(16);
const TIMELINE = '71'.repeat(16);
const RESTART_MS = 200;
const CREATE_TIMEOUT_MS = 5000;
/** Time enough to ask again where the network is so slow that an answer comes too late. */
const CREATED_WITHIN_MS = 30_000;
const CONFIGURATIONS_MAX = 4;
/** When nobody writes any more, what is left to do is done so much later; from then on little may happen. */
const CALM_AFTER_MS = 5000;
const CALM_MS = 2000;
/** Safekeepers ask their peers a few times a second what they lack; more goes on where somebody reads pages. */
const CALM_EVENTS_PER_SECOND_MAX = 500;
export const WITH_READERS_PER_SECOND_MAX = 2000;

export interface ClusterOptions {
  safekeepers: number;
  computes: number;
  network: NetworkLimits;
  workload: Workload;
  /** Clocks run up to this share too fast or too slow. */
  clockDrift: number;
  syncMs: number;
  offload?: Partial<OffloadTimings>;
  /** Safekeepers beyond those that the timeline begins with. */
  spares?: number;
  /** A compute serves clients from `lsn` on. */
  onServing?: SimPostgresOptions['onServing'];
  /** Where the timeline begins, as a share of what `drawStart` tells apart; drawn when absent. */
  startAt?: number;
}

export class ConsensusCluster {
  readonly timeline: Timeline;
  readonly history: AgreedHistory;
  readonly ledger: CommitLedger;
  readonly safekeepers: SafekeeperMachine[];
  readonly injector: FaultInjector;
  readonly surroundings: Surroundings;
  readonly bucket: SimBucket;
  /** The configuration of the members as a compute is told of it when it starts; for ever that of the beginning when absent. */
  membershipToldTo: (() => Membership) | undefined;
  /** Every configuration that was decided, where the members change. */
  configurations: readonly Membership[] | undefined;
  /** A machine from which somebody uses the system; no fault happens to it. */
  readonly user: SimMachine;
  readonly #context: ScenarioContext;
  readonly #options: ClusterOptions;
  readonly #computes: SimMachine[];
  readonly #running = new Map<string, SimPostgres>();
  readonly #canary: Canary | undefined;
  readonly #oracle: ReplicaOracle;
  readonly #objects: WalObjectOracle;
  readonly #operator: SimMachine;
  #isOver = false;
  #restsUntilMs = 0;
  #lostDisk: NodeId | undefined;

  constructor(
    context: ScenarioContext,
    options: ClusterOptions,
    more: (
      makeMachine: (name: string) => SimMachine,
      bucket: SimBucket,
      timeline: Timeline,
    ) => FaultTarget[] = () => [],
  ) {
    const { world, random } = context;
    this.#context = context;
    this.#options = options;
    this.#canary = findCanary(context.canary, context.world);
    const network = new SimNetwork(world, options.network);
    this.surroundings = { world, network, broker: new SimBroker(network) };
    this.bucket = new SimBucket(world);
    const count = options.safekeepers + (options.spares ?? 0);
    const names = Array.from({ length: count }, (_, n) => `sk${n + 1}`);
    this.timeline = {
      tenant: TENANT,
      timeline: TIMELINE,
      members: names.slice(0, options.safekeepers) as NodeId[],
      pgVersion: 17,
      systemId: 7_000_000_000_000_000_001n,
      startLsn: drawStart(options.startAt ?? random.stream('start lsn').float()),
    };
    this.safekeepers = names.map((name) => this.#safekeeper(name));
    this.history = new AgreedHistory({
      world,
      startLsn: this.timeline.startLsn,
      pgVersion: this.timeline.pgVersion,
      walDirectory: `timelines/${TIMELINE}/wal`,
      storages: this.safekeepers.map(({ machine }) => machine.storage),
      configurations: () => {
        const { members } = this.timeline;
        // What is committed in one of them may be told when the next ones have been decided already.
        return this.configurations?.slice(-CONFIGURATIONS_MAX).reverse() ?? [{ generation: 1, members }];
      },
    });
    this.ledger = new CommitLedger(world);
    this.#oracle = new ReplicaOracle(world, this.history);
    this.#objects = new WalObjectOracle(world, this.bucket, { timeline: TIMELINE, history: this.history });
    this.#computes = Array.from({ length: options.computes }, (_, n) => this.#machine(`compute${n + 1}`));
    this.#operator = this.#machine('operator');
    this.user = this.#machine('user');
    const targets = more((name) => this.#machine(name), this.bucket, this.timeline);
    this.injector = new FaultInjector({
      world,
      network,
      targets: [...this.safekeepers.map((each) => this.#target(each)), ...this.#computeTargets(), ...targets],
      bucket: this.bucket,
      onNewCompute: (name, how) => this.#newCompute(name, how),
    });
  }

  get computeNames(): string[] {
    return this.#computes.map(({ name }) => name);
  }

  get storageNames(): string[] {
    return this.safekeepers.map(({ node }) => node);
  }

  /** Starts the safekeepers and creates the timeline on all of them, with nothing failing yet. */
  async create(): Promise<void> {
    const { world } = this.surroundings;
    for (const safekeeper of this.safekeepers) safekeeper.start();
    let isCreated = false;
    await world.run({ untilMs: world.nowMs + 500 });
    const spec = this.#timelineSpec();
    this.#operator.start((process) => {
      const command = { type: 'create', ...spec };
      void Promise.all(spec.members.map((node) => this.#ask(process, node, command))).then(() => {
        isCreated = true;
      });
    });
    await world.run({ untilMs: world.nowMs + CREATED_WITHIN_MS, isDone: () => isCreated });
    if (!isCreated) world.fail('a timeline can be created', 'not all safekeepers answered');
  }

  startCompute(name = this.#computes[0]!.name): void {
    const machine = this.#computes.find((each) => each.name === name)!;
    const { world } = this.surroundings;
    world.mark('compute: started');
    this.#running.get(name)?.stop();
    machine.start((process) => {
      const postgres = new SimPostgres(
        {
          machine,
          timeline: { ...this.timeline, ...this.#membershipTold() },
          workload: this.#options.workload,
          history: this.history,
          ledger: this.ledger,
          wrapChannel: this.#canary?.wrapChannel,
          membersSeen: this.#canary?.membersSeen,
          onServing: this.#options.onServing,
          onExit: (reason) => {
            world.tell(name, `ends: ${reason}`);
            if (reason.startsWith('deposed')) world.mark('compute: deposed');
            if (this.#running.get(name) === postgres) this.#running.delete(name);
          },
        },
        process,
      );
      this.#running.set(name, postgres);
      void postgres.run();
    });
  }

  #membershipTold(): Partial<Membership> {
    const told = this.membershipToldTo?.() ?? {};
    return this.#canary?.membershipSeen?.(told as Membership) ?? told;
  }

  /** Those that are members for good, as far as was decided. */
  get #members(): SafekeeperMachine[] {
    const { members, newMembers } = this.configurations?.at(-1) ?? this.timeline;
    return this.safekeepers.filter(({ node }) => (newMembers ?? members).includes(node));
  }

  /** Some compute leads, as far as it knows. */
  get isLed(): boolean {
    return [...this.#running.values()].some((postgres) => postgres.isLeading);
  }

  /** Keeps a compute running, as the control plane does. */
  supervise(): void {
    const { world } = this.surroundings;
    const look = () => {
      if (this.#isOver) return;
      if (this.#running.size === 0 && world.nowMs >= this.#restsUntilMs)
        this.startCompute(this.#context.random.pick(this.computeNames));
      world.after(RESTART_MS, undefined, 'supervise', look);
    };
    look();
  }

  /** Nobody uses the timeline for a while: no compute runs. */
  rest(forMs: number): void {
    this.#restsUntilMs = this.surroundings.world.nowMs + forMs;
    for (const postgres of [...this.#running.values()]) postgres.stop();
  }

  stopSafekeeper(safekeeper: SafekeeperMachine): void {
    if (safekeeper.machine.isUp) this.#target(safekeeper).crash();
  }

  /** Starts it, unless a fault keeps it down. */
  startSafekeeper(safekeeper: SafekeeperMachine): void {
    if (!safekeeper.machine.isUp && !this.injector.isDown(safekeeper.node)) safekeeper.start();
  }

  /** A safekeeper's disk is lost with all that is on it; an operator has it join again. One at a time: that is the fault budget. */
  loseDisk(safekeeper: SafekeeperMachine): void {
    if (this.#lostDisk) return;
    const { world } = this.surroundings;
    const { node, machine } = safekeeper;
    const wasUp = machine.isUp;
    this.#lostDisk = node;
    if (wasUp) this.#target(safekeeper).crash();
    machine.storage.wipe();
    this.#oracle.lost(node);
    world.mark('safekeeper: a disk was lost');
    world.tell(node, 'its disk is lost');
    if (wasUp) safekeeper.start();
    void this.#rejoin(node);
  }

  /** The same of a member that will be replaced: nobody has it join again. */
  loseDiskForGood(safekeeper: SafekeeperMachine): void {
    const { world } = this.surroundings;
    const { node, machine } = safekeeper;
    if (machine.isUp) this.#target(safekeeper).crash();
    machine.storage.wipe();
    this.#oracle.lost(node);
    world.mark('safekeeper: a disk was lost');
    world.tell(node, 'its disk is lost');
    this.startSafekeeper(safekeeper);
  }

  async #rejoin(node: NodeId): Promise<void> {
    const { world } = this.surroundings;
    const process = this.#operator.process!;
    await process.ports.clock.sleep(RESTART_MS);
    await this.#ask(process, node, {
      type: 'create',
      ...this.#timelineSpec(),
      rejoin: !this.#canary?.joinsAsNew,
    });
    this.#lostDisk = undefined;
    world.mark('safekeeper: joined again after its disk was lost');
    world.tell(node, 'has joined again');
  }

  /** Has a safekeeper carry out a command that may be repeated: asks again until it answers. */
  async #ask(
    process: SimProcess,
    node: NodeId,
    command: { type: string; [field: string]: unknown },
  ): Promise<void> {
    const { bus, clock } = process.ports;
    for (;;) {
      try {
        await sendCommand(bus, 'safekeeper-node', node, command, { timeoutMs: CREATE_TIMEOUT_MS });
        return;
      } catch (error) {
        this.surroundings.world.tell(
          'operator',
          `${node} did not ${command.type}: ${(error as Error).message}`,
        );
        await clock.sleep(RESTART_MS);
      }
    }
  }

  #timelineSpec() {
    const { tenant, timeline, members, pgVersion, systemId, startLsn } = this.timeline;
    return { tenant, timeline, members, pgVersion, systemId: String(systemId), startLsn };
  }

  /** Mends everything, then demands that the timeline works again within a bound. */
  async converge(withinMs: number): Promise<void> {
    const { world } = this.surroundings;
    this.injector.heal();
    const target = this.history.end;
    const acknowledged = this.ledger.acknowledged;
    const isWorking = () =>
      this.history.end > target &&
      this.ledger.acknowledged > acknowledged &&
      this.#members.every((each) => this.#commitOf(each) > target) &&
      this.configurations?.at(-1)?.newMembers === undefined;
    const began = world.nowMs;
    await world.run({ untilMs: world.nowMs + withinMs, isDone: isWorking });
    if (world.violation) return;
    if (!isWorking()) {
      world.fail(
        'convergence',
        `${withinMs} ms after everything was mended: committed ${formatLsn(this.history.end)} ` +
          `(was ${formatLsn(target)}), ${this.#members.map((each) => `${each.node} ${formatLsn(this.#commitOf(each))}`).join(', ')}`,
      );
      return;
    }
    world.mark('converged');
    world.tell('oracle', `converged after ${Math.round(world.nowMs - began)} ms`);
  }

  /** Nobody writes any more: soon nothing much happens, or somebody asks or tries again and again without a pause. */
  async calm(perSecondMax = CALM_EVENTS_PER_SECOND_MAX): Promise<void> {
    const { world } = this.surroundings;
    for (const postgres of this.#running.values()) postgres.calm();
    await world.run({ untilMs: world.nowMs + CALM_AFTER_MS });
    const before = world.trace.events;
    await world.run({ untilMs: world.nowMs + CALM_MS });
    const perSecond = (1000 * (world.trace.events - before)) / CALM_MS;
    if (world.violation || perSecond <= perSecondMax) return;
    world.fail('who has nothing to do rests', `${perSecond} events a second while nobody writes`);
  }

  /** What must hold when everything is over. */
  checkEnd(): void {
    this.#isOver = true;
    for (const safekeeper of this.safekeepers) {
      const probe = safekeeper.probe();
      if (probe) this.#oracle.look(safekeeper.node, probe);
      if (probe) this.#checkWal(safekeeper, probe, 'at the end');
    }
    this.#objects.check();
    this.ledger.check(this.history, this.timeline.pgVersion);
  }

  // --- machines -----------------------------------------------------------------------------------------------

  #checkWal(safekeeper: SafekeeperMachine, probe: ReplicaProbe, why: string): void {
    const { node, machine } = safekeeper;
    const known = { history: this.history, walObjects: this.#objects };
    checkReplicaWal(known, { node, storage: machine.storage, probe, why });
  }

  /** The commit LSN that a safekeeper has written down; the start until then. */
  #commitOf(safekeeper: SafekeeperMachine): Lsn {
    return safekeeper.probe()?.snapshot.context.commitLsn ?? this.timeline.startLsn;
  }

  #machine(name: string): SimMachine {
    const machine = new SimMachine(name, this.surroundings);
    const random = this.#context.random.stream(`machine/${name}`);
    const { clockDrift, syncMs } = this.#options;
    machine.skew.rate = 1 + random.between(-clockDrift, clockDrift);
    machine.skew.offsetMs = Math.round(random.between(-2000, 2000));
    machine.skew.swingMs = random.chance(0.3) ? random.between(0, 500) : 0;
    machine.storage.latency.syncMs = syncMs * random.between(0.5, 3);
    return machine;
  }

  #safekeeper(name: string): SafekeeperMachine {
    const machine = this.#machine(name);
    machine.storage.lies = this.#canary?.diskLies;
    const { world } = this.surroundings;
    const safekeeper: SafekeeperMachine = new SafekeeperMachine(machine, {
      wrapDecide: this.#canary?.wrapDecide,
      bucket: this.bucket,
      // Scenarios without offload of their own are not about who lets whom pass.
      offload: { busyMs: 0, ...this.#options.offload },
      wrapPeerChannel: this.#canary?.wrapPeerChannel,
      onReplica: (probe: ReplicaProbe) => this.#oracle.started(name, probe),
      onExit: (process) => {
        world.mark('safekeeper: ended by itself');
        world.after(RESTART_MS, undefined, 'restart', () => {
          if (machine.process === process && !this.injector.isDown(name)) safekeeper.start();
        });
      },
    });
    return safekeeper;
  }

  #target(safekeeper: SafekeeperMachine): FaultTarget {
    return {
      machine: safekeeper.machine,
      isStorage: true,
      start: () => safekeeper.start(),
      crash: () => {
        const probe = safekeeper.probe();
        this.#oracle.crashed(safekeeper.node, probe);
        safekeeper.crash();
        if (probe) this.#checkWal(safekeeper, probe, 'after a crash');
      },
    };
  }

  #computeTargets(): FaultTarget[] {
    return this.#computes.map((machine) => ({
      machine,
      isStorage: false,
      start: () => {},
      crash: () => this.#killCompute(machine),
    }));
  }

  #killCompute(machine: SimMachine): void {
    machine.crash();
    this.#running.delete(machine.name);
  }

  #newCompute(name: string, how: number): void {
    const { world } = this.surroundings;
    if (how === 3) {
      for (const machine of this.#computes) this.startCompute(machine.name);
      return;
    }
    for (const machine of this.#computes) {
      const running = this.#running.get(machine.name);
      if (!running) continue;
      if (how === 1) this.#killCompute(machine);
      else if (how === 2) running.stop();
      else if (machine.name !== name) world.mark('compute: a rival was started');
    }
    this.startCompute(name);
  }
}

/** Timelines begin anywhere: often shortly before a segment's or a page's end, where headers are due. */
function drawStart(dice: number): Lsn {
  const segment = 3 * WAL_SEGMENT_BYTES;
  if (dice < 0.4) return (segment + walPageHeaderBytes(segment)) as Lsn;
  if (dice < 0.7) return (segment + WAL_SEGMENT_BYTES - 8192 * 20 + 24) as Lsn;
  return (segment + Math.floor(dice * 1000) * 8192 + 4096) as Lsn;
}
