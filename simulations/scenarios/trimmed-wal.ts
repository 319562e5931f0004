/**
 * WAL leaves the safekeepers' disks: it goes to objects, and whoever lags, follows or looks back reads it from there, while object
 * storage fails, safekeepers crash at every step, and the timeline falls asleep and wakes up.
 */
import { safekeeperActorId } from '../../actors/safekeeper/definition.ts';
import { WalReader, WalStream } from '../../actors/safekeeper/wal-client.ts';
import { formatLsn, type Lsn, segmentStart } from '../../protocols/lsn.ts';
import { openChannel } from '../../runtime/channels/door.ts';
import type { FaultMix } from '../faults/plan.ts';
import { firstDifference } from '../oracles/agreed-history.ts';
import type { SimProcess } from '../world/machine.ts';
import { CALM_NETWORK } from '../world/network.ts';
import { ConsensusCluster } from './consensus-cluster.ts';
import type { Scenario, ScenarioContext } from './scenario.ts';

const SAFETY_MS = 20_000;
const CONVERGE_MS = 90_000;
const REST_EVERY_MS = 3500;
/** Shortly before a segment's end. */
const START_AT = 0.5;
const READ_EVERY_MS = 150;
const READ_BYTES_MAX = 100_000;

const MIX: FaultMix = {
  crash: 2,
  'crash at a write': 4,
  'crash all': 0.5,
  isolate: 2,
  pause: 1,
  'new compute': 2,
  'slow disk': 1,
  'full disk': 1,
  'object store failing': 4,
};

const LOST_DISK_MIX: FaultMix = {
  crash: 3,
  'crash at a write': 2,
  partition: 3,
  isolate: 2,
  pause: 2,
  'new compute': 3,
};
const LOSE_EVERY_MS = 2000;
/** How long one misses what the others commit, and then the only one that has it is down. */
const MISSED_MS = 700;
const ALONE_MS = 2000;

export const LOST_DISK: Scenario = {
  name: 'lost-disk',
  summary:
    'a safekeeper loses its disk with its votes and its WAL, and joins again, while others crash and are cut off',
  canaries: ['lost-disk-begins-anew'],
  marks: [
    'client: commit acknowledged',
    'compute: deposed',
    'safekeeper: a disk was lost',
    'safekeeper: joined again after its disk was lost',
    'converged',
  ],
  run: (context) => run(context, LOST_DISK_MIX, scheduleLosses),
};

export const TRIMMED_WAL: Scenario = {
  name: 'trimmed-wal',
  summary: 'WAL leaves the disks for objects, which fail; laggards and readers get it from there',
  canaries: ['tail-stored-too-early'],
  marks: [
    'client: commit acknowledged',
    'objects: a segment was compared',
    'objects: a partial was compared',
    'safekeeper: whole segments were given up',
    'safekeeper: all local WAL was given up',
    'reader: WAL was read that is in objects only',
    'objects: a request was refused',
    'converged',
  ],
  run: (context) => run(context, MIX, scheduleRests),
};

type Schedule = (context: ScenarioContext, cluster: ConsensusCluster, untilMs: number) => void;

async function run(context: ScenarioContext, mix: FaultMix, schedule: Schedule): Promise<void> {
  const { world, random, decide, pick } = context;
  const cluster = new ConsensusCluster(context, {
    safekeepers: 3,
    computes: 2,
    network: {
      ...CALM_NETWORK,
      latencyMs: pick('network.latencyMs', [0.05, 0.5, 3], 0.5),
      keepaliveMs: 3000,
    },
    workload: {
      clients: decide('workload.clients', () => 1 + random.int(3), 1),
      thinkMs: pick('workload.thinkMs', [10, 40], 40),
      recordBytes: pick('workload.recordBytes', [1500, 6000], 1500),
      longShare: pick('workload.longShare', [0, 0.01], 0),
      pieceBytes: pick('workload.pieceBytes', [3000, 50_000], 50_000),
      electTimeoutMs: 5000,
      lagMs: 0,
    },
    clockDrift: 0.001,
    syncMs: 0.3,
    offload: {
      tickMs: pick('offload.tickMs', [50, 300], 50),
      tailMs: pick('offload.tailMs', [100, 700], 100),
      movingTailMs: pick('offload.movingTailMs', [500, 5000], 500),
      evictMs: pick('offload.evictMs', [300, 1200], 300),
      busyMs: pick('offload.busyMs', [0, 600], 0),
    },
    startAt: START_AT,
  });
  await cluster.create();
  cluster.supervise();
  cluster.user.start((process) => {
    follow(process, cluster);
    void readBack(process, context, cluster);
  });
  const safetyMs = SAFETY_MS * context.effort;
  schedule(context, cluster, safetyMs);
  context.armFaults(cluster.injector, {
    mix,
    safetyMs,
    everyMs: 700,
    storage: cluster.storageNames,
    computes: cluster.computeNames,
  });
  await world.run({ untilMs: world.nowMs + safetyMs });
  if (!world.violation) await cluster.converge(CONVERGE_MS);
  if (!world.violation) await cluster.calm();
  if (!world.violation) cluster.checkEnd();
}

