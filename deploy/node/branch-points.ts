/**
 * At a start: ancestors hold the start of every branch, also of those made by earlier versions, and of no other.
 */
import { timelineStatus } from '../../actors/timeline/decide.ts';
import type { TimelineCommand } from '../../actors/timeline/events.ts';
import type { ActorHandle } from '../../runtime/host/definition.ts';
import type { Log } from '../../runtime/ports/log.ts';
import { inParallel } from './in-parallel.ts';

export async function matchBranchPoints(
  timelines: ReadonlyMap<string, ActorHandle<TimelineCommand>>,
  log: Log,
): Promise<void> {
  const ask = (actor: ActorHandle<TimelineCommand>, command: TimelineCommand) =>
    // One timeline that is in no state for it must not keep all others from starting.
    actor.dispatch(command).catch((error) => log.error({ timeline: actor.id, command, error }, 'refused'));

  await inParallel([...timelines.values()], async (actor) => {
    const { timeline, ancestor, held } = timelineStatus(actor.snapshot());
    const above = ancestor && timelines.get(ancestor.timeline);
    if (above && timelineStatus(above.snapshot()).held[timeline] !== ancestor.lsn) {
      await ask(above, { type: 'hold-branch-point', child: timeline, lsn: ancestor.lsn });
    }
    for (const child of Object.keys(held)) {
      if (!timelines.has(child)) await ask(actor, { type: 'release-branch-point', child });
    }
  });
}
