/**
 * What many timelines cost the control plane of a cluster while nothing happens: how long the holder of the control lease needs
 * to have them all again from their snapshots on three NATS servers, what each takes in memory, and how many messages are sent
 * for them.
 */
import { tenantDefinition } from '../../actors/tenant/tenant.ts';
import { timelineDefinition } from '../../actors/timeline/timeline.ts';
import { ControlActors } from '../../deploy/node/control-actors.ts';
import { LocalActors } from '../../deploy/node/parent-runtime.ts';
import { NatsBus } from '../../runtime/adapters/nats-bus.ts';
import { NatsConnection } from '../../runtime/adapters/nats-connection.ts';
import { NatsJournalStore } from '../../runtime/adapters/nats-journal.ts';
import { prepareStreams } from '../../runtime/adapters/nats-streams.ts';
import { MetricsRegistry } from '../../runtime/adapters/open-metrics.ts';
import { createLog } from '../../runtime/adapters/pino-log.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { SystemRandom } from '../../runtime/adapters/system-random.ts';
import { ActorState } from '../../runtime/host/actor-state.ts';
import type { ActorDefinition, ActorEvent } from '../../runtime/host/definition.ts';
import type { JournalStore } from '../../runtime/ports/journal.ts';
import { NatsCluster } from '../support/nats-server.ts';
import { pause } from '../support/processes.ts';
import type { BenchOptions, Figure } from './figures.ts';

const BRANCHES_PER_PROJECT = 100;
const WRITING_AT_A_TIME = 64;
const IDLE_MS = 10_000;
const MEMBERS = ['sk-a', 'sk-b', 'sk-c'];
const START_LSN = 0x1500000;

export async function benchScale({ long, say }: BenchOptions): Promise<Figure[]> {
  const timelines = long ? 10_000 : 1_000;
  const nats = await NatsCluster.start();
  const clock = new SystemClock();
  const random = new SystemRandom();
  const log = createLog({ level: 'error' });
  const connection = await NatsConnection.connect({ servers: nats.url, name: 'bench', clock, log });
  try {
    const jetstream = await prepareStreams({ connection, clock });
    const journals = new NatsJournalStore({ jetstream, clock, random, log });
    say(`scale: writing ${timelines} timelines`);
    await writeProjects(journals, timelines);
    const services = { bus: new NatsBus(connection, clock), clock, random, log, journals };
    const spawner = new LocalActors({ ...services, metrics: new MetricsRegistry() });
    const control = new ControlActors({ spawner, ...services });
    const before = memory();
    say('scale: the control plane starts');
    const began = performance.now();
    await control.load();
    const seconds = (performance.now() - began) / 1000;
    const found = control.timelineStatuses().length;
    if (found !== timelines) throw new Error(`${found} of ${timelines} timelines are there`);
    const bytes = (memory() - before) / timelines;
    const messagesBefore = await messagesOf(nats);
    await pause(IDLE_MS);
    const messages = ((await messagesOf(nats)) - messagesBefore) / (IDLE_MS / 1000);
    await spawner.stopAll();
    const with_ = `with ${timelines} timelines`;
    return [
      { name: `control plane starts, ${with_}`, unit: 's', ours: seconds, note: 'target 10 of 10,000' },
      { name: `memory of an idle timeline, ${with_}`, unit: 'bytes', ours: bytes, note: 'target 65,536' },
      { name: `messages to NATS while idle, ${with_}`, unit: 'per s', ours: messages },
    ];
  } finally {
    await connection.close();
    await nats.stop();
  }
}

async function writeProjects(journals: JournalStore, timelines: number): Promise<void> {
  const ids = Array.from({ length: timelines }, (_, index) => index);
  const queue = ids[Symbol.iterator]();
  const work = async () => {
    for (const index of queue) await writeTimeline(journals, index);
  };
  await Promise.all(Array.from({ length: WRITING_AT_A_TIME }, work));
  for (let project = 0; project * BRANCHES_PER_PROJECT < timelines; project++) {
    await writeProject(
      journals,
      project,
      Math.min(BRANCHES_PER_PROJECT, timelines - project * BRANCHES_PER_PROJECT),
    );
  }
}

const id = (kind: number, index: number) => `${kind}${String(index).padStart(31, '0')}`;
const tenantOf = (index: number) => id(1, Math.floor(index / BRANCHES_PER_PROJECT));
const isFirst = (index: number) => index % BRANCHES_PER_PROJECT === 0;
const ancestorOf = (index: number) => id(2, index - (index % BRANCHES_PER_PROJECT));

function writeTimeline(journals: JournalStore, index: number): Promise<void> {
  const origin = isFirst(index)
    ? { kind: 'template', key: 'templates/17/index.json', startLsn: START_LSN }
    : { kind: 'branch', timeline: ancestorOf(index), point: { kind: 'lsn', lsn: START_LSN } };
  const spec = {
    tenant: tenantOf(index),
    pgVersion: 17,
    systemId: '7300000000000000000',
    members: MEMBERS,
    pageserver: 'ps-a',
    origin,
  };
  const ancestor = isFirst(index) ? {} : { ancestor: { timeline: ancestorOf(index), lsn: START_LSN } };
  const definition = timelineDefinition({} as never) as unknown as ActorDefinition<never, ActorEvent>;
  const events = [
    { type: 'timeline.requested', spec, timeMs: 1 },
    { type: 'timeline.resolved', startLsn: START_LSN, ...ancestor },
    { type: 'timeline.activated', missing: [] },
  ];
  return writeJournal(journals, definition, id(2, index), events);
}

function writeProject(journals: JournalStore, project: number, branches: number): Promise<void> {
  const tenant = id(1, project);
  const spec = {
    name: `p${project}`,
    pgVersion: 17,
    template: { key: 'templates/17/index.json', startLsn: START_LSN, systemId: '7300000000000000000' },
    safekeepers: MEMBERS,
    pageserver: 'ps-a',
  };
  const first = project * BRANCHES_PER_PROJECT;
  const events: ActorEvent[] = [
    { type: 'project.created', spec, password: 'x', timeMs: 1 } as ActorEvent,
    { type: 'project.password-set' },
  ];
  for (let branch = 0; branch < branches; branch++) {
    const timeline = id(2, first + branch);
    const name = branch === 0 ? 'main' : `b${branch}`;
    const from = { timeline: id(2, first), name: 'main', point: { kind: 'lsn', lsn: START_LSN } };
    const ancestor = { timeline: id(2, first), lsn: START_LSN };
    events.push(
      {
        type: 'branch.requested',
        name,
        timeline,
        timeMs: 1,
        ...(branch === 0 ? {} : { from }),
      } as ActorEvent,
      {
        type: 'branch.created',
        name,
        timeline,
        startLsn: START_LSN,
        ...(branch === 0 ? {} : { ancestor }),
      } as ActorEvent,
    );
  }
  const definition = tenantDefinition({} as never) as unknown as ActorDefinition<never, ActorEvent>;
  return writeJournal(journals, definition, tenant, events);
}

/** What its actor would have: one entry, and a snapshot after it in which nothing is under way. */
async function writeJournal(
  journals: JournalStore,
  definition: ActorDefinition<never, ActorEvent>,
  name: string,
  events: ActorEvent[],
): Promise<void> {
  const { state } = ActorState.initial(definition, name).apply(definition, { events });
  const journal = await journals.open(definition.kind, name);
  const { status } = await journal.append(0, { events });
  if (status !== 'ok') throw new Error(`journal ${name}: ${status}`);
  await journal.snapshot(1, { ...state.keep(), outstanding: [] });
  await journal.close();
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