/** Now and then nobody uses the timeline, for longer than it takes to give its WAL up. */
function scheduleRests({ world, random }: ScenarioContext, cluster: ConsensusCluster, untilMs: number): void {
  for (
    let atMs = random.exponential(REST_EVERY_MS);
    atMs < untilMs;
    atMs += random.exponential(REST_EVERY_MS)
  ) {
    const forMs = random.between(500, 4000);
    world.after(atMs, undefined, 'rest', () => cluster.rest(forMs));
  }
}

/**
 * Again and again the worst moment: one safekeeper has missed what the other two committed; of these one loses its disk, and the
 * other, which alone has it all, is down. Whoever counts the lost one as a voter elects a leader that lacks commits.
 */
function scheduleLosses(
  { world, random }: ScenarioContext,
  cluster: ConsensusCluster,
  untilMs: number,
): void {
  const last = untilMs - MISSED_MS - ALONE_MS;
  for (
    let atMs = random.exponential(LOSE_EVERY_MS);
    atMs < last;
    atMs += ALONE_MS + random.exponential(LOSE_EVERY_MS)
  ) {
    const late = random.pick(cluster.safekeepers);
    const lost = random.pick(cluster.safekeepers.filter((each) => each !== late));
    const whole = cluster.safekeepers.find((each) => each !== late && each !== lost)!;
    world.after(atMs, undefined, 'one stops', () => cluster.stopSafekeeper(late));
    world.after(atMs + MISSED_MS, undefined, 'disk lost', () => {
      cluster.loseDisk(lost);
      if (random.chance(0.7)) cluster.stopSafekeeper(whole);
      cluster.startSafekeeper(late);
    });
    world.after(atMs + MISSED_MS + ALONE_MS, undefined, 'all are back', () => cluster.startSafekeeper(whole));
  }
}

/** A pageserver as safekeepers see it: it follows, and can do without all WAL that it has taken. */
function follow(process: SimProcess, cluster: ConsensusCluster): void {
  const { clock, log, bus, network } = process.ports;
  const { timeline, members, startLsn } = cluster.timeline;
  let received: Lsn = startLsn;
  const { world } = cluster.surroundings;
  new WalStream({
    clock,
    log,
    dial: (node) =>
      openChannel(bus, network, 'safekeeper', safekeeperActorId(timeline, node), { timeoutMs: 2000 }),
    safekeepers: members,
    from: startLsn,
    onWal: (begin, bytes) => {
      const at = firstDifference(bytes, cluster.history.read(begin, (begin + bytes.length) as Lsn));
      if (at >= 0)
        world.fail('the same LSN has the same bytes', `streamed WAL differs at ${formatLsn(begin + at)}`);
      received = (begin + bytes.length) as Lsn;
    },
    onError: (error) => world.fail('WAL can be followed', error.message),
    feedback: () => ({ receivedLsn: received, remoteLsn: received }),
  });
}

/** Reads any committed stretch from any safekeeper, and compares it with what was agreed on. */
async function readBack(
  process: SimProcess,
  context: ScenarioContext,
  cluster: ConsensusCluster,
): Promise<void> {
  const { clock, bus, network } = process.ports;
  const { timeline, members, startLsn } = cluster.timeline;
  const random = context.random.stream('reader');
  for (;;) {
    await clock.sleep(random.exponential(READ_EVERY_MS));
    const node = random.pick(members);
    try {
      const address = safekeeperActorId(timeline, node);
      const channel = await openChannel(bus, network, 'safekeeper', address, { timeoutMs: 2000 });
      const reader = new WalReader(channel, clock, { committedOnly: true });
      try {
        await readOne(reader, { node, context, cluster, from: drawFrom(random.float(), startLsn, cluster) });
      } finally {
        reader.close();
      }
    } catch {
      // The safekeeper is down, or objects are: a clear error is an answer, other bytes are not.
    }
  }
}

function drawFrom(dice: number, startLsn: Lsn, cluster: ConsensusCluster): Lsn {
  return (startLsn + Math.floor(dice * dice * (cluster.history.end - startLsn))) as Lsn;
}

async function readOne(
  reader: WalReader,
  {
    node,
    context,
    cluster,
    from,
  }: { node: string; context: ScenarioContext; cluster: ConsensusCluster; from: Lsn },
): Promise<void> {
  const { world } = context;
  const { offload, commitLsn } = await reader.status();
  const { localLsn, backupLsn } = offload!;
  if (localLsn > cluster.timeline.startLsn && localLsn === segmentStart(localLsn)) {
    world.mark('safekeeper: whole segments were given up');
  }
  if (localLsn === commitLsn && localLsn > backupLsn) world.mark('safekeeper: all local WAL was given up');
  const bytes = await reader.read(from, READ_BYTES_MAX);
  if (bytes.length > 0 && from < localLsn) world.mark('reader: WAL was read that is in objects only');
  const at = firstDifference(bytes, cluster.history.read(from, (from + bytes.length) as Lsn));
  if (at >= 0) {
    world.fail('the same LSN has the same bytes', `${node} reads other bytes at ${formatLsn(from + at)}`);
  }
}
