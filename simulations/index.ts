/**
 * The simulator as a library: what a scenario of one's own is made of. `simulations/examples/` shows it at work, and
 * `palimpsest sim --scenario FILE` runs it.
 */
export { observeActor, observedJournals } from './cluster/observe.ts';
export { FaultInjector, type FaultTarget } from './faults/injector.ts';
export type { Fault, FaultKind, FaultMix, PlanOptions } from './faults/plan.ts';
export { type RunOptions, type RunResult, runSeed } from './runs/run-seed.ts';
export { type ShrinkResult, shrink } from './runs/shrink.ts';
export type { Scenario, ScenarioContext } from './scenarios/scenario.ts';
export { SimBroker } from './world/bus.ts';
export { type ProcessPorts, SimMachine, type SimProcess, type Surroundings } from './world/machine.ts';
export { CALM_NETWORK, type NetworkLimits, SimNetwork } from './world/network.ts';
export { SimBucket, SimObjects } from './world/objects.ts';
export { SimRandom } from './world/random.ts';
export { RunRecorder } from './world/recorder.ts';
export { type TakeTurns, type Violation, World } from './world/world.ts';
