/** `palimpsest sim --canaries`: switches each known bug on until it is found; fails when one is not. */
import { takeTurns } from '../../../runtime/adapters/event-loop-turns.ts';
import { findCanarySeed } from '../../../simulations/runs/canary-table.ts';
import type { Scenario } from '../../../simulations/scenarios/scenario.ts';
import { EXIT_FAILURE, EXIT_OK } from '../exit-codes.ts';
import { isGiven, type SimOptions } from './options.ts';

const CANARY_SEEDS_MAX = 100;

/** Prints a row for each bug; returns the exit code. */
export async function lookForCanaries(scenarios: Scenario[], options: SimOptions): Promise<number> {
  const rows = [];
  for (const scenario of scenarios) {
    for (const canary of scenario.canaries) {
      if (options.canary !== undefined && options.canary !== canary) continue;
      const firstSeed = options.seed ?? 1;
      const seedsMax = isGiven('--seeds') ? options.seeds : CANARY_SEEDS_MAX;
      const row = await findCanarySeed({ scenario, canary, firstSeed, seedsMax, takeTurns });
      rows.push(row);
      if (options.json) continue;
      const found =
        row.seedsToFind === undefined ? `not found in ${seedsMax} seeds` : `${row.seedsToFind} seeds`;
      console.log(
        `${canary.padEnd(24)} ${scenario.name.padEnd(24)} ${found.padEnd(24)} ${row.invariant ?? ''}`,
      );
    }
  }
  if (options.json) console.log(JSON.stringify(rows, null, 2));
  return rows.every(({ seedsToFind }) => seedsToFind !== undefined) ? EXIT_OK : EXIT_FAILURE;
}
