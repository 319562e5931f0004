/**
 * The data of timelines, made usable again from objects: safekeepers get the end of the WAL, and the layers are put under
 * the generation of the recovery.
 *
 * 1. The end of a timeline is the end of its WAL in objects. Layers that reach beyond it are left out, and all that build on
 *    them: new WAL will be written there, and pages must not come from two histories. What they held is read from WAL again.
 * 2. The generation lies above every one that the replaced installation can reach: what it still writes is never looked at.
 */

import { makeIndex, newestIndex, putIndex, type ShardIndex } from '../../actors/pageserver/index-object.ts';
import { layersUpTo } from '../../actors/pageserver/usable-layers.ts';
import type { TimelineContext } from '../../actors/timeline/machine.ts';
import { membershipOf } from '../../actors/timeline/membership.ts';
import { currentPlaces } from '../../actors/timeline/shard-effects.ts';
import { placesOf } from '../../actors/timeline/shards.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import type { KeptState } from '../../runtime/host/actor-state.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { Objects } from '../../runtime/ports/objects.ts';
import { inParallel } from './in-parallel.ts';
import type { RecoveredProject } from './manifests.ts';

/** Attachments of one life of an installation are far fewer. */
const GENERATIONS_PER_EPOCH = 2 ** 20;
const RESTORE_TIMEOUT_MS = 300_000;
const TIMELINES_AT_A_TIME = 4;
/** Of these there is nothing to bring back. */
const WITHOUT_DATA = new Set(['absent', 'resolving', 'rejected', 'deleting', 'deleted']);

export interface RestoredTimeline {
  timeline: string;
  startLsn: number;
  ancestor: { timeline: string; lsn: number } | undefined;
  /** Where it ends now. */
  lsn: number;
  /** Whether anything of its own was in objects. */
  hasData: boolean;
  /** Of its index now; attachments come after it. */
  generation: number;
  /** Names of those that serve it. */
  shards: string[];
}

/** The generation of a recovery's own index objects; attachments come after it. */
export function recoveryGeneration(epoch: number): number {
  return epoch * GENERATIONS_PER_EPOCH;
}

/** The first generation of the next epoch after a generation. */
export function generationAbove(generation: number): number {
  return recoveryGeneration(Math.floor(generation / GENERATIONS_PER_EPOCH) + 1);
}

export function contextOf(state: KeptState): TimelineContext {
  return state.machine.context as TimelineContext;
}

/** Whether a timeline with this state has data to bring back. */
export function isRestorable(state: KeptState): boolean {
  return contextOf(state).spec !== undefined && !WITHOUT_DATA.has(String(state.machine.value));
}

export interface RestoreServices {
  bus: Bus;
  objects: Objects;
  /** Of a timeline's index objects, above every one that there was: `newest` is that of the newest index in objects. */
  generationOf(context: TimelineContext, newest: number): number;
}

/** Restores all timelines of all projects. Safekeepers must be there, the pageserver must not have attached any. */
export async function restoreTimelines(
  projects: RecoveredProject[],
  services: RestoreServices & { onProgress(done: number, all: number): void },
): Promise<Map<string, RestoredTimeline>> {
  const all = projects.flatMap(({ timelines }) => [...timelines].filter(([, state]) => isRestorable(state)));
  const restored = new Map<string, RestoredTimeline>();
  const restore = async ([timeline, state]: [string, KeptState]) => {
    restored.set(timeline, await restoreTimeline(timeline, contextOf(state), services));
    services.onProgress(restored.size, all.length);
  };
  await inParallel(all, restore, TIMELINES_AT_A_TIME);
  return restored;
}

async function restoreTimeline(
  timeline: string,
  context: TimelineContext,
  { bus, objects, generationOf }: RestoreServices,
): Promise<RestoredTimeline> {
  const { tenant, pgVersion, systemId } = context.spec!;
  const { members, generation } = membershipOf(context);
  const { startLsn, ancestor } = context;
  let lsn = 0;
  for (const member of members) {
    // One after another: each makes sure that it comes to the same end as those before it.
    const command = {
      type: 'create',
      tenant,
      timeline,
      startLsn,
      pgVersion,
      systemId,
      members,
      generation,
      restore: true,
    };
    const options = { timeoutMs: RESTORE_TIMEOUT_MS };
    const answer = await sendCommand<{ lsn: number }>(bus, 'safekeeper-node', member, command, options);
    lsn = Number(answer.lsn);
  }
  const serving = currentPlaces(context);
  // A split that is under way goes on.
  const places = [...serving, ...(context.next ? placesOf(timeline, context.next.to) : [])];
  const found: ShardIndex[] = [];
  for (const { shard } of places) {
    const index = await newestIndex(objects, { tenant, timeline, ...(shard ? { shard } : {}) });
    if (index) found.push(index);
  }
  const own = generationOf(context, Math.max(0, ...found.map(({ generation }) => generation)));
  let hasData = lsn > startLsn;
  for (const { spec, layers, gcCutoff } of found) {
    const usable = layersUpTo(layers, lsn);
    if (usable.length > 0) hasData = true;
    await putIndex(objects, makeIndex({ ...spec, generation: own, safekeepers: members }, usable, gcCutoff));
  }
  const shards = serving.map(({ id }) => id);
  return { timeline, startLsn, ancestor, lsn, hasData, generation: own, shards };
}
