/**
 * Makes a failing run smaller: delta debugging over everything that was decided about it. A fault that is left out, or a
 * parameter that takes its simplest value, changes nothing else that is drawn, so what is left is the shortest story that
 * still breaks the same invariant.
 */
import { BOUNDED_TIME } from '../world/world.ts';
import { EVERY_PARAMETER, type RunOptions, type RunResult, runSeed } from './run-seed.ts';

export interface ShrinkOptions {
  run: RunOptions;
  failed: RunResult;
  /** Runs that may be spent. */
  runsMax: number;
  onProgress?(decisions: number, runs: number): void;
}

export interface ShrinkResult {
  result: RunResult;
  /** What repeats it: the faults that are carried out, and the parameters that are simplified. */
  only: number[];
  simple: string[];
  /** Decisions of the failed run, and those that are left. */
  before: number;
  after: number;
  runs: number;
}

/** A run that has not failed after so much more virtual time than the whole one is given up. */
const TIME_FACTOR = 1.5;
const TIME_EXTRA_MS = 2000;

type Decision = { fault: number } | { parameter: string };

/** Finds a small set of decisions with which the run still breaks the same invariant. */
export async function shrink(options: ShrinkOptions): Promise<ShrinkResult> {
  const search = new Search(options);
  await search.run();
  const kept = search.kept;
  const parameters = new Set(kept.flatMap((each) => ('parameter' in each ? [each.parameter] : [])));
  return {
    result: search.best,
    only: kept.flatMap((each) => ('fault' in each ? [each.fault] : [])),
    simple:
      parameters.size === 0
        ? [EVERY_PARAMETER]
        : Object.keys(options.failed.parameters).filter((name) => !parameters.has(name)),
    before: decisionsOf(options.failed).length,
    after: kept.length,
    runs: search.runs,
  };
}

class Search {
  readonly #options: ShrinkOptions;
  best: RunResult;
  kept: Decision[];
  runs = 0;
  /** Whoever takes the turns has ended a run: there is no time for more. */
  #isTimeUp = false;

  constructor(options: ShrinkOptions) {
    this.#options = options;
    this.best = options.failed;
    this.kept = decisionsOf(options.failed);
  }

  async run(): Promise<void> {
    const faults = this.kept.filter((each) => 'fault' in each);
    // Most faults do not matter, and neither do most parameters: these tries save many.
    if (await this.#try([])) return;
    if (!(await this.#try(faults))) await this.#try(this.kept.filter((each) => 'parameter' in each));
    await this.#leaveOutGroups();
    for (let parts = 2; this.kept.length > 1 && this.#mayGoOn; ) {
      const size = Math.ceil(this.kept.length / parts);
      if (await this.#leaveOut(size)) {
        parts = Math.max(2, parts - 1);
        continue;
      }
      if (size === 1) return;
      parts = Math.min(this.kept.length, parts * 2);
    }
    if (this.kept.length === 1) await this.#try([]);
  }

  /** Tries to do without all faults of a kind, then without all that happen to a machine; the most frequent come first. */
  async #leaveOutGroups(): Promise<void> {
    const byIndex = new Map(this.#options.failed.faults.map((fault) => [fault.index, fault]));
    for (const property of ['kind', 'target'] as const) {
      const groupOf = (each: Decision) => ('fault' in each ? byIndex.get(each.fault)?.[property] : undefined);
      const sizes = new Map<string, number>();
      for (const group of this.kept.map(groupOf)) {
        if (group !== undefined) sizes.set(group, (sizes.get(group) ?? 0) + 1);
      }
      for (const [group, size] of [...sizes].sort((a, b) => b[1] - a[1])) {
        if (size === 1) break;
        await this.#try(this.kept.filter((each) => groupOf(each) !== group));
      }
    }
  }

  get #mayGoOn(): boolean {
    return this.runs < this.#options.runsMax && !this.#isTimeUp;
  }

  /** Tries to do without some `size` neighbours; true when that still fails. */
  async #leaveOut(size: number): Promise<boolean> {
    const all = this.kept;
    for (let from = 0; from < all.length; from += size) {
      if (await this.#try([...all.slice(0, from), ...all.slice(from + size)])) return true;
    }
    return false;
  }

  async #try(decisions: Decision[]): Promise<boolean> {
    if (!this.#mayGoOn) return false;
    this.runs++;
    const { run, failed } = this.#options;
    const parameters = new Set(decisions.flatMap((each) => ('parameter' in each ? [each.parameter] : [])));
    const result = await runSeed({
      ...run,
      only: decisions.flatMap((each) => ('fault' in each ? [each.fault] : [])),
      simple: Object.keys(failed.parameters).filter((name) => !parameters.has(name)),
      // A smaller run needs no more events than the whole did, give or take what a fault held back.
      eventsMax: Math.max(20_000, failed.events * 3),
      // Nor more time: one that goes on for long is another story.
      endMs: (failed.violation!.timeUs / 1000) * TIME_FACTOR + TIME_EXTRA_MS,
    });
    this.#isTimeUp = result.violation?.invariant === BOUNDED_TIME;
    if (result.violation?.invariant !== failed.violation?.invariant) return false;
    this.best = result;
    this.kept = decisions;
    this.#options.onProgress?.(decisions.length, this.runs);
    return true;
  }
}

/** Every fault that had begun when the invariant broke (later ones cannot matter), and every parameter. */
function decisionsOf(failed: RunResult): Decision[] {
  const endMs = (failed.violation?.timeUs ?? 0) / 1000;
  const faults = failed.faults.filter(({ atMs }) => atMs <= endMs).map(({ index }) => ({ fault: index }));
  const parameters = Object.keys(failed.parameters)
    .filter((name) => !failed.simplified.includes(name))
    .map((name) => ({ parameter: name }));
  return [...faults, ...parameters];
}
