/**
 * The statechart of a project. Pure: events in, state and the names of effects out.
 *
 *   absent -> active -> deleting -> deleted
 *
 * Its branches are in the context, each creating -> ready -> deleting: they share the project's one list of names.
 */
import { assign, setup } from 'xstate';
import type { WireError } from '../../protocols/errors.ts';
import type { BranchPoint } from '../timeline/events.ts';
import type { ProjectSpec, TenantEvent } from './events.ts';

export interface Branch {
  name: string;
  timeline: string;
  phase: 'creating' | 'ready' | 'deleting';
  from: { timeline: string; point: BranchPoint } | undefined;
  startLsn: number;
  ancestor: { timeline: string; lsn: number } | undefined;
  createdMs: number;
}

export interface TenantContext {
  id: string;
  spec: ProjectSpec | undefined;
  password: string;
  /** Whether Postgres knows the password: it is set in the first branch, and inherited by all others. */
  passwordSet: boolean;
  createdMs: number;
  /** By timeline, in the order of creation. */
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

/** Failures that are remembered; who asked has long had the answer when there are more. */
const FAILURES_MAX = 16;

const own = ({ context }: { context: TenantContext }): TenantEffectParams => ({ context });

function branchOf({ context, event }: { context: TenantContext; event: TenantEvent }): BranchEffectParams {
  const timeline = 'timeline' in event ? event.timeline : '';
  return { context, branch: context.branches.find((branch) => branch.timeline === timeline)! };
}

function changed(context: TenantContext, timeline: string, change: Partial<Branch>): Partial<TenantContext> {
  return {
    branches: context.branches.map((branch) =>
      branch.timeline === timeline ? { ...branch, ...change } : branch,
    ),
  };
}

function without(context: TenantContext, timeline: string): Branch[] {
  return context.branches.filter((branch) => branch.timeline !== timeline);
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
    setPassword: (_, _params: TenantEffectParams) => {},
    deleteProject: (_, _params: TenantEffectParams) => {},
    takeProject: assign(({ event }) =>
      event.type === 'project.created'
        ? { spec: event.spec, password: event.password, createdMs: event.timeMs }
        : {},
    ),
    takePassword: assign({ passwordSet: true }),
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
      const failures = [...context.failures, { timeline: event.timeline, error: event.error }];
      return { branches: without(context, event.timeline), failures: failures.slice(-FAILURES_MAX) };
    }),
    rename: assign(({ context, event }) =>
      event.type === 'branch.renamed' ? changed(context, event.timeline, { name: event.to }) : {},
    ),
    markDeleting: assign(({ context, event }) =>
      event.type === 'branch.delete-requested' ? changed(context, event.timeline, { phase: 'deleting' }) : {},
    ),
    dropDeleted: assign(({ context, event }) =>
      event.type === 'branch.deleted' ? { branches: without(context, event.timeline) } : {},
    ),
  },
  guards: {
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
        'branch.deleted': { actions: 'dropDeleted' },
        'project.password-set': { actions: 'takePassword' },
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
