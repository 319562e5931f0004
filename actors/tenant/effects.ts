/**
 * What a project does to the world: has timelines created and deleted, and its password set in the first branch.
 * Every effect may run twice: the timelines' commands are idempotent, and so is setting a password.
 */
import type { WireError } from '../../protocols/errors.ts';
import type { EffectContext } from '../../runtime/host/definition.ts';
import type { Origin, TimelineSpec } from '../timeline/events.ts';
import { areSame, type ShardPlaces } from '../timeline/shards.ts';
import { unneeded } from './branches.ts';
import type { TenantCommand, TenantEvent } from './events.ts';
import type { BranchEffectParams, TenantContext, TenantEffectParams } from './machine.ts';

export type TimelineOutcome =
  | { status: 'created'; startLsn: number; ancestor: { timeline: string; lsn: number } | undefined }
  | { status: 'rejected'; error: WireError };

export interface TenantServices {
  /** Creates a timeline, or finds it; resolves when its beginning is durable, or it is rejected. Whoever uses it waits for the rest. */
  createTimeline(id: string, spec: TimelineSpec): Promise<TimelineOutcome>;
  /** Resolves when nothing of it is left. */
  deleteTimeline(id: string): Promise<void>;
  /** Resolves when nothing of the timeline is on the pageserver's disk. */
  archiveTimeline(id: string): Promise<void>;
  /** Resolves when it can be read again. */
  unarchiveTimeline(id: string): Promise<void>;
  /** Resolves when the timeline needs its ancestor no more, or with the reason why that is not to be. */
  detachTimeline(id: string): Promise<WireError | undefined>;
  /** Makes new shards of the timeline beside those that there are; resolves when they serve, or with the reason why they never will. */
  splitTimeline(id: string, to: ShardPlaces): Promise<WireError | undefined>;
  /** The new shards take over; resolves when nothing is left of the old ones. */
  switchTimeline(id: string): Promise<void>;
  /** The new shards are given up; resolves when nothing is left of them. */
  abandonSplit(id: string): Promise<void>;
  /** Stops the timeline's compute, if one runs; its clients are disconnected. */
  stopCompute(timeline: string): Promise<void>;
  /** Whether somebody reads a moment of the timeline. */
  isInUse(timeline: string): Promise<boolean>;
  /** Sets the password of the owner's role in a timeline's database. */
  setPassword(timeline: string, password: string): Promise<void>;
}

type Context = EffectContext<TenantCommand>;

const CANCEL_AGAIN_MS = 1_000;

