/**
 * The compute actors of one installation: one for each timeline, made when it is first asked for.
 */
import {
  COMPUTE_KIND,
  computeDefinition,
  suspendCompute,
  wakeCompute,
} from '../../actors/compute/compute.ts';
import { computeStatus } from '../../actors/compute/decide.ts';
import type { ComputeServices } from '../../actors/compute/effects.ts';
import type { ComputeCommand, ComputeStatus } from '../../actors/compute/events.ts';
import type { RunningCompute } from '../../actors/compute/spec.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { serveCommands } from '../../runtime/bus/command.ts';
import type {
  ActorCommand,
  ActorDefinition,
  ActorEvent,
  ActorHandle,
} from '../../runtime/host/definition.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import type { JournalStore } from '../../runtime/ports/journal.ts';

const WAKE_TIMEOUT_MS = 60_000;
const SUSPEND_TIMEOUT_MS = 60_000;

export interface ComputesOptions {
  bus: Bus;
  clock: Clock;
  journals: JournalStore;
  spawner: {
    spawn<C extends ActorCommand, E extends ActorEvent>(
      definition: ActorDefinition<C, E>,
      id: string,
    ): Promise<ActorHandle<C>>;
  };
  services: ComputeServices;
  /** The project that a timeline belongs to. Throws `not-found` for a timeline that does not exist. */
  tenantOf(timeline: string): string;
}

export class Computes {
  readonly #options: ComputesOptions;
  readonly #definition;
  readonly #actors = new Map<string, Promise<ActorHandle<ComputeCommand>>>();
  readonly #handles = new Map<string, ActorHandle<ComputeCommand>>();

  constructor(options: ComputesOptions) {
    this.#options = options;
    this.#definition = computeDefinition(options.services);
  }

  /** Serves `wake`, `suspend`, `status` and `forget` on the bus. */
  serve(): void {
    type Outside = { type: string; timeoutMs?: number };
    serveCommands<Outside>(this.#options.bus, COMPUTE_KIND, '*', async (command, timeline) => {
      switch (command.type) {
        case 'wake':
          return this.wake(timeline, { timeoutMs: command.timeoutMs ?? WAKE_TIMEOUT_MS });
        case 'suspend':
          return this.suspend(timeline);
        case 'status':
          return this.status(timeline);
        case 'forget':
          return this.forget(timeline);
        default:
          throw new PalimpsestError('invalid-argument', `unknown command of a compute: ${command.type}`);
      }
    });
  }

  async wake(timeline: string, { timeoutMs }: { timeoutMs: number }): Promise<RunningCompute> {
    const tenant = this.#options.tenantOf(timeline);
    const { clock, services } = this.#options;
    const isLive = (hostId: string) => services.hosts.isLive(hostId);
    return wakeCompute(await this.#actor(timeline), tenant, { clock, timeoutMs, isLive });
  }

  async suspend(timeline: string): Promise<ComputeStatus> {
    this.#options.tenantOf(timeline);
    const actor = await this.#actor(timeline);
    return suspendCompute(actor, { clock: this.#options.clock, timeoutMs: SUSPEND_TIMEOUT_MS });
  }

  /** A compute that nobody has asked for since the start is suspended. */
  status(timeline: string): ComputeStatus {
    const actor = this.#handles.get(timeline);
    return actor ? computeStatus(actor.snapshot()) : { timeline, state: 'suspended' };
  }

  /** Ends the compute of a timeline that is being deleted, with its journal. */
  async forget(timeline: string): Promise<void> {
    const { clock, journals } = this.#options;
    const actor = await this.#actor(timeline);
    await suspendCompute(actor, { clock, timeoutMs: SUSPEND_TIMEOUT_MS });
    this.#actors.delete(timeline);
    this.#handles.delete(timeline);
    await actor.stop();
    await journals.remove(COMPUTE_KIND, timeline);
  }

  /** Stops all computes cleanly; what does not stop in time is ended by its host's end. */
  async suspendAll(): Promise<void> {
    const stopping = [...this.#handles].map(([timeline]) => this.suspend(timeline).catch(() => {}));
    await Promise.all(stopping);
  }

  #actor(timeline: string): Promise<ActorHandle<ComputeCommand>> {
    let actor = this.#actors.get(timeline);
    if (!actor) {
      actor = this.#options.spawner.spawn(this.#definition, timeline).then((handle) => {
        this.#handles.set(timeline, handle);
        return handle;
      });
      this.#actors.set(timeline, actor);
      actor.catch(() => this.#actors.delete(timeline));
    }
    return actor;
  }
}
