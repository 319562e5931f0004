/**
 * What became of each branch after a recovery: up to where it can be read again, or why it cannot.
 *
 * A branch needs its ancestor's history up to the point where it starts. When the last WAL of the ancestor had not reached
 * objects, that point does not exist any more: a branch that had nothing of its own yet is made anew at its parent's end, any
 * other one is reported as lost.
 */
import type { BranchStatus } from '../../actors/tenant/events.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { formatLsn } from '../../protocols/lsn.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import type { ControlActors } from './control-actors.ts';
import type { RestoredTimeline } from './recovered-timelines.ts';
import type { LogKnowledge } from './surviving-logs.ts';

const COMMAND_TIMEOUT_MS = 20_000;
/** Reading the WAL behind the last layers. */
const READ_TIMEOUT_MS = 300_000;
const POLL_MS = 50;

export interface RecoveredBranch {
  project: string;
  branch: string;
  /** recovered: up to `lsn`; restarted: had nothing of its own, and begins at its parent's end now; lost: see `reason` */
  outcome: 'recovered' | 'restarted' | 'lost';
  lsn: string;
  /** Of the last commit before it; absent when it has none of its own. */
  time?: string;
  /** Whether every commit that was acknowledged is there; absent when only objects were asked. */
  complete?: boolean;
  /** When not complete: nothing acknowledged before here is missing. */
  certainLsn?: string;
  reason?: string;
}

export interface ReviewServices {
  bus: Bus;
  clock: Clock;
  control: ControlActors;
  /** What safekeepers told, by timeline. */
  logs: ReadonlyMap<string, LogKnowledge>;
}

type Restored = ReadonlyMap<string, RestoredTimeline>;

export async function reviewBranches(
  restored: Restored,
  services: ReviewServices,
): Promise<RecoveredBranch[]> {
  const found: RecoveredBranch[] = [];
  for (const project of services.control.projects()) {
    // Parents before their children, as they were made.
    for (const branch of project.branches) {
      const timeline = restored.get(branch.timeline);
      if (timeline) found.push(await reviewBranch(project.name, branch, timeline, restored, services));
    }
  }
  return found;
}

async function reviewBranch(
  project: string,
  branch: BranchStatus,
  timeline: RestoredTimeline,
  restored: Restored,
  services: ReviewServices,
): Promise<RecoveredBranch> {
  const gap = gapAbove(timeline, restored);
  const about = { project, branch: branch.name };
  if (gap !== undefined) return restart(about, branch, { timeline, gap }, services);
  const lsn = formatLsn(timeline.lsn);
  try {
    await services.control.attachments.attached(branch.timeline);
    for (const shard of timeline.shards) await untilRead(shard, timeline.lsn, services);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return { ...about, outcome: 'lost', lsn, reason };
  }
  const time = await lastCommitTime(branch, services);
  const known = services.logs.get(branch.timeline);
  return {
    ...about,
    outcome: 'recovered',
    lsn,
    ...(time === undefined ? {} : { time }),
    ...(known === undefined ? {} : certaintyOf(known)),
  };
}

function certaintyOf({ complete, certainLsn, doubt }: LogKnowledge): Partial<RecoveredBranch> {
  if (complete) return { complete };
  return { complete, certainLsn: formatLsn(certainLsn), ...(doubt === undefined ? {} : { reason: doubt }) };
}

/** Says which part of history is missing between an ancestor's end and the point where this timeline needs it. */
function gapAbove(timeline: RestoredTimeline, restored: Restored): string | undefined {
  for (let at: RestoredTimeline | undefined = timeline; at?.ancestor; ) {
    const above: RestoredTimeline | undefined = restored.get(at.ancestor.timeline);
    if (!above) return 'its ancestor is not in objects';
    if (above.lsn < at.ancestor.lsn) {
      return `its parent's WAL is in objects up to ${formatLsn(above.lsn)}, and it starts at ${formatLsn(at.ancestor.lsn)}`;
    }
    at = above;
  }
  return undefined;
}

async function restart(
  about: { project: string; branch: string },
  branch: BranchStatus,
  { timeline, gap }: { timeline: RestoredTimeline; gap: string },
  { control }: ReviewServices,
): Promise<RecoveredBranch> {
  const lost = { ...about, outcome: 'lost' as const, lsn: formatLsn(timeline.startLsn), reason: gap };
  if (timeline.hasData || branch.parent === undefined || branch.primary) return lost;
  try {
    await control.deleteBranch(about.project, branch.name);
    const command = { type: 'branch.create' as const, name: branch.name, from: branch.parent };
    const made = await control.createBranch(about.project, command);
    return { ...about, outcome: 'restarted', lsn: formatLsn(made.startLsn), reason: gap };
  } catch (error) {
    return { ...lost, reason: `${gap}; ${error instanceof Error ? error.message : String(error)}` };
  }
}

/** Resolves when the pageserver has read all WAL for this shard of a timeline. */
async function untilRead(shard: string, lsn: number, { bus, clock }: ReviewServices): Promise<void> {
  const deadline = clock.monotonic() + READ_TIMEOUT_MS;
  for (;;) {
    const options = { timeoutMs: COMMAND_TIMEOUT_MS };
    const status = await sendCommand<{ lastLsn: number }>(
      bus,
      'pageserver',
      shard,
      { type: 'status' },
      options,
    );
    if (Number(status.lastLsn) >= lsn) return;
    if (clock.monotonic() > deadline) {
      throw new PalimpsestError(
        'timeout',
        `the pageserver has read its WAL only up to ${formatLsn(Number(status.lastLsn))} of ${formatLsn(lsn)}`,
      );
    }
    await clock.sleep(POLL_MS);
  }
}

/** The time of the last commit, found by asking which LSN belongs to a time. */
async function lastCommitTime(
  { timeline, createdMs }: BranchStatus,
  { bus, clock }: ReviewServices,
): Promise<string | undefined> {
  const lsnAt = async (timeMs: number): Promise<number> => {
    const options = { timeoutMs: COMMAND_TIMEOUT_MS };
    const command = { type: 'resolve-time', timeMs };
    const answer = await sendCommand<{ lsn: number }>(bus, 'pageserver', timeline, command, options);
    return Number(answer.lsn);
  };
  try {
    let high = clock.now();
    const newest = await lsnAt(high);
    let low = createdMs;
    if ((await lsnAt(low).catch(() => Number.NaN)) === newest) return undefined;
    while (high - low > 1) {
      const middle = Math.floor((low + high) / 2);
      const lsn = await lsnAt(middle).catch(() => Number.NaN);
      if (lsn === newest) high = middle;
      else low = middle;
    }
    return new Date(high).toISOString();
  } catch {
    // A history without any commit has no time.
    return undefined;
  }
}
