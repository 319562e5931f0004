/**
 * The only file that knows how XState runs: machines are folded with its pure functions, so that time, ids and effects stay
 * with the host.
 *
 * 1. Nothing of a machine is executed here but its own pure parts: guards, assigns and parameters of actions.
 * 2. What cannot be replayed (delayed transitions, spawned actors, messages to others) is refused loudly.
 */
import { type AnyMachineSnapshot, type AnyStateMachine, initialTransition, transition } from 'xstate';
import type { ActorEvent } from './definition.ts';

/** An action that a transition named, with its parameters. */
export interface NamedAction {
  type: string;
  params: unknown;
}

export interface Step {
  snapshot: AnyMachineSnapshot;
  actions: NamedAction[];
}

/** What of a snapshot must be kept to restore it: plain data. */
export interface KeptSnapshot {
  value: unknown;
  context: unknown;
  status: string;
  output?: unknown;
}

/** The machine's state before its first event. */
export function initialStep(machine: AnyStateMachine, input: unknown): Step {
  const [snapshot, actions] = initialTransition(machine, input);
  return { snapshot, actions: namedActions(machine, actions) };
}

/** The state after one event, and the actions that it names. Throws when the machine itself fails. */
export function step(machine: AnyStateMachine, snapshot: AnyMachineSnapshot, event: ActorEvent): Step {
  const [next, actions] = transition(machine, snapshot, event);
  if (next.status === 'error') throw next.error;
  return { snapshot: next, actions: namedActions(machine, actions) };
}

export function keepSnapshot(snapshot: AnyMachineSnapshot): KeptSnapshot {
  const { value, context, status, output } = snapshot;
  return output === undefined ? { value, context, status } : { value, context, status, output };
}

export function restoreSnapshot(machine: AnyStateMachine, kept: KeptSnapshot): AnyMachineSnapshot {
  return machine.resolveState(kept as Parameters<typeof machine.resolveState>[0]);
}

/** Whether the machine does anything with an event in this state. */
export function accepts(snapshot: AnyMachineSnapshot, event: ActorEvent): boolean {
  return snapshot.can(event);
}

function namedActions(
  machine: AnyStateMachine,
  actions: { type: string; params?: unknown }[],
): NamedAction[] {
  const named: NamedAction[] = [];
  for (const { type, params } of actions) {
    if (!type.startsWith('xstate.')) {
      named.push({ type, params });
      continue;
    }
    // A raise without a delay has been applied already; it is only listed.
    const delay = (params as { delay?: unknown } | undefined)?.delay;
    if ((type === 'xstate.raise' && delay === undefined) || type === 'xstate.cancel') continue;
    throw new RangeError(
      `machine ${machine.id} uses ${type}, which cannot be replayed; use an effect or a deadline`,
    );
  }
  return named;
}
