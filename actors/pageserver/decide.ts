/**
 * The shard's decisions, pure: attaching is idempotent, a generation never goes back, and what the shard's own code tells
 * becomes events as it is.
 */
import type { ActorCommand, Decision } from '../../runtime/host/definition.ts';
import type { ShardEvent, ShardSpec } from './events.ts';
import type { ShardSnapshot } from './machine.ts';

export type ShardCommand =
  /** `isNew`: objects have no index of it, so that there is nothing more to find out; one write tells both. */
  | ({ type: 'attach'; isNew?: boolean } & ShardSpec & ActorCommand)
  /** From the shard's own plain code: something became durable, or went wrong. */
  | { type: 'record'; events: ShardEvent[] }
  | { type: 'detach'; deleted: boolean };

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
  const { type: _, isNew, ...spec } = command;
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
  if (isServing) return { events: [] };
  const requested: ShardEvent = { type: 'attach.requested', spec };
  if (!isNew || snapshot.value !== 'detached') return { events: [requested] };
  return { events: [requested, { type: 'attach.completed', layers: [], replaces: false, gcCutoff: 0 }] };
}

function decideRecord(snapshot: ShardSnapshot, events: ShardEvent[]): Decision<ShardEvent> {
  if (snapshot.value === 'detached') {
    return { reject: { code: 'not-found', message: 'the shard was detached meanwhile' } };
  }
  return { events };
}
