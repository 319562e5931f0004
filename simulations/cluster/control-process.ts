/**
 * The control plane on a simulated machine: the tenants and timelines of production over their journals, and what the parent
 * process does for them: it attaches timelines when the pageserver has started anew.
 */
import { COMPUTE_KIND } from '../../actors/compute/compute.ts';
import type { HistoryWindow, TenantCommand, TenantStatus } from '../../actors/tenant/events.ts';
import { ControlActors } from '../../deploy/node/control-actors.ts';
import { GarbageCollector } from '../../deploy/node/garbage-collector.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { FileJournalStore } from '../../runtime/adapters/file-journal.ts';
import { sendCommand, serveCommands } from '../../runtime/bus/command.ts';
import { SupervisedActor } from '../../runtime/host/supervisor.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { ReplayOracle } from '../oracles/replay-oracle.ts';
import type { SimMachine, SimProcess } from '../world/machine.ts';
import { observeActor, observedJournals } from './observe.ts';

export const CONTROL_KIND = 'control';
export const CONTROL_ID = 'local';
const READY_POLL_MS = 50;
const STATUS_TIMEOUT_MS = 1000;

/** What a user of the simulated system asks for. */
export type ControlRequest =
  | {
      type: 'create-project';
      name: string;
      template: { key: string; startLsn: number; systemId: string };
      safekeepers: string[];
      pageserver: string;
      history?: HistoryWindow;
    }
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
  pageserver: string;
  pgVersion: number;
  /** Pause between two collections of old history; none without it. */
  gcIntervalMs?: number;
  /** A known bug may change what the control plane tells others. */
  wrapBus?: ((bus: Bus) => Bus) | undefined;
  oracle: ReplayOracle;
  /** Commands to computes: the scenario runs them. */
  computes: { wake(timeline: string): Promise<void>; suspend(timeline: string): Promise<void> };
  onExit(process: SimProcess): void;
}

export class ControlMachine {
  readonly machine: SimMachine;
  readonly #options: ControlMachineOptions;
  #control: ControlActors | undefined;

  constructor(machine: SimMachine, options: ControlMachineOptions) {
    this.machine = machine;
    this.#options = options;
  }

  start(): void {
    this.#control = undefined;
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
    this.#control = undefined;
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

  /** The pageserver has started anew, and has forgotten what was attached. */
  pageserverStarted(): void {
    const { process } = this.machine;
    const control = this.#control;
    if (!control || !process) return;
    this.machine.surroundings.world.after(1, process, 'pageserver started', () => {
      control.attachments.beginEpoch(() => this.#pageserverReady(process));
      void control.attachments.attachAll(control.activeTimelines(() => false));
    });
  }

  async #main(process: SimProcess): Promise<void> {
    const { clock, random, log, metrics, disk } = process.ports;
    const bus = this.#options.wrapBus?.(process.ports.bus) ?? process.ports.bus;
    await disk.makeDirectory('.');
    const journals = observedJournals(process, new FileJournalStore({ disk, clock, log }));
    const services = { journals, bus, clock, random, log, metrics };
    const { oracle, computes } = this.#options;
    const control = new ControlActors({
      journals,
      bus,
      clock,
      random,
      log,
      spawner: {
        spawn: async (definition, id) => {
          const actor = new SupervisedActor(definition, id, services);
          await actor.start();
          observeActor(process, actor);
          oracle.started(this.machine.name, actor);
          return actor;
        },
      },
    });
    serveCommands<{ type: string }>(bus, COMPUTE_KIND, '*', async (command, timeline) => {
      if (command.type === 'wake') await computes.wake(timeline);
      else if (command.type === 'suspend' || command.type === 'forget') await computes.suspend(timeline);
      return {};
    });
    control.attachments.beginEpoch(() => this.#pageserverReady(process));
    await control.load();
    if (process.isDead) return;
    this.#control = control;
    void control.attachments.attachAll(control.activeTimelines(() => false));
    serveCommands<ControlRequest>(bus, CONTROL_KIND, CONTROL_ID, (request) => this.#serve(control, request));
    const { gcIntervalMs } = this.#options;
    if (gcIntervalMs === undefined) return;
    const moveBytesMin = 1;
    new GarbageCollector({
      actors: control,
      bus,
      clock,
      log,
      metrics,
      intervalMs: gcIntervalMs,
      moveBytesMin,
    }).start();
  }

  async #serve(control: ControlActors, request: ControlRequest): Promise<unknown> {
    switch (request.type) {
      case 'create-project': {
        const { type: _, history, ...spec } = request;
        return control.createProject({ ...spec, pgVersion: this.#options.pgVersion }, history);
      }
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

  async #pageserverReady(process: SimProcess): Promise<void> {
    const { bus, clock } = process.ports;
    while (!process.isDead) {
      try {
        await sendCommand(
          bus,
          'pageserver-node',
          this.#options.pageserver,
          { type: 'status' },
          { timeoutMs: STATUS_TIMEOUT_MS },
        );
        return;
      } catch {
        await clock.sleep(READY_POLL_MS);
      }
    }
  }
}
