/**
 * `palimpsest sim`: runs the production actors in the deterministic simulator and says what broke.
 *
 * Nothing that it prints as JSON differs between two runs of one seed, except below a key `wall`.
 */
import { writeFileSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { type Command, InvalidArgumentError } from 'commander';
import { takeTurns } from '../../runtime/adapters/event-loop-turns.ts';
import { findCanarySeed } from '../../simulations/runs/canary-table.ts';
import { runTwice } from '../../simulations/runs/determinism.ts';
import { describeFailure, ScenarioSummary } from '../../simulations/runs/report.ts';
import { type RunOptions, type RunResult, runSeed } from '../../simulations/runs/run-seed.ts';
import { shrink } from '../../simulations/runs/shrink.ts';
import { findScenario, SCENARIOS } from '../../simulations/scenarios/catalog.ts';
import type { Scenario } from '../../simulations/scenarios/scenario.ts';
import { EXIT_FAILURE, EXIT_OK } from './exit-codes.ts';

const SHRINK_RUNS_MAX = 200;
const CANARY_SEEDS_MAX = 100;
const TRACE_LINES_MAX = 5_000_000;

interface SimOptions {
  seed?: number;
  seeds: number;
  minutes?: number;
  scenario: string;
  effort: number;
  only?: number[];
  canary?: string;
  canaries?: boolean;
  twice?: boolean;
  shrink?: boolean;
  trace?: string;
  json?: boolean;
  list?: boolean;
}

/** Adds `palimpsest sim`. */
export function addSimCommand(program: Command): void {
  program
    .command('sim')
    .description('Run the whole system in a deterministic simulator, under faults, and check what must hold')
    .option('--scenario <name>', 'one scenario, or `all`', 'all')
    .option('--seed <number>', 'first seed (default: 1)', wholeNumber)
    .option('--seeds <count>', 'how many seeds of each scenario', wholeNumber, 10)
    .option('--minutes <count>', 'go on with new seeds for this long instead', positive)
    .option('--effort <factor>', 'how long each run is under faults', positive, 1)
    .option('--only <faults>', 'carry out only these faults of the plan (numbers, or `none`)', faultNumbers)
    .option('--twice', 'run each seed twice and compare event by event')
    .option('--no-shrink', 'do not look for the smallest story of a failure')
    .option('--canary <name>', 'switch a known bug on')
    .option('--canaries', 'look for each known bug until it is found, and print the table')
    .option('--trace <file>', 'write every event of the run as a line of JSON (one scenario, one seed)')
    .option('--list', 'list scenarios and known bugs')
    .option('--json', 'print JSON instead of text')
    .action(async (options: SimOptions) => {
      process.exitCode = await runSim(options);
    });
}

async function runSim(options: SimOptions): Promise<number> {
  const scenarios = options.scenario === 'all' ? SCENARIOS : [findScenario(options.scenario)];
  if (scenarios.includes(undefined)) {
    console.error(
      `No scenario '${options.scenario}'. There are: ${SCENARIOS.map(({ name }) => name).join(', ')}.`,
    );
    return EXIT_FAILURE;
  }
  const chosen = scenarios as Scenario[];
  if (options.list) return list(chosen, options);
  if (options.canaries) return canaries(chosen, options);
  const runs = new SimRuns(options);
  return (await runs.run(chosen)) ? EXIT_OK : EXIT_FAILURE;
}

class SimRuns {
  readonly #options: SimOptions;
  readonly #summaries = new Map<string, ScenarioSummary>();
  readonly #hashes: { scenario: string; seed: number; hash: string; events: number }[] = [];
  #failure: { result: RunResult; shrunk: RunResult | undefined; runs: number } | undefined;
  #difference: string | undefined;

  constructor(options: SimOptions) {
    this.#options = options;
  }

  /** Runs all seeds; true when nothing broke. */
  async run(scenarios: Scenario[]): Promise<boolean> {
    const { seed: first = 1, seeds, minutes, json } = this.#options;
    const count = this.#options.seed !== undefined && !isGiven('--seeds') ? 1 : seeds;
    const endsAt = minutes === undefined ? undefined : performance.now() + minutes * 60_000;
    for (const scenario of scenarios) this.#summaries.set(scenario.name, new ScenarioSummary(scenario));
    for (let n = 0; endsAt === undefined ? n < count : performance.now() < endsAt; n++) {
      for (const scenario of scenarios) {
        if (!(await this.#runOne(scenario, first + n))) {
          this.#print();
          return false;
        }
      }
      if (!json && process.stderr.isTTY)
        process.stderr.write(`\r${n + 1} seeds of ${scenarios.length} scenarios`);
    }
    if (!json && process.stderr.isTTY) process.stderr.write('\r\x1b[K');
    this.#print();
    return true;
  }

  async #runOne(scenario: Scenario, seed: number): Promise<boolean> {
    const { only, canary, effort, trace, twice } = this.#options;
    const run: RunOptions = { scenario, seed, takeTurns, only, canary, effort };
    const lines: string[] = [];
    if (trace) {
      run.onEvent = (event) => {
        if (lines.length < TRACE_LINES_MAX) lines.push(JSON.stringify(event));
      };
    }
    const began = performance.now();
    const { result, difference } = twice
      ? await runTwice(run)
      : { result: await runSeed(run), difference: undefined };
    this.#summaries.get(scenario.name)!.add(result, performance.now() - began);
    this.#hashes.push({ scenario: scenario.name, seed, hash: result.hash, events: result.events });
    if (trace) writeFileSync(trace, `${lines.join('\n')}\n`);
    if (difference) {
      this.#difference = `${scenario.name}, seed ${seed}: ${difference}`;
      return false;
    }
    if (!result.violation) return true;
    this.#failure = { result, shrunk: undefined, runs: 0 };
    if (this.#options.shrink !== false && result.faults.length > 0) {
      const found = await shrink({
        run: { ...run, onEvent: undefined },
        failed: result,
        runsMax: SHRINK_RUNS_MAX,
      });
      this.#failure = { result, shrunk: found.result, runs: found.runs };
    }
    return false;
  }

  #print(): void {
    const failure = this.#failure;
    const summaries = [...this.#summaries.values()].filter(({ runs }) => runs > 0);
    const told = failure?.shrunk ?? failure?.result;
    if (this.#options.json) {
      const data = {
        runs: this.#hashes,
        scenarios: summaries,
        failure: told && { ...told, recorded: undefined, repeat: this.#repeat(told) },
        difference: this.#difference,
      };
      console.log(JSON.stringify(data, null, 2));
      return;
    }
    for (const summary of summaries) console.log(`${summary.toText()}\n`);
    if (this.#difference) console.log(`Not deterministic: ${this.#difference}`);
    if (!told) return;
    console.log(describeFailure(told));
    if (failure?.shrunk) {
      console.log(
        `\nShrunk from ${failure.result.faults.length} to ${told.faults.length} faults in ${failure.runs} runs.`,
      );
    }
    console.log(`\nRepeat it with: ${this.#repeat(told)}`);
  }

  /** The one command that repeats a run. */
  #repeat(result: RunResult): string {
    const { canary, effort } = this.#options;
    const parts = ['palimpsest sim', `--scenario ${result.scenario}`, `--seed ${result.seed}`];
    const isShrunk = this.#failure?.shrunk === result || this.#options.only !== undefined;
    if (isShrunk) parts.push(`--only ${result.faults.map(({ index }) => index).join(',') || 'none'}`);
    if (canary) parts.push(`--canary ${canary}`);
    if (effort !== 1) parts.push(`--effort ${effort}`);
    return parts.join(' ');
  }
}

function list(scenarios: Scenario[], options: SimOptions): number {
  if (options.json) {
    console.log(
      JSON.stringify(
        scenarios.map(({ name, summary, canaries }) => ({ name, summary, canaries })),
        null,
        2,
      ),
    );
    return EXIT_OK;
  }
  for (const { name, summary, canaries } of scenarios) {
    console.log(`${name}\n  ${summary}`);
    if (canaries.length > 0) console.log(`  known bugs to find: ${canaries.join(', ')}`);
  }
  return EXIT_OK;
}

/** Looks for every known bug; fails when one is not found. */
async function canaries(scenarios: Scenario[], options: SimOptions): Promise<number> {
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

function isGiven(flag: string): boolean {
  return process.argv.some((argument) => argument === flag || argument.startsWith(`${flag}=`));
}

function wholeNumber(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0) throw new InvalidArgumentError('it must be a whole number.');
  return value;
}

function positive(text: string): number {
  const value = Number(text);
  if (!(value > 0)) throw new InvalidArgumentError('it must be a number above 0.');
  return value;
}

function faultNumbers(text: string): number[] {
  return text === 'none' ? [] : text.split(',').map(wholeNumber);
}
