/** All scenarios that come with Palimpsest. */
import { BRANCH_SCENARIOS } from './branches.ts';
import { CONSENSUS_SCENARIOS } from './consensus.ts';
import { KITCHEN_SINK } from './kitchen-sink.ts';
import { NATS_LEADER_CHANGE } from './nats-leader-change.ts';
import { PAGESERVER_SCENARIOS } from './pageserver.ts';
import { REPLACED_SAFEKEEPER } from './replaced-safekeeper.ts';
import type { Scenario } from './scenario.ts';
import { SHARD_SPLIT } from './shard-split.ts';
import { LOST_DISK, TRIMMED_WAL } from './trimmed-wal.ts';
import { ZOMBIE_PAGESERVER } from './zombie-pageserver.ts';

export const SCENARIOS: Scenario[] = [
  ...CONSENSUS_SCENARIOS,
  TRIMMED_WAL,
  LOST_DISK,
  REPLACED_SAFEKEEPER,
  ...PAGESERVER_SCENARIOS,
  ZOMBIE_PAGESERVER,
  ...BRANCH_SCENARIOS,
  NATS_LEADER_CHANGE,
  SHARD_SPLIT,
  KITCHEN_SINK,
];

export function findScenario(name: string): Scenario | undefined {
  return SCENARIOS.find((scenario) => scenario.name === name);
}
