/**
 * What a project does with a command: events, or a rejection. Pure.
 */
import type { AnyMachineSnapshot } from 'xstate';
import type { WireError } from '../../protocols/errors.ts';
import { hexId } from '../../protocols/ids.ts';
import type { DecideEnvironment, Decision } from '../../runtime/host/definition.ts';
import type { ShardPlaces } from '../timeline/shards.ts';
import {
  type Branch,
  childrenOf,
  dependents,
  findBranch,
  isPrimary,
  notReady,
  parentOf,
  takenName,
  unneeded,
} from './branches.ts';
import { decideRestore } from './decide-restore.ts';
import type {
  AncestorStatus,
  BranchStatus,
  HistoryWindow,
  TenantCommand,
  TenantEvent,
  TenantStatus,
} from './events.ts';
import { DEFAULT_HISTORY, type TenantContext } from './machine.ts';
import { BRANCHES_MAX, invalidName } from './names.ts';

export const FIRST_BRANCH = 'main';
/** Letters and digits that are not mistaken for each other; safe in a URL. */
const PASSWORD_LETTERS = 'abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789';
const PASSWORD_LENGTH = 24;

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
  if (context.splitting && !DURING_SPLIT.has(command.type)) return isBeingSplit(context);
  switch (command.type) {
    case 'split':
      return decideSplit(context, command.to);
    case 'cancel-split':
      return decideCancel(context);
    case 'delete':
      return { events: [{ type: 'project.delete-requested' }] };
    case 'branch.create':
      return decideBranch(context, command, environment);
    case 'branch.rename':
      return decideRename(context, command);
    case 'branch.delete':
      return decideDelete(context, command);
    case 'branch.restore':
    case 'branch.reset':
      return decideRestore(context, command, environment);
    case 'branch.archive':
    case 'branch.unarchive':
      return decideArchive(context, command);
    case 'branch.detach':
      return decideDetach(context, command);
    case 'branch.sweep':
      return decideSweep(context, command);
    case 'set-history':
      return decideHistory(context, command.history);
    default:
      return reject('unsupported', `a project knows no command "${(command as { type: string }).type}"`);
  }
}

/** What changes no timeline, or nothing at all. */
const DURING_SPLIT = new Set<string>(['split', 'cancel-split', 'branch.rename', 'set-history']);

function isBeingSplit({ spec, splitting }: TenantContext): TenantDecision {
  if (splitting!.isCancelled) {
    return reject(
      'conflict',
      `new shards of project "${spec!.name}" are just being removed, because their split was cancelled`,
      'try again in a moment',
    );
  }
  return reject(
    'conflict',
    `the pages of project "${spec!.name}" are just being spread over ${splitting!.to.pageservers.length} shards`,
    'try again when that is done; `palimpsest project list` shows how far it is',
  );
}

/** How many shards the timelines of a project have. */
export function shardCountOf({ shards, spec }: TenantContext): number {
  return (shards ?? spec?.shards)?.pageservers.length ?? 1;
}

/** Asked again for the same, it changes nothing. */
function decideSplit(context: TenantContext, to: ShardPlaces): TenantDecision {
  const now = shardCountOf(context);
  const wanted = to.pageservers.length;
  if (context.splitting) {
    const isTheSame = context.splitting.to.pageservers.length === wanted && !context.splitting.isCancelled;
    return isTheSame ? { events: [] } : isBeingSplit(context);
  }
  if (wanted === now) return { events: [] };
  if (wanted < now || wanted % now !== 0) {
    return reject(
      'invalid-argument',
      `${now} shards cannot be split into ${wanted}`,
      'name a number that is twice, four or eight times as many',
    );
  }
  const waiting = context.branches.find((branch) => branch.phase !== 'ready' || branch.detaching);
  if (waiting) {
    const hint = waiting.phase === 'archived' ? 'unarchive it first' : 'try again in a moment';
    return reject('conflict', `branch "${waiting.name ?? waiting.timeline}" is ${waiting.phase}`, hint);
  }
  const { splitsGivenUp } = context;
  const named = splitsGivenUp ? { ...to, attempt: splitsGivenUp } : to;
  return { events: [{ type: 'project.split-requested', to: named }] };
}

