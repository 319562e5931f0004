/**
 * What TLS and tokens cost in a cluster: the same six nodes on loopback with and without them, one after the other in turns. On
 * one machine both ends of every connection pay with the same processors, which is more than a cluster of many machines pays.
 */
import { hostCredentials } from '../../deploy/cluster/security/host-credentials.ts';
import { ClusterAccess } from '../../deploy/node/cluster-access.ts';
import { natsOptions } from '../../deploy/node/join-bus.ts';
import { RIGHT_GET_PAGE } from '../../protocols/tokens.ts';
import { type NatsLogin, parseCredentials, readCredentials } from '../../runtime/adapters/credentials.ts';
import { NatsBus } from '../../runtime/adapters/nats-bus.ts';
import { NatsConnection } from '../../runtime/adapters/nats-connection.ts';
import { createLog } from '../../runtime/adapters/pino-log.ts';
import { SocketChannelNetwork } from '../../runtime/adapters/socket-channel.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import { type NodeSpec, TestCluster } from '../support/cluster.ts';
import { PgClient, type PgTarget, parsePgUrl } from '../support/pg-client.ts';
import { bench, initialise } from '../support/pgbench.ts';
import { eventually } from '../support/processes.ts';
import { type BenchOptions, best, type Figure, median } from './figures.ts';
import { tableOf, timePages } from './get-page.ts';

const NODES: NodeSpec[] = [
  { name: 'a', zone: 'z1', roles: 'safekeeper,control,gateway' },
  { name: 'b', zone: 'z2', roles: 'safekeeper,pageserver' },
  { name: 'c', zone: 'z3', roles: 'safekeeper,compute' },
];
const INSERT = "insert into log (body) values (repeat('x', 100));\n";
const TIMEOUT = { timeoutMs: 10_000 };
const TABLE = 'pgbench_accounts';

interface Side {
  cluster: TestCluster;
  target: PgTarget;
}

export async function benchSecure({ long, say }: BenchOptions): Promise<Figure[]> {
  const seconds = long ? 15 : 4;
  const rounds = long ? 4 : 2;
  say('secure: starting two clusters');
  const plain = await startSide(false);
  const secured = await startSide(true);
  const sides = [plain, secured];
  try {
    const figures: Figure[] = [];
    for (const [name, clients, script] of [
      ['tpcb', 8, undefined],
      ['insert', 8, INSERT],
      ['insert', 1, INSERT],
    ] as const) {
      say(`secure: ${name}, ${clients} clients`);
      const tps: [number[], number[]] = [[], []];
      for (let round = 0; round < rounds; round++) {
        for (const [i, { target }] of sides.entries()) {
          const load = { clients, seconds, ...(script === undefined ? {} : { script }) };
          tps[i]!.push((await bench(target, load)).tps);
        }
      }
      figures.push(figure(`${name} ${clients} clients, gateway`, 'TPS', best(tps[1]), best(tps[0])));
    }
    say('secure: single pages');
    const count = long ? 20_000 : 4_000;
    const pages: [number, number][] = [];
    for (let round = 0; round < 3; round++)
      pages.push([await pageUs(plain, count), await pageUs(secured, count)]);
    const least = (i: 0 | 1) => Math.min(...pages.map((times) => times[i]));
    figures.push(figure('GetPage, p50', 'µs', least(1), least(0)));
    return figures;
  } finally {
    for (const { cluster } of sides) await cluster.stop();
  }
}

function figure(name: string, unit: Figure['unit'], ours: number, plain: number): Figure {
  return { name, unit, ours, note: `${plain.toFixed(0)} without TLS: ${(ours / plain).toFixed(2)}x` };
}

async function startSide(secured: boolean): Promise<Side> {
  const cluster = await TestCluster.start(NODES, { secured });
  const client = await cluster.client();
  await eventually('all nodes are there', async () => (await client.nodes()).length === NODES.length, {
    limitMs: 30_000,
  });
  await client.createProject('default');
  const url = await client.url();
  const target = parsePgUrl(url);
  await initialise(target, 5);
  const first = await PgClient.connect(url);
  await first.query('create table log (id bigserial primary key, body text)');
  await first.close();
  return { cluster, target };
}

/** Median of single page requests, in microseconds; the channel is opened as a compute opens it. */
async function pageUs({ cluster, target }: Side, count: number): Promise<number> {
  const clock = new SystemClock();
  const log = createLog({ level: 'silent' });
  const access = ClusterAccess.read(cluster.credentials('control'), clock);
  const connectAs = async (login: NatsLogin | undefined) => {
    const options = natsOptions({ servers: cluster.nats.url }, login);
    return new NatsBus(await NatsConnection.connect({ ...options, name: 'bench', clock, log }), clock);
  };
  const bus = await connectAs(access?.credentials.nats);
  const hostBus = await connectAs(await hostLogin(cluster));
  const sql = await PgClient.connect(target);
  const network = new SocketChannelNetwork(access?.identity);
  try {
    const client = await cluster.client();
    const { timeline } = (await client.branches()).find(({ name }) => name === 'main')!;
    const status = await sendCommand<{ tenant: string }>(
      bus,
      'timeline',
      timeline,
      { type: 'status' },
      TIMEOUT,
    );
    const grant = {
      tenant: status.tenant,
      timeline,
      bearer: 'bench',
      rights: RIGHT_GET_PAGE,
      lifeMs: 60_000,
    };
    const token = access?.issuer()?.issue(grant);
    const admission = token && { token, clock };
    const table = await tableOf(sql, timeline, TABLE);
    return median(await timePages(hostBus, table, count, { network, admission })) * 1_000;
  } finally {
    await sql.close();
    await bus.close();
    await hostBus.close();
  }
}

/** Only compute hosts may ask where pages are. */
async function hostLogin(cluster: TestCluster): Promise<NatsLogin | undefined> {
  const file = cluster.credentials('compute');
  if (file === undefined) return undefined;
  return parseCredentials(await hostCredentials(readCredentials(file))('bench'), 'a bench').nats;
}
