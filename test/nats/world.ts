/** What the tests over real NATS servers share: connections, stores and what is prepared on a cluster. */
import { NatsBus } from '../../runtime/adapters/nats-bus.ts';
import { NatsConnection } from '../../runtime/adapters/nats-connection.ts';
import { JetStream } from '../../runtime/adapters/nats-jetstream.ts';
import { NatsJournalStore } from '../../runtime/adapters/nats-journal.ts';
import { prepareStreams } from '../../runtime/adapters/nats-streams.ts';
import { createLog } from '../../runtime/adapters/pino-log.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { SystemRandom } from '../../runtime/adapters/system-random.ts';

export const clock = new SystemClock();
export const random = new SystemRandom();
export const silent = createLog({ level: 'silent' });

const open: NatsConnection[] = [];

export async function connectTo(servers: string): Promise<NatsConnection> {
  const connection = await NatsConnection.connect({ servers, name: 'test', clock, log: silent });
  open.push(connection);
  return connection;
}

export async function busAt(servers: string): Promise<NatsBus> {
  return new NatsBus(await connectTo(servers), clock);
}

const prepared = new Set<string>();

/** JetStream of a cluster whose streams are made at the first call. */
export async function jetStreamAt(servers: string): Promise<JetStream> {
  const connection = await connectTo(servers);
  if (prepared.has(servers)) return new JetStream(connection, clock);
  prepared.add(servers);
  return prepareStreams({ connection, clock });
}

export async function journalsAt(
  servers: string,
  limits: { outcomeTimeoutMs?: number; publishTimeoutMs?: number } = {},
): Promise<NatsJournalStore> {
  return new NatsJournalStore({
    jetstream: await jetStreamAt(servers),
    clock,
    random,
    log: silent,
    ...limits,
  });
}

export async function closeConnections(): Promise<void> {
  await Promise.all(open.splice(0).map((connection) => connection.close()));
}
