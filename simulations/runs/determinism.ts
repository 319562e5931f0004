/** The proof that a run is a function of its seed: it is run twice and compared event by event. */
import { firstDifference } from '../world/trace.ts';
import { type RunOptions, type RunResult, runSeed } from './run-seed.ts';

export interface DeterminismResult {
  result: RunResult;
  /** The first event that differs between the two runs; undefined when none does. */
  difference: string | undefined;
}

/** Runs a seed twice. The first run's result is given back without its record of events. */
export async function runTwice(options: RunOptions): Promise<DeterminismResult> {
  const first = await runSeed({ ...options, record: true });
  const second = await runSeed({ ...options, record: true, onEvent: undefined });
  const difference =
    firstDifference(first.recorded!, second.recorded!) ??
    (first.hash === second.hash ? undefined : 'after the last event');
  return { result: { ...first, recorded: undefined }, difference };
}
