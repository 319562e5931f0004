/** Golden events of a timeline's journal. They are never changed: a new shape gets a new version (README.md). */
import type { TimelineEvent } from '../../actors/timeline/events.ts';
import type { GoldenEvents } from './shape.ts';

const T1 = '1'.repeat(32);
const T3 = '3'.repeat(32);
const error = { code: 'unavailable' as const, message: 'no safekeeper answers', hint: 'look at the nodes' };

export const TIMELINE_EVENTS = {
  'timeline.requested': {
    type: 'timeline.requested',
    spec: {
      tenant: 'a'.repeat(32),
      pgVersion: 17,
      systemId: '7300000000000000000',
      members: ['sk-a', 'sk-b', 'sk-c'],
      pageserver: 'ps-a',
      shards: { stripeBlocks: 2048, pageservers: ['ps-a', 'ps-b'], attempt: 1 },
      origin: { kind: 'branch', timeline: T1, point: { kind: 'lsn', lsn: 0x1600000 } },
    },
    timeMs: 1_700_000_000_000,
    isResolved: true,
  },
  'timeline.resolved': {
    type: 'timeline.resolved',
    startLsn: 0x1600000,
    ancestor: { timeline: T1, lsn: 0x1600000 },
  },
  'timeline.activated': { type: 'timeline.activated', missing: ['sk-c'], generation: 1 },
  'replicas.completed': { type: 'replicas.completed' },
  'shards.split-requested': {
    type: 'shards.split-requested',
    to: { stripeBlocks: 2048, pageservers: ['ps-a', 'ps-b', 'ps-c', 'ps-d'], attempt: 2 },
  },
  'attach.requested': {
    type: 'attach.requested',
    generation: 2,
    pageserver: 'ps-b',
    pageservers: ['ps-b', 'ps-c'],
    next: ['ps-b', 'ps-c', 'ps-d', 'ps-d'],
  },
  'attach.failed': { type: 'attach.failed', generation: 2, error },
  'attach.completed': { type: 'attach.completed', generation: 2 },
  'shards.prepared': { type: 'shards.prepared', count: 4 },
  'shards.switched': { type: 'shards.switched', generation: 3 },
  'shards.retired': { type: 'shards.retired' },
  'shards.split-given-up': { type: 'shards.split-given-up', error },
  'shards.split-failed': { type: 'shards.split-failed', error },
  'shards.split-abandoned': { type: 'shards.split-abandoned' },
  'branch-point.held': { type: 'branch-point.held', child: T3, lsn: 0x1700000 },
  'lease.granted': { type: 'lease.granted', lease: 'reader', lsn: 0x1680000, untilMs: 1_700_000_060_000 },
  'gc.cutoff-advanced': {
    type: 'gc.cutoff-advanced',
    cutoffLsn: 0x1650000,
    cutoffTimeMs: 1_700_000_000_500,
  },
  'membership.change-requested': {
    type: 'membership.change-requested',
    generation: 2,
    members: ['sk-a', 'sk-b', 'sk-d'],
    why: 'the node is being drained',
  },
  'membership.joint-installed': {
    type: 'membership.joint-installed',
    generation: 2,
    term: 3,
    logTerm: 3,
    flushLsn: 0x1700000,
  },
  'membership.joined': { type: 'membership.joined', generation: 2, node: 'sk-d' },
  'membership.settled': { type: 'membership.settled', generation: 3, members: ['sk-a', 'sk-b', 'sk-d'] },
  'membership.spread': { type: 'membership.spread', generation: 3 },
  'membership.change-abandoned': {
    type: 'membership.change-abandoned',
    generation: 4,
    why: 'sk-e was to take it over: the node is being drained',
  },
  'ancestor.detach-requested': { type: 'ancestor.detach-requested' },
  'ancestor.detach-failed': { type: 'ancestor.detach-failed', error },
  'ancestor.detached': {
    type: 'ancestor.detached',
    template: 'tenants/a/timelines/b/base.json',
    templates: ['tenants/a/timelines/b/base.json', 'tenants/a/timelines/b/base-1.json'],
    generation: 3,
  },
  'timeline.archive-requested': { type: 'timeline.archive-requested' },
  'timeline.archived': { type: 'timeline.archived' },
  'timeline.unarchived': { type: 'timeline.unarchived' },
  'branch-point.released': { type: 'branch-point.released', child: T1 },
  'lease.released': { type: 'lease.released', lease: 'another' },
  'lease.expired': { type: 'lease.expired', leases: ['a third'] },
  'timeline.rejected': { type: 'timeline.rejected', error },
  'timeline.delete-requested': { type: 'timeline.delete-requested' },
  'timeline.deleted': { type: 'timeline.deleted' },
} satisfies GoldenEvents<TimelineEvent>;
