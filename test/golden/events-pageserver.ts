/** Golden events of a shard's journal. They are never changed: a new shape gets a new version (README.md). */
import type { ShardEvent } from '../../actors/pageserver/events.ts';
import type { GoldenEvents, OlderEvent } from './shape.ts';

const TENANT = 'a'.repeat(32);
const TIMELINE = '1'.repeat(32);
const FOLDER = `tenants/${TENANT}/timelines/${TIMELINE}`;
const FIRST = '0'.repeat(34);
const LAST = 'f'.repeat(34);
const error = { code: 'corrupt' as const, message: 'a record cannot be read', hint: 'restore the object' };

/** A layer of all keys between two LSNs. */
function layer(startLsn: number, endLsn: number) {
  const hex = (lsn: number) => lsn.toString(16).padStart(16, '0');
  return {
    key: `${FOLDER}/${FIRST}-${LAST}__${hex(startLsn)}-${hex(endLsn)}-00000001.layer`,
    kind: 'delta' as const,
    level: 0,
    firstKey: FIRST,
    lastKey: LAST,
    startLsn,
    endLsn,
    bytes: 40_960,
    generation: 1,
  };
}

const FIRST_LAYER = layer(0x1500000, 0x1600000);
const SECOND_LAYER = layer(0x1600000, 0x1700000);
const THIRD_LAYER = layer(0x1700000, 0x1800000);
const BOTH = { ...layer(0x1500000, 0x1700000), level: 1 };

export const PAGESERVER_EVENTS = {
  'attach.requested': {
    type: 'attach.requested',
    spec: {
      tenant: TENANT,
      timeline: TIMELINE,
      shard: { number: 1, count: 2, stripeBlocks: 2048, attempt: 1 },
      isFace: true,
      isComing: true,
      pgVersion: 17,
      systemId: '7300000000000000000',
      startLsn: 0x1500000,
      ancestor: { timeline: '2'.repeat(32), lsn: 0x1500000 },
      template: 'templates/17/index.json',
      safekeepers: ['sk-a', 'sk-b', 'sk-c'],
      generation: 1,
      retained: [0x1480000],
    },
  },
  'attach.completed': {
    type: 'attach.completed',
    layers: [FIRST_LAYER],
    replaces: true,
    gcCutoff: 0x1500000,
  },
  'layer.flushed': { type: 'layer.flushed', layer: SECOND_LAYER },
  'layer.uploaded': { type: 'layer.uploaded', key: SECOND_LAYER.key },
  'index.uploaded': {
    type: 'index.uploaded',
    key: `${FOLDER}/index-00000001`,
    generation: 1,
    remoteConsistentLsn: 0x1700000,
  },
  'layers.compacted': {
    type: 'layers.compacted',
    added: [BOTH],
    removed: [FIRST_LAYER.key, SECOND_LAYER.key],
  },
  'objects.deleted': { type: 'objects.deleted', keys: [FIRST_LAYER.key] },
  'cutoff.advanced': { type: 'cutoff.advanced', cutoffLsn: 0x1580000 },
  'layers.removed': { type: 'layers.removed', keys: [THIRD_LAYER.key], reason: 'nobody needs it' },
  'layer.removed': { type: 'layer.removed', key: THIRD_LAYER.key, reason: 'its file is gone' },
  'attach.failed': { type: 'attach.failed', error },
  'shard.failed': { type: 'shard.failed', error },
  'shard.detached': { type: 'shard.detached', deleted: true },
} satisfies GoldenEvents<ShardEvent>;

/** Before layers had a range of keys: all keys, at level 0, and the writer's generation in the name, if anywhere. */
const {
  level: _level,
  firstKey: _first,
  lastKey: _last,
  generation: _generation,
  ...WITHOUT_RANGE
} = FIRST_LAYER;
const OLD_KEY = `${FOLDER}/0000000001500000-0000000001600000.layer`;
const OLD_LAYER = { ...FIRST_LAYER, key: OLD_KEY };

export const OLDER_PAGESERVER_EVENTS: OlderEvent[] = [
  {
    stored: { type: 'layer.flushed', layer: { ...WITHOUT_RANGE, key: OLD_KEY } } as OlderEvent['stored'],
    now: { type: 'layer.flushed', layer: OLD_LAYER } as OlderEvent['now'],
  },
  {
    stored: {
      type: 'attach.completed',
      layers: [{ ...WITHOUT_RANGE, key: OLD_KEY }],
    } as OlderEvent['stored'],
    now: { type: 'attach.completed', layers: [OLD_LAYER] } as OlderEvent['now'],
  },
];
