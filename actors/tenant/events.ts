/**
 * A project's commands and journaled events. The actor is called tenant, as in the ids of its data; users see a project.
 */
import type { WireError } from '../../protocols/errors.ts';
import type { ActorEvent } from '../../runtime/host/definition.ts';
import type { BranchPoint } from '../timeline/events.ts';
import type { ShardPlaces } from '../timeline/shards.ts';

/** An imported, freshly initialised cluster that every new project of that version starts from. */
export interface TemplateReference {
  /** Object key of its index. */
  key: string;
  startLsn: number;
  /** Decimal. */
  systemId: string;
}

/** Fixed when the project is created. */
export interface ProjectSpec {
  name: string;
  pgVersion: number;
  template: TemplateReference;
  safekeepers: string[];
  /** Of its first shard. */
  pageserver: string;
  /** Where its timelines have several shards. */
  shards?: ShardPlaces;
}

/** How much of the past stays readable: everything that either of the two keeps. */
export interface HistoryWindow {
  /** Milliseconds. */
  ms: number;
  /** Bytes of WAL of one branch. */
  bytes: number;
}

export type TenantCommand =
  | { type: 'create'; spec: ProjectSpec; history?: HistoryWindow }
  | { type: 'delete' }
  | { type: 'set-history'; history: Partial<HistoryWindow> }
  | { type: 'branch.create'; name: string; from?: string; point?: BranchPoint }
  | { type: 'branch.rename'; name: string; to: string }
  | { type: 'branch.delete'; name: string }
  /** Moves the name to a new timeline that starts at a point of the branch's own history. */
  | { type: 'branch.restore'; name: string; point: BranchPoint; preserveUnder?: string }
  /** The same at the newest state of the parent. */
  | { type: 'branch.reset'; name: string; preserveUnder?: string }
  /** No compute starts and nothing is kept on local disks until it is unarchived. */
  | { type: 'branch.archive'; name: string }
  | { type: 'branch.unarchive'; name: string }
  /** Makes a branch independent of its parent. */
  | { type: 'branch.detach'; name: string }
  /** Deletes those of the ancestors without a name that nothing needs; the caller knows that nobody uses them. */
  | { type: 'branch.sweep'; timelines: string[] }
  | { type: 'branch.list' }
  /** Spreads the pages of all timelines over more shards. */
  | { type: 'split'; to: ShardPlaces }
  /** Until the new shards take over. */
  | { type: 'cancel-split' }
  | { type: 'status' };

export type TenantEvent = ActorEvent &
  (
    | { type: 'project.created'; spec: ProjectSpec; password: string; timeMs: number }
    | { type: 'project.password-set' }
    | { type: 'project.history-set'; history: HistoryWindow }
    | { type: 'project.split-requested'; to: ShardPlaces }
    /** From here on the new shards are the project's: what is created has them, and all timelines are switched to them. */
    | { type: 'project.split'; to: ShardPlaces }
    | { type: 'project.split-completed' }
    /** Everything is as it was. */
    | { type: 'project.split-failed'; error: WireError }
    /** The new shards are to go. */
    | { type: 'project.split-cancel-requested' }
    /** Everything is as it was, because somebody wanted it so. */
    | { type: 'project.split-cancelled' }
    | { type: 'project.delete-requested' }
    | { type: 'project.deleted' }
    | {
        type: 'branch.requested';
        name: string;
        timeline: string;
        /** Absent for the first branch, which starts from the template. */
        from?: { timeline: string; name: string; point: BranchPoint };
        timeMs: number;
      }
    | {
        type: 'branch.created';
        name: string;
        timeline: string;
        startLsn: number;
        ancestor?: { timeline: string; lsn: number };
      }
    | { type: 'branch.failed'; name: string; timeline: string; error: WireError }
    | { type: 'branch.renamed'; name: string; to: string; timeline: string }
    | { type: 'branch.delete-requested'; name: string; timeline: string }
    | { type: 'branch.deleted'; name: string; timeline: string }
    | {
        type: 'branch.restore-requested';
        name: string;
        timeline: string;
        /** The new timeline that is to take the name. */
        replacement: string;
        from: { timeline: string; name: string; point: BranchPoint };
        preserveUnder?: string;
      }
    /** The name has moved from `replaced` to `timeline`, in this one step. */
    | {
        type: 'branch.restored';
        name: string;
        timeline: string;
        replaced: string;
        preservedAs?: string;
        startLsn: number;
        ancestor?: { timeline: string; lsn: number };
        timeMs: number;
      }
    | {
        type: 'branch.restore-failed';
        name: string;
        timeline: string;
        replacement: string;
        error: WireError;
      }
    | { type: 'branch.archive-requested'; name: string; timeline: string }
    | { type: 'branch.archived'; name: string; timeline: string }
    | { type: 'branch.unarchive-requested'; name: string; timeline: string }
    | { type: 'branch.unarchived'; name: string; timeline: string }
    | { type: 'branch.detach-requested'; name: string; timeline: string }
    | { type: 'branch.detached'; name: string; timeline: string }
    | { type: 'branch.detach-failed'; name: string; timeline: string; error: WireError }
    /** A timeline without a name, which nothing grows from any more. */
    | { type: 'ancestor.delete-requested'; timeline: string }
    | { type: 'ancestor.deleted'; timeline: string }
  );

/** One branch, for others. */
export interface BranchStatus {
  name: string;
  timeline: string;
  /** creating, ready, restoring, archiving, archived, unarchiving, deleting */
  state: string;
  /** The project's first branch, or what was restored under its name. */
  primary: boolean;
  startLsn: number;
  /** It is being made independent of its parent. */
  detaching: boolean;
  /** The branch it was made from, by its name today. */
  parent: string | undefined;
  ancestor: { timeline: string; lsn: number } | undefined;
  createdMs: number;
}

/** A timeline that lost its name in a restore and is kept for those that grow from it. */
export interface AncestorStatus {
  timeline: string;
  state: string;
  ancestor: { timeline: string; lsn: number } | undefined;
  /** Whether nothing grows from it any more. */
  unneeded: boolean;
}

/** What others may know of a project; the answer to `status`. */
export interface TenantStatus {
  tenant: string;
  name: string;
  /** absent, active, deleting, deleted */
  state: string;
  pgVersion: number;
  password: string;
  passwordSet: boolean;
  createdMs: number;
  history: HistoryWindow;
  /** How many shards its timelines have. */
  shards: number;
  /** While there are going to be more: how many, and whether all have been made. */
  splitting: { to: number; isSwitching: boolean; isCancelled?: boolean } | undefined;
  /** Why the last split failed. */
  splitError: WireError | undefined;
  branches: BranchStatus[];
  /** Ancestors without a name. */
  ancestors: AncestorStatus[];
}
