/**
 * The safekeepers of a timeline are replaced, one or two at a time, while computes write, and while everything fails: the owner of the
 * timeline crashes at every step, members crash, are cut off, or have lost their disks and come back as if nothing had been, and computes
 * start with a configuration that is over.
 */
import type { TimelineCommand } from '../../actors/timeline/events.ts';
import { TIMELINE_KIND } from '../../actors/timeline/timeline.ts';
import type { Membership } from '../../protocols/consensus/membership.ts';
import type { NodeId } from '../../protocols/ids.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import { findCanary } from '../cluster/canaries.ts';
import type { Workload } from '../cluster/sim-postgres.ts';
import { TimelineMachine } from '../cluster/timeline-process.ts';
import type { FaultMix } from '../faults/plan.ts';
import { ReplayOracle } from '../oracles/replay-oracle.ts';
import type { SimProcess } from '../world/machine.ts';
import { CALM_NETWORK } from '../world/network.ts';
import type { SimRandom } from '../world/random.ts';
import { ConsensusCluster } from './consensus-cluster.ts';
import { drawMembers } from './member-changes.ts';
import type { Scenario, ScenarioContext } from './scenario.ts';

const SAFETY_MS = 15_000;
const CONVERGE_MS = 120_000;
const CREATE_MS = 20_000;
const OWNER = 'owner';
/** Pause between two changes, and how soon after the decision a disk is lost or the change is given up. */
const CHANGE_EVERY_MS = 1200;
const SOON_MS = 150;
const COMMAND_TIMEOUT_MS = 1500;

const MIX: FaultMix = {
  crash: 3,
  'crash at a write': 4,
  'crash all': 0.5,
  pause: 2,
  'new compute': 3,
  partition: 2,
  isolate: 2,
  cut: 1,
  'slow link': 1,
  'slow disk': 1,
};

export const REPLACED_SAFEKEEPER: Scenario = {
  name: 'replaced-safekeeper',
  summary:
    'the safekeepers of a timeline are replaced while computes write, and any of them crash or lose their disks',
  canaries: ['joint-counted-over-union', 'old-configuration-goes-on'],
  marks: [
    'client: commit acknowledged',
    'members: a change was decided',
    'members: two were replaced at once',
    'members: a change was completed',
    'members: a change was given up',
    'members: a compute began with a configuration that is over',
    'safekeeper: a disk was lost',
    'oracle: replay compared with the live state',
    'compute: deposed',
    'converged',
  ],
  run,
};

async function run(context: ScenarioContext): Promise<void> {
  const { world, random, decide } = context;
  const pick = <T>(name: string, from: readonly T[], simplest: T) =>
    decide(name, () => random.pick(from), simplest);
  const owner: { it: TimelineMachine | undefined } = { it: undefined };
  const workload: Workload = {
    clients: decide('workload.clients', () => 1 + random.int(3), 1),
    thinkMs: pick('workload.thinkMs', [5, 20, 60], 60),
    recordBytes: pick('workload.recordBytes', [60, 800], 60),
    longShare: pick('workload.longShare', [0, 0.02], 0),
    pieceBytes: pick('workload.pieceBytes', [3000, 50_000], 50_000),
    electTimeoutMs: 3000,
    lagMs: pick('workload.lagMs', [0, 0, 3], 0),
  };
  const options = {
    safekeepers: 3,
    spares: 2,
    computes: 2,
    network: {
      ...CALM_NETWORK,
      latencyMs: pick('network.latencyMs', [0.05, 0.5, 5], 0.5),
      keepaliveMs: 3000,
    },
    workload,
    clockDrift: 0.001,
    syncMs: pick('syncMs', [0.1, 1], 0.3),
  };
  let isDown = () => false;
  const cluster = new ConsensusCluster(context, options, (makeMachine, _bucket, timeline) => {
    const it = new TimelineMachine({
      machine: makeMachine(OWNER),
      timeline: timeline.timeline,
      spec: {
        tenant: timeline.tenant,
        pgVersion: timeline.pgVersion,
        systemId: String(timeline.systemId),
        members: timeline.members,
        pageserver: 'ps1',
        origin: { kind: 'template', key: 'none', startLsn: timeline.startLsn },
      },
      oracle: new ReplayOracle(world),
      wrapBus: findCanary(context.canary, context.world)?.wrapControlBus,
      isDown: () => isDown(),
    });
    owner.it = it;
    return [{ machine: it.machine, isStorage: true, start: () => it.start(), crash: () => it.crash() }];
  });
  isDown = () => cluster.injector.isDown(OWNER);
  const it = owner.it!;
  for (const safekeeper of cluster.safekeepers) safekeeper.start();
  await world.run({ untilMs: world.nowMs + 300 });
  it.start();
  await world.run({ untilMs: world.nowMs + CREATE_MS, isDone: () => it.state === 'active' });
  if (it.state !== 'active') return world.fail('a timeline can be created', `it is ${it.state}`);
  cluster.configurations = it.configurations;
  cluster.membershipToldTo = () => toldTo(context, it);
  cluster.supervise();
  const safetyMs = SAFETY_MS * context.effort;
  const changes = new Changes(context, cluster, it);
  cluster.user.start((process) => void changes.run(process, world.nowMs + safetyMs));
  context.armFaults(cluster.injector, {
    mix: MIX,
    safetyMs,
    everyMs: 500,
    storage: cluster.storageNames,
    computes: cluster.computeNames,
    others: [OWNER, OWNER],
  });
  await world.run({ untilMs: world.nowMs + safetyMs });
  if (!world.violation) await cluster.converge(CONVERGE_MS);
  if (!world.violation) await cluster.calm();
  if (!world.violation) cluster.checkEnd();
}

