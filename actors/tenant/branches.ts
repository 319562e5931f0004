/**
 * The branches of a project as a tree: names, parents, and what depends on what. Pure.
 *
 * A restored branch is a new timeline under the old name. The old timeline stays in the tree without a name for as long as
 * something grows from it; nobody can name it, so nothing new can come to depend on it once nothing does.
 */
import type { WireError } from '../../protocols/errors.ts';
import type { BranchPoint } from '../timeline/events.ts';

export type BranchPhase =
  | 'creating'
  | 'ready'
  | 'restoring'
  | 'archiving'
  | 'archived'
  | 'unarchiving'
  | 'deleting';

export interface Branch {
  /** Absent: an ancestor that had a name before a restore. */
  name: string | undefined;
  timeline: string;
  phase: BranchPhase;
  from: { timeline: string; point: BranchPoint } | undefined;
  startLsn: number;
  ancestor: { timeline: string; lsn: number } | undefined;
  createdMs: number;
  /** The project's first branch, or what was restored under its name. Absent in state of earlier versions. */
  primary?: boolean;
  /** The timeline that took its name. */
  replacedBy?: string;
  /** The restore that is under way. */
  restore?: Restore;
  /** Its data is being made independent of its ancestor's. */
  detaching?: boolean;
}

/** A new timeline that is about to take a branch's name. */
export interface Restore {
  timeline: string;
  from: { timeline: string; point: BranchPoint };
  preserveUnder: string | undefined;
}

/** Ancestors of ancestors; more than this is a loop. */
const DEPTH_MAX = 10_000;

/** Whether this branch goes only with its project. */
export function isPrimary(branch: Branch): boolean {
  return branch.primary ?? branch.from === undefined;
}

/**
 * A branch being created depends on the one it was asked from; a ready one on the timeline it really starts at; one that is
 * being restored on both.
 */
export function dependsOn(branch: Branch, timeline: string): boolean {
  if (branch.restore?.from.timeline === timeline) return true;
  if (branch.phase === 'creating') return branch.from?.timeline === timeline;
  return branch.ancestor?.timeline === timeline;
}

/** The branches and ancestors that need a timeline's data; a branch that replaces itself does not count. */
export function dependents(branches: Branch[], timeline: string): Branch[] {
  return branches.filter((branch) => branch.timeline !== timeline && dependsOn(branch, timeline));
}

/** Branches with a name that grow from a timeline, directly or through ancestors without a name. */
export function childrenOf(branches: Branch[], timeline: string): Branch[] {
  const found: Branch[] = [];
  const visit = (at: string, depth: number) => {
    if (depth > DEPTH_MAX) return;
    for (const branch of dependents(branches, at)) {
      if (branch.name === undefined) visit(branch.timeline, depth + 1);
      else found.push(branch);
    }
  };
  visit(timeline, 0);
  return found;
}

/** Ancestors without a name that nothing grows from any more. */
export function unneeded(branches: Branch[]): Branch[] {
  return branches.filter(
    (branch) =>
      branch.name === undefined &&
      branch.phase === 'ready' &&
      dependents(branches, branch.timeline).length === 0,
  );
}

/** The branch that users see as a branch's parent: of an ancestor that lost its name, the one that has the name now. */
export function parentOf(branches: Branch[], branch: Branch): Branch | undefined {
  const byTimeline = (timeline: string | undefined) => branches.find((other) => other.timeline === timeline);
  let at = byTimeline((branch.ancestor ?? branch.from)?.timeline);
  for (let depth = 0; at && depth < DEPTH_MAX; depth++) {
    if (at.name !== undefined) return at;
    let successor: Branch | undefined = at;
    while (successor && successor.name === undefined) successor = byTimeline(successor.replacedBy);
    if (successor && successor !== branch) return successor;
    at = byTimeline((at.ancestor ?? at.from)?.timeline);
  }
  return undefined;
}

/** Says why a branch cannot be used for something now. */
export function notReady({ name, phase }: Branch): WireError {
  if (phase !== 'archived') return { code: 'conflict', message: `branch "${name}" is ${phase}` };
  return {
    code: 'conflict',
    message: `branch "${name}" is archived`,
    hint: `bring it back with: palimpsest branch unarchive ${name}`,
  };
}

export function findBranch(branches: Branch[], name: string): Branch | WireError {
  const branch = branches.find((candidate) => candidate.name === name);
  if (branch) return branch;
  const names = branches.flatMap((candidate) => candidate.name ?? []).slice(0, 10);
  return {
    code: 'not-found',
    message: `branch "${name}" does not exist`,
    hint: `branches: ${names.join(', ')}`,
  };
}

/** Says that a name is in use, or promised to what a restore keeps. */
export function takenName(branches: Branch[], name: string): WireError | undefined {
  const isTaken = branches.some((branch) => branch.name === name || branch.restore?.preserveUnder === name);
  if (!isTaken) return undefined;
  return { code: 'already-exists', message: `branch "${name}" exists already`, hint: 'choose another name' };
}
