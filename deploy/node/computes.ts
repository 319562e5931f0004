/**
 * The compute actors of one installation, made when they are first asked for: one for each timeline, and one for each moment
 * that somebody reads at. Those of moments are forgotten, with their journals, when nobody has used them for a while.
 */
import {
  COMPUTE_KIND,
  computeDefinition,
  suspendCompute,
  wakeCompute,
} from '../../actors/compute/compute.ts';
import { computeId, parseComputeId } from '../../actors/compute/compute-id.ts';
import { computeStatus } from '../../actors/compute/decide.ts';
import type { ComputeServices } from '../../actors/compute/effects.ts';
import type { ComputeCommand, ComputeStatus } from '../../actors/compute/events.ts';
import type { RunningCompute } from '../../actors/compute/spec.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { lsn } from '../../protocols/lsn.ts';
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
import { inParallel, JOURNALS_AT_A_TIME } from './in-parallel.ts';

const WAKE_TIMEOUT_MS = 60_000;
const SUSPEND_TIMEOUT_MS = 60_000;
/** A moment's compute that has ended is remembered for so long, so that its state can be asked. */
const FORGET_MOMENT_AFTER_MS = 30_000;

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
  /** Told when the compute of a moment has ended and is not about to start again. */
  onMomentEnded?(id: string): void;
  /** The project that a timeline belongs to. Throws `not-found` for a timeline that does not exist. */
  tenantOf(timeline: string): string;
}

export class Computes {
  readonly #options: ComputesOptions;
  readonly #definition;
  readonly #actors = new Map<string, Promise<ActorHandle<ComputeCommand>>>();
  readonly #handles = new Map<string, ActorHandle<ComputeCommand>>();
  /** Removals under way: an actor of the same id is made only after its predecessor's journal is gone. */
  readonly #removing = new Map<string, Promise<void>>();

  constructor(options: ComputesOptions) {
    this.#options = options;
    this.#definition = computeDefinition(options.services);
  }

  /** Removes what computes of moments have left behind: they are gone with the process that watched them. */
  async clean(): Promise<void> {
    const { journals } = this.#options;
    const ids = await journals.list(COMPUTE_KIND);
    const moments = ids.filter((id) => parseComputeId(id).fixedLsn !== undefined);
    await inParallel(moments, (id) => journals.remove(COMPUTE_KIND, id), JOURNALS_AT_A_TIME);
  }

  /** Starts the actors of all computes that ever ran, where computes outlive the process that watched them. */
  async loadAll(): Promise<void> {
    const ids = await this.#options.journals.list(COMPUTE_KIND);
    await inParallel(ids, (id) => this.#actor(id), JOURNALS_AT_A_TIME);
  }

  /** Stops the compute in a host cleanly and starts it again, in another host. */
  async restartElsewhere(hostId: string): Promise<void> {
    const found = [...this.#handles].find(
      ([, actor]) => computeStatus(actor.snapshot()).compute?.hostId === hostId,
    );
    if (!found) return;
    const [timeline] = found;
    await this.suspend(timeline);
    await this.wake(timeline, { timeoutMs: WAKE_TIMEOUT_MS });
  }

  /** Computes of moments that have not been forgotten. */
  moments(): ComputeStatus[] {
    return [...this.#handles.values()]
      .map((actor) => computeStatus(actor.snapshot()))
      .filter(({ fixedLsn }) => fixedLsn !== undefined);
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
    const tenant = this.#options.tenantOf(parseComputeId(timeline).timeline);
    const { clock, services } = this.#options;
    const isLive = (hostId: string) => services.hosts.isLive(hostId);
    return wakeCompute(await this.#actor(timeline), tenant, { clock, timeoutMs, isLive });
  }

  async suspend(timeline: string): Promise<ComputeStatus> {
    this.#options.tenantOf(parseComputeId(timeline).timeline);
    const actor = await this.#actor(timeline);
    return suspendCompute(actor, { clock: this.#options.clock, timeoutMs: SUSPEND_TIMEOUT_MS });
  }

  /** A compute that nobody has asked for since the start is suspended. */
  status(timeline: string): ComputeStatus {
    const actor = this.#handles.get(timeline);
    return actor ? computeStatus(actor.snapshot()) : { ...parseComputeId(timeline), state: 'suspended' };
  }

  /** Ends the computes of a timeline that is being deleted, those of its moments too, with their journals. */
  async forget(timeline: string): Promise<void> {
    const { clock } = this.#options;
    const moments = this.moments().filter((status) => status.timeline === timeline);
    for (const id of [timeline, ...moments.map(computeTargetId)]) {
      const actor = await this.#actor(id);
      await suspendCompute(actor, { clock, timeoutMs: SUSPEND_TIMEOUT_MS });
      await this.#remove(id, actor);
    }
  }

  /** Stops all computes cleanly; what does not stop in time is ended by its host's end. */
  async suspendAll(): Promise<void> {
    const stopping = [...this.#handles].map(([timeline]) => this.suspend(timeline).catch(() => {}));
    await Promise.all(stopping);
  }

  #actor(timeline: string): Promise<ActorHandle<ComputeCommand>> {
    let actor = this.#actors.get(timeline);
    if (!actor) {
      const removed = this.#removing.get(timeline) ?? Promise.resolve();
      const spawning = removed.then(() => this.#options.spawner.spawn(this.#definition, timeline));
      actor = spawning.then((handle) => {
        this.#handles.set(timeline, handle);
        if (parseComputeId(timeline).fixedLsn !== undefined) this.#followMoment(handle);
        return handle;
      });
      this.#actors.set(timeline, actor);
      actor.catch(() => this.#actors.delete(timeline));
    }
    return actor;
  }

  #followMoment(actor: ActorHandle<ComputeCommand>): void {
    let hasEnded = true;
    actor.subscribe((snapshot) => {
      const { state } = computeStatus(snapshot);
      const ended = state === 'suspended' || state === 'failed';
      if (ended === hasEnded) return;
      hasEnded = ended;
      if (!ended) return;
      this.#options.onMomentEnded?.(actor.id);
      this.#options.clock.setTimer(FORGET_MOMENT_AFTER_MS, () => {
        if (hasEnded && this.#handles.get(actor.id) === actor)
          void this.#remove(actor.id, actor).catch(() => {});
      });
    });
  }

  async #remove(id: string, actor: ActorHandle<ComputeCommand>): Promise<void> {
    this.#actors.delete(id);
    this.#handles.delete(id);
    const removing = actor.stop().then(() => this.#options.journals.remove(COMPUTE_KIND, id));
    const settled = removing.catch(() => {});
    this.#removing.set(id, settled);
    await removing.finally(() => {
      if (this.#removing.get(id) === settled) this.#removing.delete(id);
    });
  }
}

function computeTargetId({ timeline, fixedLsn }: ComputeStatus): string {
  return computeId({ timeline, ...(fixedLsn === undefined ? {} : { fixedLsn: lsn(fixedLsn) }) });
}
