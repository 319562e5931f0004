/**
 * The whole system with everything at once: an installation of production, on a single machine or in a cluster, whose branches are made,
 * restored, archived and deleted, whose history ends, whose WAL goes to objects, whose safekeepers are replaced or lose their disks,
 * whose pages move between pageservers, and whose computes fence each other, while machines, disks, clocks, network and object storage
 * fail. Each seed draws which of all that it has; a run is short, so that many seeds are tried.
 */
import type { Membership } from '../../protocols/consensus/membership.ts';
import { BranchingCluster, type BranchingOptions } from '../cluster/branching-cluster.ts';
import { RegisterClients, type RegisterLoad } from '../cluster/register-clients.ts';
import { NEVER_MS } from '../cluster/storage-care.ts';
import { unsettled } from '../cluster/unsettled.ts';
import type { FaultMix } from '../faults/plan.ts';
import { OperationHistory } from '../oracles/linearizability.ts';
import { RARE_SITES } from '../world/rare-sites.ts';
import { convergeBranches } from './branch-convergence.ts';
import { type BranchChange, BranchUser } from './branch-user.ts';
import { branchesCanBeUsed, computesRest } from './compute-convergence.ts';
import { MemberChanges } from './member-changes.ts';
import { drawPageLoad } from './page-load.ts';
import type { Scenario, ScenarioContext } from './scenario.ts';
import { drawShards, ShardUser } from './shard-user.ts';

const SAFETY_MS = 5_000;
const CREATE_MS = 30_000;
const CHANGE_EVERY_MS = 250;
const BRANCHES_MAX = 4;
const RARE_CHANCE = 0.3;
const REPAIR_MS = 60_000;
/** When nobody uses it any more, what is left to do is done so much later; from then on little may happen. */
const CALM_AFTER_MS = 5_000;
const CALM_MS = 1_000;
/** Collections of history that come often look at every shard of every branch each time, and placement at every node. */
const CALM_PER_SECOND_MAX = 8_000;

const FAULTS: FaultMix = {
  crash: 4,
  'crash at a write': 3,
  'crash all': 0.5,
  pause: 2,
  'new compute': 6,
  partition: 2,
  isolate: 2,
  cut: 1,
  'slow link': 1,
  'full disk': 1,
  'slow disk': 1,
  'failing disk': 0.5,
  'clock jump': 1,
  'object store failing': 3,
  'object store slow': 1,
  'lost disk': 2,
  'pages move': 3,
};

const CHANGES: BranchChange[] = ['create', 'restore', 'reset', 'delete', 'detach', 'archive'];

export const KITCHEN_SINK: Scenario = {
  name: 'kitchen-sink',
  summary: 'the whole system with every feature and every fault; each seed draws which of them it has',
  canaries: [
    'ack-before-fsync',
    'vote-not-durable',
    'quorum-of-one',
    'ack-what-was-sent',
    'term-of-stranger',
    'history-forgotten',
    'tail-stored-too-early',
    'upload-called-done',
    'stale-page-cache',
    'page-from-the-future',
    'generation-not-validated',
    'gc-ignores-branches',
    'gc-beyond-the-window',
    'end-of-another',
    'stop-told-too-far',
    'idleness-not-told',
    'expected-lsn-ignored',
    'split-by-other-stripes',
    'fastest-shard-counts',
  ],
  marks: [
    'branch: archived',
    'branch: created at the head',
    'branch: created in the past',
    'branch: deleted',
    'branch: made independent',
    'branch: reset',
    'branch: restored',
    'client: an operation on a row was acknowledged',
    'client: commit acknowledged',
    'clock: a wall clock jumped',
    'compute actor: a compute was adopted',
    'compute actor: a start failed',
    'compute actor: a stop was refused',
    'compute actor: crashed',
    'compute actor: deposed',
    'compute actor: idle',
    'compute actor: lost',
    'compute actor: started',
    'compute actor: started again',
    'compute actor: suspended',
    'compute: a conflict at the expected LSN',
    'compute: a rival was started',
    'compute: deposed',
    'converged',
    'history: a point was read with a lease, before the window',
    'history: layers were removed',
    'members: a change was completed',
    'members: a node that is drained is replaced',
    'objects: a partial was compared',
    'objects: an index was checked',
    'oracle: replay compared with the live state',
    'pageserver: a page was compared',
    'pageserver: its disk was lost',
    'pageserver: the project moved',
    'shards: a project began with several',
    'shards: a split was finished',
    'safekeeper: a disk was lost',
    'safekeeper: joined again after its disk was lost',
  ],
  rare: RARE_SITES,
  run: runWholeSystem,
};

