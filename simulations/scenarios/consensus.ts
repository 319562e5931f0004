/**
 * Scenarios of the consensus: safekeepers and walproposers of production, with computes that fail, fence each other and come
 * back, over disks and networks that fail. Each stresses one thing; the kitchen sink all of them.
 */
import { CONSENSUS_CANARIES } from '../cluster/consensus-canaries.ts';
import type { Workload } from '../cluster/sim-postgres.ts';
import type { FaultMix } from '../faults/plan.ts';
import { CALM_NETWORK, type NetworkLimits } from '../world/network.ts';
import { type ClusterOptions, ConsensusCluster } from './consensus-cluster.ts';
import type { Scenario, ScenarioContext } from './scenario.ts';

const SAFETY_MS = 20_000;
const CONVERGE_MS = 90_000;

interface ConsensusScenario {
  name: string;
  summary: string;
  mix: FaultMix;
  everyMs: number;
  marks: string[];
  canaries?: string[];
  safekeepers?: number[];
  workload?: Partial<Workload>;
}

const ALL_FAULTS: FaultMix = {
  crash: 3,
  'crash at a write': 3,
  'crash all': 0.5,
  pause: 2,
  'new compute': 3,
  partition: 2,
  isolate: 1,
  cut: 1,
  'slow link': 1,
  'full disk': 1,
  'slow disk': 1,
  'failing disk': 0.5,
  'clock jump': 0.5,
};

const CONSENSUS: ConsensusScenario[] = [
  {
    name: 'election-storm',
    summary: 'computes take over from each other again and again while messages are slow and lost',
    mix: { 'new compute': 6, partition: 2, cut: 2, 'slow link': 2, pause: 1 },
    everyMs: 400,
    marks: ['compute: deposed', 'compute: a rival was started'],
    canaries: ['term-of-stranger'],
  },
  {
    name: 'dueling-computes',
    summary: 'all computes start in the same moment and ask for the same votes',
    mix: { duel: 6, 'slow link': 2, partition: 1 },
    everyMs: 500,
    marks: ['compute: elected'],
    canaries: ['vote-twice'],
  },
  {
    name: 'lagging-safekeeper',
    summary: 'one safekeeper or two are cut off or slow, and must be brought up to date from the others',
    mix: { isolate: 3, 'slow disk': 2, 'slow link': 2, crash: 1, 'new compute': 1 },
    everyMs: 1500,
    marks: ['network: connection broke over a blocked link'],
    workload: { thinkMs: 3, longShare: 0.05 },
  },
  {
    name: 'torn-tails',
    summary: 'safekeepers lose power in the middle of writes; long records cross pages and segments',
    mix: { 'crash at a write': 6, 'crash all': 2, 'new compute': 2 },
    everyMs: 700,
    marks: ['disk: a write was torn by a crash', 'oracle: replay compared with the live state'],
    canaries: ['ack-before-fsync', 'vote-not-durable'],
    workload: { longShare: 0.1, pieceBytes: 60_000 },
  },
  {
    name: 'zombie-compute',
    summary: 'a compute is paused, another takes over, the old one wakes up and writes',
    mix: { pause: 4, 'new compute': 4, partition: 1 },
    everyMs: 800,
    marks: ['compute: deposed'],
    canaries: ['term-of-stranger'],
  },
  {
    name: 'full-disk',
    summary: 'disks are full, slow and failing, and recover',
    mix: { 'full disk': 4, 'slow disk': 3, 'failing disk': 2, crash: 1, 'new compute': 1 },
    everyMs: 1200,
    marks: ['disk: a write met a full disk', 'disk: a sync failed'],
    workload: { thinkMs: 4, recordBytes: 800, longShare: 0.05 },
  },
  {
    name: 'clock-jumps',
    summary: 'wall clocks jump by up to an hour, to and fro, while computes and safekeepers come and go',
    mix: { 'clock jump': 8, 'new compute': 2, crash: 2, pause: 1, partition: 1 },
    everyMs: 400,
    marks: ['clock: a wall clock jumped', 'compute: elected', 'oracle: replay compared with the live state'],
  },
  {
    name: 'consensus-kitchen-sink',
    summary: 'every fault there is, at once, over three or five safekeepers',
    mix: ALL_FAULTS,
    everyMs: 500,
    marks: ['compute: deposed', 'disk: a write was torn by a crash', 'compute: an election failed'],
    canaries: CONSENSUS_CANARIES.map(({ name }) => name).filter((name) => name !== 'vote-twice'),
    safekeepers: [3, 3, 5],
  },
];

export const CONSENSUS_SCENARIOS: Scenario[] = CONSENSUS.map((scenario) => ({
  name: scenario.name,
  summary: scenario.summary,
  canaries: scenario.canaries ?? [],
  marks: [...scenario.marks, 'client: commit acknowledged', 'converged'],
  run: (context) => runConsensus(scenario, context),
}));

async function runConsensus(scenario: ConsensusScenario, context: ScenarioContext): Promise<void> {
  const { world } = context;
  const options = drawOptions(scenario, context);
  const cluster = new ConsensusCluster(context, options);
  const safetyMs = SAFETY_MS * context.effort;
  await cluster.create();
  cluster.supervise();
  context.armFaults(cluster.injector, {
    mix: scenario.mix,
    safetyMs,
    everyMs: scenario.everyMs,
    storage: cluster.storageNames,
    computes: cluster.computeNames,
  });
  await world.run({ untilMs: world.nowMs + safetyMs });
  if (!world.violation) await cluster.converge(CONVERGE_MS);
  if (!world.violation) await cluster.calm();
  if (!world.violation) cluster.checkEnd();
}

/** Swarm: every run has its own size, speed and load. */
function drawOptions(scenario: ConsensusScenario, { random, decide, pick }: ScenarioContext): ClusterOptions {
  const network: NetworkLimits = {
    ...CALM_NETWORK,
    latencyMs: pick('network.latencyMs', [0.05, 0.2, 1, 10], 0.2),
    slowShare: pick('network.slowShare', [0, 0, 0.01, 0.1], 0),
    slowMs: pick('network.slowMs', [5, 50, 500], 5),
    keepaliveMs: pick('network.keepaliveMs', [1000, 4000, 15_000], 4000),
  };
  const workload: Workload = {
    clients: decide('workload.clients', () => 1 + random.int(6), 1),
    thinkMs: pick('workload.thinkMs', [5, 20, 100], 100),
    recordBytes: pick('workload.recordBytes', [40, 200, 1500], 200),
    longShare: pick('workload.longShare', [0, 0, 0.02], 0),
    pieceBytes: pick('workload.pieceBytes', [500, 9000, 130_000], 130_000),
    electTimeoutMs: pick('workload.electTimeoutMs', [2000, 10_000], 10_000),
    lagMs: pick('workload.lagMs', [0, 0, 3], 0),
    ...scenario.workload,
  };
  const safekeepers = scenario.safekeepers ?? [3];
  return {
    safekeepers: pick('safekeepers', safekeepers, safekeepers[0]!),
    computes: decide('computes', () => 2 + random.int(2), 2),
    network,
    workload,
    clockDrift: pick('clockDrift', [0, 0.001, 0.02], 0),
    syncMs: pick('syncMs', [0.1, 0.5, 4], 0.5),
  };
}
