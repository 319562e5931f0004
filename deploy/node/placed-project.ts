/**
 * A project that comes from somewhere else, with the nodes that it has here: in everything that is known of it they stand in fields of the
 * same names, however deep, also in what is under way.
 *
 * A change of its safekeepers that was under way is given up: the old ones and the new ones are all elsewhere.
 */
import type { TenantContext } from '../../actors/tenant/machine.ts';
import type { KeptState } from '../../runtime/host/actor-state.ts';
import type { RecoveredProject } from './manifests.ts';

export interface NewPlace {
  safekeepers: string[];
  /** Of its shards by their numbers, and from the first one on again where there are more shards. */
  pageservers: string[];
}

/** How many shards a project has, or is about to have. */
export function shardCount({ state }: RecoveredProject): number {
  const { spec, shards, splitting } = state.machine.context as TenantContext;
  return (splitting?.to ?? shards ?? spec?.shards)?.pageservers.length ?? 1;
}

export function placedAt({ tenant, state, timelines }: RecoveredProject, place: NewPlace): RecoveredProject {
  const placed = (kept: KeptState) => withNodes(kept, place) as KeptState;
  return {
    tenant,
    state: placed(state),
    timelines: new Map([...timelines].map(([id, kept]) => [id, placed(kept)])),
  };
}

function withNodes(value: unknown, place: NewPlace): unknown {
  if (Array.isArray(value)) return value.map((item) => withNodes(item, place));
  if (value === null || typeof value !== 'object') return value;
  const fields = Object.entries(value)
    .filter(([name]) => name !== 'newMembers' && name !== 'change')
    .map(([name, field]): [string, unknown] => [name, fieldAt(name, field, place)]);
  return Object.fromEntries(fields);
}

function fieldAt(name: string, field: unknown, place: NewPlace): unknown {
  if (Array.isArray(field)) {
    if (name === 'members' || name === 'safekeepers') return place.safekeepers;
    if (name === 'missing') return [];
    if (name === 'pageservers') {
      return field.map((_, number) => place.pageservers[number % place.pageservers.length]);
    }
  }
  if (name === 'pageserver' && typeof field === 'string') return place.pageservers[0];
  return withNodes(field, place);
}
