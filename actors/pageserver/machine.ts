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
import type { LayerDescriptor } from './layer-descriptor.ts';

export interface LayerState extends LayerDescriptor {
  uploaded: boolean;
}

export interface ShardContext {
  spec: ShardSpec | undefined;
  /** In the order in which they were flushed: ascending LSN. */
  layers: LayerState[];
  /** Everything up to here is in layers that object storage's index lists. */
  remoteConsistentLsn: number;
  failure: WireError | undefined;
}

export const shardMachine = setup({
  types: {} as { context: ShardContext; events: ShardEvent },
  actions: {
    keepSpec: assign(({ context, event }) =>
      event.type === 'attach.requested'
        ? {
            spec: event.spec,
            failure: undefined,
            remoteConsistentLsn: Math.max(context.remoteConsistentLsn, event.spec.startLsn),
          }
        : {},
    ),
    takeLayers: assign(({ context, event }) => {
      if (event.type !== 'attach.completed') return {};
      const known = new Set(event.layers.map((layer) => layer.key));
      const own = context.layers.filter((layer) => !known.has(layer.key));
      const layers = [...event.layers.map((layer) => ({ ...layer, uploaded: true })), ...own];
      return { layers: layers.sort((a, b) => a.endLsn - b.endLsn) };
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
    keepRemoteLsn: assign(({ context, event }) =>
      event.type === 'index.uploaded'
        ? { remoteConsistentLsn: Math.max(context.remoteConsistentLsn, event.remoteConsistentLsn) }
        : {},
    ),
    keepFailure: assign(({ event }) =>
      event.type === 'shard.failed' || event.type === 'attach.failed' ? { failure: event.error } : {},
    ),
    forget: assign(() => ({ spec: undefined, layers: [], remoteConsistentLsn: 0, failure: undefined })),
  },
}).createMachine({
  id: 'pageserver',
  context: { spec: undefined, layers: [], remoteConsistentLsn: 0, failure: undefined },
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
        'layer.flushed': { actions: 'addLayer' },
        'layer.uploaded': { actions: 'markUploaded' },
        'layer.removed': { actions: 'dropLayer' },
        'index.uploaded': { actions: 'keepRemoteLsn' },
        'shard.failed': { target: 'failed', actions: 'keepFailure' },
      },
    },
    failed: {
      on: {
        'attach.requested': { target: 'attaching', actions: 'keepSpec' },
        'layer.flushed': { actions: 'addLayer' },
        'layer.uploaded': { actions: 'markUploaded' },
        'index.uploaded': { actions: 'keepRemoteLsn' },
      },
    },
  },
  on: { 'shard.detached': { target: '.detached', actions: 'forget' } },
});

export type ShardSnapshot = SnapshotFrom<typeof shardMachine>;
