/**
 * What a project does to the world: has timelines created and deleted, and its password set in the first branch.
 * Every effect may run twice: the timelines' commands are idempotent, and so is setting a password.
 */
import type { WireError } from '../../protocols/errors.ts';
import type { TimelineSpec } from '../timeline/events.ts';
import type { TenantEvent } from './events.ts';
import type { BranchEffectParams, TenantEffectParams } from './machine.ts';

export type TimelineOutcome =
  | { status: 'active'; startLsn: number; ancestor: { timeline: string; lsn: number } | undefined }
  | { status: 'rejected'; error: WireError };

export interface TenantServices {
  /** Creates a timeline, or finds it; resolves when it is active or rejected. */
  createTimeline(id: string, spec: TimelineSpec): Promise<TimelineOutcome>;
  /** Resolves when nothing of it is left. */
  deleteTimeline(id: string): Promise<void>;
  /** Sets the password of the owner's role in a timeline's database. */
  setPassword(timeline: string, password: string): Promise<void>;
}

/** The effects by their names in the machine. */
export function tenantEffects(services: TenantServices) {
  return {
    async createTimeline({ branch, context }: BranchEffectParams): Promise<TenantEvent[]> {
      const { name, timeline } = branch;
      const outcome = await services.createTimeline(timeline, timelineSpec({ branch, context }));
      if (outcome.status === 'rejected') {
        return [{ type: 'branch.failed', name, timeline, error: outcome.error }];
      }
      const { startLsn, ancestor } = outcome;
      return [{ type: 'branch.created', name, timeline, startLsn, ...(ancestor ? { ancestor } : {}) }];
    },

    async deleteTimeline({ branch }: BranchEffectParams): Promise<TenantEvent[]> {
      await services.deleteTimeline(branch.timeline);
      return [{ type: 'branch.deleted', name: branch.name, timeline: branch.timeline }];
    },

    async setPassword({ context }: TenantEffectParams): Promise<TenantEvent[]> {
      const first = context.branches.find((branch) => branch.from === undefined);
      if (first) await services.setPassword(first.timeline, context.password);
      return [{ type: 'project.password-set' }];
    },

    async deleteProject({ context }: TenantEffectParams): Promise<TenantEvent[]> {
      // Children before their parents: a pageserver need not keep what nobody reads any more.
      for (const branch of [...context.branches].reverse()) await services.deleteTimeline(branch.timeline);
      return [{ type: 'project.deleted' }];
    },
  };
}

function timelineSpec({ branch, context }: BranchEffectParams): TimelineSpec {
  const spec = context.spec!;
  return {
    tenant: context.id,
    pgVersion: spec.pgVersion,
    systemId: spec.template.systemId,
    members: spec.safekeepers,
    pageserver: spec.pageserver,
    origin: branch.from
      ? { kind: 'branch', timeline: branch.from.timeline, point: branch.from.point }
      : { kind: 'template', key: spec.template.key, startLsn: spec.template.startLsn },
  };
}
