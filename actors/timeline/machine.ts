/**
 * The statechart of a timeline. Pure: events in, state and the names of effects out.
 *
 *   absent -> resolving -> placing -> active -> deleting -> deleted
 *                 \-> rejected         ^  v
 *                              archived <- archiving
 *
 * The point where it starts is durable (`timeline.resolved`) before any replica is created: after a crash the same
 * point is used again, because "head" would have moved.
 */
import { assign, setup } from 'xstate';
import type { WireError } from '../../protocols/errors.ts';
import { STRIPE_BLOCKS } from '../../protocols/shard-layout.ts';
import type { AttachPlaces, TimelineEvent, TimelineSpec } from './events.ts';
import { type Configured, foldMembership, isOfChange, safekeepersOf } from './membership.ts';
import { type Retention, withoutKey } from './retention.ts';
import { foldShards, type Sharded, type ShardPlaces } from './shards.ts';

export interface TimelineContext extends Retention, Configured, Sharded {
  id: string;
  spec: TimelineSpec | undefined;
  startLsn: number;
  ancestor: { timeline: string; lsn: number } | undefined;
  /** Number of the newest attachment to a pageserver. */
  generation: number;
  /** The pageserver of that attachment, when it is no longer the one that the timeline was created with. */
  pageserver?: string;
  /** Whether that attachment has been made. */
  attached: boolean;
  /** Why it failed for good. */
  attachError: WireError | undefined;
  /** Safekeepers that do not have their replica yet. */
  missing: string[];
  error: WireError | undefined;
  createdMs: number;
  /** Absent in state of earlier versions. */
  detaching?: boolean;
  detachError?: WireError | undefined;
  /** Key of the template that took the place of its ancestor. */
  base?: string;
  /** Of each shard, where there were several then. */
  bases?: string[];
}

/** The shards of the timeline and their pageservers. */
export function shardsOfTimeline(context: TimelineContext): ShardPlaces {
  const shards = context.shards ?? context.spec?.shards;
  return shards ?? { stripeBlocks: STRIPE_BLOCKS, pageservers: [onePageserverOf(context)] };
}

/** The pageserver that answers for the timeline. */
export function pageserverOf(context: TimelineContext): string {
  return shardsOfTimeline(context).pageservers[0]!;
}

function onePageserverOf(context: TimelineContext): string {
  return context.pageserver ?? context.spec?.pageserver ?? '';
}

/** Other pageservers for shards that stay what they are. */
function moved(context: TimelineContext, { pageservers, next }: AttachPlaces): Sharded {
  return {
    ...(pageservers ? { shards: { ...shardsOfTimeline(context), pageservers } } : {}),
    ...(next && context.next
      ? { next: { ...context.next, to: { ...context.next.to, pageservers: next } } }
      : {}),
  };
}

/** Parameters of every effect: what it works on, as it was decided. */
export interface TimelineEffectParams {
  context: TimelineContext;
}

const own = ({ context }: { context: TimelineContext }): TimelineEffectParams => ({ context });

