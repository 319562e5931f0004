/** All scenarios that come with Palimpsest. */
import { CONSENSUS_SCENARIOS } from './consensus.ts';
import { PAGESERVER_SCENARIOS } from './pageserver.ts';
import type { Scenario } from './scenario.ts';

export const SCENARIOS: Scenario[] = [...CONSENSUS_SCENARIOS, ...PAGESERVER_SCENARIOS];

export function findScenario(name: string): Scenario | undefined {
  return SCENARIOS.find((scenario) => scenario.name === name);
}
