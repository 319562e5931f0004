/**
 * `palimpsest sim`: runs the production actors in the deterministic simulator and says what broke.
 *
 * Nothing that it prints as JSON differs between two runs of one seed, except below a key `wall`.
 */
import type { Command } from 'commander';
import { EXIT_FAILURE, EXIT_OK, exitCodeOf } from '../exit-codes.ts';
import { Output } from '../output.ts';
import { lookForCanaries } from './canaries.ts';
import { runFutures } from './futures.ts';
import { faultNumbers, names, positive, positiveWhole, type SimOptions, wholeNumber } from './options.ts';
import { scenariosOf } from './scenario-source.ts';
import { SeedRuns } from './seed-runs.ts';
import { shrinkCanaries } from './shrink-table.ts';

/** Adds `palimpsest sim`. */
export function addSimCommand(program: Command): void {
  program
    .command('sim')
    .description('Run the whole system in a deterministic simulator, under faults, and check what must hold')
    .option('--scenario <name>', 'one scenario, `all`, or a file that exports scenarios of your own', 'all')
    .option('--seed <number>', 'first seed (default: 1)', wholeNumber)
    .option('--seeds <count>', 'how many seeds of each scenario', wholeNumber, 10)
    .option('--minutes <count>', 'go on with new seeds for this long instead', positive)
    .option('--jobs <count>', 'processes that share the seeds', positiveWhole, 1)
    .option('--limit <seconds>', 'a run that takes longer is a failure', positive, 120)
    .option(
      '--grace <seconds>',
      'after this much more a process of several that hangs is ended',
      positive,
      20,
    )
    .option('--effort <factor>', 'how long each run is under faults', positive, 1)
    .option('--only <faults>', 'carry out only these faults of the plan (numbers, or `none`)', faultNumbers)
    .option('--simple <names>', 'parameters that take their simplest value (names, or `all`)', names)
    .option('--twice', 'run each seed twice and compare event by event')
    .option('--no-shrink', 'do not look for the smallest story of a failure')
    .option('--canary <name>', 'switch a known bug on')
    .option('--canaries', 'look for each known bug until it is found, and print the table')
    .option(
      '--shrink-canaries <events>',
      'make a failing run of at least so many events of each known bug small, and print the table',
      positiveWhole,
    )
    .option('--fork <event>', 'run up to this event, then explore other futures from there', positiveWhole)
    .option('--futures <count>', 'how many futures of a fork', positiveWhole, 10)
    .option('--future <number>', 'only this future of a fork', positiveWhole)
    .option('--html <file>', 'write a picture of the run (of the failed one, if one failed)')
    .option('--trace <file>', 'write every event of the run as a line of JSON (one scenario, one seed)')
    .option('--write-test <file>', 'write a failure, made small, as a regression test')
    .option('--list', 'list scenarios and known bugs')
    .option('--json', 'print JSON instead of text')
    .action(async (options: SimOptions) => {
      try {
        process.exitCode = await runSim(options);
      } catch (error) {
        new Output(options.json ?? false).error(error);
        process.exitCode = exitCodeOf(error);
      }
    });
}

async function runSim(options: SimOptions): Promise<number> {
  const scenarios = await scenariosOf(options.scenario);
  if (options.list) {
    const listed = scenarios.map(({ name, summary, canaries, rare = [] }) => ({
      name,
      summary,
      canaries,
      rare,
    }));
    const text = listed.map(({ name, summary, canaries, rare }) =>
      [
        `${name}\n  ${summary}`,
        ...(canaries.length > 0 ? [`  known bugs to find: ${canaries.join(', ')}`] : []),
        ...rare.map((site) => `  rarely ${site.name}: ${site.what}`),
      ].join('\n'),
    );
    new Output(options.json ?? false).result(listed, text.join('\n'));
    return EXIT_OK;
  }
  if (options.canaries) return lookForCanaries(scenarios, options);
  if (options.shrinkCanaries !== undefined) return shrinkCanaries(scenarios, options);
  if (options.fork !== undefined) return runFutures(scenarios, options);
  return (await new SeedRuns(options).run(scenarios)) ? EXIT_OK : EXIT_FAILURE;
}