/** One installation with what the seed has drawn of everything. */
export async function runWholeSystem(context: ScenarioContext): Promise<void> {
  const { world, random, decide } = context;
  const operations = new OperationHistory();
  const rows = drawRows(context);
  const options = drawOptions(context);
  const safetyMs = SAFETY_MS * context.effort;
  const shards = drawShards(context, safetyMs);
  if (options.isCluster) options.shards = shards;
  // On the first timeline alone: a branch has the rows that its ancestor had.
  let first: string | undefined;
  if (rows)
    options.onServing = (timeline) => (postgres, process, lsn) => {
      first ??= timeline;
      if (timeline !== first) return;
      const { pages } = cluster;
      new RegisterClients({ world, operations, load: rows, timeline, pages }, postgres, process, lsn).serve();
    };
  const changes = new Set(
    CHANGES.filter((change) => decide(`branch.${change}`, () => random.chance(0.7), false)),
  );
  changes.add('create');
  const readsMoments = options.history !== undefined && decide('moments', () => random.chance(0.7), false);
  const everyMs = context.pick('faults.everyMs', [250, 500, 1200], 500);
  for (const { name } of RARE_SITES) {
    if (decide(`rare.${name}`, () => random.chance(RARE_CHANCE), false)) {
      world.rare.arm(name, world.random(`rare/${name}`));
    }
  }
  const cluster = new BranchingCluster(context, options);
  cluster.start();
  const user = new BranchUser(context, cluster, {
    changeEveryMs: CHANGE_EVERY_MS,
    branchesMax: BRANCHES_MAX,
    changes,
    readsMoments,
  });
  const machine = cluster.machine('user');
  machine.start((process) => void user.begin(process));
  await world.run({ untilMs: CREATE_MS, isDone: () => user.hasProject });
  if (world.violation) return;
  if (!user.hasProject) return world.fail('a project can be created', user.lastError);
  cluster.computes.keepBusy();
  user.work(machine.process!);
  const shardUser = options.shards && shards && new ShardUser(context, cluster, shards);
  shardUser?.work(machine.process!, world.nowMs + safetyMs);
  if (options.spares) new MemberChanges(context, cluster).work(machine.process!, world.nowMs + safetyMs);
  const { storageNames, pageserverNames, computeNames } = cluster;
  context.armFaults(cluster.injector, {
    mix: FAULTS,
    everyMs,
    safetyMs,
    storage: storageNames,
    computes: computeNames,
    others: [...pageserverNames, ...pageserverNames, ...computeNames, 'control', 'control'],
    // A control plane's clock that jumps ends leases: nothing could be demanded of what they keep.
    clocks: [...storageNames, ...pageserverNames, ...(options.isCluster ? computeNames : [])],
    losable: [...storageNames, ...pageserverNames],
  });
  await world.run({ untilMs: world.nowMs + safetyMs });
  if (!world.violation) await convergeBranches(context, cluster, user);
  if (!world.violation) await branchesCanBeUsed(context, cluster);
  if (shardUser && !world.violation) {
    cluster.computes.rest();
    await shardUser.finish();
  }
  machine.crash();
  cluster.computes.rest();
  if (!world.violation) await repaired(context, cluster);
  if (world.violation) return;
  await computesRest(context, cluster);
  if (world.violation) return;
  await calm(context);
  if (!world.violation) await shardUser?.checkEnd();
  if (world.violation) return;
  cluster.listed.check();
  cluster.known.checkEnd();
  operations.check(world);
}

/** Safekeepers that lost their disks have joined again, and changes of members have been made. */
async function repaired({ world }: ScenarioContext, cluster: BranchingCluster): Promise<void> {
  const isDone = () => !cluster.hasLostDisk && unsettled(cluster).length === 0;
  await world.run({ untilMs: world.nowMs + REPAIR_MS, isDone });
  if (world.violation || isDone()) return;
  const lacking = cluster.lacking.map((each) => `${each.timeline} (${each.state}, missing ${each.missing})`);
  const what = cluster.hasLostDisk
    ? `a safekeeper has not joined again: ${lacking}`
    : unsettled(cluster).join('\n');
  world.fail('convergence', `${REPAIR_MS} ms after everything was mended: ${what}`);
}

