/** What of the control actors goes into a project's manifest. */
import { tenantStatus } from '../../actors/tenant/decide.ts';
import type { TenantCommand } from '../../actors/tenant/events.ts';
import type { TenantContext } from '../../actors/tenant/machine.ts';
import { timelineStatus } from '../../actors/timeline/decide.ts';
import type { TimelineCommand } from '../../actors/timeline/events.ts';
import type { KeptState } from '../../runtime/host/actor-state.ts';
import type { ActorHandle } from '../../runtime/host/definition.ts';
import type { ManifestSource, ManifestTimeline } from './manifests.ts';

/** Undefined when the project is gone, or not there yet. */
export function manifestSource(
  project: ActorHandle<TenantCommand> | undefined,
  timelines: ReadonlyMap<string, ActorHandle<TimelineCommand>>,
): ManifestSource | undefined {
  if (!project) return undefined;
  const { state } = tenantStatus(project.snapshot());
  if (state === 'absent' || state === 'deleted') return undefined;
  const { branches } = project.snapshot().context as TenantContext;
  const found: ManifestTimeline[] = [];
  for (const { timeline } of branches) {
    const actor = timelines.get(timeline);
    // One that is just being made: the project's own state has what is needed to make it.
    if (actor && timelineStatus(actor.snapshot()).generation > 0) found.push(manifestTimeline(actor));
  }
  return { state: project.keep() as KeptState, timelines: found };
}

function manifestTimeline(actor: ActorHandle<TimelineCommand>): ManifestTimeline {
  const status = timelineStatus(actor.snapshot());
  const { timeline, state, startLsn, ancestor, members, membershipGeneration, pageserver } = status;
  const { shards, nextShards, retiringShards } = status;
  return {
    timeline,
    state: () => actor.keep() as KeptState,
    // That what was decided has been made is no news: a recovery makes it anew.
    fingerprint: JSON.stringify([
      state === 'placing' ? 'active' : state,
      startLsn,
      ancestor,
      members,
      membershipGeneration,
      pageserver,
      ...(shards || nextShards ? [shards, nextShards, retiringShards] : []),
    ]),
  };
}
