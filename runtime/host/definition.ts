/**
 * What an actor is, to the host that runs it.
 *
 *   command -> decide(snapshot, command)   pure: events, or a rejection
 *   events  -> journal.append              durable and fenced; on a conflict the actor dies
 *   events  -> machine transition          XState: next snapshot + actions, which are data
 *   actions -> effects                     run through ports; what they return is appended as events in turn
 *   replay  =  the same fold, actions dropped, then the tracked effects without a completion are issued again
 */
import type { AnyMachineSnapshot, AnyStateMachine } from 'xstate';
import type { WireError } from '../../protocols/errors.ts';
import type { Clock } from '../ports/clock.ts';
import type { Log } from '../ports/log.ts';
import type { Random } from '../ports/random.ts';

/** Events of a journal: `type`, and plain data. `v` is the version of the shape, 1 when absent. */
export interface ActorEvent {
  type: string;
  v?: number;
}

export interface ActorCommand {
  type: string;
}

/** What decide may look at beside the snapshot. */
export interface DecideEnvironment {
  id: string;
  now: number;
  random: Random;
}

export type Decision<E extends ActorEvent> =
  /** Events to append (none: nothing changes) and what to answer once they are durable. */
  { events: E[]; reply?: unknown } | { reject: WireError };

export interface EffectContext<C extends ActorCommand> {
  id: string;
  clock: Clock;
  random: Random;
  log: Log;
  /** Aborted when the actor stops. */
  signal: AbortSignal;
  /** The live state, for effects that look again after waiting. */
  snapshot(): AnyMachineSnapshot;
  /** Sends a command to this same actor. */
  dispatch(command: C): Promise<unknown>;
}

/**
 * Runs what an action names. Must be idempotent: after a crash it is issued again. The events it returns are appended
 * as its completion (also for a failure: return an event that says so). A throw is retried with backoff.
 */
export type Effect<C extends ActorCommand, E extends ActorEvent> = (
  params: never,
  context: EffectContext<C>,
) => Promise<E[]>;

export interface ActorDefinition<C extends ActorCommand, E extends ActorEvent> {
  kind: string;
  /** Pure machine; its events are E, its actions are the names of effects with params. */
  machine: AnyStateMachine;
  /** Input of the machine's initial state for a new actor. */
  input?(id: string): unknown;
  decide(snapshot: AnyMachineSnapshot, command: C, environment: DecideEnvironment): Decision<E>;
  effects: Record<string, Effect<C, E>>;
  /** The newest version of each type of event that is understood; 1 for types that are not named. */
  versions?: Readonly<Record<string, number>>;
  /** Lifts an event of an older version to today's shape. */
  upcast?(event: ActorEvent): E;
  /** The lifecycle event that subscribers see for a journaled event, if any. */
  lifecycle?(
    event: E,
    snapshot: AnyMachineSnapshot,
    id: string,
  ):
    | { tenant: string; timeline: string; type: string; version?: number; data: Record<string, unknown> }
    | undefined;
}

/** A running actor, as other code of the same process sees it. */
export interface ActorHandle<C extends ActorCommand = ActorCommand> {
  readonly id: string;
  readonly kind: string;
  snapshot(): AnyMachineSnapshot;
  /** The state in the form that snapshots of the journal keep: plain data, with effects and deadlines that wait. */
  keep(): unknown;
  /** Resolves with the decision's reply after its events are durable; throws the rejection as a PalimpsestError. */
  dispatch(command: C): Promise<unknown>;
  /** Calls back after every change of state. */
  subscribe(listener: (snapshot: AnyMachineSnapshot) => void): () => void;
  stop(): Promise<void>;
}
