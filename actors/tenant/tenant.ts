/**
 * The tenant actor, put together for the host.
 */
import { formatLsn } from '../../protocols/lsn.ts';
import type { ActorDefinition } from '../../runtime/host/definition.ts';
import type { BranchPoint } from '../timeline/events.ts';
import { decideTenant } from './decide.ts';
import { type TenantServices, tenantEffects } from './effects.ts';
import type { TenantCommand, TenantEvent } from './events.ts';
import { tenantMachine } from './machine.ts';

export const TENANT_KIND = 'tenant';

export function tenantDefinition(services: TenantServices): ActorDefinition<TenantCommand, TenantEvent> {
  return {
    kind: TENANT_KIND,
    machine: tenantMachine,
    input: (id) => ({ id }),
    decide: decideTenant,
    effects: tenantEffects(services),
    lifecycle(event, _snapshot, id) {
      const timeline = 'timeline' in event ? event.timeline : '';
      return { tenant: id, timeline, type: event.type, data: told(event) };
    },
  };
}

/** What subscribers see of an event; LSNs as people read them. */
function told(event: TenantEvent): Record<string, unknown> {
  switch (event.type) {
    case 'project.created': {
      // The password stays in the journal: subscribers have no use for it.
      const { name, pgVersion } = event.spec;
      return { name, pgVersion };
    }
    case 'branch.requested':
      return {
        name: event.name,
        ...(event.from ? { from: event.from.name, at: pointText(event.from.point) } : {}),
      };
    case 'branch.created':
      return { name: event.name, startLsn: formatLsn(event.startLsn) };
    case 'branch.restore-requested':
      return {
        name: event.name,
        from: event.from.name,
        at: pointText(event.from.point),
        ...(event.preserveUnder === undefined ? {} : { preserveUnder: event.preserveUnder }),
      };
    case 'branch.restored':
      return {
        name: event.name,
        startLsn: formatLsn(event.startLsn),
        replaced: event.replaced,
        ...(event.preservedAs === undefined ? {} : { preservedAs: event.preservedAs }),
      };
    case 'project.history-set':
      return { seconds: event.history.ms / 1000, bytes: event.history.bytes };
    default: {
      const { type: _, v: __, ...data } = event;
      return data;
    }
  }
}

function pointText(point: BranchPoint): string {
  if (point.kind === 'head') return 'head';
  return point.kind === 'lsn' ? formatLsn(point.lsn) : new Date(point.timeMs).toISOString();
}
