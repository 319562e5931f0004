/** Proves that the simulator finds what it should: every known bug is switched on, and seeds are tried until it is found. */
import type { Scenario } from '../scenarios/scenario.ts';
import type { TakeTurns } from '../world/world.ts';
import { runSeed, SCENARIO_WORKS } from './run-seed.ts';

export interface CanaryRow {
  canary: string;
  scenario: string;
  /** How many seeds it took; undefined when none of them found it. */
  seedsToFind: number | undefined;
  seed: number | undefined;
  invariant: string | undefined;
}

export interface CanaryOptions {
  scenario: Scenario;
  canary: string;
  firstSeed: number;
  seedsMax: number;
  takeTurns: TakeTurns;
}

/**
 * Tries seeds until the canary breaks an invariant that the same seed without it keeps. Throws when the scenario fails with it, as
 * with one that it does not know: that finds nothing.
 */
export async function findCanarySeed(options: CanaryOptions): Promise<CanaryRow> {
  const { scenario, canary, firstSeed, seedsMax, takeTurns } = options;
  for (let tried = 1; tried <= seedsMax; tried++) {
    const seed = firstSeed + tried - 1;
    const { violation } = await runSeed({ scenario, seed, canary, takeTurns });
    if (!violation) continue;
    if (violation.invariant === SCENARIO_WORKS) {
      throw new Error(`${scenario.name} fails with canary ${canary}, seed ${seed}: ${violation.detail}`);
    }
    const without = await runSeed({ scenario, seed, takeTurns });
    if (without.violation) continue;
    return { canary, scenario: scenario.name, seedsToFind: tried, seed, invariant: violation.invariant };
  }
  return { canary, scenario: scenario.name, seedsToFind: undefined, seed: undefined, invariant: undefined };
}
