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

interface OwnedTimeline {
  tenant: string;
  /** The pageserver of each shard. */
  shards: ReadonlyMap<string, string>;
  /** Shards whose objects are still needed, although nobody is to serve them. */
  retiring: ReadonlySet<string>;
}

/** Who is to serve what, for `detachStrays`: looked up after what is hosted was asked for. */
export interface Owners {
  /** Those that are in use. */
  active: ReadonlyMap<string, OwnedTimeline>;
  /** Whether there is such a timeline, also one that is just being placed, archived or deleted. */
  exists(timeline: string): boolean;
}

export function ownersOf(control: {
  timelineStatuses(): TimelineStatus[];
  hasTimeline(timeline: string): boolean;
}): Owners {
  const active = new Map(
    control.timelineStatuses().map((status) => {
      const { tenant, timeline, nextShards, retiringShards } = status;
      const coming = nextShards ? placesOf(timeline, nextShards) : [];
      const going = retiringShards ? placesOf(timeline, retiringShards) : [];
      const all = [...shardOwners(status), ...coming];
      const shards = new Map(all.map(({ id, pageserver }) => [id, pageserver]));
      return [timeline, { tenant, shards, retiring: new Set(going.map(({ id }) => id)) }];
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
 * pageserver could not be reached. A shard of a layout that is over goes with its objects: it may have stored some since the others went.
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
      const { timeline, ...tag } = name;
      const known = owners.active.get(timeline);
      const owner = known?.shards.get(id);
      if (known ? owner === pageserver : owners.exists(timeline)) return;
      const about = { timeline: id, node: pageserver, owner };
      log.warn(
        about,
        `a pageserver serves a timeline that ${known ? 'has moved' : 'was deleted'}; it is detached`,
      );
      const shard = tag.count > 1 ? { shard: { ...tag, stripeBlocks: STRIPE_BLOCKS } } : {};
      const isOver = known && owner === undefined && !known.retiring.has(id);
      // One that has moved may come back, and finds its layers then.
      const local = known ? {} : { dropLocal: true };
      const command = isOver ? { type: 'delete-shard', tenant: known.tenant } : { type: 'detach', ...local };
      await send(bus, pageserver, { ...command, timeline, ...shard }).catch((error) =>
        log.warn({ ...about, error: toWireError(error) }, 'it could not be detached yet'),
      );
    }),
  );
}

function send<T>(
  bus: Bus,
  pageserver: string,
  command: { type: string; tenant?: string; timeline?: string; shard?: ShardTag; dropLocal?: boolean },
): Promise<T> {
  return sendCommand<T>(bus, 'pageserver-node', pageserver, command, { timeoutMs: ASK_TIMEOUT_MS });
}
