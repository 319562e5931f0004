/**
 * Where the shards of a simulated installation are put, and what moves: placement is that of production, over the pageservers that
 * there are. Stripes are as small as the run has drawn, so that few pages are on all shards.
 */
import type { ProjectSpec } from '../../actors/tenant/events.ts';
import type { ShardPlaces } from '../../actors/timeline/shards.ts';
import { placeShards } from '../../deploy/cluster/project-places.ts';
import type { StoragePlacement } from '../../deploy/cluster/storage-placement.ts';
import type { SimProcess } from '../world/machine.ts';
import type { SimRandom } from '../world/random.ts';

export interface ShardPlacementOptions {
  stripeBlocks: number;
}

export interface ShardPlacementServices {
  process: SimProcess;
  placement: StoragePlacement;
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
    return {
      ...placeShards(this.#services.placement.state(), count),
      stripeBlocks: this.#options.stripeBlocks,
    };
  }

  /** One shard of each project goes to another pageserver, whatever becomes of the one that has it. */
  moveOne(): void {
    const { placement, process } = this.#services;
    const nodes = placement.state().nodes.filter(({ roles }) => roles.includes('pageserver'));
    const { world } = process.machine.surroundings;
    const random = this.#random;
    for (const { tenant, pageserver, shards } of placement.pageservers.placed()) {
      const { shard, node: from } = shards ? random.pick(shards) : { shard: undefined, node: pageserver };
      const others = nodes.filter(({ name }) => name !== from);
      if (others.length === 0) continue;
      const to = random.pick(others).name;
      world.mark(shard ? 'shards: one moved' : 'pageserver: the project moved');
      void placement.pageservers.move({
        type: 'move-pageserver',
        tenant,
        ...(shard ? { shard } : {}),
        from,
        to,
        why: 'drawn',
      });
    }
  }
}
