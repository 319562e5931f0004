/**
 * A timeline's commands and journaled events. A timeline is one line of WAL: the data of one branch.
 */
import type { WireError } from '../../protocols/errors.ts';
import type { ActorEvent } from '../../runtime/host/definition.ts';

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
  pageserver: string;
  origin: Origin;
}

export type TimelineCommand =
  | { type: 'create'; spec: TimelineSpec }
  /** The pageserver has lost or forgotten it: attach it again, with a newer generation. */
  | { type: 'attach' }
  | { type: 'delete' }
  | { type: 'status' };

export type TimelineEvent = ActorEvent &
  (
    | { type: 'timeline.requested'; spec: TimelineSpec; timeMs: number }
    | { type: 'timeline.resolved'; startLsn: number; ancestor?: { timeline: string; lsn: number } }
    | { type: 'timeline.rejected'; error: WireError }
    /** A quorum of replicas and the pageserver have it. `missing` are the safekeepers that do not yet. */
    | { type: 'timeline.activated'; missing: string[] }
    | { type: 'replicas.completed' }
    | { type: 'attach.requested'; generation: number }
    | { type: 'attach.completed'; generation: number }
    /** The pageserver cannot serve it, and trying again would not help. */
    | { type: 'attach.failed'; generation: number; error: WireError }
    | { type: 'timeline.delete-requested' }
    | { type: 'timeline.deleted' }
  );

/** What others may know of a timeline; the answer to `status`. */
export interface TimelineStatus {
  timeline: string;
  /** absent, resolving, placing, active, rejected, deleting, deleted */
  state: string;
  tenant: string;
  pgVersion: number;
  systemId: string;
  members: string[];
  pageserver: string;
  generation: number;
  attached: boolean;
  /** Why the newest attachment failed for good. */
  attachError: WireError | undefined;
  startLsn: number;
  ancestor: { timeline: string; lsn: number } | undefined;
  error: WireError | undefined;
}
