/** Runs an actor definition over a journal kept by the caller: the smallest host that obeys the definition's rules. */
import type { AnyMachineSnapshot } from 'xstate';
import { type createMachine, initialTransition, transition } from 'xstate';
import { PalimpsestError } from '../../protocols/errors.ts';
import type {
  ActorCommand,
  ActorDefinition,
  ActorEvent,
  ActorHandle,
} from '../../runtime/host/definition.ts';

/** Stores decisions; resolves when they are durable. */
export type KeepDecision<E> = (events: E[]) => Promise<void>;

export class TestActor<C extends ActorCommand, E extends ActorEvent> implements ActorHandle<C> {
  readonly id: string;
  readonly kind: string;
  readonly #definition: ActorDefinition<C, E>;
  readonly #keep: KeepDecision<E>;
  readonly #listeners = new Set<(snapshot: AnyMachineSnapshot) => void>();
  #snapshot: AnyMachineSnapshot;
  #chain: Promise<unknown> = Promise.resolve();

  constructor(
    definition: ActorDefinition<C, E>,
    options: { id: string; events: E[]; keep: KeepDecision<E> },
  ) {
    this.id = options.id;
    this.kind = definition.kind;
    this.#definition = definition;
    this.#keep = options.keep;
    const machine = definition.machine as ReturnType<typeof createMachine>;
    [this.#snapshot] = initialTransition(machine) as unknown as [AnyMachineSnapshot];
    for (const event of options.events) this.#fold(event);
  }

  snapshot(): AnyMachineSnapshot {
    return this.#snapshot;
  }

  keep(): unknown {
    const { value, context } = this.#snapshot;
    return { value, context };
  }

  dispatch(command: C): Promise<unknown> {
    const run = this.#chain.then(() => this.#run(command));
    this.#chain = run.catch(() => {});
    return run;
  }

  subscribe(listener: (snapshot: AnyMachineSnapshot) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async stop(): Promise<void> {}

  async #run(command: C): Promise<unknown> {
    const decision = this.#definition.decide(this.#snapshot, command, {
      id: this.id,
      now: 0,
      random: undefined as never,
    });
    if ('reject' in decision) throw PalimpsestError.fromWire(decision.reject);
    if (decision.events.length > 0) {
      await this.#keep(decision.events);
      for (const event of decision.events) this.#fold(event);
      for (const listener of this.#listeners) listener(this.#snapshot);
    }
    return decision.reply;
  }

  #fold(event: E): void {
    const machine = this.#definition.machine as ReturnType<typeof createMachine>;
    [this.#snapshot] = transition(machine, this.#snapshot as never, event as never) as unknown as [
      AnyMachineSnapshot,
    ];
  }
}
