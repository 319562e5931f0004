/**
 * What a timeline does with a command: events, or a rejection. Pure.
 */
import type { AnyMachineSnapshot } from 'xstate';
import type { WireError } from '../../protocols/errors.ts';
import type { DecideEnvironment, Decision } from '../../runtime/host/definition.ts';
import type { TimelineCommand, TimelineEvent, TimelineStatus } from './events.ts';
import type { TimelineContext } from './machine.ts';

export function decideTimeline(
  snapshot: AnyMachineSnapshot,
  command: TimelineCommand,
  environment: DecideEnvironment,
): Decision<TimelineEvent> {
  const state = snapshot.value as string;
  const context = snapshot.context as TimelineContext;
  switch (command.type) {
    case 'create':
      // Asked again after a crash of the asker: what was decided first stands.
      if (state !== 'absent') return { events: [] };
      return { events: [{ type: 'timeline.requested', spec: command.spec, timeMs: environment.now }] };
    case 'attach':
      if (state !== 'active')
        return rejected('conflict', `timeline ${environment.id} is ${state}, not active`);
      return { events: [{ type: 'attach.requested', generation: context.generation + 1 }] };
    case 'delete':
      if (state === 'deleting' || state === 'deleted' || state === 'absent') return { events: [] };
      return { events: [{ type: 'timeline.delete-requested' }] };
    case 'status':
      if (state === 'absent') return rejected('not-found', `timeline ${environment.id} does not exist`);
      return { events: [], reply: timelineStatus(snapshot) };
    default:
      return rejected('unsupported', `a timeline knows no command "${(command as { type: string }).type}"`);
  }
}

/** A timeline's state for others. */
export function timelineStatus(snapshot: AnyMachineSnapshot): TimelineStatus {
  const context = snapshot.context as TimelineContext;
  return {
    timeline: context.id,
    state: snapshot.value as string,
    tenant: context.spec?.tenant ?? '',
    pgVersion: context.spec?.pgVersion ?? 0,
    systemId: context.spec?.systemId ?? '0',
    members: context.spec?.members ?? [],
    pageserver: context.spec?.pageserver ?? '',
    generation: context.generation,
    attached: context.attached,
    attachError: context.attachError,
    startLsn: context.startLsn,
    ancestor: context.ancestor,
    error: context.error,
  };
}

function rejected(code: WireError['code'], message: string): Decision<TimelineEvent> {
  return { reject: { code, message } };
}
