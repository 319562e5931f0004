/** One run: a scenario under a seed. Its result is a function of both. */
import { drawPlan, type Fault, type PlanOptions } from '../faults/plan.ts';
import type { Scenario, ScenarioContext } from '../scenarios/scenario.ts';
import type { RunRecorder } from '../world/recorder.ts';
import type { RecordedEvents, StoryLine } from '../world/trace.ts';
import { type Fork, type TakeTurns, type Violation, World } from '../world/world.ts';

export interface RunOptions {
  scenario: Scenario;
  seed: number;
  takeTurns: TakeTurns;
  /** Only the faults with these numbers are carried out. */
  only?: readonly number[];
  /** Parameters that take their simplest value instead of the one drawn; `all` for every one. */
  simple?: readonly string[];
  fork?: Fork;
  canary?: string;
  effort?: number;
  record?: boolean;
  eventsMax?: number;
  endMs?: number;
  /** Takes note of what a picture of the run needs. */
  recorder?: RunRecorder;
  onEvent?: (event: { timeUs: number; label: string; owner: string; hash: string }) => void;
}

export interface RunResult {
  scenario: string;
  seed: number;
  fork: Fork | undefined;
  violation: Violation | undefined;
  hash: string;
  events: number;
  simulatedMs: number;
  marks: Record<string, number>;
  /** What was decided about the run, by name. */
  parameters: Record<string, unknown>;
  /** Names of the parameters that took their simplest value. */
  simplified: string[];
  /** The faults that were carried out, or would have been after the end. */
  faults: Fault[];
  story: StoryLine[];
  recorded: RecordedEvents | undefined;
}

/** Stands for all names in a list of parameters. */
export const EVERY_PARAMETER = 'all';
/** Faults that are drawn after a fork have numbers from here on. */
const FORKED_FAULTS_FROM = 1000;

/** What a scenario breaks that throws, instead of finding something wrong. */
export const SCENARIO_WORKS = 'the scenario itself works';

/** Runs a scenario under a seed; whatever goes wrong in it is the result's violation. */
export async function runSeed(options: RunOptions): Promise<RunResult> {
  const { scenario, seed } = options;
  const world = new World({
    seed,
    takeTurns: options.takeTurns,
    record: options.record,
    eventsMax: options.eventsMax,
    endMs: options.endMs,
    recorder: options.recorder,
    fork: options.fork,
  });
  world.trace.onEvent = options.onEvent;
  const decisions = new Decisions(options, world);
  try {
    await scenario.run(decisions.context());
  } catch (error) {
    world.fail(SCENARIO_WORKS, error instanceof Error ? (error.stack ?? '') : String(error));
  }
  return {
    scenario: scenario.name,
    seed,
    fork: options.fork,
    violation: world.violation,
    hash: world.trace.hash,
    events: world.trace.events,
    simulatedMs: world.nowMs,
    marks: Object.fromEntries([...world.marks].sort(([a], [b]) => (a < b ? -1 : 1))),
    parameters: decisions.parameters,
    simplified: decisions.simplified,
    faults: decisions.faults,
    story: world.trace.story,
    recorded: world.trace.recorded,
  };
}

/** What is decided about a run: by the seed, or by whoever makes a failing run smaller. */
class Decisions {
  readonly parameters: Record<string, unknown> = {};
  readonly simplified: string[] = [];
  faults: Fault[] = [];
  readonly #options: RunOptions;
  readonly #world: World;

  constructor(options: RunOptions, world: World) {
    this.#options = options;
    this.#world = world;
  }

  context(): ScenarioContext {
    const { scenario, canary, effort } = this.#options;
    const random = this.#world.random(`scenario/${scenario.name}`);
    return {
      world: this.#world,
      random,
      canary,
      effort: effort ?? 1,
      decide: (name, draw, simplest) => this.#decide(name, draw, simplest),
      pick: (name, values, simplest) => this.#decide(name, () => random.pick(values), simplest),
      armFaults: (injector, plan) => {
        this.faults = this.#select(plan, 0);
        injector.arm(this.faults, () => {
          const future = this.#select(plan, FORKED_FAULTS_FROM);
          this.faults = [...this.faults, ...future];
          return future;
        });
      },
    };
  }

  /** It is drawn in any case, so that nothing else changes. */
  #decide<T>(name: string, draw: () => T, simplest: T): T {
    const drawn = draw();
    const { simple } = this.#options;
    const isSimple = simple?.includes(name) || simple?.includes(EVERY_PARAMETER) || false;
    if (isSimple) this.simplified.push(name);
    this.parameters[name] = isSimple ? simplest : drawn;
    return isSimple ? simplest : drawn;
  }

  #select(plan: PlanOptions, firstIndex: number): Fault[] {
    const { only } = this.#options;
    const drawn = drawPlan(this.#world.random('faults'), plan);
    const numbered = drawn.map((fault) => ({ ...fault, index: fault.index + firstIndex }));
    return only ? numbered.filter(({ index }) => only.includes(index)) : numbered;
  }
}
