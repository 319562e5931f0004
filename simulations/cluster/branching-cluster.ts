/**
 * A whole installation in a world: control plane, safekeepers, pageservers, object storage, and computes that serve the
 * branches of one project. For every timeline it keeps what its WAL and its pages must be.
 */
import type { ComputeSpec } from '../../actors/compute/spec.ts';
import type { OffloadTimings } from '../../actors/safekeeper/offloader.ts';
import type { BranchStatus } from '../../actors/tenant/events.ts';
import type { TimelineStatus } from '../../actors/timeline/events.ts';
import type { PageserverNodeOptions } from '../../deploy/node/pageserver-node.ts';
import type { Membership } from '../../protocols/consensus/membership.ts';
import type { NodeId } from '../../protocols/ids.ts';
import { type Lsn, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import { walPageHeaderBytes } from '../../protocols/postgres/wal/page-header.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import { FaultInjector, type FaultTarget } from '../faults/injector.ts';
import { ComputeOracle } from '../oracles/compute-oracle.ts';
import { ListedObjects } from '../oracles/listed-objects.ts';
import { ReplayOracle } from '../oracles/replay-oracle.ts';
import { ShardOracle } from '../oracles/shard-oracle.ts';
import type { ScenarioContext } from '../scenarios/scenario.ts';
import { SimBroker } from '../world/bus.ts';
import { SimMachine, type SimProcess, type Surroundings } from '../world/machine.ts';
import { type NetworkLimits, SimNetwork } from '../world/network.ts';
import { SimBucket } from '../world/objects.ts';
import { type Canary, findCanary } from './canaries.ts';
import { changedCommands } from './changed-bus.ts';
import { ComputeFleet } from './compute-fleet.ts';
import { CONTROL_ID, CONTROL_KIND, ControlMachine, type ControlRequest } from './control-process.ts';
import { type KnownTimeline, KnownTimelines } from './known-timelines.ts';
import { PageAccess } from './page-access.ts';
import { PageserverMachine, storeEmptyTemplate, TEMPLATE_KEY } from './pageserver-process.ts';
import { SafekeeperMachine } from './safekeeper-process.ts';
import type { ShardPlacementOptions } from './shard-placement.ts';
import type { SimPostgresOptions, Workload } from './sim-postgres.ts';
import { NEVER_MS, type PlacementOptions } from './storage-care.ts';

const PG_VERSION = 17;
const SYSTEM_ID = 7_000_000_000_000_000_002n;
/** For scenarios that are not about the life of computes. */
const SUSPEND_AFTER_MS = 1500;
const ACTIVITY_INTERVAL_MS = 100;
const SESSION_MS = 3000;
const RESTART_MS = 200;
const LOOK_MS = 200;
/** A user does not wait for long for a control plane that may have crashed. */
const REQUEST_TIMEOUT_MS = 8_000;
/** Much happens to layers in little WAL. */
const SMALL_LAYERS = {
  layerBytesMax: 12_000,
  compaction: { mergeLayers: 2, targetBytes: 40_000, imagePages: 24, gcGainBytesMin: 4_000 },
};
const START_LSN = (3 * WAL_SEGMENT_BYTES + walPageHeaderBytes(3 * WAL_SEGMENT_BYTES)) as Lsn;

export interface BranchingOptions {
  network: NetworkLimits;
  workload: Workload;
  computes: number;
  /** When computes that nobody uses are suspended (0: never), and the pause between two looks. */
  suspendAfterMs?: number;
  activityIntervalMs?: number;
  /** How long clients of computes stay, in the mean. */
  sessionMs?: number;
  /** History ends: the project's window in bytes of WAL, and the pause between two collections. */
  history?: { bytes: number; gcIntervalMs: number };
  /** That a timeline begins with; three when absent. */
  safekeepers?: number;
  /** Safekeepers beyond those. */
  spares?: number;
  /** Two pageservers, between which the project moves, instead of one that is started again. */
  isCluster?: boolean;
  /** In a cluster: what placement does by itself; nothing when absent. */
  placement?: { leavesLost: boolean; replaceAfterMs: number };
  /** In a cluster: how many shards the project begins with, and on how many pageservers. */
  shards?: (ShardPlacementOptions & { first: number; pageservers: number }) | undefined;
  offload?: Partial<OffloadTimings>;
  sizes?: NonNullable<PageserverNodeOptions['sizes']>;
  /** How wrong clocks and how slow disks are. */
  machines?: { clockDrift: number; syncMs: number };
  /** What a compute is told of the members of its timeline may be over. */
  membershipTold?: (configurations: readonly Membership[], told: Membership) => Membership;
  onServing?(timeline: string): SimPostgresOptions['onServing'];
}

export class BranchingCluster {
  readonly surroundings: Surroundings;
  readonly bucket: SimBucket;
  readonly control: ControlMachine;
  readonly pageservers: PageserverMachine[];
  readonly safekeepers: SafekeeperMachine[];
  readonly injector: FaultInjector;
  readonly known: KnownTimelines;
  readonly computes: ComputeFleet;
  readonly computeOracle: ComputeOracle;
  readonly listed: ListedObjects;
  readonly shards: ShardOracle;
  readonly pages: PageAccess;
  /** Whether the project is being split, as far as that was seen. */
  isSplitting = false;
  /** Nodes that everything is to leave. */
  readonly drained = new Set<string>();
  readonly #context: ScenarioContext;
  readonly #options: BranchingOptions;
  readonly #canary: Canary | undefined;
  readonly #replays: ReplayOracle;
  readonly #computeMachines: SimMachine[];
  /** The safekeeper whose disk was lost, until it has all that it is to have. */
  #lostDisk: SafekeeperMachine | undefined;

  constructor(context: ScenarioContext, options: BranchingOptions) {
    const { world } = context;
    this.#context = context;
    this.#options = options;
    this.#canary = findCanary(context.canary, world);
    const network = new SimNetwork(world, options.network);
    this.surroundings = { world, network, broker: new SimBroker(network) };
    this.bucket = new SimBucket(world);
    this.shards = this.#shardOracle();
    this.listed = new ListedObjects(world, this.bucket, (folder) => this.shards.mayGo(folder));
    const wrapChannel = this.#canary?.wrapPageChannel;
    this.pages = new PageAccess({ world, isSharded: options.shards !== undefined, wrapChannel });
    this.#replays = new ReplayOracle(world);
    const all = (options.safekeepers ?? 3) + (options.spares ?? 0);
    this.safekeepers = Array.from({ length: all }, (_, n) =>
      this.#safekeeper(`${options.isCluster ? 'sk-' : 'sk'}${n + 1}`),
    );
    const members = this.#members();
    const { safekeepers, bucket } = this;
    const isDeleted = (timeline: string) => this.shards.isDeleted(timeline);
    const pgVersion = PG_VERSION;
    this.known = new KnownTimelines({ world, bucket, pgVersion, safekeepers, members, isDeleted });
    const count = options.shards?.pageservers ?? 2;
    const names = options.isCluster ? ['ps-a', 'ps-b', 'ps-c', 'ps-d'].slice(0, count) : ['ps1'];
    this.pageservers = names.map((name) => this.#pageserver(name));
    this.computeOracle = new ComputeOracle({
      world,
      suspendAfterMs: this.#suspendAfterMs,
      historyOf: (timeline) => this.known.all.get(timeline)?.history,
    });
    this.control = this.#control();
    this.#computeMachines = Array.from({ length: options.computes }, (_, n) =>
      this.#computeMachine(`compute${n + 1}`),
    );
    this.computes = this.#fleet();
    this.injector = new FaultInjector({
      world,
      network,
      bucket: this.bucket,
      targets: this.#targets(),
      onNewCompute: (name, how) => this.computes.startRival(name, how),
      onLostDisk: (name) => this.loseDisk(name),
      onPagesMove: () => this.control.movePages(),
    });
    storeEmptyTemplate(this.bucket, { pgVersion: PG_VERSION, systemId: SYSTEM_ID, startLsn: START_LSN });
  }

  /** A machine of this world. */
  machine(name: string): SimMachine {
    const machine = new SimMachine(name, this.surroundings);
    const { machines } = this.#options;
    if (!machines) return machine;
    const random = this.#context.random.stream(`machine/${name}`);
    machine.skew.rate = 1 + random.between(-machines.clockDrift, machines.clockDrift);
    machine.skew.offsetMs = Math.round(random.between(-2000, 2000));
    machine.storage.latency.syncMs = machines.syncMs * random.between(0.5, 3);
    return machine;
  }

  /** On a single machine all processes have the same clock. */
  #computeMachine(name: string): SimMachine {
    const machine = this.machine(name);
    if (!this.#options.isCluster) Object.assign(machine.skew, this.control.machine.skew);
    return machine;
  }

  get #suspendAfterMs(): number {
    return this.#options.suspendAfterMs ?? SUSPEND_AFTER_MS;
  }

  get hasHistoryWindow(): boolean {
    return this.#options.history !== undefined;
  }

  get storageNames(): string[] {
    return this.safekeepers.map(({ node }) => node);
  }

  get computeNames(): string[] {
    return this.#computeMachines.map(({ name }) => name);
  }

  get pageserverNames(): string[] {
    return this.pageservers.map(({ node }) => node);
  }

  start(): void {
    for (const safekeeper of this.safekeepers) safekeeper.start();
    for (const pageserver of this.pageservers) this.startPageserver(pageserver);
    this.computes.startAll();
    this.control.start();
  }

  startPageserver(pageserver: PageserverMachine): void {
    pageserver.start();
    this.control.pageserverStarted();
  }

  /** Starts everything that is down. */
  startAll(): void {
    for (const safekeeper of this.safekeepers)
      if (!safekeeper.machine.isUp) this.#startSafekeeper(safekeeper);
    for (const pageserver of this.pageservers) {
      if (!pageserver.machine.isUp) this.startPageserver(pageserver);
    }
    this.computes.startAll();
    if (!this.control.machine.isUp) this.control.start();
    this.computeOracle.mended();
  }

  /** All safekeepers lose their memory at once, and the pageservers all that they have. */
  cutPower(): void {
    for (const safekeeper of this.safekeepers) this.known.crash(safekeeper);
    for (const safekeeper of this.safekeepers) this.#startSafekeeper(safekeeper);
    for (const pageserver of this.pageservers) {
      pageserver.loseDisk();
      this.startPageserver(pageserver);
    }
    this.#context.world.tell('world', 'a power cut: pageservers lose their disks, all safekeepers crashed');
  }

  /** Asks the control plane, as the command line does. Throws its rejection, `unavailable` or `timeout`. */
  ask<T>(process: SimProcess, request: ControlRequest): Promise<T> {
    return sendCommand<T>(process.ports.bus, CONTROL_KIND, CONTROL_ID, request, {
      timeoutMs: REQUEST_TIMEOUT_MS,
    });
  }

  /** The project of every run, from the empty template. */
  createProject(process: SimProcess): Promise<unknown> {
    const template = { key: TEMPLATE_KEY, startLsn: START_LSN, systemId: String(SYSTEM_ID) };
    return this.ask(process, {
      type: 'create-project',
      name: 'default',
      template,
      safekeepers: this.#members(),
      pageserver: this.pageserverNames[0]!,
      ...(this.#options.shards ? { shards: this.#options.shards.first } : {}),
      ...(this.#options.history ? { history: { ms: 0, bytes: this.#options.history.bytes } } : {}),
    });
  }

  /** The branches that can be used, as the control plane knows them now. */
  branches(): BranchStatus[] {
    return this.allBranches().filter(({ state }) => state === 'ready');
  }

  /** Those that cannot be used now, too. */
  allBranches(): BranchStatus[] {
    return this.control.projects().flatMap(({ branches }) => branches);
  }

  /** Timelines whose safekeepers are just being changed. */
  get changing(): TimelineStatus[] {
    return this.control.timelines(['active', 'archived']).filter(({ newMembers }) => newMembers);
  }

  /** Whether a safekeeper has lost its disk, and not yet got all that it is to have. */
  get hasLostDisk(): boolean {
    return this.#lostDisk !== undefined;
  }

  /** What the safekeeper that lost its disk still lacks. */
  get lacking(): TimelineStatus[] {
    const lost = this.#lostDisk;
    if (!lost) return [];
    const has = new Set(lost.probes().map(({ snapshot }) => snapshot.context.identity.timeline));
    return this.control
      .timelines(['placing', 'active', 'archiving', 'archived'])
      .filter(({ timeline, members }) => members.includes(lost.node) && !has.has(timeline));
  }

  // --- disks that are lost --------------------------------------------------------------------------------------

  /** A machine loses its disk. Fault budget: a pageserver's disk at any time; one safekeeper's at a time, and none while members change. */
  loseDisk(name: string): void {
    const { world } = this.#context;
    const pageserver = this.pageservers.find(({ node }) => node === name);
    if (pageserver) {
      const wasUp = pageserver.machine.isUp;
      pageserver.loseDisk();
      world.mark('pageserver: its disk was lost');
      if (this.isSplitting) world.mark('shards: a pageserver lost its disk during a split');
      if (wasUp) this.startPageserver(pageserver);
      return;
    }
    const safekeeper = this.safekeepers.find(({ node }) => node === name);
    const isKnown = this.control.timelines().length > 0;
    if (!safekeeper || this.#options.isCluster || this.#lostDisk || !isKnown || this.changing.length > 0)
      return;
    this.#lostDisk = safekeeper;
    const wasUp = safekeeper.machine.isUp;
    this.known.crash(safekeeper);
    safekeeper.machine.storage.wipe();
    this.known.lost(name);
    world.mark('safekeeper: a disk was lost');
    world.tell(name, 'its disk is lost');
    if (wasUp) this.#startSafekeeper(safekeeper);
    this.#watchLost(safekeeper);
  }

  /** Until it has a replica of every timeline again that it is a member of. */
  #watchLost(safekeeper: SafekeeperMachine): void {
    const { world } = this.#context;
    world.after(LOOK_MS, undefined, 'lost disk', () => {
      const isBack = this.control.timelines().length > 0 && this.lacking.length === 0;
      if (!isBack) return this.#watchLost(safekeeper);
      this.#lostDisk = undefined;
      world.mark('safekeeper: joined again after its disk was lost');
      world.tell(safekeeper.node, 'has all its timelines again');
    });
  }

  #shardOracle(): ShardOracle {
    const { world } = this.#context;
    return new ShardOracle({
      world,
      bucket: this.bucket,
      timelines: () => this.control.timelines(['active', 'archiving', 'archived']),
      replicas: () => this.safekeepers.flatMap((each) => each.probes()),
    });
  }

  // --- machines -------------------------------------------------------------------------------------------------

  #members(): NodeId[] {
    return this.safekeepers.slice(0, this.#options.safekeepers ?? 3).map(({ node }) => node);
  }

  #safekeeper(name: string): SafekeeperMachine {
    const machine = this.machine(name);
    const canary = this.#canary;
    machine.storage.lies = canary?.diskLies;
    const safekeeper: SafekeeperMachine = new SafekeeperMachine(machine, {
      bucket: this.bucket,
      ...(this.#options.offload ? { offload: this.#options.offload } : {}),
      ...(canary?.wrapDecide ? { wrapDecide: canary.wrapDecide } : {}),
      ...(canary?.wrapPeerChannel ? { wrapPeerChannel: canary.wrapPeerChannel } : {}),
      onReplica: (probe) => this.known.replicaStarted(name, probe),
      onExit: this.#restarter(machine, () => this.#startSafekeeper(safekeeper)),
    });
    return safekeeper;
  }

  #startSafekeeper(safekeeper: SafekeeperMachine): void {
    safekeeper.start();
    this.control.safekeeperStarted(safekeeper.node);
  }

  #pageserver(name: string): PageserverMachine {
    const machine = this.machine(name);
    const { sizes, history } = this.#options;
    const pageserver: PageserverMachine = new PageserverMachine(
      machine,
      this.bucket,
      this.#restarter(machine, () => this.startPageserver(pageserver)),
      this.#canary?.pageserver,
      'timeline',
      sizes ?? (history ? SMALL_LAYERS : {}),
    );
    pageserver.replays = this.#replays;
    return pageserver;
  }

  #placement(): PlacementOptions {
    const { safekeepers, drained } = this;
    const { leavesLost = false, replaceAfterMs = NEVER_MS } = this.#options.placement ?? {};
    return { safekeepers, drained, leavesLost, replaceAfterMs };
  }

  #control(): ControlMachine {
    const { history, isCluster } = this.#options;
    const machine = this.machine('control');
    const control: ControlMachine = new ControlMachine(machine, {
      pageservers: this.pageservers,
      pgVersion: PG_VERSION,
      ...(history ? { gcIntervalMs: history.gcIntervalMs } : {}),
      ...(isCluster
        ? { shards: this.#options.shards, placement: this.#placement() }
        : { repaired: this.#members() }),
      wrapBus: (bus) => this.#watched(this.#canary?.wrapControlBus?.(bus) ?? bus),
      oracle: this.#replays,
      onTimeline: (timeline, actor) => this.known.watch(timeline, actor),
      computes: {
        fleet: () => this.computes,
        oracle: this.computeOracle,
        suspendAfterMs: this.#suspendAfterMs,
      },
      onExit: this.#restarter(machine, () => control.start()),
    });
    return control;
  }

  /** The control plane's bus: what it has decided to delete may go. */
  #watched(bus: Bus): Bus {
    const joinsAsNew = this.#canary?.joinsAsNew;
    const deletes = changedCommands(bus, 'pageserver-node', (command) => {
      this.shards.told(command);
      return command;
    });
    if (!joinsAsNew) return deletes;
    return changedCommands(deletes, 'safekeeper-node', ({ rejoin: _, ...command }) => command);
  }

  #fleet(): ComputeFleet {
    const { workload, membershipTold, onServing, isCluster = false, activityIntervalMs } = this.#options;
    const oracle = this.computeOracle;
    const sessionMs = this.#options.sessionMs ?? SESSION_MS;
    return new ComputeFleet({
      world: this.#context.world,
      machines: this.#computeMachines,
      gateway: this.machine('gateway'),
      isCluster,
      sessionMs,
      oracle,
      workload,
      activityIntervalMs: activityIntervalMs ?? ACTIVITY_INTERVAL_MS,
      canary: this.#canary,
      usable: () => this.branches().map(({ timeline }) => timeline),
      specOf: (process, timeline) => this.ask<ComputeSpec>(process, { type: 'compute-spec', timeline }),
      known: (timeline) => this.#knownTimeline(timeline),
      membershipTold: (timeline, told) =>
        membershipTold?.(this.known.configurationsOf(timeline), told) ?? told,
      isGone: (timeline) => this.control.isGone(timeline),
      onMisplaced: (timeline, expectedLsn) => oracle.misplaced(timeline, expectedLsn),
      ...(onServing ? { onServing } : {}),
    });
  }

  #knownTimeline(timeline: string): KnownTimeline | undefined {
    const branch = this.branches().find((each) => each.timeline === timeline);
    return this.known.all.get(timeline) ?? (branch && this.known.of(branch));
  }

  // --- faults -------------------------------------------------------------------------------------------------

  #restarter(machine: SimMachine, start: () => void): (process: SimProcess) => void {
    return (process) => {
      this.#context.world.after(RESTART_MS, undefined, 'restart', () => {
        if (machine.process === process && !this.injector.isDown(machine.name)) start();
      });
    };
  }

  #targets(): FaultTarget[] {
    const { known, control, computes } = this;
    const target = (machine: SimMachine, start: () => void, crash: () => void, isStorage = false) => ({
      machine,
      isStorage,
      start,
      crash,
    });
    return [
      ...this.safekeepers.map((each) =>
        target(
          each.machine,
          () => this.#startSafekeeper(each),
          () => known.crash(each),
          true,
        ),
      ),
      ...this.pageservers.map((each) =>
        target(
          each.machine,
          () => this.startPageserver(each),
          () => each.crash(),
        ),
      ),
      target(
        control.machine,
        () => control.start(),
        () => {
          if (this.isSplitting) this.#context.world.mark('shards: the control plane crashed during a split');
          control.crash();
        },
      ),
      ...this.#computeMachines.map((machine) =>
        target(
          machine,
          () => computes.start(machine),
          () => machine.crash(),
        ),
      ),
    ];
  }
}
