/**
 * The streams that an installation keeps on a NATS cluster, and what the cluster must be able to do before anything is
 * entrusted to it.
 *
 * 1. Servers older than 2.12, or without `sync_interval: always`, are refused: they acknowledge what a power failure takes.
 * 2. A server that does not know an option drops it without a word; so what it says it has made is compared with what was
 *    asked for.
 * 3. The stream `PAL_META` is made last and only once. When it is there and another is missing, somebody deleted that one:
 *    making it anew would turn a loss into silence.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Clock } from '../ports/clock.ts';
import type { NatsConnection } from './nats-connection.ts';
import { JetStream, JetStreamCode, JetStreamError, type StreamInfo } from './nats-jetstream.ts';

const VERSION_MIN = [2, 12] as const;
const VARZ_SUBJECT = '$SYS.REQ.SERVER.PING.VARZ';
/** Answers come from all servers at once; the last one is known by the silence after it. */
const VARZ_TIMEOUT_MS = 2_000;
const VARZ_SILENCE_MS = 150;
/** A cluster that has just been started elects its leaders first. */
const CREATE_TIMEOUT_MS = 30_000;
const CREATE_RETRY_MS = 250;
/** Looks before a stream is said to be gone: one that was made a moment ago is not known to every server yet. */
const MISSING_LOOKS = 8;
/** Copies of everything in a cluster: one server may be lost. */
const CLUSTER_REPLICAS = 3;
const EVENTS_BYTES_MAX = 256 * 1024 * 1024;
const DUPLICATE_WINDOW_NS = 120_000_000_000;

/** Journals are spread over this many streams. Part of the stored format: it never changes for an installation. */
export const JOURNAL_SHARDS = 4;

export const META_STREAM = 'PAL_META';
export const SNAPSHOT_STREAM = 'PAL_SNAPSHOT';
export const LEASE_STREAM = 'PAL_LEASE';
export const EVENT_STREAM = 'PAL_EVENT';

export function journalStream(shard: number): string {
  return `PAL_JOURNAL_${shard}`;
}

export interface StreamDefinition {
  name: string;
  subjects: string[];
  [option: string]: unknown;
}

const COMMON = {
  retention: 'limits',
  storage: 'file',
  max_age: 0,
  max_msgs: -1,
  max_bytes: -1,
  max_msgs_per_subject: -1,
  // A full stream refuses what is new; it never drops what it has acknowledged.
  discard: 'new',
  allow_direct: true,
  duplicate_window: DUPLICATE_WINDOW_NS,
};

/** The streams of an installation with so many copies of each. */
export function streamDefinitions(replicas: number): StreamDefinition[] {
  const common = { ...COMMON, num_replicas: replicas };
  const journals = Array.from({ length: JOURNAL_SHARDS }, (_, shard) => ({
    ...common,
    name: journalStream(shard),
    subjects: [`pal.journal.${shard}.>`],
  }));
  return [
    ...journals,
    // The newest two of each journal: a damaged one loses nothing.
    {
      ...common,
      name: SNAPSHOT_STREAM,
      subjects: ['pal.snapshot.>'],
      max_msgs_per_subject: 2,
      discard: 'old',
    },
    { ...common, name: LEASE_STREAM, subjects: ['pal.lease.>'], max_msgs_per_subject: 1, discard: 'old' },
    // Events are news, and the journals behind them are the truth: the oldest may go.
    { ...common, name: EVENT_STREAM, subjects: ['pal.evt.>'], discard: 'old', max_bytes: EVENTS_BYTES_MAX },
    { ...common, name: META_STREAM, subjects: ['pal.meta.>'], max_msgs_per_subject: 1, discard: 'old' },
  ];
}

export interface PrepareOptions {
  connection: NatsConnection;
  clock: Clock;
  /** False: the streams of a new cluster are made by somebody else, and waited for. */
  mayCreate?: boolean;
}

/** Checks the cluster and makes or verifies the streams. Throws what is wrong and what to do about it. */
export async function prepareStreams({
  connection,
  clock,
  mayCreate = true,
}: PrepareOptions): Promise<JetStream> {
  const jetstream = new JetStream(connection, clock);
  const wanted = await untilAnswered(clock, async () => {
    const { keepers, clustered } = await checkServers(connection);
    const meta = await infoOf(jetstream, META_STREAM);
    if (meta) return { isNew: false, replicas: Number(meta.config.num_replicas) };
    if (!mayCreate) {
      throw new PalimpsestError(
        'unavailable',
        'the NATS servers hold no cluster yet, and these credentials may not make one',
        'start a node with the role control first',
      );
    }
    if (clustered && keepers < CLUSTER_REPLICAS) {
      throw new PalimpsestError(
        'unavailable',
        `only ${keepers} of at least ${CLUSTER_REPLICAS} NATS servers with JetStream run, which a new installation needs`,
        'start the others first',
      );
    }
    return { isNew: true, replicas: clustered ? CLUSTER_REPLICAS : 1 };
  });
  for (const definition of streamDefinitions(wanted.replicas)) {
    await untilAnswered(clock, () => ensureStream(jetstream, clock, definition, !wanted.isNew));
  }
  return jetstream;
}

/**
 * The name of a stream that is gone although this installation has it; undefined when all are there. Throws `unavailable` while
 * that cannot be found out.
 */
export async function lostStream(jetstream: JetStream): Promise<string | undefined> {
  for (const { name } of streamDefinitions(CLUSTER_REPLICAS)) {
    try {
      if (!(await infoOf(jetstream, name))) return name;
    } catch (error) {
      throw asPalimpsest(error);
    }
  }
  return undefined;
}