export const timelineMachine = setup({
  types: {
    context: {} as TimelineContext,
    events: {} as TimelineEvent,
    input: {} as { id: string },
  },
  actions: {
    resolve: (_, _params: TimelineEffectParams) => {},
    place: (_, _params: TimelineEffectParams) => {},
    completeReplicas: (_, _params: TimelineEffectParams) => {},
    attach: (_, _params: TimelineEffectParams) => {},
    archive: (_, _params: TimelineEffectParams) => {},
    detachAncestor: (_, _params: TimelineEffectParams) => {},
    releaseAncestor: (_, _params: TimelineEffectParams) => {},
    prepareShards: (_, _params: TimelineEffectParams) => {},
    retireShards: (_, _params: TimelineEffectParams) => {},
    dropShards: (_, _params: TimelineEffectParams) => {},
    dismantle: (_, _params: TimelineEffectParams) => {},
    installJoint: (_, _params: TimelineEffectParams) => {},
    bringUp: (_, _params: TimelineEffectParams) => {},
    spread: (_, _params: TimelineEffectParams) => {},
    takeMembership: assign(({ context, event }) => {
      const changed = foldMembership(context, event);
      // Nobody has to give a replica any more to one that has left.
      const nodes = safekeepersOf({ ...context, ...changed }) as string[];
      return { ...changed, missing: context.missing.filter((node) => nodes.includes(node)) };
    }),
    takeSpec: assign(({ event }) =>
      event.type === 'timeline.requested' ? { spec: event.spec, createdMs: event.timeMs } : {},
    ),
    takeStart: assign(({ event }) =>
      event.type === 'timeline.resolved'
        ? { startLsn: event.startLsn, ancestor: event.ancestor, generation: 1 }
        : {},
    ),
    takeError: assign(({ event }) => (event.type === 'timeline.rejected' ? { error: event.error } : {})),
    takeActivation: assign(({ context, event }) =>
      event.type === 'timeline.activated'
        ? {
            missing: event.missing,
            attached: event.generation === undefined || event.generation === context.generation,
          }
        : {},
    ),
    takeGeneration: assign(({ context, event }) =>
      event.type === 'attach.requested'
        ? {
            generation: event.generation,
            attached: false,
            attachError: undefined,
            ...(event.pageserver === undefined ? {} : { pageserver: event.pageserver }),
            ...moved(context, event),
          }
        : {},
    ),
    takeAttachment: assign(({ event, context }) =>
      event.type === 'attach.completed' && event.generation === context.generation ? { attached: true } : {},
    ),
    takeAttachError: assign(({ event, context }) =>
      event.type === 'attach.failed' && event.generation === context.generation
        ? { attachError: event.error }
        : {},
    ),
    noneMissing: assign({ missing: [] }),
    holdPoint: assign(({ event, context }) =>
      event.type === 'branch-point.held' ? { held: { ...context.held, [event.child]: event.lsn } } : {},
    ),
    releasePoint: assign(({ event, context }) =>
      event.type === 'branch-point.released' ? { held: withoutKey(context.held, event.child) } : {},
    ),
    takeLease: assign(({ event, context }) => {
      if (event.type !== 'lease.granted') return {};
      const { lease, lsn, untilMs } = event;
      return { leases: { ...context.leases, [lease]: { lsn, untilMs } } };
    }),
    dropLeases: assign(({ event, context }) => {
      if (event.type === 'lease.released') return { leases: withoutKey(context.leases, event.lease) };
      if (event.type !== 'lease.expired') return {};
      let { leases } = context;
      for (const lease of event.leases) leases = withoutKey(leases, lease);
      return { leases };
    }),
    markDetaching: assign({ detaching: true, detachError: undefined }),
    takeBase: assign(({ event }) =>
      event.type === 'ancestor.detached'
        ? {
            base: event.template,
            ...(event.templates ? { bases: event.templates } : {}),
            generation: event.generation,
            ancestor: undefined,
            attached: false,
            attachError: undefined,
            detaching: false,
          }
        : {},
    ),
    takeDetachError: assign(({ event }) =>
      event.type === 'ancestor.detach-failed' ? { detaching: false, detachError: event.error } : {},
    ),
    takeShards: assign(({ context, event }) => ({
      ...foldShards(shardsOfTimeline(context), context, event),
      ...(event.type === 'shards.switched' ? { generation: event.generation } : {}),
    })),
    notAttached: assign({ attached: false, attachError: undefined }),
    takeCutoff: assign(({ event }) =>
      event.type === 'gc.cutoff-advanced'
        ? { cutoffLsn: event.cutoffLsn, cutoffTimeMs: event.cutoffTimeMs }
        : {},
    ),
  },
  guards: {
    isResolved: ({ event }) => event.type === 'timeline.requested' && event.isResolved === true,
    isAttached: ({ context }) => context.attached,
    isGivenUp: ({ context }) => context.next?.isGivenUp === true,
    isOfChange: ({ context, event }) => isOfChange(context, event),
    someMissing: ({ event }) => event.type === 'timeline.activated' && event.missing.length > 0,
  },
}).createMachine({
  id: 'timeline',
  initial: 'absent',
  context: ({ input }) => ({
    id: input.id,
    spec: undefined,
    startLsn: 0,
    ancestor: undefined,
    generation: 0,
    attached: false,
    attachError: undefined,
    missing: [],
    error: undefined,
    createdMs: 0,
    cutoffLsn: 0,
    cutoffTimeMs: 0,
    leases: {},
    held: {},
  }),
  states: {
    absent: {
      on: {
        'timeline.requested': [
          { guard: 'isResolved', target: 'resolving', actions: 'takeSpec' },
          { target: 'resolving', actions: ['takeSpec', { type: 'resolve', params: own }] },
        ],
      },
    },
    resolving: {
      on: {
        'timeline.resolved': { target: 'placing', actions: ['takeStart', { type: 'place', params: own }] },
        'timeline.rejected': { target: 'rejected', actions: 'takeError' },
      },
    },
    placing: {
      on: {
        'timeline.activated': [
          {
            guard: 'someMissing',
            target: 'active',
            actions: ['takeActivation', { type: 'completeReplicas', params: own }],
          },
          { target: 'active', actions: 'takeActivation' },
        ],
        // Its next try goes where the timeline is to be now.
        'attach.requested': { actions: 'takeGeneration' },
      },
    },
    active: {
      on: {
        'attach.requested': { actions: ['takeGeneration', { type: 'attach', params: own }] },
        'attach.completed': { actions: 'takeAttachment' },
        'attach.failed': { actions: 'takeAttachError' },
        'branch-point.held': { actions: 'holdPoint' },
        'branch-point.released': { actions: 'releasePoint' },
        'lease.granted': { actions: 'takeLease' },
        'lease.released': { actions: 'dropLeases' },
        'lease.expired': { actions: 'dropLeases' },
        'gc.cutoff-advanced': { actions: 'takeCutoff' },
        'ancestor.detach-requested': {
          actions: ['markDetaching', { type: 'detachAncestor', params: own }],
        },
        'ancestor.detached': {
          // The first one sees the ancestor that there was.
          actions: [{ type: 'releaseAncestor', params: own }, 'takeBase', { type: 'attach', params: own }],
        },
        'ancestor.detach-failed': { actions: 'takeDetachError' },
        'shards.split-requested': { actions: ['takeShards', { type: 'prepareShards', params: own }] },
        // Who had one of them and was started anew meanwhile has forgotten it.
        'shards.prepared': { actions: ['takeShards', { type: 'attach', params: own }] },
        // An attachment that is under way is of the shards before: those that there are now are to be attached, too.
        'shards.switched': [
          { guard: 'isAttached', actions: ['takeShards', { type: 'retireShards', params: own }] },
          {
            actions: ['takeShards', { type: 'retireShards', params: own }, { type: 'attach', params: own }],
          },
        ],
        'shards.retired': { actions: 'takeShards' },
        'shards.split-given-up': { actions: ['takeShards', { type: 'dropShards', params: own }] },
        // Of earlier versions; the effect sees the shards that there were to be.
        'shards.split-failed': { actions: [{ type: 'dropShards', params: own }, 'takeShards'] },
        'shards.split-abandoned': [
          { guard: 'isGivenUp', actions: 'takeShards' },
          { actions: [{ type: 'dropShards', params: own }, 'takeShards'] },
        ],
        'timeline.archive-requested': { target: 'archiving', actions: { type: 'archive', params: own } },
      },
    },
    archiving: { on: { 'timeline.archived': { target: 'archived', actions: 'notAttached' } } },
    archived: { on: { 'timeline.unarchived': { target: 'active', actions: 'notAttached' } } },
    rejected: {},
    deleting: { on: { 'timeline.deleted': 'deleted' } },
    deleted: {},
  },
  on: {
    // Also of a timeline that was archived meanwhile: who is thought to have no replica yet is not given one that was lost.
    'replicas.completed': { actions: 'noneMissing' },
    'membership.change-requested': { actions: ['takeMembership', { type: 'installJoint', params: own }] },
    'membership.joint-installed': {
      guard: 'isOfChange',
      actions: ['takeMembership', { type: 'bringUp', params: own }],
    },
    'membership.joined': { guard: 'isOfChange', actions: 'takeMembership' },
    // The effect sees those that there were: some of them leave.
    'membership.settled': {
      guard: 'isOfChange',
      actions: [{ type: 'spread', params: own }, 'takeMembership'],
    },
    'membership.change-abandoned': { actions: [{ type: 'spread', params: own }, 'takeMembership'] },
    'timeline.delete-requested': { target: '.deleting', actions: { type: 'dismantle', params: own } },
  },
});
