/**
 * The timeline actor, put together for the host.
 */
import { formatLsn } from '../../protocols/lsn.ts';
import type { ActorDefinition } from '../../runtime/host/definition.ts';
import { decideTimeline } from './decide.ts';
import { type TimelineServices, timelineEffects } from './effects.ts';
import type { TimelineCommand, TimelineEvent } from './events.ts';
import { type TimelineContext, timelineMachine } from './machine.ts';

export const TIMELINE_KIND = 'timeline';

export function timelineDefinition(
  services: TimelineServices,
): ActorDefinition<TimelineCommand, TimelineEvent> {
  return {
    kind: TIMELINE_KIND,
    machine: timelineMachine,
    input: (id) => ({ id }),
    decide: decideTimeline,
    effects: timelineEffects(services),
    lifecycle(event, snapshot, id) {
      const { spec } = snapshot.context as TimelineContext;
      return { tenant: spec?.tenant ?? '', timeline: id, type: event.type, data: told(event) };
    },
  };
}

/** What subscribers see of an event; LSNs as people read them. */
function told(event: TimelineEvent): Record<string, unknown> {
  switch (event.type) {
    case 'timeline.requested': {
      const { pgVersion, origin } = event.spec;
      return {
        pgVersion,
        origin: origin.kind,
        ...(origin.kind === 'branch' ? { from: origin.timeline } : {}),
      };
    }
    case 'timeline.resolved':
      return {
        startLsn: formatLsn(event.startLsn),
        ...(event.ancestor
          ? { ancestor: event.ancestor.timeline, ancestorLsn: formatLsn(event.ancestor.lsn) }
          : {}),
      };
    case 'ancestor.detached':
      return { template: event.template };
    case 'branch-point.held':
      return { child: event.child, lsn: formatLsn(event.lsn) };
    case 'lease.granted':
      return {
        lease: event.lease,
        lsn: formatLsn(event.lsn),
        until: new Date(event.untilMs).toISOString(),
      };
    case 'gc.cutoff-advanced':
      return {
        lsn: formatLsn(event.cutoffLsn),
        ...(event.cutoffTimeMs > 0 ? { time: new Date(event.cutoffTimeMs).toISOString() } : {}),
      };
    default: {
      const { type: _, v: __, ...data } = event;
      return data;
    }
  }
}
