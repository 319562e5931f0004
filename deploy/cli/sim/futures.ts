/**
 * `palimpsest sim --fork EVENT --futures K`: the run of one seed up to an event, and from there K futures that differ in every
 * random number and in the faults to come. So a rare state, once reached, is explored in many ways.
 */

import { PalimpsestError } from '../../../protocols/errors.ts';
import { takeTurns } from '../../../runtime/adapters/event-loop-turns.ts';
import { describeFailure } from '../../../simulations/runs/report.ts';
import { type RunResult, runSeed } from '../../../simulations/runs/run-seed.ts';
import type { Scenario } from '../../../simulations/scenarios/scenario.ts';
import { EXIT_FAILURE, EXIT_OK } from '../exit-codes.ts';
import { Output } from '../output.ts';
import type { SimOptions } from './options.ts';
import { writePicture } from './picture-file.ts';
import { repeatCommand } from './repeat.ts';

/** Runs all futures; returns the exit code. */
export async function runFutures(scenarios: Scenario[], options: SimOptions): Promise<number> {
  const [scenario, ...others] = scenarios;
  if (!scenario || others.length > 0) {
    throw new PalimpsestError(
      'invalid-argument',
      '--fork needs one scenario',
      'name it with --scenario, and its seed with --seed',
    );
  }
  const { seed = 1, fork: event = 1, only, simple, canary, effort } = options;
  const run = { scenario, seed, takeTurns, only, simple, canary, effort };
  const numbers =
    options.future === undefined
      ? Array.from({ length: options.futures }, (_, at) => at + 1)
      : [options.future];
  const results: RunResult[] = [];
  for (const future of numbers) results.push(await runSeed({ ...run, fork: { event, future } }));
  const reached = results.every(({ marks }) => marks.forked !== undefined);
  if (!reached) {
    throw new PalimpsestError(
      'invalid-argument',
      `the run of seed ${seed} ends after ${results[0]!.events} events, before event ${event}`,
      'choose an earlier event',
    );
  }
  const failed = results.filter(({ violation }) => violation);
  const rows = results.map(({ fork, violation, events, hash }) => ({
    future: fork!.future,
    events,
    hash,
    broken: violation?.invariant ?? null,
  }));
  const lines = rows.map(
    ({ future, events, broken }) =>
      `future ${String(future).padStart(3)}  ${events} events  ${broken ?? 'holds'}`,
  );
  lines.push(
    `${results.length} futures from event ${event} of seed ${seed}: ${failed.length} broke an invariant`,
  );
  if (failed[0])
    lines.push('', describeFailure(failed[0]), '', `Repeat it with: ${repeatCommand(failed[0], options)}`);
  if (options.html) {
    const shown = failed[0] ?? results.at(-1)!;
    await writePicture(options.html, { ...run, fork: shown.fork });
    lines.push('', `The picture is in ${options.html}`);
  }
  const repeat = failed[0] ? repeatCommand(failed[0], options) : undefined;
  new Output(options.json ?? false).result(
    { scenario: scenario.name, seed, event, futures: rows, repeat },
    lines.join('\n'),
  );
  return failed.length === 0 ? EXIT_OK : EXIT_FAILURE;
}
