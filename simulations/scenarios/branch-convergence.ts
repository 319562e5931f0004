/**
 * What must hold of an installation with branches when everything is mended: every branch is readable within a bound, also after the
 * pageservers lost their disks and the safekeepers crashed, although nobody writes to most ancestors any more.
 */
import type { BranchingCluster } from '../cluster/branching-cluster.ts';
import type { BranchUser } from './branch-user.ts';
import type { ScenarioContext } from './scenario.ts';

const CONVERGE_MS = 45_000;

/** Mends everything, and demands it. Afterwards nobody works any more, and somebody still reads. */
export async function convergeBranches(
  { world }: ScenarioContext,
  cluster: BranchingCluster,
  user: BranchUser,
): Promise<void> {
  cluster.injector.heal();
  cluster.startAll();
  user.stopWorking();
  cluster.computes.calm();
  for (const what of ['mended', 'after a power cut, without the pageserver’s disk']) {
    if (what !== 'mended') cluster.cutPower();
    user.forgetReads();
    await world.run({ untilMs: world.nowMs + CONVERGE_MS, isDone: () => user.hasReadAll });
    if (world.violation) return;
    if (user.hasReadAll) continue;
    world.fail('convergence', `${what}: ${user.unread} after ${CONVERGE_MS} ms`);
    return;
  }
  world.mark('converged');
}
