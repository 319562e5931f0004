/** Nodes for a new project, and for the shards of one that is spread over more. */
import { choosePageservers, chooseSafekeepers, type PlacementState } from '../../actors/placement/plan.ts';
import type { ShardPlaces } from '../../actors/timeline/shards.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { checkShardCount, STRIPE_BLOCKS } from '../../protocols/shard-layout.ts';
import { pageserverNode, safekeeperNode } from './registry.ts';

export const SAFEKEEPERS = 3;

export interface ProjectPlace {
  safekeepers: string[];
  /** Of its first shard. */
  pageserver: string;
  shards?: ShardPlaces;
}

/** Throws `unavailable` when there are too few nodes, and `invalid-argument` for a number of shards that cannot be. */
export function placeProject(state: PlacementState, shards = 1): ProjectPlace {
  checkShardCount(shards);
  const safekeepers = chooseSafekeepers(state, SAFEKEEPERS);
  const pageservers = choosePageservers(state, shards).map(pageserverNode);
  if (safekeepers.length < SAFEKEEPERS || pageservers.length === 0) {
    throw new PalimpsestError(
      'unavailable',
      `a project needs ${SAFEKEEPERS} nodes with the role safekeeper and one with the role pageserver; there are ${safekeepers.length} and ${pageservers.length}`,
      'start more nodes; `palimpsest node list` shows those that are there',
    );
  }
  const several = shards > 1 ? { shards: { stripeBlocks: STRIPE_BLOCKS, pageservers } } : {};
  return { safekeepers: safekeepers.map(safekeeperNode), pageserver: pageservers[0]!, ...several };
}

/** Where the shards of a project are to be once it is split. */
export function placeShards(state: PlacementState, shards: number): ShardPlaces {
  checkShardCount(shards);
  const pageservers = choosePageservers(state, shards).map(pageserverNode);
  if (pageservers.length > 0) return { stripeBlocks: STRIPE_BLOCKS, pageservers };
  throw new PalimpsestError(
    'unavailable',
    'no node takes new shards',
    'start more nodes with the role pageserver; `palimpsest node list` shows those that are there',
  );
}