/** The effects by their names in the machine. */
export function tenantEffects(services: TenantServices) {
  /** Attempts to split, which are under way. */
  const splits = new Set<Promise<unknown>>();
  return {
    async createTimeline({ branch, context }: BranchEffectParams): Promise<TenantEvent[]> {
      const { timeline } = branch;
      const name = branch.name ?? '';
      const origin: Origin = branch.from
        ? { kind: 'branch', timeline: branch.from.timeline, point: branch.from.point }
        : { kind: 'template', key: context.spec!.template.key, startLsn: context.spec!.template.startLsn };
      const outcome = await services.createTimeline(timeline, timelineSpec(context, origin));
      if (outcome.status === 'rejected') {
        return [{ type: 'branch.failed', name, timeline, error: outcome.error }];
      }
      const { startLsn, ancestor } = outcome;
      return [{ type: 'branch.created', name, timeline, startLsn, ...(ancestor ? { ancestor } : {}) }];
    },

    async deleteTimeline({ branch }: BranchEffectParams): Promise<TenantEvent[]> {
      await services.deleteTimeline(branch.timeline);
      return [{ type: 'branch.deleted', name: branch.name ?? '', timeline: branch.timeline }];
    },

    /** First the new timeline, whose point may be refused; then the old one's compute; only then the name. */
    async restoreBranch({ branch, context }: BranchEffectParams, effect: Context): Promise<TenantEvent[]> {
      if (effect.snapshot().value !== 'active') return [];
      const { timeline: replacement, from, preserveUnder } = branch.restore!;
      const name = branch.name ?? '';
      const origin: Origin = { kind: 'branch', timeline: from.timeline, point: from.point };
      const outcome = await services.createTimeline(replacement, timelineSpec(context, origin));
      if (outcome.status === 'rejected') {
        const { timeline } = branch;
        return [{ type: 'branch.restore-failed', name, timeline, replacement, error: outcome.error }];
      }
      await services.stopCompute(branch.timeline);
      const { startLsn, ancestor } = outcome;
      return [
        {
          type: 'branch.restored',
          name,
          timeline: replacement,
          replaced: branch.timeline,
          startLsn,
          ...(preserveUnder === undefined ? {} : { preservedAs: preserveUnder }),
          ...(ancestor ? { ancestor } : {}),
          timeMs: effect.clock.now(),
        },
      ];
    },

    /** A client that had looked the name up before may have started the old compute again meanwhile. */
    async retireTimeline({ branch }: BranchEffectParams, effect: Context): Promise<TenantEvent[]> {
      await services.stopCompute(branch.timeline);
      await sweep(services, effect);
      return [];
    },

    async archiveTimeline({ branch }: BranchEffectParams): Promise<TenantEvent[]> {
      await services.archiveTimeline(branch.timeline);
      return [{ type: 'branch.archived', name: branch.name ?? '', timeline: branch.timeline }];
    },

    async unarchiveTimeline({ branch }: BranchEffectParams): Promise<TenantEvent[]> {
      await services.unarchiveTimeline(branch.timeline);
      return [{ type: 'branch.unarchived', name: branch.name ?? '', timeline: branch.timeline }];
    },

    async detachTimeline({ branch }: BranchEffectParams): Promise<TenantEvent[]> {
      const { timeline } = branch;
      const name = branch.name ?? '';
      const error = await services.detachTimeline(timeline);
      if (error) return [{ type: 'branch.detach-failed', name, timeline, error }];
      return [{ type: 'branch.detached', name, timeline }];
    },

    async sweep(_params: TenantEffectParams, effect: Context): Promise<TenantEvent[]> {
      await sweep(services, effect);
      return [];
    },

    async deleteAncestor({ branch }: BranchEffectParams): Promise<TenantEvent[]> {
      await services.deleteTimeline(branch.timeline);
      return [{ type: 'ancestor.deleted', timeline: branch.timeline }];
    },

    /** Ancestors first: a shard of a branch reads what is before it from the same shard of its parent. */
    async splitProject({ context }: TenantEffectParams, effect: Context): Promise<TenantEvent[]> {
      const { to } = context.splitting!;
      const isOver = () => {
        const { value, context: now } = effect.snapshot();
        const { splitting } = now as TenantContext;
        const isUnderWay = splitting && !splitting.isSwitching && !splitting.isCancelled;
        return value !== 'active' || !isUnderWay || !areSame(splitting.to, to);
      };
      const split = async (): Promise<TenantEvent[]> => {
        for (const { timeline } of context.branches) {
          if (isOver()) return [];
          const error = await services.splitTimeline(timeline, to);
          if (isOver()) return [];
          if (!error) continue;
          // Before anybody hears of it: who asks for another split must not meet what is left of this one.
          await abandonSplit(services, context);
          return [{ type: 'project.split-failed', error }];
        }
        return [{ type: 'project.split', to }];
      };
      const attempt = split();
      splits.add(attempt);
      return attempt.finally(() => splits.delete(attempt));
    },

    /** Again and again, until nobody makes new shards any more: who is about to may have asked before it was cancelled. */
    async cancelSplit({ context }: TenantEffectParams, effect: Context): Promise<TenantEvent[]> {
      for (;;) {
        const ended = Promise.allSettled(splits);
        const wereAny = splits.size > 0;
        await abandonSplit(services, context);
        if (!wereAny) return [{ type: 'project.split-cancelled' }];
        await Promise.race([ended, effect.clock.sleep(CANCEL_AGAIN_MS)]);
      }
    },

    /** Descendants first: until they are switched they read from the old shards of their parents. */
    async switchProject({ context }: TenantEffectParams): Promise<TenantEvent[]> {
      for (const { timeline } of [...context.branches].reverse()) await services.switchTimeline(timeline);
      return [{ type: 'project.split-completed' }];
    },

    /** Only of a split that failed in an earlier version is there something left by now. */
    async abandonSplit({ context }: TenantEffectParams, effect: Context): Promise<TenantEvent[]> {
      const isAnotherOne = (effect.snapshot().context as TenantContext).splitting !== undefined;
      if (!isAnotherOne) await abandonSplit(services, context);
      return [];
    },

    async setPassword({ context }: TenantEffectParams): Promise<TenantEvent[]> {
      const first = context.branches.find((branch) => branch.from === undefined);
      if (first) await services.setPassword(first.timeline, context.password);
      return [{ type: 'project.password-set' }];
    },

    async deleteProject({ context }: TenantEffectParams): Promise<TenantEvent[]> {
      // Children before their parents: a pageserver need not keep what nobody reads any more.
      for (const branch of [...context.branches].reverse()) {
        if (branch.restore) await services.deleteTimeline(branch.restore.timeline);
      }
      for (const branch of [...context.branches].reverse()) await services.deleteTimeline(branch.timeline);
      return [{ type: 'project.deleted' }];
    },
  };
}

/** Has ancestors deleted that nothing needs and nobody uses; the others are looked at again later. */
async function sweep(services: TenantServices, effect: Context): Promise<void> {
  const { branches } = effect.snapshot().context as TenantContext;
  const timelines: string[] = [];
  for (const { timeline } of unneeded(branches)) {
    if (!(await services.isInUse(timeline))) timelines.push(timeline);
  }
  if (timelines.length > 0 && effect.snapshot().value === 'active') {
    await effect.dispatch({ type: 'branch.sweep', timelines });
  }
}

/** Descendants first: they read from the new shards of their parents. */
async function abandonSplit(services: TenantServices, { branches }: TenantContext): Promise<void> {
  for (const { timeline } of [...branches].reverse()) await services.abandonSplit(timeline);
}

function shardsOf({ shards, spec }: TenantContext): Pick<TimelineSpec, 'shards'> {
  const places = shards ?? spec!.shards;
  return places ? { shards: places } : {};
}

function timelineSpec(context: TenantContext, origin: Origin): TimelineSpec {
  const spec = context.spec!;
  return {
    tenant: context.id,
    pgVersion: spec.pgVersion,
    systemId: spec.template.systemId,
    members: spec.safekeepers,
    pageserver: (context.shards ?? spec.shards)?.pageservers[0] ?? spec.pageserver,
    ...shardsOf(context),
    origin,
  };
}
