/**
 * What an actor's journal gives after a crash must be the state that it had, or one decision further (that was being appended).
 */
import { isDeepStrictEqual } from 'node:util';
import type { AnyMachineSnapshot } from 'xstate';
import { upcastDescriptor } from '../../actors/pageserver/layer-descriptor.ts';
import type { World } from '../world/world.ts';

/** An actor as the oracle looks at it. */
export interface ReplayedActor {
  readonly kind: string;
  readonly id: string;
  /** Entries of its journal; 0 while it is down. */
  readonly sequence: number;
  snapshot(): AnyMachineSnapshot;
  stop(): Promise<void>;
}

interface State {
  sequence: number;
  value: unknown;
  context: unknown;
}

export class ReplayOracle {
  readonly #world: World;
  readonly #live = new Map<string, Map<string, ReplayedActor>>();
  readonly #atCrash = new Map<string, State>();

  constructor(world: World) {
    this.#world = world;
  }

  /** An actor has been started from its journal on a machine. */
  started(machine: string, actor: ReplayedActor): void {
    const name = `${machine}: ${actor.kind} ${actor.id}`;
    const actors = this.#live.get(machine) ?? new Map<string, ReplayedActor>();
    this.#live.set(machine, actors.set(name, actor));
    const before = this.#atCrash.get(name);
    this.#atCrash.delete(name);
    if (!before) return;
    this.#world.mark('oracle: replay compared with the live state');
    const now = stateOf(actor);
    const isFurther = now.sequence === before.sequence + 1;
    if (isFurther) return;
    if (now.sequence === before.sequence && isDeepStrictEqual(now, before)) return;
    this.#world.fail(
      'the replayed journal gives the live state',
      `${name} had entry ${before.sequence} (${String(before.value)}), its journal gives ${now.sequence} (${String(now.value)})`,
    );
  }

  /** The machine is about to lose its memory. */
  crashed(machine: string): void {
    for (const [name, actor] of this.#live.get(machine) ?? []) {
      if (actor.sequence > 0) this.#atCrash.set(name, stateOf(actor));
    }
    this.#live.delete(machine);
  }

  /** The machine, which is down, has lost its disk with all journals. */
  lost(machine: string): void {
    for (const name of [...this.#atCrash.keys()]) {
      if (name.startsWith(`${machine}: `)) this.#atCrash.delete(name);
    }
  }
}

function stateOf(actor: ReplayedActor): State {
  const { value, context } = actor.snapshot();
  return { sequence: actor.sequence, value, context: lifted(context) };
}

/** State that an earlier release has kept is lifted where it is used: then it must be what that release had. */
function lifted(context: { layers?: unknown }): unknown {
  if (!Array.isArray(context.layers)) return context;
  return { ...context, layers: context.layers.map(upcastDescriptor) };
}
