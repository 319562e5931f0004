/** Golden events of a safekeeper replica's journal. They are never changed: a new shape gets a new version (README.md). */
import type { SafekeeperEvent } from '../../actors/safekeeper/events.ts';
import type { GoldenEvents } from './shape.ts';

const FOLDER = `tenants/${'a'.repeat(32)}/timelines/${'1'.repeat(32)}/wal`;
const TAIL = `${FOLDER}/000000010000000000000002_00000003_0000000002400000_0000000002300000_sk-a.partial`;

export const SAFEKEEPER_EVENTS = {
  'replica.created': {
    type: 'replica.created',
    identity: {
      tenant: 'a'.repeat(32),
      timeline: '1'.repeat(32),
      node: 'sk-a',
      pgVersion: 17,
      systemId: '7300000000000000000',
      segmentBytes: 0x1000000,
      startLsn: 0x1500000,
    },
    membership: { generation: 1, members: ['sk-a', 'sk-b', 'sk-c'], newMembers: ['sk-a', 'sk-b', 'sk-d'] },
  },
  'term.adopted': { type: 'term.adopted', term: 3, reason: 'vote' },
  'history.replaced': { type: 'history.replaced', term: 3, history: [{ term: 3, lsn: 0x1500000 }] },
  'commit.persisted': { type: 'commit.persisted', lsn: 0x2300000 },
  'wal.truncated': { type: 'wal.truncated', from: 0x2300000, to: 0x2310000 },
  'membership.changed': {
    type: 'membership.changed',
    membership: { generation: 2, members: ['sk-a', 'sk-b', 'sk-c'], newMembers: ['sk-a', 'sk-b', 'sk-d'] },
  },
  'wal.offloaded': { type: 'wal.offloaded', from: 0x1000000, to: 0x2000000, by: 'sk-a' },
  'remote.advanced': { type: 'remote.advanced', lsn: 0x2100000 },
  'wal.trimmed': { type: 'wal.trimmed', from: 0x1500000, to: 0x2000000, reason: 'offloaded' },
  'partial.planned': {
    type: 'partial.planned',
    partial: { key: TAIL, from: 0x2000000, to: 0x2300000 },
  },
  'partial.stored': { type: 'partial.stored', key: TAIL },
  'partials.removed': { type: 'partials.removed', keys: [`${FOLDER}/another.partial`] },
  'wal.expired': { type: 'wal.expired', to: 0x2000000 },
  'replica.restored': {
    type: 'replica.restored',
    lsn: 0x2300000,
    term: 3,
    history: [{ term: 3, lsn: 0x1500000 }],
    backupLsn: 0x2000000,
    expiredLsn: 0x1500000,
    partials: [{ key: TAIL, from: 0x2000000, to: 0x2300000, stored: true }],
  },
  'replica.removed': { type: 'replica.removed', left: true },
} satisfies GoldenEvents<SafekeeperEvent>;
