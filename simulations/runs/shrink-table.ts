/**
 * Proves that long failures become short stories: of every known bug a failing run of many events is looked for, and made small.
 */
import type { Scenario } from '../scenarios/scenario.ts';
import type { TakeTurns } from '../world/world.ts';
import { type RunOptions, type RunResult, runSeed } from './run-seed.ts';

export interface LongFailure {
  run: RunOptions;
  failed: RunResult;
}

export interface LongFailureOptions {
  scenario: Scenario;
  canary: string;
  firstSeed: number;
  /** Seeds that are tried for each time at which the bug may begin. */
  seedsMax: number;
  /** The failing run has at least this many events. */
  eventsMin: number;
  takeTurns: TakeTurns;
}

/**
 * When a bug begins, in virtual milliseconds: at first from the beginning; many bugs are found at once then, and the run is short.
 * Those come again with code that is deployed later.
 */
const BEGINS_MS = [0, 5000, 10_000];

/** The first seed that the bug breaks after `eventsMin` events and that holds without it; undefined when there is none. */
export async function findLongFailure(options: LongFailureOptions): Promise<LongFailure | undefined> {
  const { scenario, canary, firstSeed, seedsMax, eventsMin, takeTurns } = options;
  for (const beginMs of BEGINS_MS) {
    for (let seed = firstSeed; seed < firstSeed + seedsMax; seed++) {
      const run = { scenario, seed, canary: beginMs === 0 ? canary : `${canary}@${beginMs}`, takeTurns };
      const failed = await runSeed(run);
      if (!failed.violation || failed.events < eventsMin) continue;
      if ((await runSeed({ ...run, canary: undefined })).violation) continue;
      return { run, failed };
    }
  }
  return undefined;
}
