/**
 * The owner of one timeline on a simulated machine: the timeline actor of production over its journal, which crashes and comes back.
 * There is no pageserver: whoever is asked to attach says yes.
 */
import type { TimelineCommand, TimelineSpec } from '../../actors/timeline/events.ts';
import { TIMELINE_KIND, timelineDefinition } from '../../actors/timeline/timeline.ts';
import type { Membership } from '../../protocols/consensus/membership.ts';
import { FileJournalStore } from '../../runtime/adapters/file-journal.ts';
import { sendCommand, serveCommands } from '../../runtime/bus/command.ts';
import { SupervisedActor } from '../../runtime/host/supervisor.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { ReplayOracle } from '../oracles/replay-oracle.ts';
import type { SimMachine, SimProcess } from '../world/machine.ts';
import { Configurations } from './configurations.ts';
import { observeActor, observedJournals } from './observe.ts';

const RESTART_MS = 200;

export interface TimelineMachineOptions {
  machine: SimMachine;
  timeline: string;
  spec: TimelineSpec;
  oracle: ReplayOracle;
  /** A known bug may change what the timeline hears from safekeepers. */
  wrapBus?: ((bus: Bus) => Bus) | undefined;
  isDown(): boolean;
}

export class TimelineMachine {
  readonly #options: TimelineMachineOptions;
  readonly #configurations: Configurations;

  constructor(options: TimelineMachineOptions) {
    this.#options = options;
    const { machine } = options;
    this.#configurations = new Configurations(machine.surroundings.world, machine.name);
  }

  /** Every configuration that was ever decided, the oldest first. */
  get configurations(): readonly Membership[] {
    return this.#configurations.all;
  }

  get machine(): SimMachine {
    return this.#options.machine;
  }

  /** active, as soon as the timeline can be used. */
  get state(): string {
    return this.#configurations.state;
  }

  get newest(): Membership {
    return this.#configurations.newest!;
  }

  start(): void {
    this.machine.start((process) => {
      this.#main(process).catch((error: Error) => {
        process.ports.log.error({}, `the timeline's owner cannot start: ${error.message}`);
        this.#restart(process);
      });
    });
  }

  crash(): void {
    this.#options.oracle.crashed(this.machine.name);
    this.machine.crash();
  }

  async #main(process: SimProcess): Promise<void> {
    const { timeline, spec, oracle, wrapBus } = this.#options;
    const { clock, random, log, metrics, disk } = process.ports;
    const bus = wrapBus?.(process.ports.bus) ?? process.ports.bus;
    await disk.makeDirectory('.');
    const journals = observedJournals(process, new FileJournalStore({ disk, clock, log }));
    const definition = timelineDefinition({
      send: (kind, id, command, options) =>
        sendCommand(bus, kind, id, command, { ...options, watch: process.ports }),
      attached: () => Promise.resolve(),
      pageserverReady: () => Promise.resolve(),
    });
    serveCommands(bus, 'pageserver-node', spec.pageserver, async () => ({}));
    const services = { journals, bus, clock, random, log, metrics };
    const actor = new SupervisedActor(definition, timeline, services, {
      onDown: () => this.#restart(process),
    });
    await actor.start();
    if (process.isDead) return;
    observeActor(process, actor);
    oracle.started(this.machine.name, actor);
    this.#configurations.watch(actor);
    serveCommands<TimelineCommand>(bus, TIMELINE_KIND, timeline, (command) => actor.dispatch(command));
    if (this.state === 'absent') await actor.dispatch({ type: 'create', spec });
  }

  #restart(process: SimProcess): void {
    const { machine } = this;
    machine.surroundings.world.after(RESTART_MS, undefined, 'restart', () => {
      if (machine.process === process && !this.#options.isDown()) this.start();
    });
  }
}
