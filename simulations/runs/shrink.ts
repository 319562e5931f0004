/**
 * Makes a failing run smaller: delta debugging over everything that was decided about it. A fault that is left out, or a
 * parameter that takes its simplest value, changes nothing else that is drawn, so what is left is the shortest story that
 * still breaks the same invariant.
 */
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

  constructor(options: ShrinkOptions) {
    this.#options = options;
    this.best = options.failed;
    this.kept = decisionsOf(options.failed);
  }

  async run(): Promise<void> {
    // Most faults come after what matters has happened, and most parameters do not matter: these two tries save many.
    if (await this.#try([])) return;
    await this.#try(this.kept.filter((each) => 'fault' in each));
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

  get #mayGoOn(): boolean {
    return this.runs < this.#options.runsMax;
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
    });
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
