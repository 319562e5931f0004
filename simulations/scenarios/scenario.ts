/**
 * What a scenario is. Anybody may write one: a name, what it is about, and a function that builds machines in a world, runs
 * them under the faults of a plan, and checks what must hold.
 */
import type { FaultInjector } from '../faults/injector.ts';
import type { PlanOptions } from '../faults/plan.ts';
import type { SimRandom } from '../world/random.ts';
import type { RareSite } from '../world/rare-sites.ts';
import type { World } from '../world/world.ts';

export interface ScenarioContext {
  world: World;
  /** Draws the scenario's own parameters. */
  random: SimRandom;
  /**
   * Decides one parameter of the run: what `draw` gives, or `simplest` where the run is being made smaller. It is drawn in both
   * cases, so that nothing else changes. The report names it.
   */
  decide<T>(name: string, draw: () => T, simplest: T): T;
  /** Decides one parameter among some values. */
  pick<T>(name: string, values: readonly T[], simplest: T): T;
  /** Draws a plan of faults from the seed, and arms the injector with what is to be carried out of it. */
  armFaults(injector: FaultInjector, options: PlanOptions): void;
  /** The known bug that is switched on, if any. */
  canary: string | undefined;
  /** Makes the safety phase longer or shorter. */
  effort: number;
}

export interface Scenario {
  name: string;
  summary: string;
  /** Names of the known bugs that this scenario can switch on and must find. */
  canaries: string[];
  /** Marks that some seed must reach, or the scenario does not test what it should. */
  marks: string[];
  /** Rare, but allowed things that some of its seeds force. */
  rare?: readonly RareSite[];
  run(context: ScenarioContext): Promise<void>;
}
