/** Runs seeds of scenarios until all are done, time is up, or one breaks an invariant; then tells what happened. */
import { writeFileSync } from 'node:fs';
import { dirname, relative, resolve } from 'node:path';
import { performance } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import { runTwice } from '../../../simulations/runs/determinism.ts';
import { describeFailure, ScenarioSummary, type SummaryData } from '../../../simulations/runs/report.ts';
import { type RunOptions, type RunResult, runSeed } from '../../../simulations/runs/run-seed.ts';
import { type ShrinkResult, shrink } from '../../../simulations/runs/shrink.ts';
import type { Scenario } from '../../../simulations/scenarios/scenario.ts';
import { BOUNDED_TIME } from '../../../simulations/world/world.ts';
import { type HungRun, runInJobs } from './jobs.ts';
import { limitedTurns } from './limits.ts';
import { isGiven, type SimOptions } from './options.ts';
import { writePicture } from './picture-file.ts';
import { regressionTest } from './regression-test.ts';
import { repeatCommand } from './repeat.ts';

const SHRINK_RUNS_MAX = 400;
/** After this what is small enough by then is told. */
const SHRINK_MS_MAX = 600_000;
const TRACE_LINES_MAX = 5_000_000;
const ROOT = fileURLToPath(new URL('../../../', import.meta.url));

export interface SeedRow {
  scenario: string;
  seed: number;
  hash: string;
  events: number;
}

/** What a process that shares the seeds prints as JSON. */
export interface SeedRunsData {
  runs: SeedRow[];
  scenarios: SummaryData[];
  failure?: { scenario: string; seed: number };
  difference?: string;
  /** The process was ended: this run did not come to an end. */
  hung?: HungRun;
}

export class SeedRuns {
  readonly #options: SimOptions;
  readonly #summaries = new Map<string, ScenarioSummary>();
  readonly #rows: SeedRow[] = [];
  #failure: { run: RunOptions; result: RunResult; shrunk: ShrinkResult | undefined } | undefined;
  #difference: string | undefined;
  #hung: HungRun | undefined;
  #last: RunOptions | undefined;

  constructor(options: SimOptions) {
    this.#options = options;
  }

  /** Runs all seeds; true when nothing broke. */
  async run(scenarios: Scenario[]): Promise<boolean> {
    for (const scenario of scenarios) this.#summaries.set(scenario.name, new ScenarioSummary(scenario));
    if (this.#options.jobs > 1) await this.#shareSeeds(scenarios);
    else await this.#runSeeds(scenarios);
    this.#progress();
    const notes = await this.#writeFiles();
    this.#print(notes);
    return !this.#failure && !this.#difference && !this.#hung && !this.#unreached;
  }

  async #runSeeds(scenarios: Scenario[]): Promise<void> {
    const { minutes } = this.#options;
    const endsAt = minutes === undefined ? undefined : performance.now() + minutes * 60_000;
    for (let n = 0; endsAt === undefined ? n < this.#count : performance.now() < endsAt; n++) {
      for (const scenario of scenarios) {
        if (!(await this.#runOne(scenario, this.#first + n))) return;
      }
      this.#progress(`${n + 1} seeds of ${scenarios.length} scenarios`);
    }
  }

  /** Each process takes every n-th seed; what one finds broken is run here again, to be made small and told. */
  async #shareSeeds(scenarios: Scenario[]): Promise<void> {
    const parts = await runInJobs(this.#options, {
      first: this.#first,
      count: this.#count,
      onProgress: (text) => this.#progress(text),
    });
    for (const { runs, scenarios: summaries } of parts) {
      this.#rows.push(...runs);
      for (const summary of summaries) this.#summaries.get(summary.scenario)?.merge(summary);
    }
    const order = new Map(scenarios.map(({ name }, at) => [name, at]));
    this.#rows.sort((a, b) => a.seed - b.seed || order.get(a.scenario)! - order.get(b.scenario)!);
    this.#difference = parts.find(({ difference }) => difference)?.difference;
    this.#hung = parts.find(({ hung }) => hung)?.hung;
    const failures = parts.flatMap(({ failure }) => (failure ? [failure] : []));
    const first = failures.sort((a, b) => a.seed - b.seed)[0];
    if (!first) return;
    const run = this.#runOptions(scenarios.find(({ name }) => name === first.scenario)!, first.seed);
    await this.#keepFailure(run, await runSeed(run));
  }