/** Nobody uses it any more: soon nothing much happens, or somebody asks or tries again and again without a pause. */
async function calm({ world }: ScenarioContext): Promise<void> {
  await world.run({ untilMs: world.nowMs + CALM_AFTER_MS });
  const before = world.trace.events;
  await world.run({ untilMs: world.nowMs + CALM_MS });
  const perSecond = (1000 * (world.trace.events - before)) / CALM_MS;
  if (world.violation || perSecond <= CALM_PER_SECOND_MAX) return;
  world.fail('who has nothing to do rests', `${perSecond} events a second while nobody uses it`);
}

/** Swarm: every run has its own kind of installation, its own features, and its own load. */
function drawOptions(context: ScenarioContext): BranchingOptions {
  const { random, decide, pick } = context;
  const isCluster = decide('isCluster', () => random.chance(0.5), false);
  const hasHistory = decide('history', () => random.chance(0.6), false);
  const bytes = pick('history.bytes', [0, 20_000, 100_000], 0);
  const gcIntervalMs = pick('history.gcIntervalMs', [150, 600], 150);
  const offloads = decide('offload', () => random.chance(0.6), false);
  const offload = {
    tickMs: pick('offload.tickMs', [50, 300], 50),
    tailMs: pick('offload.tailMs', [100, 700], 100),
    movingTailMs: pick('offload.movingTailMs', [500, 3000], 500),
    evictMs: pick('offload.evictMs', [300, 1200], 300),
    busyMs: 0,
  };
  const layers = {
    layerBytesMax: pick('layers.bytesMax', [6_000, 12_000, 60_000], 12_000),
    compaction: {
      mergeLayers: pick('layers.merge', [2, 3], 2),
      targetBytes: 40_000,
      imagePages: pick('layers.imagePages', [8, 24, 64], 24),
      gcGainBytesMin: 4_000,
    },
  };
  const safekeepers = pick('safekeepers', [3, 3, 5], 3);
  const changesMembers = decide('members', () => random.chance(0.6), false);
  const placement = {
    leavesLost: decide('placement.leavesLost', () => random.chance(0.5), false),
    replaceAfterMs: pick('placement.replaceAfterMs', [NEVER_MS, 100, 600], NEVER_MS),
  };
  const isTold = context.random.stream('told');
  return {
    computes: decide('computes', () => 2 + random.int(2), 2),
    ...drawPageLoad(context, { thinkMs: [15, 40], longShare: [0, 0, 0.01] }),
    safekeepers,
    spares: isCluster && changesMembers ? 2 : 0,
    isCluster,
    placement,
    sizes: layers,
    ...(hasHistory ? { history: { bytes, gcIntervalMs } } : {}),
    offload: offloads ? offload : { busyMs: 0 },
    machines: {
      clockDrift: pick('clockDrift', [0, 0.001, 0.02], 0),
      syncMs: pick('syncMs', [0.1, 0.5, 3], 0.5),
    },
    membershipTold: (configurations: readonly Membership[], told: Membership) => {
      if (configurations.length === 1 || isTold.chance(0.8)) return told;
      context.world.mark('members: a compute began with a configuration that is over');
      return isTold.pick(configurations.slice(-4));
    },
    suspendAfterMs: pick('computes.suspendAfterMs', [100, 400, 1500], 1500),
    activityIntervalMs: pick('computes.activityIntervalMs', [30, 100], 100),
    sessionMs: pick('computes.sessionMs', [400, 1500], 1500),
  };
}

function drawRows({ random, decide, pick }: ScenarioContext): RegisterLoad | undefined {
  const hasRows = decide('rows', () => random.chance(0.4), false);
  const load = {
    clients: decide('rows.clients', () => 1 + random.int(3), 1),
    rows: decide('rows.count', () => 1 + random.int(3), 1),
    thinkMs: pick('rows.thinkMs', [20, 80], 80),
  };
  return hasRows ? load : undefined;
}
