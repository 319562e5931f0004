/**
 * Where the shards of a simulated installation are put, and what moves: placement is that of production, over the pageservers that
 * there are. Stripes are as small as the run has drawn, so that few pages are on all shards.
 */
import { type PlacementState, plan } from '../../actors/placement/plan.ts';
import type { ProjectSpec } from '../../actors/tenant/events.ts';
import type { ShardPlaces } from '../../actors/timeline/shards.ts';
import type { PageserverMoves } from '../../deploy/cluster/pageserver-moves.ts';
import { placeShards } from '../../deploy/cluster/project-places.ts';
import type { PageserverLife } from '../../deploy/cluster/registry.ts';
import type { SimProcess } from '../world/machine.ts';
import type { SimRandom } from '../world/random.ts';

export interface ShardPlacementOptions {
  stripeBlocks: number;
  /** What is on a pageserver that is down moves away from it. */
  leavesLost: boolean;
}

export interface ShardPlacementServices {
  process: SimProcess;
  moves: PageserverMoves;
  nodes(): PageserverLife[];
}

export class ShardPlacement {
  readonly #options: ShardPlacementOptions;
  readonly #services: ShardPlacementServices;
  readonly #random: SimRandom;

  constructor(options: ShardPlacementOptions, services: ShardPlacementServices) {
    this.#options = options;
    this.#services = services;
    this.#random = services.process.ports.random.stream('shard moves') as SimRandom;
  }

  /** For a new project of so many shards. */
  first(count: number): Pick<ProjectSpec, 'pageserver' | 'shards'> {
    const shards = this.next(count);
    return { pageserver: shards.pageservers[0]!, ...(count > 1 ? { shards } : {}) };
  }

  /** For a project that is to have so many. */
  next(count: number): ShardPlaces {
    return { ...placeShards(this.#state(), count), stripeBlocks: this.#options.stripeBlocks };
  }

  /** What is on a pageserver that is down goes elsewhere, as the plan of production says. */
  follow(): void {
    if (!this.#options.leavesLost) return;
    const { world } = this.#services.process.machine.surroundings;
    for (const step of plan(this.#state())) {
      if (step.type !== 'move-pageserver') continue;
      world.mark('shards: one moved away from a pageserver that was lost');
      void this.#services.moves.move(step);
    }
  }

  /** One shard of each project goes to another pageserver, whatever becomes of the one that has it. */
  moveOne(): void {
    const { moves, nodes, process } = this.#services;
    const { world } = process.machine.surroundings;
    const random = this.#random;
    for (const { tenant, pageserver, shards } of moves.placed()) {
      const { shard, node: from } = shards ? random.pick(shards) : { shard: undefined, node: pageserver };
      const others = nodes().filter(({ name }) => name !== from);
      if (others.length === 0) continue;
      const to = random.pick(others).name;
      world.mark(shard ? 'shards: one moved' : 'pageserver: the project moved');
      void moves.move({
        type: 'move-pageserver',
        tenant,
        ...(shard ? { shard } : {}),
        from,
        to,
        why: 'drawn',
      });
    }
  }

  #state(): PlacementState {
    const { moves, nodes } = this.#services;
    return {
      nodes: nodes().map(({ name, alive }) => {
        return { name, zone: 'z', roles: ['pageserver'], alive, draining: false };
      }),
      projects: moves.placed(),
      computes: [],
    };
  }
}
