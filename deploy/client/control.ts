/**
 * What a running system answers on its control address: the commands and replies behind the CLI and the client library.
 */
import type { EventEnvelope } from '../../protocols/events.ts';

/** Kind and id of the control address on the bus. */
export const CONTROL_KIND = 'control';
export const CONTROL_ID = 'local';
export const DEFAULT_PROJECT = 'default';

/** Where a branch begins in its parent: the newest state when both are absent. */
export interface BranchStart {
  /** `X/Y` */
  lsn?: string;
  /** Milliseconds since 1970. */
  timeMs?: number;
}

export type ControlCommand =
  | { type: 'status' }
  | {
      type: 'project.create';
      name: string;
      pgVersion?: number;
      history?: Partial<HistoryView>;
      shards?: number;
    }
  /** Of a cluster: begins to spread the pages over more shards. */
  | { type: 'project.split'; name: string; shards: number }
  | { type: 'project.split-cancel'; name: string }
  | { type: 'project.set'; name: string; history: Partial<HistoryView> }
  | { type: 'project.list' }
  | { type: 'project.delete'; name: string }
  | { type: 'branch.create'; project?: string; name: string; from?: string; at?: BranchStart }
  | { type: 'branch.list'; project?: string }
  | { type: 'branch.rename'; project?: string; name: string; to: string }
  | { type: 'branch.delete'; project?: string; name: string }
  | { type: 'branch.restore'; project?: string; name: string; at: BranchStart; preserveUnder?: string }
  | { type: 'branch.reset'; project?: string; name: string; preserveUnder?: string }
  | { type: 'branch.archive'; project?: string; name: string }
  | { type: 'branch.unarchive'; project?: string; name: string }
  | { type: 'branch.detach'; project?: string; name: string }
  /** Removes history that is older than the project's window now. */
  | { type: 'branch.gc'; project?: string; name: string }
  /** With `at`, about the read-only compute of that moment instead of the branch's own. */
  | { type: 'branch.suspend'; project?: string; name: string; at?: BranchStart }
  | { type: 'branch.resume'; project?: string; name: string; at?: BranchStart }
  | { type: 'branch.url'; project?: string; name: string; at?: BranchStart }
  /** The exact position of a moment, and what its history is read by. */
  | { type: 'moment.find'; project?: string; name: string; at?: BranchStart }
  | { type: 'metrics' }
  /** Of a cluster. */
  | { type: 'node.list' }
  | { type: 'node.drain'; name: string; draining: boolean }
  /** Another node keeps the WAL that this one keeps: `with`, or one that placement chooses. */
  | { type: 'safekeeper.replace'; node: string; with?: string }
  | { type: 'placement' }
  /** Projects that were copied into the cluster's objects become its own. */
  | { type: 'project.import'; import: string }
  /** How far a durable subscription has got: `{after}`, a cursor, or nothing for a new one; and that it has got further. */
  | { type: 'events.position'; name: string }
  | { type: 'events.acknowledge'; name: string; after: number }
  /** Events after the cursor `after`, or without one, not older than `sinceMs`. */
  | { type: 'events.read'; pattern: string; after?: number; sinceMs?: number; limit: number };

export interface BranchView {
  project: string;
  name: string;
  timeline: string;
  /** creating, ready, restoring, archiving, archived, unarchiving, deleting */
  state: string;
  parent?: string;
  /** Where its own history begins, as `X/Y`. */
  startLsn: string;
  createdAt: string;
  /** suspended, starting, running, … */
  compute: string;
  /** Client connections at the gateway. */
  connections: number;
  /** Where its history window begins, as `X/Y`; absent while all of its own history is kept. */
  historyFrom?: string;
}

/** What garbage collection of one branch has done. */
export interface GcView {
  /** Where the readable history begins, as `X/Y`; absent while all of it is kept. */
  historyFrom?: string;
  /** The moment that stands for, ISO. */
  historyFromTime?: string;
  /** Points before it that stay readable: for branches and readers. */
  retained: string[];
  removedLayers: number;
  removedBytes: number;
  /** Image layers made so that older layers could go. */
  images: number;
}

/** A read-only compute of a moment. */
export interface MomentView {
  project: string;
  /** The branch whose own history has the moment. */
  branch: string;
  timeline: string;
  /** `X/Y` */
  lsn: string;
  compute: string;
  connections: number;
}

/** Where the history of a moment is. */
export interface FoundMoment {
  /** The timeline that has it: the branch's own, or an ancestor. */
  timeline: string;
  /** `X/Y` */
  lsn: string;
}

/** How much of the past stays readable: everything that either of the two keeps. */
export interface HistoryView {
  seconds: number;
  /** Bytes of WAL of one branch. */
  bytes: number;
}

export interface ProjectView {
  name: string;
  tenant: string;
  state: string;
  pgVersion: number;
  createdAt: string;
  branches: number;
  history: HistoryView;
  /** Over how many shards its pages are spread. */
  shards: number;
  /** While there are going to be more; `isSwitching`: all have been made and take over. */
  splitting?: { to: number; isSwitching: boolean; isCancelled?: boolean };
  /** Why the last attempt to have more failed. */
  splitError?: string;
}

/** A node of a cluster. */
export interface NodeView {
  name: string;
  zone: string;
  roles: string[];
  host: string;
  version: string;
  /** alive, draining, gone */
  state: string;
  seenAt: string;
  startedAt: string;
  /** Whether it holds the control lease. */
  control: boolean;
  computes: number;
}

/** What runs where in a cluster, and what is going to change. */
export interface PlacementView {
  control: { node: string; epoch: number };
  projects: {
    tenant: string;
    name: string;
    safekeepers: string[];
    pageserver: string;
    /** Keeps the layers ready and takes the pages over when the pageserver is lost; undefined when no other node can, or each shard has its own. */
    secondary?: string | undefined;
    /** Where it has several; `shard` is `<number>of<count>`. */
    shards?: { shard: string; node: string; secondary?: string | undefined }[];
  }[];
  computes: { host: string; node: string }[];
  /** Empty when everything is where it should be. */
  steps: Record<string, string>[];
}

export interface ProcessView {
  node: string;
  pid?: number;
  restarts: number;
}

/** The file system of the data directory. */
export interface DiskView {
  freeBytes: number;
  totalBytes: number;
  /** Too little is left for commits to go on. */
  isFull: boolean;
}

export interface StatusView {
  version: string;
  pid: number;
  port: number;
  /** Of the gateway; 127.0.0.1 when absent. */
  host?: string;
  dataDir: string;
  startedAt: string;
  safekeepers: number;
  suspendAfterSeconds: number;
  disk: DiskView;
  processes: ProcessView[];
  projects: ProjectView[];
  branches: BranchView[];
  /** Read-only computes that run, or did a moment ago. */
  moments: MomentView[];
}

/** Events with the place to read on from. */
export interface EventsView {
  events: EventEnvelope[];
  /** Cursor of the last event that was looked at. */
  next: number;
  /** Whether there was more than `limit`. */
  more: boolean;
}
