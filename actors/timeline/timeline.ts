/**
 * The timeline actor, put together for the host.
 */
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
      const context = snapshot.context as TimelineContext;
      const { type, ...data } = event;
      if (type === 'timeline.requested') {
        const { tenant, pgVersion, origin } = event.spec;
        return { tenant, timeline: id, type, data: { pgVersion, origin } };
      }
      return { tenant: context.spec?.tenant ?? '', timeline: id, type, data };
    },
  };
}
