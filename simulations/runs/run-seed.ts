/** One run: a scenario under a seed. Its result is a function of both. */
import type { Fault } from '../faults/plan.ts';
import type { Scenario } from '../scenarios/scenario.ts';
import type { RecordedEvents, StoryLine } from '../world/trace.ts';
import { type TakeTurns, type Violation, World } from '../world/world.ts';

export interface RunOptions {
  scenario: Scenario;
  seed: number;
  takeTurns: TakeTurns;
  /** Only the faults with these numbers are carried out. */
  only?: readonly number[];
  canary?: string;
  effort?: number;
  record?: boolean;
  eventsMax?: number;
  onEvent?: (event: { timeUs: number; label: string; owner: string; hash: string }) => void;
}

export interface RunResult {
  scenario: string;
  seed: number;
  violation: Violation | undefined;
  hash: string;
  events: number;
  simulatedMs: number;
  marks: Record<string, number>;
  parameters: Record<string, unknown>;
  /** The faults that were carried out, or would have been after the end. */
  faults: Fault[];
  story: StoryLine[];
  recorded: RecordedEvents | undefined;
}

export async function runSeed(options: RunOptions): Promise<RunResult> {
  const { scenario, seed, only } = options;
  const world = new World({
    seed,
    takeTurns: options.takeTurns,
    record: options.record,
    eventsMax: options.eventsMax,
  });
  world.trace.onEvent = options.onEvent;
  const parameters: Record<string, unknown> = {};
  let faults: Fault[] = [];
  try {
    await scenario.run({
      world,
      random: world.random(`scenario/${scenario.name}`),
      parameters,
      canary: options.canary,
      effort: options.effort ?? 1,
      selectFaults: (drawn) => {
        faults = only ? drawn.filter(({ index }) => only.includes(index)) : drawn;
        return faults;
      },
    });
  } catch (error) {
    world.fail('the scenario itself works', error instanceof Error ? (error.stack ?? '') : String(error));
  }
  return {
    scenario: scenario.name,
    seed,
    violation: world.violation,
    hash: world.trace.hash,
    events: world.trace.events,
    simulatedMs: world.nowMs,
    marks: Object.fromEntries([...world.marks].sort(([a], [b]) => (a < b ? -1 : 1))),
    parameters,
    faults,
    story: world.trace.story,
    recorded: world.trace.recorded,
  };
}
