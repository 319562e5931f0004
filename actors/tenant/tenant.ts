/**
 * The tenant actor, put together for the host.
 */
import type { ActorDefinition } from '../../runtime/host/definition.ts';
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
      const { type, ...data } = event;
      const timeline = 'timeline' in event ? event.timeline : '';
      if (event.type === 'project.created') {
        // The password stays in the journal: subscribers have no use for it.
        const { name, pgVersion } = event.spec;
        return { tenant: id, timeline, type, data: { name, pgVersion } };
      }
      return { tenant: id, timeline, type, data };
    },
  };
}
