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

export interface ReplicaRemoved extends ActorEvent {
  type: 'replica.removed';
}

export type SafekeeperEvent =
  | ReplicaCreated
  | TermAdopted
  | WalTruncated
  | HistoryReplaced
  | CommitPersisted
  | MembershipChanged
  | ReplicaRemoved;
