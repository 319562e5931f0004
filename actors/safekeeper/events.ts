/**
 * Events of a safekeeper replica's journal: its small durable state. The WAL itself lies in segment files beside it.
 *
 * Each event is durable before the replica acts on it or answers: a vote above all.
 */
import type { TermStart } from '../../protocols/consensus/history.ts';
import type { Membership } from '../../protocols/consensus/messages.ts';
import type { NodeId, Term } from '../../protocols/ids.ts';
import type { Lsn } from '../../protocols/lsn.ts';
import type { ActorEvent } from '../../runtime/host/definition.ts';
import type { PartialTail } from './offload-state.ts';

/** What a replica is born with and keeps for ever. */
export interface ReplicaIdentity {
  tenant: string;
  timeline: string;
  node: NodeId;
  /** Postgres' major version. */
  pgVersion: number;
  /** Decimal. */
  systemId: string;
  segmentBytes: number;
  /** Where the timeline's own WAL begins. */
  startLsn: Lsn;
}

export interface ReplicaCreated extends ActorEvent {
  type: 'replica.created';
  identity: ReplicaIdentity;
  membership: Membership;
}

/** A higher term was seen and taken over: in answer to a vote, or from an elected proposer or a peer. */
export interface TermAdopted extends ActorEvent {
  type: 'term.adopted';
  term: Term;
  reason: 'vote' | 'elected' | 'peer';
}

/** WAL from `from` up to `to` was cut off: another proposer's log does not hold it. */
export interface WalTruncated extends ActorEvent {
  type: 'wal.truncated';
  from: Lsn;
  to: Lsn;
}

/** The log is now that of `term`'s proposer. */
export interface HistoryReplaced extends ActorEvent {
  type: 'history.replaced';
  term: Term;
  history: TermStart[];
}

/** Written now and then: a lower bound of what is committed, from which a restart walks the WAL. */
export interface CommitPersisted extends ActorEvent {
  type: 'commit.persisted';
  lsn: Lsn;
}

export interface MembershipChanged extends ActorEvent {
  type: 'membership.changed';
  membership: Membership;
}

/** All whole segments from `from` up to `to` are in object storage; `by` names the replica that stored them. */
export interface WalOffloaded extends ActorEvent {
  type: 'wal.offloaded';
  from: Lsn;
  to: Lsn;
  by: NodeId;
}

/** Pages up to `lsn` can be rebuilt from the objects of the pageserver alone. */
export interface RemoteAdvanced extends ActorEvent {
  type: 'remote.advanced';
  lsn: Lsn;
}

/**
 * Local WAL below `to` is given up: it is in objects. `offloaded`: the rule of whole segments; `idle`: everything, since
 * nobody has used the timeline for long. The files go after this is durable.
 */
export interface WalTrimmed extends ActorEvent {
  type: 'wal.trimmed';
  from: Lsn;
  to: Lsn;
  reason: 'offloaded' | 'idle';
}

/** The object of a committed tail may exist from now on: nobody will have to look for what was stored and forgotten. */
export interface PartialPlanned extends ActorEvent {
  type: 'partial.planned';
  partial: { key: string; from: Lsn; to: Lsn };
}

export interface PartialStored extends ActorEvent {
  type: 'partial.stored';
  key: string;
}

/** The objects of these tails are gone. */
export interface PartialsRemoved extends ActorEvent {
  type: 'partials.removed';
  keys: string[];
}

/** Nobody needs the WAL below `to` any more; its objects go after this is durable. */
export interface WalExpired extends ActorEvent {
  type: 'wal.expired';
  to: Lsn;
}

/** Made from objects alone: the log is what they hold. Local WAL begins at `backupLsn`. */
export interface ReplicaRestored extends ActorEvent {
  type: 'replica.restored';
  lsn: Lsn;
  term: Term;
  history: TermStart[];
  backupLsn: Lsn;
  expiredLsn: Lsn;
  partials: PartialTail[];
}

export interface ReplicaRemoved extends ActorEvent {
  type: 'replica.removed';
  /** The timeline goes on without this replica: what is in objects stays. */
  left?: boolean;
}

export type SafekeeperEvent =
  | ReplicaCreated
  | TermAdopted
  | WalTruncated
  | HistoryReplaced
  | CommitPersisted
  | MembershipChanged
  | WalOffloaded
  | RemoteAdvanced
  | WalTrimmed
  | PartialPlanned
  | PartialStored
  | PartialsRemoved
  | WalExpired
  | ReplicaRestored
  | ReplicaRemoved;
