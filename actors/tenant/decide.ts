/**
 * What a project does with a command: events, or a rejection. Pure.
 */
import type { AnyMachineSnapshot } from 'xstate';
import type { WireError } from '../../protocols/errors.ts';
import { hexId } from '../../protocols/ids.ts';
import type { DecideEnvironment, Decision } from '../../runtime/host/definition.ts';
import type { BranchStatus, TenantCommand, TenantEvent, TenantStatus } from './events.ts';
import type { Branch, TenantContext } from './machine.ts';

export const FIRST_BRANCH = 'main';
export const NAME_BYTES_MAX = 63;
/** A bound for one project: its list of branches is one small state. */
export const BRANCHES_MAX = 10_000;
/** Letters and digits that are not mistaken for each other; safe in a URL. */
const PASSWORD_LETTERS = 'abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789';
const PASSWORD_LENGTH = 24;
const NAME = /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/;

type TenantDecision = Decision<TenantEvent>;

export function decideTenant(
  snapshot: AnyMachineSnapshot,
  command: TenantCommand,
  environment: DecideEnvironment,
): TenantDecision {
  const state = snapshot.value as string;
  const context = snapshot.context as TenantContext;
  if (command.type === 'create') return decideCreate(state, context, command, environment);
  if (state === 'absent' || state === 'deleted') {
    return reject('not-found', `project ${environment.id} does not exist`);
  }
  if (command.type === 'status') return { events: [], reply: tenantStatus(snapshot) };
  if (command.type === 'branch.list') return { events: [], reply: tenantStatus(snapshot).branches };
  if (state !== 'active') return reject('conflict', `project "${context.spec!.name}" is being deleted`);
  switch (command.type) {
    case 'delete':
      return { events: [{ type: 'project.delete-requested' }] };
    case 'branch.create':
      return decideBranch(context, command, environment);
    case 'branch.rename':
      return decideRename(context, command);
    case 'branch.delete':
      return decideDelete(context, command);
    default:
      return reject('unsupported', `a project knows no command "${(command as { type: string }).type}"`);
  }
}

/** Says what is wrong with the name of a branch or project, if anything. */
export function invalidName(what: string, name: unknown): WireError | undefined {
  if (typeof name === 'string' && name.length <= NAME_BYTES_MAX && NAME.test(name)) return undefined;
  return {
    code: 'invalid-argument',
    message: `${JSON.stringify(name)} cannot be the name of a ${what}`,
    hint: `use lower-case letters, digits and dashes (not at the ends), at most ${NAME_BYTES_MAX}`,
  };
}

function decideCreate(
  state: string,
  context: TenantContext,
  command: Extract<TenantCommand, { type: 'create' }>,
  environment: DecideEnvironment,
): TenantDecision {
  if (state !== 'absent') {
    const first = context.branches[0];
    return state === 'active' && first
      ? { events: [], reply: { timeline: first.timeline } }
      : reject('conflict', `project ${environment.id} exists`);
  }
  const invalid = invalidName('project', command.spec.name);
  if (invalid) return { reject: invalid };
  const timeline = hexId(environment.random.bytes(16));
  let password = '';
  for (let i = 0; i < PASSWORD_LENGTH; i++) {
    password += PASSWORD_LETTERS[environment.random.int(PASSWORD_LETTERS.length)]!;
  }
  return {
    events: [
      { type: 'project.created', spec: command.spec, password, timeMs: environment.now },
      { type: 'branch.requested', name: FIRST_BRANCH, timeline, timeMs: environment.now },
    ],
    reply: { timeline },
  };
}

