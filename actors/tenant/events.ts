/**
 * A project's commands and journaled events. The actor is called tenant, as in the ids of its data; users see a project.
 */
import type { WireError } from '../../protocols/errors.ts';
import type { ActorEvent } from '../../runtime/host/definition.ts';
import type { BranchPoint } from '../timeline/events.ts';

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
  pageserver: string;
}

export type TenantCommand =
  | { type: 'create'; spec: ProjectSpec }
  | { type: 'delete' }
  | { type: 'branch.create'; name: string; from?: string; point?: BranchPoint }
  | { type: 'branch.rename'; name: string; to: string }
  | { type: 'branch.delete'; name: string }
  | { type: 'branch.list' }
  | { type: 'status' };

export type TenantEvent = ActorEvent &
  (
    | { type: 'project.created'; spec: ProjectSpec; password: string; timeMs: number }
    | { type: 'project.password-set' }
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
  );

/** One branch, for others. */
export interface BranchStatus {
  name: string;
  timeline: string;
  /** creating, ready, deleting */
  state: string;
  startLsn: number;
  /** The branch it was made from, by its name today. */
  parent: string | undefined;
  ancestor: { timeline: string; lsn: number } | undefined;
  createdMs: number;
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
  branches: BranchStatus[];
}
