/**
 * The shard as the actor host runs it. It has no effects: its work on bytes hangs on its channels and on the WAL stream,
 * and tells what became durable with the command `record`.
 */
import { formatLsn } from '../../protocols/lsn.ts';
import type { ActorCommand, ActorDefinition, Decision } from '../../runtime/host/definition.ts';
import type { ShardEvent, ShardSpec } from './events.ts';
import { type ShardSnapshot, shardMachine } from './machine.ts';

export const PAGESERVER_KIND = 'pageserver';

export type ShardCommand =
  | ({ type: 'attach' } & ShardSpec & ActorCommand)
  /** From the shard's own plain code: something became durable, or went wrong. */
  | { type: 'record'; events: ShardEvent[] }
  | { type: 'detach'; deleted: boolean };

export const pageserverDefinition: ActorDefinition<ShardCommand, ShardEvent> = {
  kind: PAGESERVER_KIND,
  machine: shardMachine,
  decide: (snapshot, command) => decideShard(snapshot as ShardSnapshot, command),
  effects: {},
  lifecycle(event, snapshot) {
    const { spec } = (snapshot as ShardSnapshot).context;
    if (!spec) return undefined;
    const told = tell(event);
    return told && { tenant: spec.tenant, timeline: spec.timeline, ...told };
  },
};

/** Decides every command of the actor. */
export function decideShard(snapshot: ShardSnapshot, command: ShardCommand): Decision<ShardEvent> {
  switch (command.type) {
    case 'attach':
      return decideAttach(snapshot, command);
    case 'record':
      return decideRecord(snapshot, command.events);
    case 'detach':
      return {
        events: snapshot.value === 'detached' ? [] : [{ type: 'shard.detached', deleted: command.deleted }],
      };
  }
}

function decideAttach(
  snapshot: ShardSnapshot,
  command: ShardCommand & { type: 'attach' },
): Decision<ShardEvent> {
  const { type: _, ...spec } = command;
  const known = snapshot.context.spec;
  if (known && (known.startLsn !== spec.startLsn || known.systemId !== spec.systemId)) {
    return {
      reject: {
        code: 'conflict',
        message: `timeline ${spec.timeline} is attached with another start or system id`,
      },
    };
  }
  if (known && spec.generation < known.generation) {
    return {
      reject: {
        code: 'conflict',
        message: `generation ${spec.generation} of timeline ${spec.timeline} is over: ${known.generation} is attached`,
      },
    };
  }
  const isServing = snapshot.value === 'active' && known?.generation === spec.generation;
  return { events: isServing ? [] : [{ type: 'attach.requested', spec }] };
}

function decideRecord(snapshot: ShardSnapshot, events: ShardEvent[]): Decision<ShardEvent> {
  if (snapshot.value === 'detached') {
    return { reject: { code: 'not-found', message: 'the shard was detached meanwhile' } };
  }
  return { events };
}

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