/** Whoever starts a compute may have heard of the configuration long ago. */
function toldTo({ random, world }: ScenarioContext, { configurations, newest }: TimelineMachine): Membership {
  if (configurations.length === 1 || random.chance(0.8)) return newest;
  world.mark('members: a compute began with a configuration that is over');
  return random.pick(configurations.slice(-4));
}

/** Has members replaced, one change after the other, and sometimes loses the disk of one that goes. */
class Changes {
  readonly #context: ScenarioContext;
  readonly #cluster: ConsensusCluster;
  readonly #owner: TimelineMachine;
  readonly #random: SimRandom;
  /** One that lost its disk while it was a member; it must go before anything else may be lost. */
  #lost: NodeId | undefined;

  constructor(context: ScenarioContext, cluster: ConsensusCluster, owner: TimelineMachine) {
    this.#context = context;
    this.#cluster = cluster;
    this.#owner = owner;
    this.#random = context.random.stream('changes');
  }

  async run(process: SimProcess, untilMs: number): Promise<void> {
    const { world } = this.#context;
    const { clock } = process.ports;
    const random = this.#random;
    while (world.nowMs < untilMs) {
      await clock.sleep(random.exponential(CHANGE_EVERY_MS));
      const { members, newMembers, generation } = this.#owner.newest;
      if (newMembers) {
        if (!this.#lost && random.chance(0.15))
          await this.#send(process, { type: 'abandon-change', why: 'drawn' });
        continue;
      }
      if (this.#lost && !members.includes(this.#lost)) this.#lost = undefined;
      const gone = this.#lost ?? random.pick(members);
      const all = this.#cluster.safekeepers.map(({ node }) => node);
      const target = drawMembers(random, { members, all, gone }, 0.4);
      await this.#send(process, { type: 'change-members', members: target, why: 'drawn' });
      if (this.#owner.newest.generation === generation) continue;
      world.mark('members: a change was decided');
      if (members.filter((node) => !target.includes(node)).length > 1) {
        world.mark('members: two were replaced at once');
      }
      await clock.sleep(random.exponential(SOON_MS));
      if (random.chance(0.4)) this.#lose(gone);
    }
  }

  /** Only while it is going, or has gone: the budget is one of a configuration. */
  #lose(node: NodeId): void {
    const { newMembers, members } = this.#owner.newest;
    const isMember = members.includes(node) && newMembers === undefined;
    if (isMember || this.#lost !== undefined) return;
    if (members.includes(node)) this.#lost = node;
    this.#cluster.loseDiskForGood(this.#cluster.safekeepers.find((each) => each.node === node)!);
  }

  async #send(process: SimProcess, command: TimelineCommand): Promise<void> {
    const { world } = this.#context;
    const { generation } = this.#owner.newest;
    try {
      await sendCommand(process.ports.bus, TIMELINE_KIND, this.#cluster.timeline.timeline, command, {
        timeoutMs: COMMAND_TIMEOUT_MS,
      });
    } catch {
      // Its owner is down, or cut off: the next change is asked for later.
    }
    if (command.type === 'abandon-change' && this.#owner.newest.generation > generation) {
      world.mark('members: a change was given up');
    }
  }
}
