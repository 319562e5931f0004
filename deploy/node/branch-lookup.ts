/** Which timeline the words of a client mean. */
import type { BranchLookup } from '../../actors/gateway/gateway.ts';
import { FIRST_BRANCH } from '../../actors/tenant/decide.ts';
import type { BranchStatus, TenantStatus } from '../../actors/tenant/events.ts';
import { toWireError, type WireError } from '../../protocols/errors.ts';
import { DEFAULT_PROJECT } from '../client/control.ts';

/** `untilRestored` resolves when a restore has moved the branch's name, or was refused. */
export function lookUpBranch(
  projects: TenantStatus[],
  words: { project: string | undefined; branch: string | undefined },
  untilRestored: (project: TenantStatus, name: string) => Promise<BranchStatus>,
): BranchLookup | Promise<BranchLookup> {
  const project = projects.find(({ name }) => name === (words.project ?? DEFAULT_PROJECT));
  if (!project) return { status: 'unknown-project', projects: projects.map(({ name }) => name) };
  const target = project.branches.find(({ name }) => name === (words.branch ?? FIRST_BRANCH));
  switch (target?.state) {
    case 'ready':
      return { status: 'found', timeline: target.timeline };
    case 'restoring':
      return untilRestored(project, target.name).then(
        ({ timeline }) => ({ status: 'found', timeline }),
        (error) => ({ status: 'no-moment', error: toWireError(error) }),
      );
    case 'archiving':
    case 'archived':
      return { status: 'no-moment', error: isArchived(target.name) };
    default:
      return { status: 'unknown-branch', branches: project.branches.map(({ name }) => name) };
  }
}

export function isArchived(name: string): WireError {
  return {
    code: 'unavailable',
    message: `branch "${name}" is archived`,
    hint: `bring it back with: palimpsest branch unarchive ${name}`,
  };
}
