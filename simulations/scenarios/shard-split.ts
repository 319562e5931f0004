/**
 * The whole system in a cluster whose project has its pages on several shards, or comes to have them, in every seed: what
 * `kitchen-sink` has in some of its seeds.
 */
import { RARE_SITES } from '../world/rare-sites.ts';
import { runWholeSystem } from './kitchen-sink.ts';
import type { Scenario, ScenarioContext } from './scenario.ts';

/** What is not left to the seed. */
const ALWAYS = new Set(['isCluster', 'shards']);

export const SHARD_SPLIT: Scenario = {
  name: 'shard-split',
  summary: 'the whole system in a cluster, with a project on several shards that is split while it is used',
  canaries: ['split-by-other-stripes', 'fastest-shard-counts'],
  marks: [
    'converged',
    'pageserver: a basebackup was compared',
    'pageserver: a directory was compared',
    'pageserver: a page was compared',
    'shards: a pageserver lost its disk during a split',
    'shards: a project began with several',
    'shards: a read by an old layout was redirected',
    'shards: a split was begun',
    'shards: a split was cancelled',
    'shards: a split was finished',
    'shards: a split was refused',
    'shards: nothing of an old layout was left',
    'shards: one moved',
    'shards: one refused what it does not have',
    'shards: the control plane crashed during a split',
    'shards: who read found the new ones',
  ],
  rare: RARE_SITES,
  run: (context) => runWholeSystem(withShards(context)),
};

function withShards(context: ScenarioContext): ScenarioContext {
  return {
    ...context,
    decide: (name, draw, simplest) => {
      const isFixed = ALWAYS.has(name);
      const decided = context.decide(name, draw, simplest);
      return isFixed ? (true as typeof decided) : decided;
    },
  };
}
