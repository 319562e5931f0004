/**
 * Restore and reset: both move a branch's name to a new timeline, and differ in where that one starts. Pure.
 */
import type { WireError } from '../../protocols/errors.ts';
import { hexId } from '../../protocols/ids.ts';
import type { DecideEnvironment, Decision } from '../../runtime/host/definition.ts';
import { findBranch, notReady, parentOf, takenName } from './branches.ts';
import type { TenantCommand, TenantEvent } from './events.ts';
import type { TenantContext } from './machine.ts';
import { BRANCHES_MAX, invalidName } from './names.ts';

export function decideRestore(
  context: TenantContext,
  command: Extract<TenantCommand, { type: 'branch.restore' | 'branch.reset' }>,
  environment: DecideEnvironment,
): Decision<TenantEvent> {
  const { branches } = context;
  const branch = findBranch(branches, command.name);
  if ('code' in branch) return { reject: branch };
  if (branch.phase !== 'ready' || branch.detaching) return { reject: notReady(branch) };
  const { preserveUnder } = command;
  if (preserveUnder !== undefined) {
    const invalid = invalidName('branch', preserveUnder) ?? takenName(branches, preserveUnder);
    if (invalid) return { reject: invalid };
  }
  if (branches.length >= BRANCHES_MAX) return conflict(`a project holds at most ${BRANCHES_MAX} branches`);
  const source = command.type === 'branch.restore' ? branch : parentOf(branches, branch);
  if (!source) return { reject: hasNoParent(command.name) };
  if (source.phase !== 'ready') return { reject: notReady(source) };
  const replacement = hexId(environment.random.bytes(16));
  return {
    events: [
      {
        type: 'branch.restore-requested',
        name: command.name,
        timeline: branch.timeline,
        replacement,
        from: {
          timeline: source.timeline,
          name: source.name!,
          point: command.type === 'branch.restore' ? command.point : { kind: 'head' },
        },
        ...(preserveUnder === undefined ? {} : { preserveUnder }),
      },
    ],
    reply: { timeline: replacement },
  };
}

function hasNoParent(name: string): WireError {
  return {
    code: 'invalid-argument',
    message: `branch "${name}" has no parent to be reset to`,
    hint: `go back to a moment of its own past with: palimpsest branch restore ${name} --at POINT`,
  };
}

function conflict(message: string): Decision<TenantEvent> {
  return { reject: { code: 'conflict', message } };
}
