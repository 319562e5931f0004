/**
 * The control plane on a simulated machine: the tenants and timelines of production over their journals, and what is done for them
 * when storage changes.
 */
import type { HistoryWindow, TenantCommand, TenantStatus } from '../../actors/tenant/events.ts';
import type { TimelineCommand, TimelineStatus } from '../../actors/timeline/events.ts';
import { TIMELINE_KIND } from '../../actors/timeline/timeline.ts';
import { ControlActors } from '../../deploy/node/control-actors.ts';
import { GarbageCollector } from '../../deploy/node/garbage-collector.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { FileJournalStore } from '../../runtime/adapters/file-journal.ts';
import { serveCommands } from '../../runtime/bus/command.ts';
import type { ActorHandle } from '../../runtime/host/definition.ts';
import { SupervisedActor } from '../../runtime/host/supervisor.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { ComputeOracle } from '../oracles/compute-oracle.ts';
import type { ReplayOracle } from '../oracles/replay-oracle.ts';
import type { SimMachine, SimProcess } from '../world/machine.ts';
import { ComputeControl } from './compute-control.ts';
import type { ComputeFleet } from './compute-fleet.ts';
import { observeActor, observedJournals, snapshotsOf } from './observe.ts';
import type { PageserverMachine } from './pageserver-process.ts';
import type { ShardPlacementOptions } from './shard-placement.ts';
import { type PlacementOptions, StorageCare } from './storage-care.ts';

export const CONTROL_KIND = 'control';
export const CONTROL_ID = 'local';

/** What a user of the simulated system asks for. */
export type ControlRequest =
  | {
      type: 'create-project';
      name: string;
      template: { key: string; startLsn: number; systemId: string };
      safekeepers: string[];
      pageserver: string;
      history?: HistoryWindow;
      shards?: number;
    }
  | { type: 'split-project'; name: string; shards: number }
  | { type: 'cancel-split'; name: string }
  | { type: 'create-branch'; command: Extract<TenantCommand, { type: 'branch.create' }> }
  | { type: 'restore-branch'; command: Extract<TenantCommand, { type: 'branch.restore' | 'branch.reset' }> }
  | {
      type: 'archive-branch';
      command: Extract<TenantCommand, { type: 'branch.archive' | 'branch.unarchive' }>;
    }
  | { type: 'detach-branch'; name: string }
  | { type: 'delete-branch'; name: string }
  | { type: 'compute-spec'; timeline: string }
  | { type: 'projects' };

export interface ControlMachineOptions {
  /** With several the installation is a cluster: projects move from one to another. */
  pageservers: readonly PageserverMachine[];
  /** Safekeepers that lost their disk join their timelines again, as on a single machine. */
  repaired?: readonly string[];
  /** In a cluster. */
  placement?: PlacementOptions | undefined;
  /** Projects may have shards. */
  shards?: ShardPlacementOptions | undefined;
  /** The actor of a timeline runs, from its journal. */
  onTimeline?(id: string, actor: ActorHandle<TimelineCommand>): void;
  pgVersion: number;
  /** Pause between two collections of old history; none without it. */
  gcIntervalMs?: number;
  /** A known bug may change what the control plane tells others. */
  wrapBus?: ((bus: Bus) => Bus) | undefined;
  oracle: ReplayOracle;
  computes: { fleet: () => ComputeFleet; oracle: ComputeOracle; suspendAfterMs: number };
  onExit(process: SimProcess): void;
}

export class ControlMachine {
  readonly machine: SimMachine;
  readonly #options: ControlMachineOptions;
  #control: ControlActors | undefined;
  #care: StorageCare | undefined;

  constructor(machine: SimMachine, options: ControlMachineOptions) {
    this.machine = machine;
    this.#options = options;
  }

