/**
 * The actors of one process: starts them, serves their commands on the bus, and stops them all.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { serveCommands } from '../bus/command.ts';
import type { Subscription } from '../ports/bus.ts';
import type { HostServices } from './actor-host.ts';
import type { ActorCommand, ActorDefinition, ActorEvent, ActorHandle } from './definition.ts';
import { SupervisedActor, type SupervisorOptions } from './supervisor.ts';

// biome-ignore lint/suspicious/noExplicitAny: one registry holds actors of all kinds
type AnyActor = SupervisedActor<any, any>;
// biome-ignore lint/suspicious/noExplicitAny: as above
type AnyDefinition = ActorDefinition<any, any>;

interface Entry {
  actor: AnyActor;
  started: Promise<void>;
  subscription: Subscription | undefined;
  /** Commands under way. */
  commands: number;
  /** Somebody holds its handle. */
  pinned: boolean;
}

export interface ActorSystemOptions extends HostServices {
  supervision?: SupervisorOptions;
}

export class ActorSystem {
  readonly #options: ActorSystemOptions;
  readonly #actors = new Map<string, Entry>();
  readonly #kinds = new Map<string, { definition: AnyDefinition; subscription: Subscription }>();
  #stopping = false;

  constructor(options: ActorSystemOptions) {
    this.#options = options;
  }

  /**
   * Starts one actor, or finds it, and serves its commands on `pal.cmd.<kind>.<id>`. Resolves when it has replayed its journal;
   * throws when that fails.
   */
  async start<C extends ActorCommand, E extends ActorEvent>(
    definition: ActorDefinition<C, E>,
    id: string,
  ): Promise<ActorHandle<C>> {
    const served = this.#kinds.has(definition.kind);
    const entry = this.#entry(definition, id, !served);
    entry.pinned = true;
    await entry.started;
    return entry.actor;
  }

  /**
   * Serves all actors of a kind: a command to one that does not run starts it. An actor that has no journal and nothing to do
   * after a command is dropped again, so that asking for what does not exist leaves nothing behind.
   * Only for kinds whose actors all live in this process.
   */
  serveKind<C extends ActorCommand, E extends ActorEvent>(definition: ActorDefinition<C, E>): void {
    if (this.#kinds.has(definition.kind)) throw new RangeError(`kind ${definition.kind} is served already`);
    const subscription = serveCommands<C>(this.#options.bus, definition.kind, '*', (command, id) =>
      this.dispatch(definition.kind, id, command),
    );
    this.#kinds.set(definition.kind, { definition, subscription });
  }

  /** Starts every actor of a served kind that has a journal; for actors with effects or deadlines to go on with. */
  async startAll(kind: string): Promise<ActorHandle[]> {
    const definition = this.#definitionOf(kind);
    const ids = await this.#options.journals.list(kind);
    const results = await Promise.allSettled(ids.map((id) => this.start(definition, id)));
    return results.flatMap((result, index) => {
      if (result.status === 'fulfilled') return [result.value];
      this.#options.log.error(
        { error: result.reason, actor: `${kind}/${ids[index]}` },
        'an actor cannot be started',
      );
      return [];
    });
  }

  /** A running actor. */
  get<C extends ActorCommand = ActorCommand>(kind: string, id: string): ActorHandle<C> | undefined {
    return this.#actors.get(`${kind}/${id}`)?.actor;
  }

  /** All actors of a kind that are held here. */
  running(kind: string): ActorHandle[] {
    return [...this.#actors.values()].map(({ actor }) => actor).filter((actor) => actor.kind === kind);
  }

  /** Sends a command to an actor of this process; starts it first when its kind is served. */
  async dispatch(kind: string, id: string, command: ActorCommand): Promise<unknown> {
    const entry = this.#actors.get(`${kind}/${id}`) ?? this.#entry(this.#definitionOf(kind), id, false);
    entry.commands++;
    try {
      await entry.started;
      return await entry.actor.dispatch(command);
    } finally {
      entry.commands--;
      await this.#dropWhenEmpty(entry);
    }
  }

  /** Stops one actor and forgets it; its journal stays. */
  async stop(kind: string, id: string): Promise<void> {
    const entry = this.#actors.get(`${kind}/${id}`);
    if (!entry) return;
    this.#actors.delete(`${kind}/${id}`);
    entry.subscription?.unsubscribe();
    await entry.started.catch(() => {});
    await entry.actor.stop();
  }

  async stopAll(): Promise<void> {
    this.#stopping = true;
    for (const { subscription } of this.#kinds.values()) subscription.unsubscribe();
    this.#kinds.clear();
    await Promise.all([...this.#actors.values()].map(({ actor }) => this.stop(actor.kind, actor.id)));
  }

  #entry(definition: AnyDefinition, id: string, serve: boolean): Entry {
    if (this.#stopping)
      throw new PalimpsestError('unavailable', 'this process is stopping', 'try again later');
    const key = `${definition.kind}/${id}`;
    const existing = this.#actors.get(key);
    if (existing) return existing;
    const actor: AnyActor = new SupervisedActor(definition, id, this.#options, this.#options.supervision);
    const started = actor.start().catch((error) => {
      this.#actors.delete(key);
      entry.subscription?.unsubscribe();
      throw error;
    });
    const entry: Entry = { actor, started, subscription: undefined, commands: 0, pinned: false };
    this.#actors.set(key, entry);
    if (serve) {
      entry.subscription = serveCommands(this.#options.bus, definition.kind, id, async (command) => {
        await started;
        return actor.dispatch(command);
      });
    }
    started.catch(() => {});
    return entry;
  }

  async #dropWhenEmpty({ actor, commands, pinned }: Entry): Promise<void> {
    if (pinned || commands > 0 || actor.phase !== 'running') return;
    if (actor.sequence > 0 || actor.outstandingEffects > 0) return;
    await this.stop(actor.kind, actor.id);
  }

  #definitionOf(kind: string): AnyDefinition {
    const served = this.#kinds.get(kind);
    if (!served) throw new PalimpsestError('not-found', `no actors of kind ${kind} live in this process`);
    return served.definition;
  }
}
