/**
 * An actor's state as a pure fold of its journal: the machine's snapshot, the effects that have no completion yet, and the
 * deadlines that wait. Live and replay use this same code, so that they cannot differ.
 *
 * 1. An effect's id is `<sequence>.<index>`: the entry that named it, and its place among that entry's effects.
 * 2. An entry may complete one effect. From then on that effect is never issued again.
 * 3. A deadline is named by its event's type: a newer one replaces the older, and the event itself, however it came, clears it.
 */
import type { AnyMachineSnapshot } from 'xstate';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { ActorCommand, ActorDefinition, ActorEvent } from './definition.ts';
import {
  initialStep,
  type KeptSnapshot,
  keepSnapshot,
  type NamedAction,
  restoreSnapshot,
  step,
} from './machine.ts';

/** Name of the built-in action that arms or clears a deadline. */
export const DEADLINE_ACTION = 'deadline';

/** Parameters of the `deadline` action. Without `at` the deadline of that event's type is cleared. */
export interface DeadlineParams {
  /** Milliseconds since 1970. */
  at?: number;
  event: ActorEvent;
}

/** One journal entry: a decision's events, or an effect's outcome. */
export interface EntryData {
  events: ActorEvent[];
  /** Id of the effect whose outcome this is. */
  completes?: string;
}

export interface OutstandingEffect {
  id: string;
  type: string;
  params: unknown;
}

/** State in the form that snapshots keep. */
export interface KeptState {
  version: 1;
  machine: KeptSnapshot;
  outstanding: OutstandingEffect[];
  deadlines: { at: number; event: ActorEvent }[];
}

/** One event of an entry with the machine's state right after it. */
export interface AppliedEvent {
  event: ActorEvent;
  index: number;
  snapshot: AnyMachineSnapshot;
}

// biome-ignore lint/suspicious/noExplicitAny: the fold does not care which commands and events an actor has
type AnyDefinition = ActorDefinition<any, any>;

export class ActorState {
  readonly sequence: number;
  readonly snapshot: AnyMachineSnapshot;
  readonly outstanding: ReadonlyMap<string, OutstandingEffect>;
  readonly deadlines: ReadonlyMap<string, { at: number; event: ActorEvent }>;

  private constructor(
    sequence: number,
    snapshot: AnyMachineSnapshot,
    outstanding: ReadonlyMap<string, OutstandingEffect>,
    deadlines: ReadonlyMap<string, { at: number; event: ActorEvent }>,
  ) {
    this.sequence = sequence;
    this.snapshot = snapshot;
    this.outstanding = outstanding;
    this.deadlines = deadlines;
  }

  /** A new actor's state. */
  static initial(definition: AnyDefinition, id: string): ActorState {
    const { snapshot, actions } = initialStep(definition.machine, definition.input?.(id));
    const changes = new Changes(new Map(), new Map(), 0);
    changes.take(definition, actions);
    return new ActorState(0, snapshot, changes.outstanding, changes.deadlines);
  }

  static restore(definition: AnyDefinition, sequence: number, data: unknown): ActorState {
    const kept = data as KeptState;
    if (kept?.version !== 1)
      throw new RangeError(`snapshot of actor ${definition.kind} has an unknown version`);
    return new ActorState(
      sequence,
      restoreSnapshot(definition.machine, kept.machine),
      new Map(kept.outstanding.map((effect) => [effect.id, effect])),
      new Map(kept.deadlines.map((deadline) => [deadline.event.type, deadline])),
    );
  }

  keep(): KeptState {
    return {
      version: 1,
      machine: keepSnapshot(this.snapshot),
      outstanding: [...this.outstanding.values()],
      deadlines: [...this.deadlines.values()],
    };
  }

  /** The state after one entry; this one stays as it is. Throws when the machine cannot take an event. */
  apply(definition: AnyDefinition, entry: EntryData): { state: ActorState; applied: AppliedEvent[] } {
    const sequence = this.sequence + 1;
    const changes = new Changes(this.outstanding, this.deadlines, sequence);
    if (entry.completes !== undefined) changes.complete(entry.completes);
    let snapshot = this.snapshot;
    const applied: AppliedEvent[] = [];
    entry.events.forEach((stored, index) => {
      checkVersion(definition, stored);
      const event: ActorEvent = definition.upcast ? definition.upcast(stored) : stored;
      changes.clearDeadline(event.type);
      const next = step(definition.machine, snapshot, event);
      snapshot = next.snapshot;
      changes.take(definition, next.actions);
      applied.push({ event, index, snapshot });
    });
    return { state: new ActorState(sequence, snapshot, changes.outstanding, changes.deadlines), applied };
  }
}

/** To read a newer shape as if it were known would be to forget what it says. */
function checkVersion({ kind, versions }: AnyDefinition, { type, v = 1 }: ActorEvent): void {
  const known = versions?.[type] ?? 1;
  if (v <= known) return;
  throw new PalimpsestError(
    'unsupported',
    `a journal of kind ${kind} has an event ${type} of version ${v}; this Palimpsest knows version ${known}`,
    'it was written by a newer Palimpsest: use that one',
  );
}

/** Collects what an entry changes; copies a map only when it does. */
class Changes {
  outstanding: ReadonlyMap<string, OutstandingEffect>;
  deadlines: ReadonlyMap<string, { at: number; event: ActorEvent }>;
  readonly #sequence: number;
  #nextIndex = 0;

  constructor(
    outstanding: ReadonlyMap<string, OutstandingEffect>,
    deadlines: ReadonlyMap<string, { at: number; event: ActorEvent }>,
    sequence: number,
  ) {
    this.outstanding = outstanding;
    this.deadlines = deadlines;
    this.#sequence = sequence;
  }

  complete(id: string): void {
    const outstanding = new Map(this.outstanding);
    outstanding.delete(id);
    this.outstanding = outstanding;
  }

  clearDeadline(type: string): void {
    if (!this.deadlines.has(type)) return;
    const deadlines = new Map(this.deadlines);
    deadlines.delete(type);
    this.deadlines = deadlines;
  }

  take(definition: ActorDefinition<ActorCommand, ActorEvent>, actions: NamedAction[]): void {
    for (const { type, params } of actions) {
      if (type === DEADLINE_ACTION) this.#arm(params as DeadlineParams);
      else if (Object.hasOwn(definition.effects, type)) {
        const id = `${this.#sequence}.${this.#nextIndex++}`;
        this.outstanding = new Map(this.outstanding).set(id, { id, type, params });
      } else throw new RangeError(`actor ${definition.kind} has no effect named '${type}'`);
    }
  }

  #arm({ at, event }: DeadlineParams): void {
    if (at === undefined) this.clearDeadline(event.type);
    else this.deadlines = new Map(this.deadlines).set(event.type, { at, event });
  }
}