  start(): void {
    this.#forget();
    this.machine.start((process) => {
      this.#main(process).catch((error: Error) => {
        process.ports.log.error({}, `the control plane cannot start: ${error.message}`);
        this.#options.onExit(process);
      });
    });
  }

  crash(): void {
    this.#options.oracle.crashed(this.machine.name);
    this.machine.crash();
    this.#forget();
  }

  #forget(): void {
    this.#options.computes.oracle.crashed();
    this.#control = undefined;
    this.#care = undefined;
  }

  /** All projects as the live actors know them; empty while it is down. */
  projects(): TenantStatus[] {
    return this.machine.isUp && !this.machine.process!.isPaused ? (this.#control?.projects() ?? []) : [];
  }

  /** Whether a timeline is being deleted, as far as the live actors know. */
  isGone(timeline: string): boolean {
    if (!this.machine.isUp || !this.#control) return false;
    try {
      return ['deleting', 'deleted'].includes(this.#control.timelineWithProject(timeline).timeline.state);
    } catch {
      return true;
    }
  }

  /** Where a timeline's history window begins, as the live actors know it; undefined while they are down. */
  cutoffOf(timeline: string): number | undefined {
    return this.machine.isUp && !this.machine.process!.isPaused
      ? this.#control?.cutoffOf(timeline)
      : undefined;
  }

  /** Timelines in one of these states, as the live actors know them; none while they are down. */
  timelines(states?: readonly string[]): TimelineStatus[] {
    return this.machine.isUp && !this.machine.process!.isPaused
      ? (this.#control?.timelineStatuses(states) ?? [])
      : [];
  }

  /** A pageserver has started anew, and has forgotten what was attached. */
  pageserverStarted(): void {
    this.#inOwnTurn((care) => care.pageserverStarted());
  }

  /** A safekeeper has started, perhaps on an empty disk. */
  safekeeperStarted(node: string): void {
    this.#inOwnTurn((care) => care.safekeeperStarted(node));
  }

  /** All projects go to another pageserver, whatever becomes of the one that has them. */
  movePages(): void {
    this.#inOwnTurn((care) => care.movePages());
  }

  #inOwnTurn(work: (care: StorageCare) => void): void {
    const { process } = this.machine;
    const care = this.#care;
    if (!care || !process) return;
    this.machine.surroundings.world.after(1, process, 'storage has changed', () => work(care));
  }

  async #main(process: SimProcess): Promise<void> {
    const { clock, random, log, metrics, disk } = process.ports;
    const bus = this.#options.wrapBus?.(process.ports.bus) ?? process.ports.bus;
    await disk.makeDirectory('.');
    const journals = observedJournals(process, new FileJournalStore({ disk, clock, log }));
    const services = { journals, bus, clock, random, log, metrics, ...snapshotsOf(process) };
    const { oracle, computes, pageservers, shards, placement } = this.#options;
    const spawner: ConstructorParameters<typeof ControlActors>[0]['spawner'] = {
      spawn: async (definition, id) => {
        const actor = new SupervisedActor(computes.oracle.observed(definition), id, services);
        await actor.start();
        observeActor(process, actor);
        oracle.started(this.machine.name, actor);
        computes.oracle.started(actor as never);
        if (definition.kind === TIMELINE_KIND) this.#options.onTimeline?.(id, actor as never);
        return actor;
      },
    };
    const control = new ControlActors({
      journals,
      bus,
      clock,
      random,
      log,
      spawner,
      ...(placement
        ? {
            pageserverOf: (tenant: string) => care.pageserverOf(tenant),
            safekeepersOf: (tenant: string) => care.membersFor(tenant),
          }
        : {}),
      ...(shards ? { placesOf: (tenant: string, count: number) => care.placesOf(tenant, count) } : {}),
    });
    const care = new StorageCare({
      control,
      process,
      pageservers,
      repaired: this.#options.repaired ?? [],
      bus,
      placement,
      shards,
    });
    const { suspendAfterMs } = computes;
    const fleet = computes.fleet();
    const compute = new ComputeControl({ control, process, bus, journals, spawner, fleet, suspendAfterMs });
    care.begin();
    await control.load();
    if (process.isDead) return;
    this.#control = control;
    this.#care = care;
    await compute.serve();
    await care.adopt();
    await compute.adopt();
    serveCommands<ControlRequest>(bus, CONTROL_KIND, CONTROL_ID, (request) => this.#serve(control, request));
    const { gcIntervalMs } = this.#options;
    if (gcIntervalMs === undefined) return;
    const moveBytesMin = 1;
    new GarbageCollector({
      actors: control,
      bus,
      clock,
      random,
      log,
      metrics,
      intervalMs: gcIntervalMs,
      moveBytesMin,
    }).start();
  }

  async #serve(control: ControlActors, request: ControlRequest): Promise<unknown> {
    switch (request.type) {
      case 'create-project': {
        const { type: _, history, shards, ...spec } = request;
        const placed = shards === undefined ? {} : this.#care!.shards!.first(shards);
        return control.createProject({ ...spec, ...placed, pgVersion: this.#options.pgVersion }, history);
      }
      case 'split-project': {
        const { shards } = this.#care!;
        if (!shards) throw new PalimpsestError('unsupported', 'on one machine a project has one shard');
        return control.splitProject(request.name, shards.next(request.shards));
      }
      case 'cancel-split':
        return control.cancelSplit(request.name);
      case 'create-branch':
        return control.createBranch(undefined, request.command);
      case 'restore-branch':
        return control.restoreBranch(undefined, request.command);
      case 'archive-branch':
        return control.archiveBranch(undefined, request.command);
      case 'detach-branch':
        return control.detachBranch(undefined, request.name);
      case 'delete-branch':
        await control.deleteBranch(undefined, request.name);
        return {};
      case 'compute-spec':
        return control.computeSpec(request.timeline);
      case 'projects':
        return control.projects();
      default:
        throw new PalimpsestError('unsupported', `no request '${(request as { type: string }).type}'`);
    }
  }
}
