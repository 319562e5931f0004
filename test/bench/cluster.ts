/**
 * What a cluster costs beside a single machine, in one run: commits whose WAL goes to safekeepers of other nodes over TCP, single
 * pages from a pageserver's cache over TCP, and decisions of control actors that are durable on three NATS servers; and what commits and reads
 * lose while none of these servers runs.
 *
 * The nodes run on this one machine, so the network itself costs nothing: what is measured is the way through it.
 */
import { NatsBus } from '../../runtime/adapters/nats-bus.ts';
import { NatsConnection } from '../../runtime/adapters/nats-connection.ts';
import { JetStream } from '../../runtime/adapters/nats-jetstream.ts';
import { createLog } from '../../runtime/adapters/pino-log.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import { TestCluster } from '../support/cluster.ts';
import { PgClient, type PgTarget, parsePgUrl } from '../support/pg-client.ts';
import { bench, initialise } from '../support/pgbench.ts';
import { eventually, pause } from '../support/processes.ts';
import { TestSystem } from '../support/system.ts';
import { type BenchOptions, best, type Figure, median } from './figures.ts';
import { type PageTable, tableOf, timePages } from './get-page.ts';
import { directTarget } from './pair.ts';
import { timeRoundTrips } from './round-trip.ts';

const SCALE = 5;
const INSERT = "insert into log (body) values (repeat('x', 100));\n";
const CASES = [
  { name: 'insert', clients: 8, script: INSERT },
  { name: 'tpcb', clients: 8, script: undefined },
  { name: 'insert', clients: 1, script: INSERT },
];
/** Pages that are asked for again and again. */
const HOT_PAGES = 100;
const ROUNDS = 5;
const RATE_ROUNDS = 3;
const ROUND_PAUSE_MS = 1_000;
const LEASE_TTL_MS = 60_000;
/** As large as a decision, in a stream like those of journals. */
const BARE_BYTES = 250;
const BARE_STREAM = { name: 'BENCH', subjects: ['bench.>'], num_replicas: 3, storage: 'file' };
/** Everything has noticed by then that the servers are gone. */
const NATS_GONE_MS = 3_000;

export async function benchCluster(options: BenchOptions): Promise<Figure[]> {
  const system = new TestSystem({ safekeepers: 3 });
  let cluster: TestCluster | undefined;
  try {
    await system.start();
    cluster = await TestCluster.start();
    const running = cluster;
    const client = await cluster.client();
    await eventually('all nodes are there', async () => (await client.nodes()).length === 6);
    await client.createProject('default');
    const figures = await commits(options, system, running);
    const { timeline } = (await client.branches())[0]!;
    const connection = await PgClient.connect(await cluster.url());
    const table = await tableOf(connection, timeline, 'pgbench_accounts');
    const lsn = await connection.value("select pg_current_wal_flush_lsn() - '0/0'::pg_lsn");
    await connection.close();
    const nats = await NatsConnection.connect({
      servers: cluster.nats.url,
      name: 'bench',
      clock: new SystemClock(),
      log: createLog({ level: 'silent' }),
    });
    try {
      const bus = new NatsBus(nats, new SystemClock());
      figures.push(...(await pages(options, bus, table)));
      figures.push(await decisions(options, { nats, bus, timeline, lsn: Number(lsn) }));
    } finally {
      await nats.close();
    }
    figures.push(...(await withoutNats(options, running)));
    return figures;
  } finally {
    await cluster?.stop();
    await system.destroy();
  }
}

async function commits(
  { long, say }: BenchOptions,
  system: TestSystem,
  cluster: TestCluster,
): Promise<Figure[]> {
  const seconds = long ? 15 : 3;
  const gateways = { ours: parsePgUrl(await cluster.url()), embedded: parsePgUrl(await system.url()) };
  for (const target of Object.values(gateways)) {
    await initialise(target, SCALE);
    const client = await PgClient.connect(target);
    await client.query('create table log (id bigserial primary key, body text)');
    await client.close();
  }
  const sockets = { ours: await socketOf(gateways.ours), embedded: await directTarget(system) };
  const figures: Figure[] = [];
  for (const { name, clients, script } of CASES) {
    for (const [way, targets] of [
      ['', sockets],
      [', gateway', gateways],
    ] as const) {
      say(`cluster: ${name}, ${clients} clients${way}`);
      const rates = { ours: [] as number[], embedded: [] as number[] };
      // The sides take turns, so that a slow moment of the machine meets both.
      for (let round = 0; round < (long ? 3 : 2); round++) {
        for (const side of ['embedded', 'ours'] as const) {
          const run = { clients, seconds, ...(script === undefined ? {} : { script }) };
          rates[side].push((await bench(targets[side], run)).tps);
        }
      }
      const label = `${name} ${clients} clients over TCP${way}`;
      figures.push({ name: label, unit: 'TPS', ours: best(rates.ours), embedded: best(rates.embedded) });
    }
  }
  return figures;
}

