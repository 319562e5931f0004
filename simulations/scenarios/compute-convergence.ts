/** What must hold of computes when everything is mended: every branch can be used, and what nobody uses is suspended. */
import type { BranchingCluster } from '../cluster/branching-cluster.ts';
import type { ScenarioContext } from './scenario.ts';

/** A request that was lost is given up after some seconds, and several may be lost one after the other. */
const WAKE_MS = 45_000;
const SUSPEND_MS = 45_000;
const USE_MS = 100;
const RETRY_MS = 100;

/** Every branch can be used. */
export async function branchesCanBeUsed(
  { world }: ScenarioContext,
  cluster: BranchingCluster,
): Promise<void> {
  const waiting = new Map<string, string>();
  const wake = async (timeline: string): Promise<void> => {
    for (;;) {
      try {
        await cluster.computes.use(timeline, USE_MS);
        waiting.delete(timeline);
        return;
      } catch (error) {
        waiting.set(timeline, (error as Error).message);
        await cluster.computes.pause(RETRY_MS);
      }
    }
  };
  for (const { timeline } of cluster.branches()) {
    waiting.set(timeline, 'no answer');
    void wake(timeline);
  }
  await world.run({ untilMs: world.nowMs + WAKE_MS, isDone: () => waiting.size === 0 });
  if (world.violation || waiting.size === 0) return;
  const why = [...waiting].map(([timeline, message]) => `${timeline}: ${message}`);
  world.fail('convergence', `branches cannot be used ${WAKE_MS} ms after everything was mended: ${why}`);
}

/** Nobody uses it any more: all computes are suspended. */
export async function computesRest({ world }: ScenarioContext, cluster: BranchingCluster): Promise<void> {
  const awake = () => cluster.computeOracle.awake();
  await world.run({ untilMs: world.nowMs + SUSPEND_MS, isDone: () => awake() === undefined });
  if (world.violation || awake() === undefined) return;
  world.fail('a compute that nobody uses is suspended', `after ${SUSPEND_MS} ms: ${awake()}`);
}
