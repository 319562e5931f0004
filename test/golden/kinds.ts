/** The actors whose journals there are golden files of. */
import { computeDefinition } from '../../actors/compute/compute.ts';
import { computeStatus } from '../../actors/compute/decide.ts';
import { pageserverDefinition } from '../../actors/pageserver/definition.ts';
import { safekeeperDefinition } from '../../actors/safekeeper/definition.ts';
import { tenantStatus } from '../../actors/tenant/decide.ts';
import { tenantDefinition } from '../../actors/tenant/tenant.ts';
import { timelineStatus } from '../../actors/timeline/decide.ts';
import { timelineDefinition } from '../../actors/timeline/timeline.ts';
import { ActorState } from '../../runtime/host/actor-state.ts';
import type { ActorDefinition, ActorEvent } from '../../runtime/host/definition.ts';
import { COMPUTE_EVENTS } from './events-compute.ts';
import { OLDER_PAGESERVER_EVENTS, PAGESERVER_EVENTS } from './events-pageserver.ts';
import { SAFEKEEPER_EVENTS } from './events-safekeeper.ts';
import { TENANT_EVENTS } from './events-tenant.ts';
import { TIMELINE_EVENTS } from './events-timeline.ts';
import type { OlderEvent } from './shape.ts';

// biome-ignore lint/suspicious/noExplicitAny: journals of all kinds are read alike
type AnyDefinition = ActorDefinition<any, any>;

export interface GoldenKind {
  definition: AnyDefinition;
  /** The newest version of each event, in an order that makes sense to the actor. */
  events: ActorEvent[];
  older: OlderEvent[];
  /** The event after which the state holds the most. */
  fullAfter: string;
  /** What others see of a state. */
  look(state: ActorState): unknown;
}

/** The id of every golden actor; that of a compute is its timeline. */
export const GOLDEN_ID = '1'.repeat(32);

const context = ({ snapshot: { value, context: kept } }: ActorState) => ({ value, context: kept });

export const GOLDEN_KINDS: GoldenKind[] = [
  {
    definition: tenantDefinition({} as never),
    events: Object.values(TENANT_EVENTS),
    older: [],
    fullAfter: 'branch.restored',
    look: (state) => tenantStatus(state.snapshot),
  },
  {
    definition: timelineDefinition({} as never),
    events: Object.values(TIMELINE_EVENTS),
    older: [],
    fullAfter: 'membership.joined',
    look: (state) => timelineStatus(state.snapshot),
  },
  {
    definition: computeDefinition({} as never),
    events: Object.values(COMPUTE_EVENTS),
    older: [],
    fullAfter: 'compute.idle',
    look: (state) => computeStatus(state.snapshot),
  },
  {
    definition: safekeeperDefinition,
    events: Object.values(SAFEKEEPER_EVENTS),
    older: [],
    fullAfter: 'wal.expired',
    look: context,
  },
  {
    definition: pageserverDefinition,
    events: Object.values(PAGESERVER_EVENTS),
    older: OLDER_PAGESERVER_EVENTS,
    fullAfter: 'cutoff.advanced',
    look: context,
  },
];

/** The state that these events give, each as an entry of its own. */
export function foldAll(definition: AnyDefinition, events: readonly ActorEvent[]): ActorState {
  let state = ActorState.initial(definition, GOLDEN_ID);
  for (const event of events) state = state.apply(definition, { events: [event] }).state;
  return state;
}

/** The events up to and with the one after which the state holds the most. */
export function fullHistory({ events, fullAfter }: GoldenKind): ActorEvent[] {
  return events.slice(0, events.findIndex(({ type }) => type === fullAfter) + 1);
}