/** Commits and reads without any NATS server, beside what they were before and are afterwards. */
async function withoutNats({ long, say }: BenchOptions, cluster: TestCluster): Promise<Figure[]> {
  const target = await socketOf(parsePgUrl(await cluster.url()));
  const cases = [
    { name: 'insert', run: { script: INSERT } },
    { name: 'select', run: { args: ['-S'] } },
  ];
  const seconds = long ? 15 : 4;
  const rates = async () => {
    const found = cases.map((): number[] => []);
    for (let round = 0; round < RATE_ROUNDS; round++) {
      for (const [at, { run }] of cases.entries()) {
        found[at]!.push((await bench(target, { clients: 8, seconds, ...run })).tps);
      }
    }
    return found.map(best);
  };
  say('cluster: with NATS');
  const before = await rates();
  say('cluster: without NATS');
  for (const server of cluster.nats.servers) await server.kill();
  await pause(NATS_GONE_MS);
  const during = await rates();
  for (const server of cluster.nats.servers) server.start();
  await cluster.nats.ready();
  const client = await cluster.client();
  await eventually('control is back', async () => (await client.nodes()).length === 6);
  say('cluster: with NATS again');
  const after = await rates();
  return cases.map(({ name }, at) => {
    const usual = (before[at]! + after[at]!) / 2;
    return {
      name: `${name} 8 clients, no NATS server`,
      unit: 'TPS',
      ours: during[at]!,
      note: `${(during[at]! / usual).toFixed(2)}x of ${usual.toFixed(0)} before and after; target 0.95`,
    };
  });
}

async function socketOf(gateway: PgTarget): Promise<PgTarget> {
  const client = await PgClient.connect(gateway);
  const host = (await client.value('show unix_socket_directories')).split(',')[0]!.trim();
  const port = await client.number('show port');
  await client.close();
  return { ...gateway, host, port, options: undefined };
}

async function pages({ long, say }: BenchOptions, bus: Bus, table: PageTable): Promise<Figure[]> {
  say('cluster: single pages over TCP');
  const count = long ? 10_000 : 3_000;
  const hot = { among: Math.min(HOT_PAGES, table.blocks) };
  await timePages(bus, table, count, hot);
  const [cached, apart, bare] = await quietest([
    () => timePages(bus, table, count, hot),
    () => timePages(bus, table, count),
    () => timeRoundTrips(count),
  ]);
  const beside = `${(cached! / bare!).toFixed(2)}x of the same bytes between two bare processes, ${(bare! * 1000).toFixed(0)} µs; target 60`;
  const figure = (name: string, ms: number, note: string): Figure => ({
    name,
    unit: 'µs',
    ours: ms * 1000,
    note,
  });
  return [
    figure('GetPage, page cache, over TCP, p50', cached!, beside),
    figure('GetPage, far apart, over TCP, p50', apart!, 'with redo where the page is not cached'),
  ];
}

/**
 * The smallest median of each kind of time in some rounds, in milliseconds: what the load before has left to do, and the machine's other
 * work, can only make one longer.
 */
async function quietest(kinds: (() => Promise<number[]>)[]): Promise<number[]> {
  const least = kinds.map(() => Number.POSITIVE_INFINITY);
  for (let round = 0; round < ROUNDS; round++) {
    for (const [kind, measure] of kinds.entries()) {
      least[kind] = Math.min(least[kind]!, median(await measure()));
    }
    await pause(ROUND_PAUSE_MS);
  }
  return least;
}

/** From a command until its answer, which comes when the event is durable; beside it one message that the same servers make durable. */
async function decisions(
  { long, say }: BenchOptions,
  { nats, bus, timeline, lsn }: { nats: NatsConnection; bus: Bus; timeline: string; lsn: number },
): Promise<Figure> {
  say('cluster: decisions of control actors');
  const count = long ? 500 : 150;
  const decide = (i: number) => {
    // Each decides something: a lease that is there already would only be looked at.
    const lease = `bench-${i >> 1}`;
    const command =
      i % 2 === 0 ? { type: 'lease', lease, lsn, ttlMs: LEASE_TTL_MS } : { type: 'release-lease', lease };
    return sendCommand(bus, 'timeline', timeline, command, { timeoutMs: 10_000 });
  };
  const jetstream = new JetStream(nats, new SystemClock());
  await jetstream.api('STREAM.CREATE.BENCH', BARE_STREAM, 10_000);
  const message = new Uint8Array(BARE_BYTES);
  const append = () => jetstream.publish('bench.message', message, { headers: {}, timeoutMs: 10_000 });
  const [ours, bare] = await quietest([() => timesOf(count, decide), () => timesOf(count, append)]);
  return {
    name: 'control decision, three NATS servers, p50',
    unit: 'ms',
    ours: ours!,
    note: `${(ours! / bare!).toFixed(2)}x of one bare message, ${bare!.toFixed(2)} ms; target 3`,
  };
}

/** Milliseconds of each of so many, one after the other. */
async function timesOf(count: number, work: (i: number) => Promise<unknown>): Promise<number[]> {
  const times: number[] = [];
  for (let i = 0; i < count; i++) {
    const began = performance.now();
    await work(i);
    times.push(performance.now() - began);
  }
  return times;
}