  get #first(): number {
    return this.#options.seed ?? 1;
  }

  get #count(): number {
    return this.#options.seed !== undefined && !isGiven('--seeds') ? 1 : this.#options.seeds;
  }

  /** Marks that enough seeds should have reached, and have not: then the scenario does not test what it says. */
  get #unreached(): boolean {
    const { only, canary, effort } = this.#options;
    if (only || canary || effort < 1 || this.#count < MARKS_SEEDS_MIN) return false;
    return [...this.#summaries.values()].some(
      ({ runs, missingMarks }) => runs >= MARKS_SEEDS_MIN && missingMarks.length > 0,
    );
  }

  #runOptions(scenario: Scenario, seed: number): RunOptions {
    const { only, simple, canary, effort, limit, twice } = this.#options;
    const turns = limitedTurns((twice ? 2 : 1) * limit * 1000);
    return { scenario, seed, takeTurns: turns, only, simple, canary, effort };
  }

  async #runOne(scenario: Scenario, seed: number): Promise<boolean> {
    const { trace, twice } = this.#options;
    process.send?.({ scenario: scenario.name, seed });
    const run = this.#runOptions(scenario, seed);
    this.#last = run;
    const lines: string[] = [];
    const onEvent: RunOptions['onEvent'] = trace
      ? (event) => {
          if (lines.length < TRACE_LINES_MAX) lines.push(JSON.stringify(event));
        }
      : undefined;
    const began = performance.now();
    const { result, difference } = twice
      ? await runTwice({ ...run, onEvent })
      : { result: await runSeed({ ...run, onEvent }), difference: undefined };
    this.#summaries.get(scenario.name)!.add(result, performance.now() - began);
    this.#rows.push({ scenario: scenario.name, seed, hash: result.hash, events: result.events });
    if (trace) writeFileSync(trace, `${lines.join('\n')}\n`);
    if (difference) {
      this.#difference = `${scenario.name}, seed ${seed}: ${difference}`;
      return false;
    }
    if (!result.violation) return true;
    await this.#keepFailure(run, result);
    return false;
  }

  async #keepFailure(run: RunOptions, result: RunResult): Promise<void> {
    this.#failure = { run, result, shrunk: undefined };
    if (this.#options.shrink === false || !result.violation || result.violation.invariant === BOUNDED_TIME)
      return;
    const onProgress = (decisions: number, runs: number) =>
      this.#progress(`making it smaller: ${decisions} decisions after ${runs} runs`);
    const unhurried = { ...run, takeTurns: limitedTurns(SHRINK_MS_MAX) };
    const shrunk = await shrink({ run: unhurried, failed: result, runsMax: SHRINK_RUNS_MAX, onProgress });
    this.#failure = { run, result, shrunk };
  }

  /** The files that were asked for; returns what to say of them. */
  async #writeFiles(): Promise<string[]> {
    const { html, writeTest } = this.#options;
    const notes: string[] = [];
    const failure = this.#failure;
    const shrunk = failure?.shrunk;
    const shown = failure
      ? { ...failure.run, ...(shrunk && { only: shrunk.only, simple: shrunk.simple }) }
      : this.#last;
    if (html && shown) {
      await writePicture(html, shown);
      notes.push(`The picture of ${shown.scenario.name}, seed ${shown.seed}, is in ${html}`);
    }
    if (writeTest && failure) {
      const all = { only: failure.result.faults.map(({ index }) => index), simple: [] };
      const root = relative(dirname(resolve(writeTest)), ROOT) || '.';
      const text = regressionTest(
        shrunk?.result ?? failure.result,
        shrunk ?? all,
        root.startsWith('.') ? root : `./${root}`,
      );
      writeFileSync(writeTest, text);
      notes.push(`The test is in ${writeTest}`);
    }
    return notes;
  }

  #print(notes: string[]): void {
    const failure = this.#failure;
    const summaries = [...this.#summaries.values()].filter(({ runs }) => runs > 0);
    const told = failure?.shrunk?.result ?? failure?.result;
    const repeat = told && repeatCommand(told, this.#options, failure?.shrunk);
    if (this.#options.json) {
      const failed = told && { ...told, recorded: undefined, repeat };
      const data = {
        runs: this.#rows,
        scenarios: summaries,
        failure: failed,
        difference: this.#difference,
        hung: this.#hung,
      };
      console.log(JSON.stringify(data, null, 2));
      return;
    }
    for (const summary of summaries) console.log(`${summary.toText()}\n`);
    if (this.#difference) console.log(`Not deterministic: ${this.#difference}`);
    if (this.#hung) console.log(describeHang(this.#hung, this.#options));
    if (this.#unreached)
      console.log('Some marks were never reached: these scenarios do not test what they should.');
    if (told) {
      console.log(describeFailure(told));
      const { shrunk } = failure!;
      if (shrunk) {
        console.log(`\nShrunk from ${shrunk.before} to ${shrunk.after} decisions in ${shrunk.runs} runs.`);
      }
      console.log(`\nRepeat it with: ${repeat}`);
    }
    for (const note of notes) console.log(note);
  }

  /** One line on a terminal, rewritten; without a text it is removed. */
  #progress(text?: string): void {
    if (this.#options.json || !process.stderr.isTTY) return;
    process.stderr.write(text === undefined ? '\r\x1b[K' : `\r\x1b[K${text}`);
  }
}

function describeHang({ scenario, seed, seeds }: HungRun, options: SimOptions): string {
  const repeat = repeatCommand({ scenario, seed }, options);
  return [
    `Hung: ${scenario}, seed ${seed} (of seeds ${seeds.first} to ${seeds.last}) did not end within ${options.limit} s; its process was ended.`,
    `Repeat it with: ${repeat}`,
  ].join('\n');
}

/** With fewer seeds nothing is concluded from a mark that was not reached. */
const MARKS_SEEDS_MIN = 20;
