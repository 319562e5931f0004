/** Golden events of a compute's journal. They are never changed: a new shape gets a new version (README.md). */
import type { ComputeEvent } from '../../actors/compute/events.ts';
import type { GoldenEvents } from './shape.ts';

const TENANT = 'a'.repeat(32);
const error = { code: 'unavailable' as const, message: 'no safekeeper answers', hint: 'look at the nodes' };

export const COMPUTE_EVENTS = {
  'compute.starting': {
    type: 'compute.starting',
    tenant: TENANT,
    why: 'wake',
    timeMs: 1_700_000_000_000,
  },
  'compute.start-failed': { type: 'compute.start-failed', error },
  'compute.started': {
    type: 'compute.started',
    compute: {
      hostId: 'h00000001',
      node: 'e',
      address: { host: '10.0.0.5', port: 40_001, key: 'ab'.repeat(32) },
      socketDirectory: '/run/palimpsest/h00000001/s',
      port: 5432,
      term: 4,
      startLsn: 0x1600000,
      warm: true,
      lazy: true,
      phasesMs: { elect: 21.5, postgres: 17 },
    },
    suspendAfterMs: 300_000,
    timeMs: 1_700_000_000_300,
  },
  'compute.idle': { type: 'compute.idle', sinceMs: 1_700_000_001_000, deadlineMs: 1_700_000_301_000 },
  'compute.active': { type: 'compute.active' },
  'compute.stop-refused': { type: 'compute.stop-refused' },
  'compute.stopping': { type: 'compute.stopping', why: 'idle' },
  'compute.suspended': { type: 'compute.suspended', lsn: 0x1700000 },
  'compute.crashed': {
    type: 'compute.crashed',
    detail: 'node e gives no sign of life',
    uptimeMs: 1_500,
    timeMs: 1_700_000_002_000,
    withNode: true,
  },
  'compute.deposed': { type: 'compute.deposed', detail: 'sk-a has seen term 5' },
  'compute.lost': { type: 'compute.lost' },
} satisfies GoldenEvents<ComputeEvent>;
