/**
 * What many timelines cost the control plane of a cluster while nothing happens: how long the holder of the control lease needs
 * to have them all again from their snapshots on three NATS servers, what each takes in memory, how many messages are sent
 * for them, and what the holder's rounds take of a processor.
 *
 * The holder is the real one. Of the nodes only what it asks them is there: their signs of life, and what they say that they run.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ROLES } from '../../actors/placement/plan.ts';
import { CONTROL_ID, CONTROL_KIND } from '../../deploy/client/control.ts';
import { COMPUTE_NODE_KIND, type ComputeNodeView } from '../../deploy/cluster/compute-node.ts';
import { ControlLeader } from '../../deploy/cluster/control-leader.ts';
import { type NodeRecord, Registration } from '../../deploy/cluster/registry.ts';
import { NatsBus } from '../../runtime/adapters/nats-bus.ts';
import { NatsConnection } from '../../runtime/adapters/nats-connection.ts';
import { NatsJournalStore } from '../../runtime/adapters/nats-journal.ts';
import { natsLeases } from '../../runtime/adapters/nats-leases.ts';
import { prepareStreams } from '../../runtime/adapters/nats-streams.ts';
import { openObjects } from '../../runtime/adapters/open-objects.ts';
import { createLog } from '../../runtime/adapters/pino-log.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { SystemRandom } from '../../runtime/adapters/system-random.ts';
import { sendCommand, serveCommands } from '../../runtime/bus/command.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import { NatsCluster } from '../support/nats-server.ts';
import { pause } from '../support/processes.ts';
import type { BenchOptions, Figure } from './figures.ts';
import { type Installation, NODE, runningCompute, timelineId, writeInstallation } from './scale-journals.ts';

const IDLE_MS = 10_000;
/** What begins with a start has come to rest by then: a manifest of each project and timeline is written. */
const SETTLE_MS_PER_TIMELINE = 3;

export async function benchScale({ long, say }: BenchOptions): Promise<Figure[]> {
  const what: Installation = { timelines: long ? 10_000 : 1_000, suspended: long ? 1_000 : 100, running: 50 };
  const nats = await NatsCluster.start();
  const folder = await mkdtemp(join(tmpdir(), 'pal-scale-'));
  const clock = new SystemClock();
  const random = new SystemRandom();
  const log = createLog({ level: 'error' });
  const connection = await NatsConnection.connect({ servers: nats.url, name: 'bench', clock, log });
  let holds = true;
  try {
    const jetstream = await prepareStreams({ connection, clock });
    const journals = new NatsJournalStore({ jetstream, clock, random, log });
    const bus = new NatsBus(connection, clock);
    const leases = natsLeases(jetstream, clock);
    say(`scale: writing ${what.timelines} timelines`);
    await writeInstallation(journals, what);
    await serveNodes(bus, what);
    const registration = new Registration(leases, nodeRecord(clock.now()), { clock, log });
    await registration.register();
    const location = { kind: 'local' as const, directory: join(folder, 'objects') };
    const before = memory();
    say('scale: the control plane starts');
    const began = performance.now();
    const leader = new ControlLeader({
      node: NODE,
      epoch: 1,
      jetstream,
      bus,
      journals,
      leases,
      objects: await openObjects(location, { clock, random }),
      clock,
      random,
      log,
      location,
      workDir: folder,
      pgVersion: 17,
      suspendAfterSeconds: 0,
      replaceAfterSeconds: 600,
      isHolder: () => holds,
      onActorLost: (reason) => log.error({ reason }, 'an actor is lost'),
    });
    await leader.start();
    const seconds = (performance.now() - began) / 1000;
    const found = await branches(bus);
    if (found !== what.timelines) throw new Error(`${found} of ${what.timelines} branches are there`);
    const rounds = leader.run();
    await pause(SETTLE_MS_PER_TIMELINE * what.timelines);
    const bytes = (memory() - before) / what.timelines;
    const messagesBefore = await messagesOf(nats);
    const processorBefore = process.cpuUsage();
    await pause(IDLE_MS);
    const { user, system } = process.cpuUsage(processorBefore);
    const messages = ((await messagesOf(nats)) - messagesBefore) / (IDLE_MS / 1000);
    holds = false;
    await rounds;
    await registration.leave();
    const with_ = `with ${what.timelines} timelines, ${what.suspended} suspended and ${what.running} running computes`;
    return [
      { name: `control plane starts, ${with_}`, unit: 's', ours: seconds, note: 'target 10 of 10,000' },
      { name: 'memory of an idle timeline', unit: 'bytes', ours: bytes, note: 'target 65,536' },
      { name: 'messages to NATS while idle, all', unit: 'per s', ours: messages },
      { name: 'the same for each timeline', unit: 'per s', ours: messages / what.timelines },
      {
        name: 'of a processor for the rounds of the holder while idle',
        unit: 'ms',
        ours: (user + system) / IDLE_MS,
        note: 'in a second',
      },
    ];
  } finally {
    holds = false;
    await connection.close();
    await nats.stop();
    await rm(folder, { recursive: true, force: true });
  }
}

function nodeRecord(startedMs: number): NodeRecord {
  return {
    name: NODE,
    zone: 'z1',
    roles: [...ROLES],
    host: '127.0.0.1',
    version: '0',
    startedMs,
    pageserverLife: 'x/0',
    port: 5432,
  };
}

/** What the holder asks nodes: which timelines they serve, and which computes they run. */
async function serveNodes(bus: Bus, { timelines, running }: Installation): Promise<void> {
  const served = Array.from({ length: timelines }, (_, index) => timelineId(index));
  const hosted: ComputeNodeView = {
    running: Array.from({ length: running }, (_, index) => ({ compute: runningCompute(index) })),
    ended: [],
  };
  serveCommands(bus, 'pageserver-node', `ps-${NODE}`, async () => served);
  serveCommands(bus, 'safekeeper-node', `sk-${NODE}`, async () => served);
  serveCommands(bus, COMPUTE_NODE_KIND, NODE, async () => hosted);
  serveCommands(bus, 'node', NODE, async () => ({}));
  await bus.flush();
}

async function branches(bus: Bus): Promise<number> {
  const command = { type: 'project.list' };
  const { projects } = await sendCommand<{ projects: { branches: number }[] }>(
    bus,
    CONTROL_KIND,
    CONTROL_ID,
    command,
    {
      timeoutMs: 30_000,
    },
  );
  return projects.reduce((sum, project) => sum + project.branches, 0);
}

function memory(): number {
  globalThis.gc?.();
  return process.memoryUsage().rss;
}

/** Messages that the servers have received from clients so far. */
async function messagesOf(nats: NatsCluster): Promise<number> {
  const views = await Promise.all(nats.servers.map((server) => server.monitor('varz')));
  return views.reduce((sum: number, view) => sum + (view as { in_msgs: number }).in_msgs, 0);
}
