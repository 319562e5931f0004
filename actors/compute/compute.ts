/**
 * The compute actor, put together for the host, and how others use it.
 */
import type { AnyMachineSnapshot } from 'xstate';
import { PalimpsestError } from '../../protocols/errors.ts';
import { formatLsn } from '../../protocols/lsn.ts';
import type { ActorDefinition, ActorHandle } from '../../runtime/host/definition.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import { parseComputeId } from './compute-id.ts';
import { computeStatus, decideCompute } from './decide.ts';
import { type ComputeServices, computeEffects } from './effects.ts';
import type { ComputeCommand, ComputeEvent, ComputeStatus } from './events.ts';
import { type ComputeContext, computeMachine } from './machine.ts';
import type { RunningCompute } from './spec.ts';

export const COMPUTE_KIND = 'compute';

export function computeDefinition(services: ComputeServices): ActorDefinition<ComputeCommand, ComputeEvent> {
  return {
    kind: COMPUTE_KIND,
    machine: computeMachine,
    input: (id) => ({ id }),
    decide: decideCompute,
    effects: computeEffects(services),
    lifecycle(event, snapshot, id) {
      const { timeline, fixedLsn } = parseComputeId(id);
      const { type } = event;
      const tenant = type === 'compute.starting' ? event.tenant : (snapshot.context as ComputeContext).tenant;
      const at = fixedLsn === undefined ? {} : { at: formatLsn(fixedLsn) };
      return { tenant, timeline, type, data: { ...at, ...told(event) } };
    },
  };
}

/** What subscribers see of an event; LSNs as people read them. */
function told(event: ComputeEvent): Record<string, unknown> {
  switch (event.type) {
    case 'compute.started': {
      const { hostId, term, startLsn, warm, lazy, phasesMs } = event.compute;
      return { hostId, term, startLsn: formatLsn(startLsn), warm, lazy, phasesMs };
    }
    case 'compute.starting':
      return { why: event.why };
    case 'compute.suspended':
      return { lsn: formatLsn(event.lsn) };
    default: {
      const { type: _, ...data } = event;
      return data;
    }
  }
}

export interface WaitOptions {
  clock: Clock;
  timeoutMs: number;
}

export interface WakeOptions extends WaitOptions {
  /** Whether a host's process runs. */
  isLive(hostId: string): boolean;
}

/** Starts the compute unless it runs, and resolves when clients may connect. Concurrent callers share one start. */
export async function wakeCompute(
  actor: ActorHandle<ComputeCommand>,
  tenant: string,
  options: WakeOptions,
): Promise<RunningCompute> {
  await actor.dispatch({ type: 'wake', tenant });
  return waitFor(actor, options, 'starting the compute', (status) => {
    const { compute, state } = status;
    // One whose process is gone is about to be found lost, and is started anew then.
    if (compute && (state === 'running' || state === 'idle') && options.isLive(compute.hostId))
      return compute;
    if (status.state === 'failed' && status.error) throw PalimpsestError.fromWire(status.error);
    // It was just stopping, or was taken over: ask again.
    if (status.state === 'suspended') void actor.dispatch({ type: 'wake', tenant }).catch(() => {});
    return undefined;
  });
}

/** Stops the compute cleanly, and resolves when it is gone. */
export async function suspendCompute(
  actor: ActorHandle<ComputeCommand>,
  options: WaitOptions,
): Promise<ComputeStatus> {
  const stop = () => actor.dispatch({ type: 'suspend' });
  await stop();
  return waitFor(actor, options, 'suspending the compute', (status) => {
    if (status.state === 'suspended' || status.state === 'failed' || status.state === 'crashed')
      return status;
    if (status.state === 'running' || status.state === 'idle') void stop().catch(() => {});
    return undefined;
  });
}

function waitFor<T>(
  actor: ActorHandle<ComputeCommand>,
  options: WaitOptions,
  what: string,
  look: (status: ComputeStatus) => T | undefined,
): Promise<T> {
  return new Promise((resolve, reject) => {
    let unsubscribe = () => {};
    let done = false;
    const finish = (settle: () => void) => {
      if (done) return;
      done = true;
      timer.cancel();
      unsubscribe();
      settle();
    };
    const check = (snapshot: AnyMachineSnapshot) => {
      if (done) return;
      try {
        const value = look(computeStatus(snapshot));
        if (value !== undefined) finish(() => resolve(value));
      } catch (error) {
        finish(() => reject(error));
      }
    };
    const timer = options.clock.setTimer(options.timeoutMs, () =>
      finish(() => {
        const { state, error } = computeStatus(actor.snapshot());
        const because = error ? `: ${error.message}` : '';
        reject(
          new PalimpsestError(
            'timeout',
            `${what} took more than ${options.timeoutMs} ms (${state}${because})`,
          ),
        );
      }),
    );
    unsubscribe = actor.subscribe(check);
    check(actor.snapshot());
    if (done) unsubscribe();
  });
}
