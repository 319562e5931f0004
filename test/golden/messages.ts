/**
 * Golden messages: what stands in streams of a cluster or is sent between its nodes, and is read there by older and newer ones: lifecycle
 * events, the leases by which nodes are known, tokens.
 */
import type { NodeRecord } from '../../deploy/cluster/registry.ts';
import type { EventEnvelope } from '../../protocols/events.ts';
import { ALL_RIGHTS, RIGHT_GET_PAGE, readToken } from '../../protocols/tokens.ts';
import { ed25519, newSigningKey, publicHalf } from '../../runtime/adapters/ed25519.ts';
import { packMessage, unpackMessage } from '../../runtime/bus/command.ts';
import type { LeaseRecord } from '../../runtime/bus/lease-store.ts';
import { delegate, TokenIssuer } from '../../runtime/channels/tokens.ts';
import { ManualClock } from '../support/manual-clock.ts';

export interface GoldenFormat {
  name: string;
  /** Version that is written today. */
  version: number;
  write(): Promise<Uint8Array>;
  read(bytes: Uint8Array): Promise<unknown>;
}

const TENANT = 'a'.repeat(32);
const TIMELINE = 'b'.repeat(32);
const TIME_MS = 1_700_000_000_000;

const EVENT: EventEnvelope = {
  id: `compute/${TIMELINE}/7.1`,
  type: 'compute.started',
  version: 1,
  time: TIME_MS,
  tenant: TENANT,
  timeline: TIMELINE,
  actor: { kind: 'compute', id: TIMELINE },
  sequence: 7,
  data: { lsn: '0/1500000' },
};

/** With everything that a node can tell of itself. */
const NODE: Required<NodeRecord> = {
  name: 'e',
  zone: 'z2',
  roles: ['safekeeper', 'pageserver', 'compute', 'gateway', 'control'],
  host: '10.0.0.5',
  version: '0.1.0',
  startedMs: TIME_MS,
  pageserverLife: 'c'.repeat(16),
  port: 5432,
  leaving: true,
};

const LEASE: LeaseRecord = { holder: 'd'.repeat(16), epoch: 3, ttlMs: 2500, data: NODE };

export const GOLDEN_MESSAGES: GoldenFormat[] = [
  {
    name: 'event',
    version: 1,
    write: async () => packMessage(EVENT),
    read: async (bytes) => unpackMessage<EventEnvelope>(bytes),
  },
  {
    name: 'lease',
    version: 1,
    write: async () => packMessage(LEASE),
    read: async (bytes) => unpackMessage<LeaseRecord>(bytes),
  },
  { name: 'token', version: 1, write: async () => writeToken(), read: async (bytes) => judgeToken(bytes) },
];

/** One key is the cluster's and the signer's, so that the token alone tells whether both signatures are right. */
function writeToken(): Uint8Array {
  const key = newSigningKey();
  const cluster = 'a1'.repeat(16);
  const expiresMs = TIME_MS + 1e10;
  const delegation = delegate(ed25519, key, { cluster, key: publicHalf(key), rights: ALL_RIGHTS, expiresMs });
  const clock = new ManualClock();
  const issuer = new TokenIssuer({ signatures: ed25519, clock, delegate: { key, delegation } });
  const rights = RIGHT_GET_PAGE;
  return issuer.issue({ tenant: TENANT, timeline: TIMELINE, bearer: 'golden', rights, lifeMs: 60_000 });
}

function judgeToken(bytes: Uint8Array): unknown {
  const { delegation, grant } = readToken(bytes);
  const { key, ...delegated } = delegation.value;
  const isRight = ({ signed, signature }: { signed: Uint8Array; signature: Uint8Array }) =>
    ed25519.verify(key, signed, signature);
  return {
    delegation: { ...delegated, isRight: isRight(delegation) },
    grant: { ...grant.value, isRight: isRight(grant) },
  };
}
