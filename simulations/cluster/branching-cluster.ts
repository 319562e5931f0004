/**
 * A whole installation in a world: control plane, safekeepers, a pageserver, object storage, and computes that serve the
 * branches of one project. For every timeline it keeps what its WAL and its pages must be.
 */
import type { ComputeSpec } from '../../actors/compute/spec.ts';
import type { BranchStatus } from '../../actors/tenant/events.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { NodeId } from '../../protocols/ids.ts';
import { type Lsn, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import { walPageHeaderBytes } from '../../protocols/postgres/wal/page-header.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import { FaultInjector, type FaultTarget } from '../faults/injector.ts';
import { AgreedHistory } from '../oracles/agreed-history.ts';
import { CommitLedger } from '../oracles/commit-ledger.ts';
import { PageModel } from '../oracles/page-model.ts';
import { ReplayOracle } from '../oracles/replay-oracle.ts';
import type { ScenarioContext } from '../scenarios/scenario.ts';
import { SimBroker } from '../world/bus.ts';
import { SimMachine, type SimProcess, type Surroundings } from '../world/machine.ts';
import { type NetworkLimits, SimNetwork } from '../world/network.ts';
import { SimBucket } from '../world/objects.ts';
import { findCanary } from './canaries.ts';
import { CONTROL_ID, CONTROL_KIND, ControlMachine, type ControlRequest } from './control-process.ts';
import { PageserverMachine, storeEmptyTemplate, TEMPLATE_KEY } from './pageserver-process.ts';
import { SafekeeperMachine } from './safekeeper-process.ts';
import { SimPostgres, type Workload } from './sim-postgres.ts';

const PG_VERSION = 17;
const SYSTEM_ID = 7_000_000_000_000_000_002n;
const RESTART_MS = 200;
const WAKE_MS = 20_000;
const WAKE_POLL_MS = 20;
/** A user does not wait for long for a control plane that may have crashed. */
const REQUEST_TIMEOUT_MS = 8_000;
const CALM_THINK_MS = 400;
/** Much happens to layers in little WAL. */
const SMALL_LAYERS = {
  layerBytesMax: 12_000,
  compaction: { mergeLayers: 2, targetBytes: 40_000, imagePages: 24, gcGainBytesMin: 4_000 },
};
const START_LSN = (3 * WAL_SEGMENT_BYTES + walPageHeaderBytes(3 * WAL_SEGMENT_BYTES)) as Lsn;

/** A timeline with what must hold of it. */
export interface KnownTimeline {
  id: string;
  history: AgreedHistory;
  ledger: CommitLedger;
  model: PageModel;
}

export interface BranchingOptions {
  network: NetworkLimits;
  workload: Workload;
  computes: number;
  /** History ends: the project's window in bytes of WAL, and the pause between two collections. */
  history?: { bytes: number; gcIntervalMs: number };
}

export class BranchingCluster {
  readonly surroundings: Surroundings;
  readonly bucket: SimBucket;
  readonly control: ControlMachine;
  readonly pageserver: PageserverMachine;
  readonly safekeepers: SafekeeperMachine[];
  readonly injector: FaultInjector;
  readonly timelines = new Map<string, KnownTimeline>();
  readonly #context: ScenarioContext;
  readonly #options: BranchingOptions;
  readonly #computes: SimMachine[];
  /** What runs on a compute's machine. */
  readonly #running = new Map<string, { timeline: string; postgres: SimPostgres }>();

  constructor(context: ScenarioContext, options: BranchingOptions) {
    const { world } = context;
    this.#context = context;
    this.#options = options;
    const network = new SimNetwork(world, options.network);
    this.surroundings = { world, network, broker: new SimBroker(network) };
    this.bucket = new SimBucket(world);
    this.safekeepers = ['sk1', 'sk2', 'sk3'].map((name) => {
      const machine = this.machine(name);
      const safekeeper: SafekeeperMachine = new SafekeeperMachine(machine, {
        bucket: this.bucket,
        onExit: this.#restarter(machine, () => safekeeper.start()),
      });
      return safekeeper;
    });
    const pageserver = this.machine('ps1');
    this.pageserver = new PageserverMachine(
      pageserver,
      this.bucket,
      this.#restarter(pageserver, () => this.startPageserver()),
      findCanary(context.canary, context.world)?.pageserver,
      'timeline',
      options.history ? SMALL_LAYERS : {},
    );
    const control = this.machine('control');
    this.control = new ControlMachine(control, {
      pageserver: 'ps1',
      pgVersion: PG_VERSION,
      ...(options.history ? { gcIntervalMs: options.history.gcIntervalMs } : {}),
      wrapBus: findCanary(context.canary, context.world)?.wrapControlBus,
      oracle: new ReplayOracle(world),
      computes: {
        wake: (timeline) => this.#wake(timeline),
        suspend: async (timeline) => this.#suspend(timeline),
      },
      onExit: this.#restarter(control, () => this.control.start()),
    });
    this.#computes = Array.from({ length: options.computes }, (_, n) => this.machine(`compute${n + 1}`));
    this.injector = new FaultInjector({ world, network, bucket: this.bucket, targets: this.#targets() });
    storeEmptyTemplate(this.bucket, { pgVersion: PG_VERSION, systemId: SYSTEM_ID, startLsn: START_LSN });
  }

  /** A machine of this world. */
  machine(name: string): SimMachine {
    return new SimMachine(name, this.surroundings);
  }

  get hasHistoryWindow(): boolean {
    return this.#options.history !== undefined;
  }

  get storageNames(): string[] {
    return this.safekeepers.map(({ node }) => node);
  }

  get computeNames(): string[] {
    return this.#computes.map(({ name }) => name);
  }

  start(): void {
    for (const safekeeper of this.safekeepers) safekeeper.start();
    this.startPageserver();
    this.control.start();
  }

  startPageserver(): void {
    this.pageserver.start();
    this.control.pageserverStarted();
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
    const safekeepers = this.storageNames;
    return this.ask(process, {
      type: 'create-project',
      name: 'default',
      template,
      safekeepers,
      pageserver: 'ps1',
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

  /** What must hold of a branch's timeline; undefined while its ancestor is unknown. */
  known(branch: Pick<BranchStatus, 'timeline' | 'startLsn' | 'ancestor'>): KnownTimeline | undefined {
    const found = this.timelines.get(branch.timeline);
    if (found) return found;
    const { world } = this.#context;
    const ancestor = branch.ancestor && this.timelines.get(branch.ancestor.timeline);
    if (branch.ancestor && !ancestor) return undefined;
    const startLsn = branch.startLsn as Lsn;
    if (ancestor && ancestor.history.recordEndBefore(startLsn) !== startLsn) {
      world.fail('a branch begins where a committed record of its ancestor ends', `${branch.timeline}`);
    }
    const history = new AgreedHistory({
      world,
      startLsn,
      pgVersion: PG_VERSION,
      walDirectory: `timelines/${branch.timeline}/wal`,
      storages: this.safekeepers.map(({ machine }) => machine.storage),
      configurations: () => [{ generation: 1, members: this.storageNames as NodeId[] }],
      ...(ancestor ? { previousStart: ancestor.history.recordStartBefore(startLsn) } : {}),
    });
    const model = new PageModel(ancestor && { model: ancestor.model, lsn: startLsn });
    history.onRecord = (record) => model.record(record);
    const timeline = { id: branch.timeline, history, ledger: new CommitLedger(world), model };
    this.timelines.set(branch.timeline, timeline);
    return timeline;
  }

  /** Whether some compute leads the timeline, as far as it knows. */
  isLed(timeline: string): boolean {
    return [...this.#running.values()].some((each) => each.timeline === timeline && each.postgres.isLeading);
  }

  /** Keeps clients coming: computes are woken for branches, work for a while and are stopped. */
  keepBusy(random: { int(bound: number): number; chance(p: number): boolean }): void {
    const { world } = this.#context;
    const look = () => {
      for (const machine of this.#computes) {
        const running = this.#running.get(machine.name);
        if (running && random.chance(0.05)) running.postgres.stop();
        if (running || this.injector.isDown(machine.name)) continue;
        const idle = this.branches().filter(({ timeline }) => !this.#runsOn(timeline));
        const branch = idle[random.int(Math.max(1, idle.length))];
        if (branch) this.#startCompute(machine, branch.timeline);
      }
      world.after(RESTART_MS, undefined, 'clients', look);
    };
    look();
  }

  /** From now on clients think for long: what is waited for may take minutes, and their work says nothing new. */
  calm(): void {
    this.#options.workload.thinkMs = CALM_THINK_MS;
  }

  // --- computes -----------------------------------------------------------------------------------------------

  #runsOn(timeline: string): SimMachine | undefined {
    return this.#computes.find(({ name }) => this.#running.get(name)?.timeline === timeline);
  }

  #startCompute(machine: SimMachine, timeline: string): void {
    const { world } = this.#context;
    machine.start((process) => {
      void this.#runCompute(machine, process, timeline).catch((error: Error) => {
        if (!(error instanceof PalimpsestError)) throw error;
        world.mark('compute: it could not start');
        if (machine.process === process) machine.crash();
      });
    });
  }

  async #runCompute(machine: SimMachine, process: SimProcess, timeline: string): Promise<void> {
    const { world } = this.#context;
    const spec = await this.ask<ComputeSpec>(process, { type: 'compute-spec', timeline });
    const branch = this.branches().find((each) => each.timeline === timeline);
    const known = this.timelines.get(timeline) ?? (branch && this.known(branch));
    // Its safekeepers may be giving up what they acknowledge.
    if (process.isDead || !known || this.control.isGone(timeline)) return;
    const postgres = new SimPostgres(
      {
        machine,
        timeline: {
          tenant: spec.tenant,
          timeline,
          members: spec.safekeepers as NodeId[],
          pgVersion: spec.pgVersion,
          systemId: BigInt(spec.systemId),
          startLsn: spec.startLsn as Lsn,
        },
        workload: this.#options.workload,
        history: known.history,
        ledger: known.ledger,
        onExit: (reason) => {
          world.tell(machine.name, `ends: ${reason}`);
          if (this.#running.get(machine.name)?.postgres === postgres) this.#running.delete(machine.name);
        },
      },
      process,
    );
    this.#running.set(machine.name, { timeline, postgres });
    world.mark('compute: started');
    await postgres.run();
  }

  /** For the control plane: resolves when a compute leads the timeline. */
  async #wake(timeline: string): Promise<void> {
    const { world } = this.#context;
    const { process } = this.control.machine;
    if (!this.#runsOn(timeline)) {
      const free = this.#computes.find(({ name }) => !this.#running.has(name) && !this.injector.isDown(name));
      // All are at work for others: one of them gives way.
      const machine = free ?? this.#computes[0]!;
      this.#running.get(machine.name)?.postgres.stop();
      this.#startCompute(machine, timeline);
    }
    for (let waitedMs = 0; waitedMs < WAKE_MS && !this.isLed(timeline); waitedMs += WAKE_POLL_MS) {
      await process!.ports.clock.sleep(WAKE_POLL_MS);
    }
    if (!this.isLed(timeline)) throw new PalimpsestError('unavailable', 'the compute does not start');
    world.mark('control: a compute was woken');
  }

  #suspend(timeline: string): void {
    const machine = this.#runsOn(timeline);
    if (machine) this.#running.get(machine.name)?.postgres.stop();
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
    const target = (
      machine: SimMachine,
      start: () => void,
      crash = () => machine.crash(),
      isStorage = false,
    ) => ({ machine, isStorage, start, crash });
    return [
      ...this.safekeepers.map((each) =>
        target(
          each.machine,
          () => each.start(),
          () => each.crash(),
          true,
        ),
      ),
      target(this.pageserver.machine, () => this.startPageserver()),
      target(
        this.control.machine,
        () => this.control.start(),
        () => this.control.crash(),
      ),
      ...this.#computes.map((machine) =>
        target(
          machine,
          () => {},
          () => {
            machine.crash();
            this.#running.delete(machine.name);
          },
        ),
      ),
    ];
  }
}