interface ServerReport {
  server: { name: string; ver: string };
  data: { cluster?: { name?: string }; jetstream?: { config?: { sync_always?: boolean } } };
}

/** Asks every server of the cluster for its version and settings. */
async function checkServers(connection: NatsConnection): Promise<{ keepers: number; clustered: boolean }> {
  checkVersion('this server', connection.serverVersion);
  const reports = await serverReports(connection);
  for (const { server } of reports) checkVersion(server.name, server.ver);
  // A server without JetStream only passes messages on.
  const keepers = reports.filter(({ data }) => data.jetstream?.config);
  for (const { server, data } of keepers) {
    if (data.jetstream!.config!.sync_always === true) continue;
    throw new PalimpsestError(
      'unsupported',
      `NATS server ${server.name} does not run with sync_interval: always: it acknowledges what is not on its disk yet`,
      'set `jetstream { sync_interval: always }` in the configuration of every server',
    );
  }
  if (keepers.length === 0) {
    throw new PalimpsestError(
      'unsupported',
      'no NATS server of this cluster has JetStream',
      'add `jetstream { sync_interval: always }` to the configuration of the servers',
    );
  }
  return { keepers: keepers.length, clustered: reports.some(({ data }) => data.cluster?.name) };
}

async function serverReports(connection: NatsConnection): Promise<ServerReport[]> {
  const { messages } = await connection.requestMany(VARZ_SUBJECT, new Uint8Array(0), {
    timeoutMs: VARZ_TIMEOUT_MS,
    silenceMs: VARZ_SILENCE_MS,
    isLast: ({ code }) => code !== 0,
  });
  if (messages[0]?.code === 503 || messages.length === 0) {
    throw new PalimpsestError(
      'unsupported',
      'the NATS servers do not tell their settings, so it cannot be known whether they keep what they acknowledge',
      `export the service ${VARZ_SUBJECT} from the system account to Palimpsest's account (deploy/nats shows how)`,
    );
  }
  return messages.map(({ data }) => JSON.parse(Buffer.from(data).toString('utf8')) as ServerReport);
}

function checkVersion(name: string, version: string): void {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  if (major > VERSION_MIN[0] || (major === VERSION_MIN[0] && minor >= VERSION_MIN[1])) return;
  throw new PalimpsestError(
    'unsupported',
    `NATS server ${name} has version ${version}; at least ${VERSION_MIN.join('.')} is needed`,
    'older servers lose acknowledged messages of clusters and ignore options; install a newer nats-server',
  );
}

async function infoOf(jetstream: JetStream, name: string): Promise<StreamInfo | undefined> {
  try {
    return await jetstream.api<StreamInfo>(`STREAM.INFO.${name}`);
  } catch (error) {
    if (error instanceof JetStreamError && error.errCode === JetStreamCode.streamNotFound) return undefined;
    throw error;
  }
}

async function ensureStream(
  jetstream: JetStream,
  clock: Clock,
  definition: StreamDefinition,
  mustExist: boolean,
): Promise<void> {
  const { name } = definition;
  let info = await infoOf(jetstream, name);
  for (let looks = 1; !info && mustExist && looks < MISSING_LOOKS; looks++) {
    await clock.sleep(CREATE_RETRY_MS);
    info = await infoOf(jetstream, name);
  }
  if (!info && mustExist) {
    throw new PalimpsestError(
      'corrupt',
      `stream ${name} of the NATS cluster is gone, and what it held with it`,
      `restore it from a backup (nats stream restore ${name}); to give up what it held, delete the stream ${META_STREAM} too`,
    );
  }
  info ??= await jetstream.api<StreamInfo>(`STREAM.CREATE.${name}`, definition, CREATE_TIMEOUT_MS);
  for (const [option, value] of Object.entries(definition)) {
    const found = info.config[option];
    // Zero values are left out of answers.
    const same =
      JSON.stringify(found) === JSON.stringify(value) ||
      (found === undefined && (value === 0 || value === false || value === -1));
    if (!same) {
      throw new PalimpsestError(
        'unsupported',
        `stream ${name} has ${option} = ${JSON.stringify(found)} instead of ${JSON.stringify(value)}`,
        option === 'num_replicas'
          ? 'the number of servers with JetStream has changed: start the missing ones'
          : `change it with the nats tool (nats stream edit ${name}), or use a newer server`,
      );
    }
  }
}

/** Tries again while the cluster elects its leaders. */
async function untilAnswered<T>(clock: Clock, work: () => Promise<T>): Promise<T> {
  const deadline = clock.monotonic() + CREATE_TIMEOUT_MS;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      const mayPass =
        (error instanceof PalimpsestError && error.code === 'unavailable') ||
        (error instanceof JetStreamError &&
          error.errCode !== JetStreamCode.streamNotFound &&
          isTransient(error));
      if (!mayPass || clock.monotonic() > deadline) throw asPalimpsest(error);
    }
    await clock.sleep(CREATE_RETRY_MS);
  }
}

function isTransient({ message }: JetStreamError): boolean {
  return /no suitable peers|temporarily unavailable|not available|no leader|insufficient/i.test(message);
}

function asPalimpsest(error: unknown): unknown {
  if (!(error instanceof JetStreamError)) return error;
  return new PalimpsestError(
    'unavailable',
    `JetStream refuses: ${error.message}`,
    'look at the log of the NATS servers',
  );
}