function decideBranch(
  context: TenantContext,
  command: Extract<TenantCommand, { type: 'branch.create' }>,
  environment: DecideEnvironment,
): TenantDecision {
  const invalid = invalidName('branch', command.name) ?? taken(context, command.name);
  if (invalid) return { reject: invalid };
  if (context.branches.length >= BRANCHES_MAX) {
    return reject('conflict', `a project holds at most ${BRANCHES_MAX} branches`);
  }
  const from = findBranch(context, command.from ?? FIRST_BRANCH);
  if ('code' in from) return { reject: from };
  if (from.phase !== 'ready') return reject('conflict', `branch "${from.name}" is ${from.phase}`);
  const timeline = hexId(environment.random.bytes(16));
  return {
    events: [
      {
        type: 'branch.requested',
        name: command.name,
        timeline,
        from: { timeline: from.timeline, name: from.name, point: command.point ?? { kind: 'head' } },
        timeMs: environment.now,
      },
    ],
    reply: { timeline },
  };
}

function decideRename(
  context: TenantContext,
  command: Extract<TenantCommand, { type: 'branch.rename' }>,
): TenantDecision {
  const branch = findBranch(context, command.name);
  if ('code' in branch) return { reject: branch };
  if (command.to === command.name) return { events: [] };
  const invalid = invalidName('branch', command.to) ?? taken(context, command.to);
  if (invalid) return { reject: invalid };
  return {
    events: [{ type: 'branch.renamed', name: branch.name, to: command.to, timeline: branch.timeline }],
    reply: { timeline: branch.timeline },
  };
}

function decideDelete(
  context: TenantContext,
  command: Extract<TenantCommand, { type: 'branch.delete' }>,
): TenantDecision {
  const branch = findBranch(context, command.name);
  if ('code' in branch) return { reject: branch };
  const reply = { timeline: branch.timeline };
  if (branch.phase === 'deleting') return { events: [], reply };
  if (branch.phase === 'creating')
    return reject('conflict', `branch "${branch.name}" is still being created`);
  const children = context.branches.filter((other) => dependsOn(other, branch.timeline));
  if (children.length > 0) {
    return reject(
      'conflict',
      `branch "${branch.name}" has children: ${children.map((child) => child.name).join(', ')}`,
      'delete them first',
    );
  }
  if (branch.from === undefined) {
    return reject('conflict', `"${branch.name}" is the project's first branch`, 'delete the project instead');
  }
  return {
    events: [{ type: 'branch.delete-requested', name: branch.name, timeline: branch.timeline }],
    reply,
  };
}

/** A branch being created depends on the one it was asked from; a ready one on the timeline it really starts at. */
function dependsOn(branch: Branch, timeline: string): boolean {
  return (branch.ancestor ?? branch.from)?.timeline === timeline;
}

function findBranch(context: TenantContext, name: string): Branch | WireError {
  const branch = context.branches.find((candidate) => candidate.name === name);
  if (branch) return branch;
  const names = context.branches.map((candidate) => candidate.name).slice(0, 10);
  return {
    code: 'not-found',
    message: `branch "${name}" does not exist`,
    hint: `branches: ${names.join(', ')}`,
  };
}

function taken(context: TenantContext, name: string): WireError | undefined {
  if (!context.branches.some((branch) => branch.name === name)) return undefined;
  return { code: 'already-exists', message: `branch "${name}" exists already`, hint: 'choose another name' };
}

/** A project's state for others. */
export function tenantStatus(snapshot: AnyMachineSnapshot): TenantStatus {
  const context = snapshot.context as TenantContext;
  return {
    tenant: context.id,
    name: context.spec?.name ?? '',
    state: snapshot.value as string,
    pgVersion: context.spec?.pgVersion ?? 0,
    password: context.password,
    passwordSet: context.passwordSet,
    createdMs: context.createdMs,
    branches: context.branches.map((branch) => branchStatus(context, branch)),
  };
}

function branchStatus(context: TenantContext, branch: Branch): BranchStatus {
  const parentTimeline = (branch.ancestor ?? branch.from)?.timeline;
  return {
    name: branch.name,
    timeline: branch.timeline,
    state: branch.phase,
    startLsn: branch.startLsn,
    parent: context.branches.find((other) => other.timeline === parentTimeline)?.name,
    ancestor: branch.ancestor,
    createdMs: branch.createdMs,
  };
}

function reject(code: WireError['code'], message: string, hint?: string): TenantDecision {
  return { reject: hint === undefined ? { code, message } : { code, message, hint } };
}
