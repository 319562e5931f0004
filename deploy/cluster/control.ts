/**
 * The process of the control role: waits for the control lease, then runs the control actors for as long as it holds it.
 *
 *   node control.ts '{"node":"a","nats":{"servers":"nats://…"},"objects":{…},"workDir":…,…}'
 *
 * When the lease is lost the process ends, and its parent starts another, which waits again: nothing of what it held in memory
 * outlives its right to act. It also ends when its standard input closes (the node is gone).
 */
import { NatsBus } from '../../runtime/adapters/nats-bus.ts';
import { NatsConnection } from '../../runtime/adapters/nats-connection.ts';
import { NatsJournalStore } from '../../runtime/adapters/nats-journal.ts';
import { natsLeases } from '../../runtime/adapters/nats-leases.ts';
import { prepareStreams } from '../../runtime/adapters/nats-streams.ts';
import type { ObjectsLocation } from '../../runtime/adapters/objects-location.ts';
import { openObjects } from '../../runtime/adapters/open-objects.ts';
import { createLog } from '../../runtime/adapters/pino-log.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { SystemRandom } from '../../runtime/adapters/system-random.ts';
import type { Lease, Leases } from '../../runtime/ports/leases.ts';
import { ClusterAccess } from '../node/cluster-access.ts';
import { type NatsLocation, natsOptions } from '../node/join-bus.ts';
import { ChannelTokens } from './channel-tokens.ts';
import { ControlLeader } from './control-leader.ts';

export interface ControlConfiguration {
  node: string;
  nats: NatsLocation;
  objects: ObjectsLocation;
  workDir: string;
  pgVersion: number;
  pgBin?: string;
  suspendAfterSeconds: number;
  replaceAfterSeconds: number;
  /** How long tokens of computes live. */
  tokenLifeSeconds: number;
}

const LEASE = 'control';
const LEASE_TTL_MS = 2_000;
const RENEW_MS = 500;
const ACQUIRE_MS = 250;
const RECONNECT_MS = 500;
const EXIT_LOST = 1;

const configuration = JSON.parse(process.argv[2] ?? '{}') as ControlConfiguration;
const { node } = configuration;
const log = createLog({ level: 'info', bindings: { node: `control-${node}` } });
const clock = new SystemClock();
const random = new SystemRandom();
const access = ClusterAccess.read(configuration.nats.credentials, clock);

let lease: Lease | undefined;

async function end(code: number, reason: string): Promise<never> {
  log.info({ reason }, 'the control process ends');
  // A release lets the next one begin at once; when the servers do not answer, it waits for the time to live.
  await Promise.race([lease?.release().catch(() => {}), clock.sleep(1_000)]);
  process.exit(code);
}

const orphaned = () => void end(0, 'the node is gone');
process.stdin.on('end', orphaned).on('error', orphaned).resume();
for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => void end(0, 'asked to'));
process.on('unhandledRejection', (error) =>
  log.error({ error }, 'an unexpected failure of the control process'),
);

/** The servers may be away for a while: that is no reason to be started again and again. */
async function connected(): Promise<NatsConnection> {
  for (let told = false; ; told = true) {
    try {
      const options = natsOptions(configuration.nats, access?.credentials.nats);
      return await NatsConnection.connect({ ...options, name: `control ${node}`, clock, log });
    } catch (error) {
      if (!told) log.warn({ error }, 'no NATS server is reachable; trying again');
    }
    await clock.sleep(RECONNECT_MS);
  }
}

function channelTokens(): ChannelTokens | undefined {
  const issuer = access?.issuer();
  if (!access || !issuer) return undefined;
  return new ChannelTokens({
    issuer,
    judge: access.judge(),
    lifeMs: configuration.tokenLifeSeconds * 1_000,
  });
}

/** Waits until the lease is ours. */
async function acquired(leases: Leases): Promise<Lease> {
  const holder = `${node}/${process.pid}`;
  for (;;) {
    try {
      const taken = await leases.acquire(LEASE, holder, { ttlMs: LEASE_TTL_MS, data: { node } });
      if (taken) return taken;
    } catch (error) {
      log.debug({ error }, 'the control lease cannot be asked for now');
    }
    await clock.sleep(ACQUIRE_MS);
  }
}

async function keep(held: Lease): Promise<void> {
  for (;;) {
    await clock.sleep(RENEW_MS);
    const renewal = await held.renew().catch(() => 'unknown' as const);
    if (renewal === 'lost' || !held.valid) await end(EXIT_LOST, 'the control lease is lost');
  }
}

const connection = await connected();
const jetstream = await prepareStreams({ connection, clock });
const leases = natsLeases(jetstream, clock);
lease = await acquired(leases);
const held = lease;
log.info({ epoch: held.epoch }, 'this node controls the cluster');
void keep(held);
const leader = new ControlLeader({
  ...configuration,
  epoch: held.epoch,
  jetstream,
  bus: new NatsBus(connection, clock),
  journals: new NatsJournalStore({ jetstream, clock, random, log }),
  leases,
  location: configuration.objects,
  objects: await openObjects(configuration.objects, { clock, random }),
  clock,
  random,
  log,
  tokens: channelTokens(),
  isHolder: () => held.valid,
});
await leader.start();
log.info({ epoch: held.epoch }, 'the control actors are ready');
await leader.run();
await end(EXIT_LOST, 'the control lease is lost');