/** Asked again, it changes nothing. */
function decideCancel({ spec, splitting }: TenantContext): TenantDecision {
  if (!splitting) {
    return reject('conflict', `the pages of project "${spec!.name}" are not being spread over more shards`);
  }
  if (splitting.isSwitching) {
    const what = `the ${splitting.to.pageservers.length} shards of project "${spec!.name}" are just taking over`;
    return reject('conflict', `${what}: their split cannot be cancelled any more`);
  }
  return { events: splitting.isCancelled ? [] : [{ type: 'project.split-cancel-requested' }] };
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
  const history = windowOf(DEFAULT_HISTORY, command.history ?? {});
  if ('code' in history) return { reject: history };
  return {
    events: [
      { type: 'project.created', spec: command.spec, password, timeMs: environment.now },
      ...(command.history ? [{ type: 'project.history-set' as const, history }] : []),
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
  const invalid = invalidName('branch', command.name) ?? takenName(context.branches, command.name);
  if (invalid) return { reject: invalid };
  if (context.branches.length >= BRANCHES_MAX) {
    return reject('conflict', `a project holds at most ${BRANCHES_MAX} branches`);
  }
  const from = findBranch(context.branches, command.from ?? FIRST_BRANCH);
  if ('code' in from) return { reject: from };
  if (from.phase !== 'ready') return { reject: notReady(from) };
  const timeline = hexId(environment.random.bytes(16));
  return {
    events: [
      {
        type: 'branch.requested',
        name: command.name,
        timeline,
        from: { timeline: from.timeline, name: from.name!, point: command.point ?? { kind: 'head' } },
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
  const branch = findBranch(context.branches, command.name);
  if ('code' in branch) return { reject: branch };
  if (command.to === command.name) return { events: [] };
  if (branch.phase === 'restoring') return reject('conflict', `branch "${branch.name}" is being restored`);
  const invalid = invalidName('branch', command.to) ?? takenName(context.branches, command.to);
  if (invalid) return { reject: invalid };
  return {
    events: [{ type: 'branch.renamed', name: command.name, to: command.to, timeline: branch.timeline }],
    reply: { timeline: branch.timeline },
  };
}

function decideDelete(
  context: TenantContext,
  command: Extract<TenantCommand, { type: 'branch.delete' }>,
): TenantDecision {
  const branch = findBranch(context.branches, command.name);
  if ('code' in branch) return { reject: branch };
  const reply = { timeline: branch.timeline };
  if (branch.phase === 'deleting') return { events: [], reply };
  if (branch.phase === 'creating')
    return reject('conflict', `branch "${branch.name}" is still being created`);
  if (branch.phase === 'restoring') return reject('conflict', `branch "${branch.name}" is being restored`);
  if (isMoving(branch)) return { reject: notReady(branch) };
  const children = childrenOf(context.branches, branch.timeline);
  if (children.length > 0) {
    return reject(
      'conflict',
      `branch "${branch.name}" has children: ${children.map((child) => child.name).join(', ')}`,
      'delete them first',
    );
  }
  if (dependents(context.branches, branch.timeline).length > 0) {
    return reject(
      'conflict',
      `an older state of another branch still grows from "${branch.name}"`,
      'it is removed when nobody reads it any more; try again in a minute',
    );
  }
  if (isPrimary(branch)) {
    return reject('conflict', `"${branch.name}" is the project's first branch`, 'delete the project instead');
  }
  return {
    events: [{ type: 'branch.delete-requested', name: command.name, timeline: branch.timeline }],
    reply,
  };
}

/** Between two states: a deletion would meet what is just being done. */
function isMoving({ phase, detaching }: Branch): boolean {
  return phase === 'archiving' || phase === 'unarchiving' || detaching === true;
}

function decideArchive(
  context: TenantContext,
  { type, name }: Extract<TenantCommand, { type: 'branch.archive' | 'branch.unarchive' }>,
): TenantDecision {
  const branch = findBranch(context.branches, name);
  if ('code' in branch) return { reject: branch };
  const { timeline, phase } = branch;
  const reply = { timeline };
  const isDone = type === 'branch.archive' ? 'archived' : 'ready';
  const isUnderWay = type === 'branch.archive' ? 'archiving' : 'unarchiving';
  if (phase === isDone || phase === isUnderWay) return { events: [], reply };
  if (type === 'branch.unarchive') {
    if (phase !== 'archived') return { reject: notReady(branch) };
    return { events: [{ type: 'branch.unarchive-requested', name, timeline }], reply };
  }
  if (phase !== 'ready' || branch.detaching) return { reject: notReady(branch) };
  if (isPrimary(branch)) return reject('conflict', `"${name}" is the project's first branch`);
  const others = dependents(context.branches, timeline);
  if (others.length > 0) {
    const children = childrenOf(context.branches, timeline).map((child) => child.name);
    return reject(
      'conflict',
      `branch "${name}" has children: ${children.join(', ') || 'an older state of another branch'}`,
      'delete them first, or make them independent with: palimpsest branch detach CHILD',
    );
  }
  return { events: [{ type: 'branch.archive-requested', name, timeline }], reply };
}

function decideDetach(
  context: TenantContext,
  { name }: Extract<TenantCommand, { type: 'branch.detach' }>,
): TenantDecision {
  const branch = findBranch(context.branches, name);
  if ('code' in branch) return { reject: branch };
  const { timeline, phase, ancestor, detaching } = branch;
  if (phase !== 'ready') return { reject: notReady(branch) };
  if (ancestor === undefined || detaching) return { events: [], reply: { timeline } };
  return { events: [{ type: 'branch.detach-requested', name, timeline }], reply: { timeline } };
}

function decideSweep(
  context: TenantContext,
  command: Extract<TenantCommand, { type: 'branch.sweep' }>,
): TenantDecision {
  const droppable = unneeded(context.branches).filter(({ timeline }) => command.timelines.includes(timeline));
  return { events: droppable.map(({ timeline }) => ({ type: 'ancestor.delete-requested', timeline })) };
}

function decideHistory(context: TenantContext, change: Partial<HistoryWindow>): TenantDecision {
  const before = context.history ?? DEFAULT_HISTORY;
  const history = windowOf(before, change);
  if ('code' in history) return { reject: history };
  const isSame = history.ms === before.ms && history.bytes === before.bytes;
  return { events: isSame ? [] : [{ type: 'project.history-set', history }], reply: history };
}

/** The window with what is to change; says what is wrong with it. */
function windowOf(before: HistoryWindow, change: Partial<HistoryWindow>): HistoryWindow | WireError {
  const history = { ms: change.ms ?? before.ms, bytes: change.bytes ?? before.bytes };
  const isAmount = (value: number) => Number.isSafeInteger(value) && value >= 0;
  if (isAmount(history.ms) && isAmount(history.bytes)) return history;
  return {
    code: 'invalid-argument',
    message: 'a history window is a whole number of milliseconds and of bytes, neither negative',
  };
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
    history: context.history ?? DEFAULT_HISTORY,
    shards: shardCountOf(context),
    splitting: context.splitting && {
      to: context.splitting.to.pageservers.length,
      isSwitching: context.splitting.isSwitching,
      ...(context.splitting.isCancelled ? { isCancelled: true } : {}),
    },
    splitError: context.splitError,
    branches: context.branches.flatMap((branch) =>
      branch.name === undefined ? [] : branchStatus(context, branch, branch.name),
    ),
    ancestors: ancestorStatuses(context),
  };
}

function ancestorStatuses({ branches }: TenantContext): AncestorStatus[] {
  const droppable = new Set(unneeded(branches));
  return branches
    .filter(({ name }) => name === undefined)
    .map((branch) => ({
      timeline: branch.timeline,
      state: branch.phase,
      ancestor: branch.ancestor,
      unneeded: droppable.has(branch),
    }));
}

function branchStatus(context: TenantContext, branch: Branch, name: string): BranchStatus {
  return {
    name,
    timeline: branch.timeline,
    state: branch.phase,
    primary: isPrimary(branch),
    startLsn: branch.startLsn,
    detaching: branch.detaching ?? false,
    parent: parentOf(context.branches, branch)?.name,
    ancestor: branch.ancestor,
    createdMs: branch.createdMs,
  };
}

function reject(code: WireError['code'], message: string, hint?: string): TenantDecision {
  return { reject: hint === undefined ? { code, message } : { code, message, hint } };
}
