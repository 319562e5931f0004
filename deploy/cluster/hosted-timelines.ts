/** Which timelines the pageservers of a cluster serve, as they say themselves; all are asked at once, because a dead one takes its time. */
import type { TimelineStatus } from '../../actors/timeline/events.ts';
import { placesOf } from '../../actors/timeline/shards.ts';
import { toWireError } from '../../protocols/errors.ts';
import { parseShardId, type ShardTag, STRIPE_BLOCKS } from '../../protocols/shard-layout.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { Log } from '../../runtime/ports/log.ts';
import { type PageserverLife, pageserverNode } from './registry.ts';

const ASK_TIMEOUT_MS = 2_000;

export interface HostedTimeline {
  /** The pageserver's name. */
  pageserver: string;
  /** Of the shard: the timeline's where it has one. */
  timeline: string;
}

/** The shards of a timeline that are to be served, each by its name, with its pageserver; those that are about to, too. */
export function shardOwners(status: TimelineStatus): { id: string; pageserver: string }[] {
  const { timeline, pageserver, shards, nextShards, nextReady } = status;
  const now = shards ? placesOf(timeline, shards) : [{ id: timeline, pageserver }];
  return [...now, ...(nextShards && nextReady ? placesOf(timeline, nextShards) : [])];
}

/** Who is to serve what, for `detachStrays`: looked up after what is hosted was asked for. */
export interface Owners {
  /** Of timelines that are in use: the pageserver of each shard. */
  active: ReadonlyMap<string, ReadonlyMap<string, string>>;
  /** Whether there is such a timeline, also one that is just being placed, archived or deleted. */
  exists(timeline: string): boolean;
}

export function ownersOf(control: {
  timelineStatuses(): TimelineStatus[];
  hasTimeline(timeline: string): boolean;
}): Owners {
  const active = new Map(
    control.timelineStatuses().map((status) => {
      const { nextShards, timeline } = status;
      const coming = nextShards ? placesOf(timeline, nextShards) : [];
      const all = [...shardOwners(status), ...coming];
      return [timeline, new Map(all.map(({ id, pageserver }) => [id, pageserver]))];
    }),
  );
  return { active, exists: (timeline) => control.hasTimeline(timeline) };
}

/** Asks the pageservers of `nodes`; one that does not answer serves nothing that is known. */
export async function hostedTimelines(bus: Bus, nodes: readonly PageserverLife[]): Promise<HostedTimeline[]> {
  const answers = await Promise.all(
    nodes
      .filter(({ pageserverLife }) => pageserverLife !== undefined)
      .map(async ({ name }) => {
        const pageserver = pageserverNode(name);
        const timelines = await send<string[]>(bus, pageserver, { type: 'list' }).catch(() => []);
        return timelines.map((timeline) => ({ pageserver, timeline }));
      }),
  );
  return answers.flat();
}

/**
 * Detaches what is served beside the pageserver that `owners` names for it, and what nobody knows any more: it was deleted while its
 * pageserver could not be reached.
 */
export async function detachStrays(
  hosted: readonly HostedTimeline[],
  owners: Owners,
  { bus, log }: { bus: Bus; log: Log },
): Promise<void> {
  await Promise.all(
    hosted.map(async ({ timeline: id, pageserver }) => {
      const name = parseShardId(id);
      if (!name) return;
      const { timeline, number, count } = name;
      const known = owners.active.get(timeline);
      const owner = known?.get(id);
      if (known ? owner === pageserver : owners.exists(timeline)) return;
      const about = { timeline: id, node: pageserver, owner };
      log.warn(
        about,
        `a pageserver serves a timeline that ${known ? 'has moved' : 'was deleted'}; it is detached`,
      );
      const shard = count > 1 ? { shard: { number, count, stripeBlocks: STRIPE_BLOCKS } } : {};
      // One that has moved may come back, and finds its layers then.
      const local = known ? {} : { dropLocal: true };
      await send(bus, pageserver, { type: 'detach', timeline, ...shard, ...local }).catch((error) =>
        log.warn({ ...about, error: toWireError(error) }, 'it could not be detached yet'),
      );
    }),
  );
}

function send<T>(
  bus: Bus,
  pageserver: string,
  command: { type: string; timeline?: string; shard?: ShardTag; dropLocal?: boolean },
): Promise<T> {
  return sendCommand<T>(bus, 'pageserver-node', pageserver, command, { timeoutMs: ASK_TIMEOUT_MS });
}
