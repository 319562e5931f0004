/** Golden events of a project's journal. They are never changed: a new shape gets a new version (README.md). */
import type { TenantEvent } from '../../actors/tenant/events.ts';
import type { GoldenEvents } from './shape.ts';

const T1 = '1'.repeat(32);
const T2 = '2'.repeat(32);
const T3 = '3'.repeat(32);
const T4 = '4'.repeat(32);
const error = { code: 'unavailable' as const, message: 'no safekeeper answers', hint: 'look at the nodes' };
const from = { timeline: T1, name: 'main', point: { kind: 'lsn' as const, lsn: 0x1600000 } };
const FOUR = { stripeBlocks: 2048, pageservers: ['ps-a', 'ps-b', 'ps-c', 'ps-d'], attempt: 1 };
const ancestor = { timeline: T1, lsn: 0x1600000 };

export const TENANT_EVENTS = {
  'project.created': {
    type: 'project.created',
    spec: {
      name: 'default',
      pgVersion: 17,
      template: { key: 'templates/17/index.json', startLsn: 0x1500000, systemId: '7300000000000000000' },
      safekeepers: ['sk-a', 'sk-b', 'sk-c'],
      pageserver: 'ps-a',
      shards: { stripeBlocks: 2048, pageservers: ['ps-a', 'ps-b'], attempt: 1 },
    },
    password: 'secret',
    timeMs: 1_700_000_000_000,
  },
  'branch.requested': {
    type: 'branch.requested',
    name: 'dev',
    timeline: T2,
    from,
    timeMs: 1_700_000_000_100,
  },
  'branch.created': { type: 'branch.created', name: 'dev', timeline: T2, startLsn: 0x1600000, ancestor },
  'project.password-set': { type: 'project.password-set' },
  'project.history-set': { type: 'project.history-set', history: { ms: 604_800_000, bytes: 1_000_000_000 } },
  'project.split-requested': { type: 'project.split-requested', to: FOUR },
  'project.split': { type: 'project.split', to: FOUR },
  'project.split-completed': { type: 'project.split-completed' },
  'project.split-failed': { type: 'project.split-failed', error },
  'project.split-cancel-requested': { type: 'project.split-cancel-requested' },
  'project.split-cancelled': { type: 'project.split-cancelled' },
  'branch.renamed': { type: 'branch.renamed', name: 'dev', to: 'work', timeline: T2 },
  'branch.archive-requested': { type: 'branch.archive-requested', name: 'work', timeline: T2 },
  'branch.archived': { type: 'branch.archived', name: 'work', timeline: T2 },
  'branch.unarchive-requested': { type: 'branch.unarchive-requested', name: 'work', timeline: T2 },
  'branch.unarchived': { type: 'branch.unarchived', name: 'work', timeline: T2 },
  'branch.detach-requested': { type: 'branch.detach-requested', name: 'work', timeline: T2 },
  'branch.detach-failed': { type: 'branch.detach-failed', name: 'work', timeline: T2, error },
  'branch.restore-requested': {
    type: 'branch.restore-requested',
    name: 'work',
    timeline: T2,
    replacement: T3,
    from,
    preserveUnder: 'before',
  },
  'branch.restore-failed': {
    type: 'branch.restore-failed',
    name: 'work',
    timeline: T2,
    replacement: T3,
    error,
  },
  'branch.restored': {
    type: 'branch.restored',
    name: 'work',
    timeline: T4,
    replaced: T2,
    preservedAs: 'before',
    startLsn: 0x1600000,
    ancestor,
    timeMs: 1_700_000_000_200,
  },
  'branch.detached': { type: 'branch.detached', name: 'work', timeline: T4 },
  'branch.failed': { type: 'branch.failed', name: 'other', timeline: T3, error },
  'branch.delete-requested': { type: 'branch.delete-requested', name: 'before', timeline: T2 },
  'branch.deleted': { type: 'branch.deleted', name: 'before', timeline: T2 },
  'ancestor.delete-requested': { type: 'ancestor.delete-requested', timeline: T2 },
  'ancestor.deleted': { type: 'ancestor.deleted', timeline: T2 },
  'project.delete-requested': { type: 'project.delete-requested' },
  'project.deleted': { type: 'project.deleted' },
} satisfies GoldenEvents<TenantEvent>;
