/**
 * The one history of an actor's journal, whoever owns it: the state after an entry is the same for every owner that ever lived,
 * live and replayed. A decision that was told to anybody is never replaced.
 */
import type { World } from '../world/world.ts';
import type { ReplayedActor } from './replay-oracle.ts';

export class JournalHistory {
  readonly #world: World;
  readonly #states = new Map<number, string>();
  #newest = 0;

  constructor(world: World) {
    this.#world = world;
  }

  get newest(): number {
    return this.#newest;
  }

  /** Looks at an actor now and after each of its decisions. */
  observe(actor: ReplayedActor & { subscribe(listener: () => void): unknown }): void {
    const { sequence } = actor;
    if (sequence < this.#newest) {
      // An owner that has just opened the journal has all that was told before.
      this.#world.fail(
        'a decision is never lost',
        `${actor.kind} ${actor.id} was opened at entry ${sequence}, ${this.#newest} were decided`,
      );
    }
    const look = () => this.#look(actor);
    actor.subscribe(look);
    look();
  }

  #look(actor: ReplayedActor): void {
    const { sequence } = actor;
    if (sequence === 0) return;
    const { value, context } = actor.snapshot();
    const state = JSON.stringify([value, context]);
    const known = this.#states.get(sequence);
    this.#states.set(sequence, known ?? state);
    this.#newest = Math.max(this.#newest, sequence);
    if (known === undefined) return;
    this.#world.mark('oracle: two owners agreed about a decision');
    if (known === state) return;
    this.#world.fail(
      'a journal has one history',
      `after entry ${sequence} of ${actor.kind} ${actor.id} one owner has ${known.slice(0, 200)}, another ${state.slice(0, 200)}`,
    );
  }
}
