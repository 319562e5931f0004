/** The safekeeper replica as the actor host runs it. It has no effects: its work on WAL hangs on its channels. */
import { type NodeId, replicaId, type TimelineId } from '../../protocols/ids.ts';
import { formatLsn } from '../../protocols/lsn.ts';
import type { ActorDefinition } from '../../runtime/host/definition.ts';
import { decideSafekeeper, type SafekeeperCommand } from './decide.ts';
import type { SafekeeperEvent } from './events.ts';
import { type SafekeeperSnapshot, safekeeperMachine } from './machine.ts';

export const SAFEKEEPER_KIND = 'safekeeper';

export const safekeeperDefinition: ActorDefinition<SafekeeperCommand, SafekeeperEvent> = {
  kind: SAFEKEEPER_KIND,
  machine: safekeeperMachine,
  decide: (snapshot, command) => decideSafekeeper(snapshot as SafekeeperSnapshot, command),
  effects: {},
  lifecycle(event, snapshot) {
    const { tenant, timeline, node } = (snapshot as SafekeeperSnapshot).context.identity;
    const told = (type: string, data: Record<string, unknown>) => ({
      tenant,
      timeline,
      type,
      data: { node, ...data },
    });
    switch (event.type) {
      case 'replica.created':
        return told('safekeeper.created', {
          startLsn: formatLsn(event.identity.startLsn),
          members: event.membership.members,
        });
      case 'term.adopted':
        return told('term.adopted', { term: event.term, reason: event.reason });
      case 'wal.truncated':
        return told('wal.truncated', { from: formatLsn(event.from), to: formatLsn(event.to) });
      case 'wal.offloaded':
        return told('wal.offloaded', { from: formatLsn(event.from), to: formatLsn(event.to), by: event.by });
      case 'partial.stored':
        return told('wal.tail-stored', { key: event.key });
      case 'wal.trimmed':
        return told('wal.trimmed', {
          from: formatLsn(event.from),
          to: formatLsn(event.to),
          reason: event.reason,
        });
      case 'wal.expired':
        return told('wal.expired', { to: formatLsn(event.to) });
      case 'replica.restored':
        return told('safekeeper.restored', { lsn: formatLsn(event.lsn), term: event.term });
      case 'membership.changed':
        return told('membership.changed', { ...event.membership });
      case 'replica.removed':
        return told('safekeeper.removed', event.left ? { left: true } : {});
      default:
        return undefined;
    }
  },
};

/** The actor id of `node`'s replica of `timeline`. */
export function safekeeperActorId(timeline: string, node: NodeId): string {
  return replicaId(timeline as TimelineId, node);
}
