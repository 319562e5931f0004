/**
 * The statechart of a project. Pure: events in, state and the names of effects out.
 *
 *   absent -> active -> deleting -> deleted
 *
 * Its branches are in the context, each creating -> ready -> deleting: they share the project's one list of names.
 * A restore moves a name from one timeline to another by one event (`branch.restored`).
 */
import { assign, setup } from 'xstate';
import type { WireError } from '../../protocols/errors.ts';
import type { ShardPlaces } from '../timeline/shards.ts';
import { type Branch, type BranchPhase, isPrimary } from './branches.ts';
import type { HistoryWindow, ProjectSpec, TenantEvent } from './events.ts';

export interface TenantContext {
  id: string;
  spec: ProjectSpec | undefined;
  password: string;
  /** Whether Postgres knows the password: it is set in the first branch, and inherited by all others. */
  passwordSet: boolean;
  createdMs: number;
  /** Absent in state kept by earlier versions. */
  history?: HistoryWindow;
  /** As a split has made them; absent: those of the spec. */
  shards?: ShardPlaces;
  splitting?: { to: ShardPlaces; isSwitching: boolean; isCancelled?: boolean } | undefined;
  splitError?: WireError | undefined;
  /** How many were given up, for whatever reason. */
  splitsGivenUp?: number;
  /** By timeline, in the order of creation: each after what it grew from. */
  branches: Branch[];
  /** The newest creations that failed: those who wait for them look here. */
  failures: { timeline: string; error: WireError }[];
}

export interface BranchEffectParams {
  branch: Branch;
  context: TenantContext;
}
export interface TenantEffectParams {
  context: TenantContext;
}

/** Of a project that was given none. */
export const DEFAULT_HISTORY: HistoryWindow = { ms: 7 * 24 * 60 * 60 * 1000, bytes: 0 };
/** Failures that are remembered; who asked has long had the answer when there are more. */
const FAILURES_MAX = 16;

/** What a branch is after an event. */
const PHASES: Partial<Record<TenantEvent['type'], BranchPhase>> = {
  'branch.archive-requested': 'archiving',
  'branch.archived': 'archived',
  'branch.unarchive-requested': 'unarchiving',
  'branch.unarchived': 'ready',
};

const own = ({ context }: { context: TenantContext }): TenantEffectParams => ({ context });

function branchOf({ context, event }: { context: TenantContext; event: TenantEvent }): BranchEffectParams {
  const timeline = 'timeline' in event ? event.timeline : '';
  return { context, branch: context.branches.find((branch) => branch.timeline === timeline)! };
}

/** The timeline whose name another one has taken. */
function replaced({ context, event }: { context: TenantContext; event: TenantEvent }): BranchEffectParams {
  const timeline = event.type === 'branch.restored' ? event.replaced : '';
  return { context, branch: context.branches.find((branch) => branch.timeline === timeline)! };
}

function changed(context: TenantContext, timeline: string, change: Partial<Branch>): Partial<TenantContext> {
  return {
    branches: context.branches.map((branch) =>
      branch.timeline === timeline ? { ...branch, ...change } : branch,
    ),
  };
}

/** Remembers why a timeline was not created. */
function failed(context: TenantContext, timeline: string, error: WireError): Partial<TenantContext> {
  return { failures: [...context.failures, { timeline, error }].slice(-FAILURES_MAX) };
}

function without(context: TenantContext, timeline: string): Branch[] {
  return context.branches.filter((branch) => branch.timeline !== timeline);
}

function splitGivenUp({ splitsGivenUp = 0 }: TenantContext): Partial<TenantContext> {
  return { splitting: undefined, splitsGivenUp: splitsGivenUp + 1 };
}

