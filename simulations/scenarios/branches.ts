/**
 * Branches under faults: the control plane of production makes, restores, resets and deletes branches at any point while computes
 * write, machines crash and object storage fails; every page of every branch at any LSN is what the agreed histories say.
 */
import { BranchingCluster, type BranchingOptions } from '../cluster/branching-cluster.ts';
import { convergeBranches } from './branch-convergence.ts';
import { BranchUser } from './branch-user.ts';
import { drawPageLoad } from './page-load.ts';
import type { Scenario, ScenarioContext } from './scenario.ts';

const SAFETY_MS = 15_000;
const CREATE_MS = 30_000;

export const BRANCH_SCENARIOS: Scenario[] = [
  {
    name: 'branches',
    summary:
      'branches are made, restored, reset and deleted while everything crashes; each reads as its history says',
    canaries: ['stale-page-cache', 'branch-point-forgotten'],
    marks: [
      'client: commit acknowledged',
      'branch: created at the head',
      'branch: created in the past',
      'branch: restored',
      'branch: reset',
      'branch: deleted',
      'branch: archived',
      'branch: made independent',
      'pageserver: a page was compared',
      'oracle: replay compared with the live state',
      'converged',
    ],
    run: (context) => runBranches(context, drawOptions(context)),
  },
  {
    name: 'restore-during-upload',
    summary: 'branches are restored while their layers are on the way to an object store that is slow',
    canaries: [],
    marks: [
      'client: commit acknowledged',
      'branch: restored',
      'branch: restored during an upload',
      'pageserver: a page was compared',
      'converged',
    ],
    run: (context) => runBranches(context, drawOptions(context, [5, 20]), drawRestores(context)),
  },
  {
    name: 'history-window',
    summary:
      'the same with a history window that ends soon: what is kept for branches and readers stays as it was',
    canaries: ['gc-ignores-branches', 'gc-beyond-the-window'],
    marks: [
      'branch: created at the head',
      'branch: created in the past',
      'branch: restored',
      'branch: deleted',
      'pageserver: a page was compared',
      'history: layers were removed',
      'history: a read before the window was refused',
      'history: a point was read with a lease, before the window',
      'converged',
    ],
    run: (context) => runBranches(context, { ...drawOptions(context), history: drawHistory(context) }),
  },
];

interface BranchWork {
  /** Share of all changes that restore a branch, beside those that are drawn in any case. */
  restoreShare: number;
  /** Object storage is so slow. */
  objectsMs: number;
}

async function runBranches(
  context: ScenarioContext,
  options: BranchingOptions,
  work: BranchWork = { restoreShare: 0, objectsMs: 0 },
): Promise<void> {
  const { world } = context;
  const cluster = new BranchingCluster(context, options);
  cluster.bucket.faults.extraMs = work.objectsMs;
  cluster.start();
  const user = new BranchUser(context, cluster, { restoreShare: work.restoreShare });
  const machine = cluster.machine('user');
  machine.start((process) => void user.begin(process));
  await world.run({ untilMs: CREATE_MS, isDone: () => user.hasProject });
  if (world.violation) return;
  if (!user.hasProject) {
    world.fail('a project can be created', user.lastError);
    return;
  }
  cluster.computes.keepBusy();
  user.work(machine.process!);
  context.armFaults(cluster.injector, {
    mix: {
      crash: 3,
      'crash at a write': 2,
      'crash all': 0.3,
      pause: 1,
      partition: 1,
      isolate: 1,
      'slow disk': 1,
      'object store failing': 2,
    },
    everyMs: 900,
    safetyMs: SAFETY_MS * context.effort,
    storage: cluster.storageNames,
    computes: cluster.computeNames,
    others: ['ps1', 'control', 'control'],
  });
  await world.run({ untilMs: world.nowMs + SAFETY_MS * context.effort });
  if (!world.violation) await convergeBranches(context, cluster, user);
  if (!world.violation) cluster.listed.check();
  if (!world.violation) cluster.known.checkEnd();
}

function drawOptions(context: ScenarioContext, thinkMs: readonly number[] = [20, 60]): BranchingOptions {
  const computes = context.decide('computes', () => 2 + context.random.int(2), 2);
  return { computes, ...drawPageLoad(context, { thinkMs }) };
}

function drawRestores({ pick }: ScenarioContext): BranchWork {
  return { restoreShare: 0.6, objectsMs: pick('objects.extraMs', [100, 400, 1500], 100) };
}

function drawHistory({ pick }: ScenarioContext): { bytes: number; gcIntervalMs: number } {
  return {
    bytes: pick('history.bytes', [0, 60_000, 200_000], 0),
    gcIntervalMs: pick('history.gcIntervalMs', [150, 500], 150),
  };
}
