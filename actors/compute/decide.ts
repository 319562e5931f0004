/**
 * Decisions of a compute: pure, from its state and a command to events, or a rejection.
 */
import type { AnyMachineSnapshot } from 'xstate';
import type { DecideEnvironment, Decision } from '../../runtime/host/definition.ts';
import { parseComputeId } from './compute-id.ts';
import type { ComputeCommand, ComputeEvent, ComputeStatus } from './events.ts';
import type { ComputeContext } from './machine.ts';

const NOTHING: Decision<ComputeEvent> = { events: [] };

export function decideCompute(
  snapshot: AnyMachineSnapshot,
  command: ComputeCommand,
  environment: DecideEnvironment,
): Decision<ComputeEvent> {
  const state = snapshot.value as string;
  const context = snapshot.context as ComputeContext;
  switch (command.type) {
    case 'wake':
      return decideWake(state, context, command.tenant, environment.now);
    case 'suspend':
      return runs(state) ? { events: [{ type: 'compute.stopping', why: 'asked' }] } : NOTHING;
    case 'forget':
      return runs(state) ? { events: [{ type: 'compute.stopping', why: 'forgotten' }] } : NOTHING;
    case 'report-activity':
      return decideActivity(state, context, command);
    case 'idle-deadline':
      return state === 'idle' && context.deadlineMs === command.deadlineMs
        ? { events: [{ type: 'compute.stopping', why: 'idle' }] }
        : NOTHING;
    case 'restart':
      if (state !== 'crashed' || context.failures !== command.failures) return NOTHING;
      return {
        events: [
          { type: 'compute.starting', tenant: context.tenant, why: 'restart', timeMs: environment.now },
        ],
      };
    case 'status':
      return { events: [], reply: computeStatus(snapshot) };
    default:
      return { reject: { code: 'invalid-argument', message: 'unknown command of a compute' } };
  }
}

/** What anybody may know of a compute. */
export function computeStatus(snapshot: AnyMachineSnapshot): ComputeStatus {
  const context = snapshot.context as ComputeContext;
  const status: ComputeStatus = { ...parseComputeId(context.id), state: snapshot.value as string };
  if (context.compute) {
    status.compute = context.compute;
    status.startedMs = context.startedMs;
  }
  if (context.idleSinceMs !== undefined) status.idleSinceMs = context.idleSinceMs;
  if (context.deadlineMs !== undefined) status.deadlineMs = context.deadlineMs;
  if (context.suspendedLsn !== undefined) status.suspendedLsn = context.suspendedLsn;
  if (context.error) status.error = context.error;
  return status;
}

function runs(state: string): boolean {
  return state === 'running' || state === 'idle';
}

function decideWake(
  state: string,
  context: ComputeContext,
  tenant: string,
  now: number,
): Decision<ComputeEvent> {
  // Whoever wakes it is about to use it: the deadline that was set before must not strike.
  if (state === 'idle') return { events: [{ type: 'compute.active' }] };
  if (state === 'suspended' || state === 'crashed' || state === 'failed') {
    return {
      events: [{ type: 'compute.starting', tenant: tenant || context.tenant, why: 'wake', timeMs: now }],
    };
  }
  return NOTHING;
}

function decideActivity(
  state: string,
  context: ComputeContext,
  command: Extract<ComputeCommand, { type: 'report-activity' }>,
): Decision<ComputeEvent> {
  if (!runs(state) || context.compute?.hostId !== command.hostId) return NOTHING;
  const { sinceMs } = command;
  if (sinceMs === undefined) return state === 'idle' ? { events: [{ type: 'compute.active' }] } : NOTHING;
  if (sinceMs === context.idleSinceMs) return NOTHING;
  if (context.suspendAfterMs <= 0) return { events: [{ type: 'compute.idle', sinceMs }] };
  return { events: [{ type: 'compute.idle', sinceMs, deadlineMs: sinceMs + context.suspendAfterMs }] };
}
