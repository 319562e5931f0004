/**
 * The shard's machine: a fold of its journal, pure.
 *
 *   detached    exists only as a name
 *   attaching   its layers are being looked up in object storage
 *   active      ingests WAL and serves pages
 *   failed      cannot go on (WAL or layers that cannot be understood); attach starts it again
 */
import { assign, type SnapshotFrom, setup } from 'xstate';
import type { WireError } from '../../protocols/errors.ts';
import type { ShardEvent, ShardSpec } from './events.ts';
import { type LayerDescriptor, upcastDescriptor } from './layer-descriptor.ts';

export interface LayerState extends LayerDescriptor {
  uploaded: boolean;
}

export interface ShardContext {
  spec: ShardSpec | undefined;
  layers: LayerState[];
  /** Keys of objects that nobody needs and that were not deleted yet. */
  deletions: string[];
  /** Before this LSN nothing needs to be readable. */
  gcCutoff: number;
  /** Everything up to here is in layers that object storage's index lists. */
  remoteConsistentLsn: number;
  /** Generations of attachments to this node that may have written the newest index. */
  generations: number[];
  failure: WireError | undefined;
}

const NOTHING = {
  layers: [],
  deletions: [],
  gcCutoff: 0,
  remoteConsistentLsn: 0,
  generations: [],
  failure: undefined,
};

const LAYER_EVENTS = {
  'layer.flushed': { actions: 'addLayer' },
  'layer.uploaded': { actions: 'markUploaded' },
  'layer.removed': { actions: 'dropLayer' },
  'layers.compacted': { actions: 'swapLayers' },
  'layers.removed': { actions: 'swapLayers' },
  'objects.deleted': { actions: 'forgetDeletions' },
  'cutoff.advanced': { actions: 'keepCutoff' },
  'index.uploaded': { actions: 'keepRemoteLsn' },
} as const;

export const shardMachine = setup({
  types: {} as { context: ShardContext; events: ShardEvent },
  actions: {
    keepSpec: assign(({ context, event }) =>
      event.type === 'attach.requested'
        ? {
            spec: event.spec,
            failure: undefined,
            remoteConsistentLsn: Math.max(context.remoteConsistentLsn, event.spec.startLsn),
            generations: [...(context.generations ?? []), event.spec.generation],
          }
        : {},
    ),
    takeLayers: assign(({ context, event }) => {
      if (event.type !== 'attach.completed') return {};
      return { ...takeIndex(context, event), gcCutoff: Math.max(context.gcCutoff ?? 0, event.gcCutoff ?? 0) };
    }),
    addLayer: assign(({ context, event }) =>
      event.type === 'layer.flushed'
        ? { layers: [...context.layers, { ...event.layer, uploaded: false }] }
        : {},
    ),
    markUploaded: assign(({ context, event }) =>
      event.type === 'layer.uploaded'
        ? {
            layers: context.layers.map((layer) =>
              layer.key === event.key ? { ...layer, uploaded: true } : layer,
            ),
          }
        : {},
    ),
    dropLayer: assign(({ context, event }) =>
      event.type === 'layer.removed'
        ? { layers: context.layers.filter((layer) => layer.key !== event.key) }
        : {},
    ),
    swapLayers: assign(({ context, event }) => {
      if (event.type !== 'layers.compacted' && event.type !== 'layers.removed') return {};
      const removed = new Set(event.type === 'layers.compacted' ? event.removed : event.keys);
      const added = event.type === 'layers.compacted' ? event.added : [];
      return {
        layers: [
          ...context.layers.filter((layer) => !removed.has(layer.key)),
          ...added.map((layer) => ({ ...layer, uploaded: false })),
        ],
        deletions: [...(context.deletions ?? []), ...removed],
      };
    }),
    forgetDeletions: assign(({ context, event }) => {
      if (event.type !== 'objects.deleted') return {};
      const gone = new Set(event.keys);
      return { deletions: (context.deletions ?? []).filter((key) => !gone.has(key)) };
    }),
    keepCutoff: assign(({ context, event }) =>
      event.type === 'cutoff.advanced' ? { gcCutoff: Math.max(context.gcCutoff ?? 0, event.cutoffLsn) } : {},
    ),
    keepRemoteLsn: assign(({ context, event }) => {
      if (event.type !== 'index.uploaded') return {};
      const newest = event.generation ?? 0;
      return {
        remoteConsistentLsn: Math.max(context.remoteConsistentLsn, event.remoteConsistentLsn),
        generations: (context.generations ?? []).filter((generation) => generation >= newest),
      };
    }),
    keepFailure: assign(({ event }) =>
      event.type === 'shard.failed' || event.type === 'attach.failed' ? { failure: event.error } : {},
    ),
    forget: assign(() => ({ spec: undefined, ...NOTHING })),
  },
}).createMachine({
  id: 'pageserver',
  context: { spec: undefined, ...NOTHING },
  initial: 'detached',
  states: {
    detached: { on: { 'attach.requested': { target: 'attaching', actions: 'keepSpec' } } },
    attaching: {
      on: {
        'attach.requested': { actions: 'keepSpec' },
        'attach.completed': { target: 'active', actions: 'takeLayers' },
        'attach.failed': { target: 'failed', actions: 'keepFailure' },
      },
    },
    active: {
      on: {
        'attach.requested': { actions: 'keepSpec' },
        'attach.completed': { actions: 'takeLayers' },
        'attach.failed': { target: 'failed', actions: 'keepFailure' },
        ...LAYER_EVENTS,
        'shard.failed': { target: 'failed', actions: 'keepFailure' },
      },
    },
    failed: {
      on: {
        'attach.requested': { target: 'attaching', actions: 'keepSpec' },
        ...LAYER_EVENTS,
      },
    },
  },
  on: { 'shard.detached': { target: '.detached', actions: 'forget' } },
});

export type ShardSnapshot = SnapshotFrom<typeof shardMachine>;

/**
 * The layers after an index was found. One that this node wrote itself only tells what is uploaded. One of somebody else
 * replaces everything: layers of our own that go on where it ends bear the name of an earlier generation, and whoever came after
 * that may just be deleting what has such names. The WAL of them is ingested again.
 */
function takeIndex(
  context: ShardContext,
  event: ShardEvent & { type: 'attach.completed' },
): Pick<ShardContext, 'layers' | 'deletions'> {
  const listed = new Set(event.layers.map((layer) => layer.key));
  const own = context.layers.map(upcastDescriptor);
  const deletions = (context.deletions ?? []).filter((key) => !listed.has(key));
  if (!event.replaces) {
    const layers = own.map((layer) => ({ ...layer, uploaded: layer.uploaded || listed.has(layer.key) }));
    return { layers, deletions: context.deletions ?? [] };
  }
  const layers = event.layers.map((layer) => ({ ...layer, uploaded: true }));
  return { layers, deletions };
}