export const tenantMachine = setup({
  types: {
    context: {} as TenantContext,
    events: {} as TenantEvent,
    input: {} as { id: string },
  },
  actions: {
    createTimeline: (_, _params: BranchEffectParams) => {},
    deleteTimeline: (_, _params: BranchEffectParams) => {},
    restoreBranch: (_, _params: BranchEffectParams) => {},
    retireTimeline: (_, _params: BranchEffectParams) => {},
    deleteAncestor: (_, _params: BranchEffectParams) => {},
    sweep: (_, _params: TenantEffectParams) => {},
    archiveTimeline: (_, _params: BranchEffectParams) => {},
    unarchiveTimeline: (_, _params: BranchEffectParams) => {},
    detachTimeline: (_, _params: BranchEffectParams) => {},
    splitProject: (_, _params: TenantEffectParams) => {},
    switchProject: (_, _params: TenantEffectParams) => {},
    abandonSplit: (_, _params: TenantEffectParams) => {},
    cancelSplit: (_, _params: TenantEffectParams) => {},
    setPassword: (_, _params: TenantEffectParams) => {},
    deleteProject: (_, _params: TenantEffectParams) => {},
    takeProject: assign(({ event }) =>
      event.type === 'project.created'
        ? { spec: event.spec, password: event.password, createdMs: event.timeMs }
        : {},
    ),
    takePassword: assign({ passwordSet: true }),
    takeHistory: assign(({ event }) =>
      event.type === 'project.history-set' ? { history: event.history } : {},
    ),
    takeSplit: assign(({ context, event }): Partial<TenantContext> => {
      switch (event.type) {
        case 'project.split-requested':
          return { splitting: { to: event.to, isSwitching: false }, splitError: undefined };
        case 'project.split':
          return { shards: event.to, splitting: { to: event.to, isSwitching: true } };
        case 'project.split-completed':
          return { splitting: undefined };
        case 'project.split-failed':
          return { ...splitGivenUp(context), splitError: event.error };
        case 'project.split-cancel-requested':
          return context.splitting ? { splitting: { ...context.splitting, isCancelled: true } } : {};
        case 'project.split-cancelled':
          return splitGivenUp(context);
        default:
          return {};
      }
    }),
    addBranch: assign(({ context, event }) => {
      if (event.type !== 'branch.requested') return {};
      const branch: Branch = {
        name: event.name,
        timeline: event.timeline,
        phase: 'creating',
        from: event.from && { timeline: event.from.timeline, point: event.from.point },
        startLsn: 0,
        ancestor: undefined,
        createdMs: event.timeMs,
        primary: event.from === undefined,
      };
      return { branches: [...context.branches, branch] };
    }),
    markReady: assign(({ context, event }) =>
      event.type === 'branch.created'
        ? changed(context, event.timeline, {
            phase: 'ready',
            startLsn: event.startLsn,
            ancestor: event.ancestor,
          })
        : {},
    ),
    dropFailed: assign(({ context, event }) => {
      if (event.type !== 'branch.failed') return {};
      return { branches: without(context, event.timeline), ...failed(context, event.timeline, event.error) };
    }),
    markRestoring: assign(({ context, event }) => {
      if (event.type !== 'branch.restore-requested') return {};
      const { timeline, replacement, from, preserveUnder } = event;
      const restore = {
        timeline: replacement,
        from: { timeline: from.timeline, point: from.point },
        preserveUnder,
      };
      return changed(context, timeline, { phase: 'restoring', restore });
    }),
    moveName: assign(({ context, event }) => {
      if (event.type !== 'branch.restored') return {};
      const old = context.branches.find((branch) => branch.timeline === event.replaced)!;
      const { restore, replacedBy: _, ...rest } = old;
      const kept: Branch = {
        ...rest,
        name: event.preservedAs,
        phase: 'ready',
        primary: false,
        ...(event.preservedAs === undefined ? { replacedBy: event.timeline } : {}),
      };
      const branch: Branch = {
        name: event.name,
        timeline: event.timeline,
        phase: 'ready',
        from: restore?.from,
        startLsn: event.startLsn,
        ancestor: event.ancestor,
        createdMs: event.timeMs,
        primary: isPrimary(old),
      };
      const others = context.branches.map((other) => (other === old ? kept : other));
      return { branches: [...others, branch] };
    }),
    dropRestore: assign(({ context, event }) => {
      if (event.type !== 'branch.restore-failed') return {};
      return {
        ...changed(context, event.timeline, { phase: 'ready', restore: undefined }),
        ...failed(context, event.replacement, event.error),
      };
    }),
    rename: assign(({ context, event }) =>
      event.type === 'branch.renamed' ? changed(context, event.timeline, { name: event.to }) : {},
    ),
    markDeleting: assign(({ context, event }) =>
      event.type === 'branch.delete-requested' || event.type === 'ancestor.delete-requested'
        ? changed(context, event.timeline, { phase: 'deleting' })
        : {},
    ),
    takePhase: assign(({ context, event }) => {
      const phase = PHASES[event.type];
      return phase && 'timeline' in event ? changed(context, event.timeline, { phase }) : {};
    }),
    markDetaching: assign(({ context, event }) =>
      event.type === 'branch.detach-requested' ? changed(context, event.timeline, { detaching: true }) : {},
    ),
    takeDetachment: assign(({ context, event }) => {
      if (event.type !== 'branch.detached' && event.type !== 'branch.detach-failed') return {};
      const branch = context.branches.find(({ timeline }) => timeline === event.timeline);
      if (!branch) return {};
      if (event.type === 'branch.detach-failed') {
        return {
          ...changed(context, event.timeline, { detaching: false }),
          ...failed(context, event.timeline, event.error),
        };
      }
      const primary = isPrimary(branch);
      return changed(context, event.timeline, {
        detaching: false,
        ancestor: undefined,
        from: undefined,
        primary,
      });
    }),
    dropDeleted: assign(({ context, event }) =>
      event.type === 'branch.deleted' || event.type === 'ancestor.deleted'
        ? { branches: without(context, event.timeline) }
        : {},
    ),
  },
  guards: {
    isCancelled: ({ context }) => context.splitting?.isCancelled === true,
    isWanted: ({ context }) => context.splitting?.isCancelled !== true,
    isFirstBranch: ({ context, event }) =>
      event.type === 'branch.created' && event.ancestor === undefined && !context.passwordSet,
  },
}).createMachine({
  id: 'tenant',
  initial: 'absent',
  context: ({ input }) => ({
    id: input.id,
    spec: undefined,
    password: '',
    passwordSet: false,
    createdMs: 0,
    branches: [],
    failures: [],
  }),
  states: {
    absent: { on: { 'project.created': { target: 'active', actions: 'takeProject' } } },
    active: {
      on: {
        'branch.requested': { actions: ['addBranch', { type: 'createTimeline', params: branchOf }] },
        'branch.created': [
          { guard: 'isFirstBranch', actions: ['markReady', { type: 'setPassword', params: own }] },
          { actions: 'markReady' },
        ],
        'branch.failed': { actions: 'dropFailed' },
        'branch.renamed': { actions: 'rename' },
        'branch.delete-requested': {
          actions: ['markDeleting', { type: 'deleteTimeline', params: branchOf }],
        },
        'branch.deleted': { actions: ['dropDeleted', { type: 'sweep', params: own }] },
        'branch.restore-requested': {
          actions: ['markRestoring', { type: 'restoreBranch', params: branchOf }],
        },
        'branch.restored': { actions: ['moveName', { type: 'retireTimeline', params: replaced }] },
        'branch.restore-failed': { actions: 'dropRestore' },
        'ancestor.delete-requested': {
          actions: ['markDeleting', { type: 'deleteAncestor', params: branchOf }],
        },
        'ancestor.deleted': { actions: ['dropDeleted', { type: 'sweep', params: own }] },
        'branch.archive-requested': {
          actions: ['takePhase', { type: 'archiveTimeline', params: branchOf }],
        },
        'branch.archived': { actions: 'takePhase' },
        'branch.unarchive-requested': {
          actions: ['takePhase', { type: 'unarchiveTimeline', params: branchOf }],
        },
        'branch.unarchived': { actions: 'takePhase' },
        'branch.detach-requested': {
          actions: ['markDetaching', { type: 'detachTimeline', params: branchOf }],
        },
        'branch.detached': { actions: ['takeDetachment', { type: 'sweep', params: own }] },
        'branch.detach-failed': { actions: 'takeDetachment' },
        'project.history-set': { actions: 'takeHistory' },
        'project.password-set': { actions: 'takePassword' },
        'project.split-requested': { actions: ['takeSplit', { type: 'splitProject', params: own }] },
        // How it would have ended does not count any more once it is cancelled.
        'project.split': {
          guard: 'isWanted',
          actions: ['takeSplit', { type: 'switchProject', params: own }],
        },
        'project.split-completed': { actions: 'takeSplit' },
        'project.split-failed': {
          guard: 'isWanted',
          actions: ['takeSplit', { type: 'abandonSplit', params: own }],
        },
        'project.split-cancel-requested': { actions: ['takeSplit', { type: 'cancelSplit', params: own }] },
        'project.split-cancelled': { guard: 'isCancelled', actions: 'takeSplit' },
        'project.delete-requested': {
          target: 'deleting',
          actions: { type: 'deleteProject', params: own },
        },
      },
    },
    deleting: { on: { 'project.deleted': 'deleted' } },
    deleted: {},
  },
});
