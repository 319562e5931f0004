/**
 * A timeline's commands and journaled events. A timeline is one line of WAL: the data of one branch.
 */
import type { WireError } from '../../protocols/errors.ts';
import type { ActorEvent } from '../../runtime/host/definition.ts';
import type { ChangeMembers, MembershipEvent } from './membership.ts';
import type { Lease } from './retention.ts';
import type { ShardPlaces, ShardsEvent } from './shards.ts';

/** Version of the shapes below. */
export const TIMELINE_EVENT_VERSION = 1;

/** A point in another timeline's history, as a user may name it. */
export type BranchPoint = { kind: 'head' } | { kind: 'lsn'; lsn: number } | { kind: 'time'; timeMs: number };

/** Where a timeline's first page comes from. */
export type Origin =
  | { kind: 'template'; key: string; startLsn: number }
  | { kind: 'branch'; timeline: string; point: BranchPoint };

/** What is decided about a timeline before anything of it exists. */
export interface TimelineSpec {
  tenant: string;
  pgVersion: number;
  /** Decimal: 64 bits do not fit a number. */
  systemId: string;
  /** The safekeepers that hold its WAL. */
  members: string[];
  /** Of its first shard. */
  pageserver: string;
  /** Where it has several; absent: `pageserver` has everything. */
  shards?: ShardPlaces;
  origin: Origin;
}

/** Where a timeline begins: exactly, and held there in its ancestor. */
export interface TimelineStart {
  startLsn: number;
  ancestor?: { timeline: string; lsn: number };
}

/** Other pageservers than until now: of one that has everything, of each of several shards, of shards that are being made. */
export interface AttachPlaces {
  pageserver?: string;
  pageservers?: string[];
  next?: string[];
}

export type TimelineCommand =
  /** With `start` what its origin means is known already; otherwise that is found out first. */
  | { type: 'create'; spec: TimelineSpec; start?: TimelineStart }
  /** The pageserver has lost or forgotten it: attach it again, with a newer generation. */
  | ({ type: 'attach' } & AttachPlaces)
  /** New shards are to be made beside those that there are. */
  | { type: 'split'; to: ShardPlaces }
  /** The new shards take the place of the old ones, or go. */
  | { type: 'switch-shards' }
  | { type: 'abandon-split' }
  /** A branch starts here: this point stays readable until it is released. Asked again, the newer point counts. */
  | { type: 'hold-branch-point'; child: string; lsn: number }
  | { type: 'release-branch-point'; child: string }
  /** Somebody reads at this point for at least `ttlMs`; asking again with the same name renews it. */
  | { type: 'lease'; lease: string; lsn: number; ttlMs: number }
  | { type: 'release-lease'; lease: string }
  /** Moves the beginning of the history window forward; answers what is to be kept now. */
  | { type: 'advance-cutoff'; cutoffLsn: number; cutoffTimeMs: number }
  /** Nothing of it is kept on local disks, until it is unarchived. */
  | { type: 'archive' }
  | { type: 'unarchive' }
  /** Makes it independent of its ancestor: it gets a copy of what that had where it starts. */
  | { type: 'detach-ancestor' }
  /** Other safekeepers are to hold its WAL. Its events tell how far that is. */
  | ChangeMembers
  /** From the timeline's own work: a safekeeper that is added has its replica. */
  | { type: 'note-joined'; node: string; generation: number }
  /** The safekeepers stay as they were before the change that is under way. */
  | { type: 'abandon-change'; why: string }
  | { type: 'delete' }
  | { type: 'status' };

export type TimelineEvent = ActorEvent &
  /** `isResolved`: the event that comes with it tells where it begins. */
  (
    | { type: 'timeline.requested'; spec: TimelineSpec; timeMs: number; isResolved?: boolean }
    | ({ type: 'timeline.resolved' } & TimelineStart)
    | { type: 'timeline.rejected'; error: WireError }
    /**
     * A quorum of replicas and the pageserver have it, that one in `generation` (the first where absent). `missing` are the
     * safekeepers that do not yet.
     */
    | { type: 'timeline.activated'; missing: string[]; generation?: number }
    | { type: 'replicas.completed' }
    /** With `pageserver`: from now on another one serves it. */
    | ({ type: 'attach.requested'; generation: number } & AttachPlaces)
    | { type: 'attach.completed'; generation: number }
    /** The pageserver cannot serve it, and trying again would not help. */
    | { type: 'attach.failed'; generation: number; error: WireError }
    | { type: 'branch-point.held'; child: string; lsn: number }
    | { type: 'branch-point.released'; child: string }
    | { type: 'lease.granted'; lease: string; lsn: number; untilMs: number }
    | { type: 'lease.released'; lease: string }
    | { type: 'lease.expired'; leases: string[] }
    | { type: 'gc.cutoff-advanced'; cutoffLsn: number; cutoffTimeMs: number }
    | { type: 'timeline.archive-requested' }
    | { type: 'timeline.archived' }
    | { type: 'timeline.unarchived' }
    | { type: 'ancestor.detach-requested' }
    /** What the ancestor had is in a template of this timeline's own. */
    | { type: 'ancestor.detached'; template: string; templates?: string[]; generation: number }
    | { type: 'ancestor.detach-failed'; error: WireError }
    | MembershipEvent
    | ShardsEvent
    | { type: 'timeline.delete-requested' }
    | { type: 'timeline.deleted' }
  );

/** The answer to `lease`. */
export interface LeaseReply {
  /** When it runs out unless it is renewed: not before now + the time asked for. */
  untilMs: number;
}

/** The answer to `advance-cutoff`: nothing else below the cutoff will ever be read again. */
export interface CutoffReply {
  cutoffLsn: number;
  /** Points below it that stay readable. */
  retained: number[];
}

/** What others may know of a timeline; the answer to `status`. */
export interface TimelineStatus {
  timeline: string;
  /** absent, resolving, placing, active, archiving, archived, rejected, deleting, deleted */
  state: string;
  tenant: string;
  pgVersion: number;
  systemId: string;
  members: string[];
  /** Generation of the configuration of its safekeepers. */
  membershipGeneration: number;
  /** While they change: those that will be the members; and why. */
  newMembers: string[] | undefined;
  changeWhy: string | undefined;
  /** Members that were not given their replica yet. */
  missing: string[];
  /** Of its first shard, where it has several. */
  pageserver: string;
  /** Absent: one. */
  shards: ShardPlaces | undefined;
  /** While they are split: those that are being made, and whether they serve; and those that go. */
  nextShards: ShardPlaces | undefined;
  nextReady: boolean;
  retiringShards: ShardPlaces | undefined;
  splitError: WireError | undefined;
  generation: number;
  attached: boolean;
  /** Why the newest attachment failed for good. */
  attachError: WireError | undefined;
  /** Whether it is being made independent of its ancestor, and why the last attempt failed. */
  detaching: boolean;
  detachError: WireError | undefined;
  startLsn: number;
  ancestor: { timeline: string; lsn: number } | undefined;
  /** The oldest LSN of the history window, 0 while all history is within it; and the moment it stood for. */
  cutoffLsn: number;
  cutoffTimeMs: number;
  leases: Record<string, Lease>;
  /** Branch points by the timeline that starts there. */
  held: Record<string, number>;
  error: WireError | undefined;
}
