/**
 * Who a cluster is: its id, and where its objects are, kept on the NATS cluster (`pal.meta.cluster`) since the first node
 * came. A node whose data directory belongs to another cluster, or that names other objects, is refused.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { JetStream } from '../../runtime/adapters/nats-jetstream.ts';
import { META_STREAM } from '../../runtime/adapters/nats-streams.ts';
import { formatObjectsLocation, type ObjectsLocation } from '../../runtime/adapters/objects-location.ts';
import { packMessage, unpackMessage } from '../../runtime/bus/command.ts';

const SUBJECT = 'pal.meta.cluster';
const DRAIN = 'pal.meta.drain.';
const PUBLISH_TIMEOUT_MS = 5_000;
/** Streams that were just made elect their leaders first. */
const CREATE_ATTEMPTS = 40;
const CREATE_RETRY_MS = 250;
const FORMAT = 1;
const FILE = 'cluster.json';

export interface ClusterIdentity {
  format: number;
  id: string;
  objects: ObjectsLocation;
}

/**
 * The cluster's identity; the first node to come gives it one, or waits for it without `newId`. Throws `conflict` when the
 * objects are elsewhere.
 */
export async function joinCluster(
  jetstream: JetStream,
  wanted: { newId: string | undefined; objects: ObjectsLocation },
): Promise<ClusterIdentity> {
  const { newId, objects } = wanted;
  const found =
    (await readIdentity(jetstream)) ??
    (newId === undefined
      ? await awaitIdentity(jetstream)
      : await create(jetstream, { format: FORMAT, id: newId, objects }));
  if (found.format !== FORMAT) {
    throw new PalimpsestError(
      'unsupported',
      `the cluster has format ${found.format}; this version of Palimpsest reads format ${FORMAT}`,
      'use the version of Palimpsest that the other nodes run',
    );
  }
  const there = formatObjectsLocation(found.objects);
  const here = formatObjectsLocation(wanted.objects);
  if (there === here) return found;
  throw new PalimpsestError(
    'conflict',
    `the objects of this cluster are at ${there}, not at ${here}`,
    `start the node with --objects ${there}`,
  );
}

export async function readIdentity(jetstream: JetStream): Promise<ClusterIdentity | undefined> {
  const message = await jetstream.lastOf(META_STREAM, SUBJECT);
  return message && unpackMessage<ClusterIdentity>(message.data);
}

async function awaitIdentity(jetstream: JetStream): Promise<ClusterIdentity> {
  for (let attempt = 0; attempt < CREATE_ATTEMPTS; attempt++) {
    const found = await readIdentity(jetstream);
    if (found) return found;
    await wait(CREATE_RETRY_MS);
  }
  throw new PalimpsestError(
    'unavailable',
    'the cluster has no identity yet, and these credentials may not give it one',
    'start a node with the role control first',
  );
}

async function create(jetstream: JetStream, mine: ClusterIdentity): Promise<ClusterIdentity> {
  const headers = { 'Nats-Expected-Last-Subject-Sequence': '0' };
  for (let attempt = 0; attempt < CREATE_ATTEMPTS; attempt++) {
    await jetstream.publish(SUBJECT, packMessage(mine), { headers, timeoutMs: PUBLISH_TIMEOUT_MS });
    // Whether this was stored or another's, or the stream has no leader yet: what is there is the truth.
    const found = await readIdentity(jetstream);
    if (found) return found;
    await wait(CREATE_RETRY_MS);
  }
  throw new PalimpsestError(
    'unavailable',
    'the cluster does not keep its identity',
    'look at the log of the NATS servers',
  );
}

/** Binds a data directory to its cluster. Throws `conflict` when it is another's. */
export async function bindDirectory(root: string, cluster: string): Promise<void> {
  const path = join(root, FILE);
  const text = await readFile(path, 'utf8').catch(() => undefined);
  if (text === undefined) {
    await writeFile(path, `${JSON.stringify({ cluster })}\n`, { mode: 0o600 });
    return;
  }
  const bound = (JSON.parse(text) as { cluster?: string }).cluster;
  if (bound === cluster) return;
  throw new PalimpsestError(
    'conflict',
    `${root} belongs to another cluster (${bound ?? 'unknown'})`,
    'name the NATS servers of that cluster, or another data directory (--data)',
  );
}

/** Says whether everything is to leave a node; returns the names of all nodes of which that is true now. */
export async function setDraining(
  jetstream: JetStream,
  node: string,
  draining: boolean,
): Promise<Set<string>> {
  const data = packMessage({ draining });
  const result = await jetstream.publish(DRAIN + node, data, { headers: {}, timeoutMs: PUBLISH_TIMEOUT_MS });
  if (result.status !== 'ok') {
    const reason = result.status === 'refused' ? result.description : result.reason;
    throw new PalimpsestError('unavailable', `the cluster does not keep it: ${reason}`, 'try again');
  }
  // A server that has not got the write yet may answer the read.
  const nodes = await drainingNodes(jetstream);
  if (draining) nodes.add(node);
  else nodes.delete(node);
  return nodes;
}

/** Names of nodes that everything is to leave. */
export async function drainingNodes(jetstream: JetStream): Promise<Set<string>> {
  const found = await jetstream.lastOfEach(META_STREAM, [`${DRAIN}*`]);
  const draining = found.filter(({ data }) => unpackMessage<{ draining: boolean }>(data).draining);
  return new Set(draining.map(({ subject }) => subject.slice(DRAIN.length)));
}
