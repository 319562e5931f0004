/**
 * Makes a failing run smaller: delta debugging over the faults of its plan. A fault that is left out changes nothing else that
 * is drawn, so what is left is the shortest story that still breaks the same invariant.
 */
import { type RunOptions, type RunResult, runSeed } from './run-seed.ts';

export interface ShrinkOptions {
  run: RunOptions;
  failed: RunResult;
  /** Runs that may be spent. */
  runsMax: number;
  onProgress?(faults: number, runs: number): void;
}

export interface ShrinkResult {
  result: RunResult;
  runs: number;
}

/** Finds a small set of faults with which the run still breaks the same invariant. */
export async function shrink(options: ShrinkOptions): Promise<ShrinkResult> {
  const { run, failed, runsMax } = options;
  const invariant = failed.violation?.invariant;
  let best = failed;
  let runs = 0;
  const tryWith = async (only: number[]): Promise<boolean> => {
    if (runs >= runsMax) return false;
    runs++;
    // A subset needs no more events than the whole did, give or take what a fault held back.
    const eventsMax = Math.max(20_000, failed.events * 3);
    const result = await runSeed({ ...run, only, eventsMax });
    if (result.violation?.invariant !== invariant) return false;
    best = result;
    options.onProgress?.(only.length, runs);
    return true;
  };
  let kept = failedFaults(failed);
  if (await tryWith([])) return { result: best, runs };
  await tryWith(kept);
  for (let parts = 2; kept.length > 1 && runs < runsMax; ) {
    const size = Math.ceil(kept.length / parts);
    let isSmaller = false;
    for (let from = 0; from < kept.length; from += size) {
      const rest = [...kept.slice(0, from), ...kept.slice(from + size)];
      if (rest.length === 0 || !(await tryWith(rest))) continue;
      kept = rest;
      parts = Math.max(2, parts - 1);
      isSmaller = true;
      break;
    }
    if (isSmaller) continue;
    if (size === 1) break;
    parts = Math.min(kept.length, parts * 2);
  }
  return { result: best, runs };
}

/** Faults that had begun when the invariant broke; later ones cannot matter. */
function failedFaults(failed: RunResult): number[] {
  const endMs = (failed.violation?.timeUs ?? 0) / 1000;
  return failed.faults.filter(({ atMs }) => atMs <= endMs).map(({ index }) => index);
}
