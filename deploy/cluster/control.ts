/**
 * The process of the control role: waits for the control lease, then runs the control actors for as long as it holds it.
 *
 *   node control.ts '{"node":"a","nats":{"servers":"nats://…"},"objects":{…},"workDir":…,…}'
 *
 * When the lease is lost the process ends, and its parent starts another, which waits again: nothing of what it held in memory
 * outlives its right to act. It also ends when its standard input closes (the node is gone).
 */
import { toWireError } from '../../protocols/errors.ts';
import { NatsBus } from '../../runtime/adapters/nats-bus.ts';
import { NatsConnection } from '../../runtime/adapters/nats-connection.ts';
import type { JetStream } from '../../runtime/adapters/nats-jetstream.ts';
import { NatsJournalStore } from '../../runtime/adapters/nats-journal.ts';
import { natsLeases } from '../../runtime/adapters/nats-leases.ts';
import { lostStream, prepareStreams } from '../../runtime/adapters/nats-streams.ts';
import type { ObjectsLocation } from '../../runtime/adapters/objects-location.ts';
import { openObjects } from '../../runtime/adapters/open-objects.ts';
import { createLog } from '../../runtime/adapters/pino-log.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { SystemRandom } from '../../runtime/adapters/system-random.ts';
import { serveCommands } from '../../runtime/bus/command.ts';
import type { Subscription } from '../../runtime/ports/bus.ts';
import type { Lease, Leases } from '../../runtime/ports/leases.ts';
import { CONTROL_ID, CONTROL_KIND } from '../client/control.ts';
import { ClusterAccess } from '../node/cluster-access.ts';
import { type NatsLocation, natsOptions } from '../node/join-bus.ts';
import { ChannelTokens } from './channel-tokens.ts';
import { ControlLeader } from './control-leader.ts';
import { guardedBus, guardedJournals } from './holder-guard.ts';

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
/** So often it is looked whether all streams are there. */
const STREAMS_MS = 2_000;
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

/** What is wrong with the streams is told to everybody who sends a command, until somebody has put it right. */
async function prepared(connection: NatsConnection): Promise<JetStream> {
  const bus = new NatsBus(connection, clock);
  let wrong: Subscription | undefined;
  for (;;) {
    try {
      const jetstream = await prepareStreams({ connection, clock });
      wrong?.unsubscribe();
      return jetstream;
    } catch (error) {
      const { code } = toWireError(error);
      if (code !== 'corrupt' && code !== 'unsupported') throw error;
      log.error({ error }, 'the streams of the cluster cannot be used');
      wrong?.unsubscribe();
      wrong = serveCommands(bus, CONTROL_KIND, CONTROL_ID, async () => {
        throw error;
      });
    }
    await clock.sleep(STREAMS_MS);
  }
}

/** Journals that are gone must not be taken for empty ones: the next start refuses them, and says so. */
async function watchStreams(jetstream: JetStream): Promise<void> {
  for (let lost: string | undefined; ; ) {
    await clock.sleep(STREAMS_MS);
    const before = lost;
    lost = await lostStream(jetstream).catch(() => undefined);
    // Asked twice: a server that has just come back may not know of all of them yet.
    if (lost !== undefined && lost === before) await end(EXIT_LOST, `stream ${lost} is gone`);
  }
}

const connection = await connected();
const jetstream = await prepared(connection);
const leases = natsLeases(jetstream, clock);
lease = await acquired(leases);
const held = lease;
log.info({ epoch: held.epoch }, 'this node controls the cluster');
void keep(held);
void watchStreams(jetstream);
const isHolder = () => held.valid;
const leader = new ControlLeader({
  ...configuration,
  epoch: held.epoch,
  jetstream,
  bus: guardedBus(new NatsBus(connection, clock), isHolder),
  journals: guardedJournals(new NatsJournalStore({ jetstream, clock, random, log }), isHolder),
  leases,
  location: configuration.objects,
  objects: await openObjects(configuration.objects, { clock, random }),
  clock,
  random,
  log,
  tokens: channelTokens(),
  isHolder,
  // Begun anew, all actors come from their journals; if another process holds the lease by now, it is waited for.
  onActorLost: (reason) => {
    if (reason === 'fenced') void end(EXIT_LOST, 'an actor has been taken by another process');
  },
});
await leader.start();
log.info({ epoch: held.epoch }, 'the control actors are ready');
await leader.run();
await end(EXIT_LOST, 'the control lease is lost');
