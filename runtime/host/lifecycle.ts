/**
 * Lifecycle events: what an actor's journal says, told to everybody. Published after the entry is durable, and again after a
 * crash for those that the event log has not seen; the id tells a repetition.
 */
import type { AnyMachineSnapshot } from 'xstate';
import type { EventEnvelope } from '../../protocols/events.ts';
import { eventSubject } from '../../protocols/subjects.ts';
import { packMessage } from '../bus/command.ts';
import type { Bus } from '../ports/bus.ts';
import type { ActorDefinition, ActorEvent } from './definition.ts';

export interface JournaledEvent {
  event: ActorEvent;
  /** Sequence of its entry, its place within, and when it was appended. */
  sequence: number;
  index: number;
  time: number;
  snapshot: AnyMachineSnapshot;
}

/** The envelope of a journaled event, or undefined when subscribers do not see it. */
export function envelopeOf(
  // biome-ignore lint/suspicious/noExplicitAny: any actor's events can be told
  definition: ActorDefinition<any, any>,
  id: string,
  journaled: JournaledEvent,
): EventEnvelope | undefined {
  const told = definition.lifecycle?.(journaled.event, journaled.snapshot, id);
  if (!told) return undefined;
  const { kind } = definition;
  const place = journaled.index === 0 ? '' : `.${journaled.index}`;
  return {
    id: `${kind}/${id}/${journaled.sequence}${place}`,
    type: told.type,
    version: told.version ?? 1,
    time: journaled.time,
    tenant: told.tenant,
    timeline: told.timeline,
    actor: { kind, id },
    sequence: journaled.sequence,
    data: told.data,
  };
}

/**
 * The subject of an event: kind of its actor, then its type. A type that begins with the kind does not repeat it:
 * `compute.suspended` of a compute goes to `pal.evt.<tenant>.<timeline>.compute.suspended`.
 */
export function subjectOf(envelope: EventEnvelope): string {
  const { kind } = envelope.actor;
  const event = envelope.type.startsWith(`${kind}.`) ? envelope.type.slice(kind.length + 1) : envelope.type;
  return eventSubject(envelope.tenant, envelope.timeline, kind, event);
}

/** Publishes one event; also for events that are not journaled one by one, with an id of their own. */
export function publishEvent(bus: Bus, envelope: EventEnvelope): void {
  bus.publish(subjectOf(envelope), packMessage(envelope));
}
