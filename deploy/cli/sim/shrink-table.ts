/** `palimpsest sim --shrink-canaries EVENTS`: makes a long failing run of each known bug small, and prints how small and how soon. */
import { performance } from 'node:perf_hooks';
import { takeTurns } from '../../../runtime/adapters/event-loop-turns.ts';
import { shrink } from '../../../simulations/runs/shrink.ts';
import { findLongFailure } from '../../../simulations/runs/shrink-table.ts';
import type { Scenario } from '../../../simulations/scenarios/scenario.ts';
import { EXIT_FAILURE, EXIT_OK } from '../exit-codes.ts';
import { limitedTurns } from './limits.ts';
import { isGiven, type SimOptions } from './options.ts';

const SEEDS_MAX = 60;
const RUNS_MAX = 1000;
/** What must be reached for a row to be fine. */
const DECISIONS_MAX = 50;
const SECONDS_MAX = 60;

interface ShrinkRow {
  canary: string;
  scenario: string;
  found?: {
    repeat: string;
    invariant: string;
    events: number;
    before: number;
    after: number;
    eventsAfter: number;
    runs: number;
    wall: { seconds: number };
  };
  isFine: boolean;
}

/** Prints a row for each bug of the scenarios; the exit code says whether all are fine. */
export async function shrinkCanaries(scenarios: Scenario[], options: SimOptions): Promise<number> {
  const rows: ShrinkRow[] = [];
  if (!options.json) console.log(HEAD);
  for (const scenario of scenarios) {
    for (const canary of scenario.canaries) {
      if (options.canary !== undefined && options.canary !== canary) continue;
      const row = await shrinkOne(scenario, canary, options);
      rows.push(row);
      if (!options.json) console.log(toLine(row));
    }
  }
  if (options.json) console.log(JSON.stringify(rows, null, 2));
  else
    console.log(
      `\n${rows.filter(({ isFine }) => isFine).length} of ${rows.length} within ${DECISIONS_MAX} decisions and ${SECONDS_MAX} s`,
    );
  return rows.every(({ isFine }) => isFine) ? EXIT_OK : EXIT_FAILURE;
}

async function shrinkOne(scenario: Scenario, canary: string, options: SimOptions): Promise<ShrinkRow> {
  const failure = await findLongFailure({
    scenario,
    canary,
    firstSeed: options.seed ?? 1,
    seedsMax: isGiven('--seeds') ? options.seeds : SEEDS_MAX,
    eventsMin: options.shrinkCanaries!,
    takeTurns,
  });
  if (!failure) return { canary, scenario: scenario.name, isFine: false };
  const { run, failed } = failure;
  const began = performance.now();
  const limited = { ...run, takeTurns: limitedTurns(SECONDS_MAX * 1000 - END_MS) };
  const { result, before, after, runs } = await shrink({ run: limited, failed, runsMax: RUNS_MAX });
  const seconds = Math.round((performance.now() - began) / 100) / 10;
  return {
    canary,
    scenario: scenario.name,
    found: {
      repeat: `--seed ${run.seed} --canary ${run.canary}`,
      invariant: failed.violation!.invariant,
      events: failed.events,
      before,
      after,
      eventsAfter: result.events,
      runs,
      wall: { seconds },
    },
    isFine: after <= DECISIONS_MAX && seconds <= SECONDS_MAX,
  };
}

/** The search ends this much before its time, so that it has ended in time. */
const END_MS = 1000;

const HEAD = `| bug | scenario | run | events | decisions | left | events left | runs | seconds | fine |
|---|---|---|---|---|---|---|---|---|---|`;

function toLine({ canary, scenario, found, isFine }: ShrinkRow): string {
  const cells = found
    ? [
        `\`${found.repeat}\``,
        found.events,
        found.before,
        found.after,
        found.eventsAfter,
        found.runs,
        found.wall.seconds,
      ]
    : ['no run is so long', '', '', '', '', '', ''];
  return `| ${[`\`${canary}\``, scenario, ...cells, isFine ? 'yes' : 'no'].join(' | ')} |`;
}
