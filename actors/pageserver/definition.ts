/**
 * The shard as the actor host runs it. It has no effects: its work on bytes hangs on its channels and on the WAL stream,
 * and tells what became durable with the command `record`.
 */
import { formatLsn } from '../../protocols/lsn.ts';
import type { ActorDefinition } from '../../runtime/host/definition.ts';
import { decideShard, type ShardCommand } from './decide.ts';
import { type ShardEvent, upcastShardEvent } from './events.ts';
import { type ShardSnapshot, shardMachine } from './machine.ts';

export const PAGESERVER_KIND = 'pageserver';

export const pageserverDefinition: ActorDefinition<ShardCommand, ShardEvent> = {
  kind: PAGESERVER_KIND,
  machine: shardMachine,
  decide: (snapshot, command) => decideShard(snapshot as ShardSnapshot, command),
  effects: {},
  upcast: upcastShardEvent,
  lifecycle(event, snapshot) {
    const { spec } = (snapshot as ShardSnapshot).context;
    if (!spec) return undefined;
    const told = tell(event);
    return told && { tenant: spec.tenant, timeline: spec.timeline, ...told };
  },
};

function tell(event: ShardEvent): { type: string; data: Record<string, unknown> } | undefined {
  switch (event.type) {
    case 'attach.requested':
      return { type: 'pageserver.attached', data: { generation: event.spec.generation } };
    case 'layer.flushed':
      return {
        type: 'layer.flushed',
        data: {
          key: event.layer.key,
          from: formatLsn(event.layer.startLsn),
          to: formatLsn(event.layer.endLsn),
          bytes: event.layer.bytes,
        },
      };
    case 'layer.uploaded':
      return { type: 'layer.uploaded', data: { key: event.key } };
    case 'layers.compacted':
      return {
        type: 'layers.compacted',
        data: { added: event.added.map(({ key }) => key), removed: event.removed },
      };
    case 'layers.removed':
      return { type: 'layers.removed', data: { keys: event.keys, reason: event.reason } };
    case 'objects.deleted':
      return { type: 'objects.deleted', data: { keys: event.keys } };
    case 'cutoff.advanced':
      return { type: 'cutoff.advanced', data: { lsn: formatLsn(event.cutoffLsn) } };
    case 'layer.removed':
      return { type: 'layer.removed', data: { key: event.key, reason: event.reason } };
    case 'index.uploaded':
      return { type: 'index.uploaded', data: { key: event.key, lsn: formatLsn(event.remoteConsistentLsn) } };
    case 'shard.failed':
    case 'attach.failed':
      return { type: 'pageserver.failed', data: { ...event.error } };
    case 'shard.detached':
      return { type: 'pageserver.detached', data: { deleted: event.deleted } };
    default:
      return undefined;
  }
}
