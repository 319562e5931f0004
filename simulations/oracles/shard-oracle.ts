/**
 * What must hold of timelines whose pages are spread over shards, and of what is left behind by layouts that are over.
 *
 * 1. Objects of a layout go only when the timeline is told to do without it.
 * 2. Safekeepers do without WAL only as far as the objects of all shards of one layout reach, which the timeline has or has just had: one
 *    that is being made may be given up.
 * 3. When everything is over, there is nothing of any other layout than the timeline's own: no shard that is served, and no objects but
 *    those that somebody stored who had been cut off, and ended before it could be told.
 */
import { decodeIndex } from '../../actors/pageserver/index-object.ts';
import type { TimelineStatus } from '../../actors/timeline/events.ts';
import { placesOf } from '../../actors/timeline/shards.ts';
import { formatLsn } from '../../protocols/lsn.ts';
import { parseShardId, type ShardTag, shardId } from '../../protocols/shard-layout.ts';
import type { BusCommand } from '../cluster/changed-bus.ts';
import type { ReplicaProbe } from '../cluster/safekeeper-process.ts';
import type { SimBucket } from '../world/objects.ts';
import type { World } from '../world/world.ts';

const INDEX = /^tenants\/[^/]+\/timelines\/([^/]+)\/index-[0-9a-f]{8}$/;
const OF_SHARD = /^tenants\/[^/]+\/timelines\/([^/]+)\/(?:index-[0-9a-f]{8}|[^/]+\.layer)$/;

export interface ShardOracleOptions {
  world: World;
  bucket: SimBucket;
  /** Those that exist, as the control plane knows them now; none while it is down. */
  timelines(): TimelineStatus[];
  /** The live replicas of all safekeepers. */
  replicas(): ReplicaProbe[];
}

export class ShardOracle {
  readonly #options: ShardOracleOptions;
  /** Shards whose objects may go. */
  readonly #leaving = new Set<string>();
  /** What there was of them when that was decided, with its version. */
  readonly #going = new Map<string, string>();
  readonly #deleted = new Set<string>();
  /** Of index objects, by the version that was read. */
  readonly #ends = new Map<string, { etag: string; lsn: number }>();

  constructor(options: ShardOracleOptions) {
    this.#options = options;
  }

  /** The control plane tells a pageserver something. */
  told({ type, timeline, shard }: BusCommand): void {
    const id = shardId(String(timeline), shard as ShardTag | undefined);
    if (type === 'delete') this.#deleted.add(String(timeline));
    else if (type === 'delete-shard') this.#leave(String(timeline), id);
    else if (type === 'split' || type === 'attach') this.#leaving.delete(id);
  }

  #leave(timeline: string, id: string): void {
    const { world, bucket, timelines } = this.#options;
    if (!this.#leaving.has(id)) {
      for (const [key, { etag }] of bucket.objects) {
        if (OF_SHARD.exec(key)?.[1] === id) this.#going.set(key, etag);
      }
    }
    this.#leaving.add(id);
    const status = timelines().find((each) => each.timeline === timeline);
    // Its shards go one after another.
    if (!status) this.#deleted.add(timeline);
    if (status?.state !== 'active' || !idsOf(status).has(id)) return;
    world.fail('the shards in use stay', `${id} is deleted, and the timeline's pages are there`);
  }

  /** Whether the objects in a timeline's or a shard's folder may go. */
  mayGo(folder: string): boolean {
    const name = folder.slice(folder.lastIndexOf('/') + 1);
    return this.#leaving.has(name) || this.#deleted.has(parseShardId(name)?.timeline ?? name);
  }

  /** Whether the timeline as a whole goes. */
  isDeleted(timeline: string): boolean {
    return this.#deleted.has(timeline);
  }

  /** Looks whether some safekeeper would do without WAL that is needed. */
  checkWal(): void {
    const { world, replicas } = this.#options;
    const kept = this.#kept();
    for (const { snapshot } of replicas()) {
      const { identity, offload } = snapshot.context;
      const known = kept.get(identity.timeline);
      if (known === undefined || this.#deleted.has(identity.timeline) || snapshot.value === 'removed')
        continue;
      const upTo = Math.max(identity.startLsn, known);
      if (!offload || offload.remoteLsn <= upTo) continue;
      world.fail(
        'WAL is kept for the slowest shard',
        `the objects of timeline ${identity.timeline} reach ${formatLsn(upTo)}, ` +
          `and ${identity.node} would do without the WAL before ${formatLsn(offload.remoteLsn)}`,
      );
    }
  }

  /** Up to where the objects of all shards of one layout have everything, by timeline, of those that are known now. */
  #kept(): Map<string, number> {
    const ends = new Map<string, number>();
    for (const [key, object] of this.#options.bucket.objects) {
      const name = INDEX.exec(key)?.[1];
      if (name !== undefined) ends.set(name, Math.max(ends.get(name) ?? 0, this.#endOf(key, object)));
    }
    const kept = new Map<string, number>();
    for (const { timeline, shards, retiringShards } of this.#options.timelines()) {
      const layouts = [shards ? placesOf(timeline, shards).map(({ id }) => id) : [timeline]];
      if (retiringShards) layouts.push(placesOf(timeline, retiringShards).map(({ id }) => id));
      const slowest = layouts.map((ids) => Math.min(...ids.map((id) => ends.get(id) ?? 0)));
      kept.set(timeline, Math.max(...slowest));
    }
    return kept;
  }

  #endOf(key: string, { etag, data }: { etag: string; data: Uint8Array }): number {
    const known = this.#ends.get(key);
    if (known?.etag === etag) return known.lsn;
    const lsn = decodeIndex(key, data).diskConsistentLsn;
    this.#ends.set(key, { etag, lsn });
    return lsn;
  }

  /** Nothing of a layout is left that is over; `served` are the shards that each pageserver serves. */
  checkEnd(served: ReadonlyMap<string, readonly string[]>): void {
    const { world, bucket, timelines } = this.#options;
    const own = new Map(timelines().map((status) => [status.timeline, idsOf(status)]));
    const isOver = (name: string) => {
      const known = own.get(parseShardId(name)?.timeline ?? '');
      return known !== undefined && !known.has(name);
    };
    const left = [...bucket.objects.keys()].filter((key) => isOver(OF_SHARD.exec(key)?.[1] ?? ''));
    const forgotten = left.filter(
      (key) =>
        this.#going.get(key) === bucket.objects.get(key)!.etag || !this.#leaving.has(OF_SHARD.exec(key)![1]!),
    );
    if (forgotten.length > 0)
      world.fail('nothing of an old layout is left', `objects: ${forgotten.join(', ')}`);
    // By a pageserver that was cut off, and ended before it could be told: a scrub finds them.
    if (left.length > 0) world.mark('shards: an old one stored something when its objects had gone');
    for (const [pageserver, ids] of served) {
      const strays = ids.filter(isOver);
      if (strays.length > 0)
        world.fail('nothing of an old layout is left', `${pageserver} serves ${strays.join(', ')}`);
    }
    if ([...own.values()].some((ids) => ids.size > 1))
      world.mark('shards: nothing of an old layout was left');
  }
}

/** The shards that a timeline's pages are on. */
function idsOf({ timeline, shards }: TimelineStatus): Set<string> {
  return new Set(shards ? placesOf(timeline, shards).map(({ id }) => id) : [timeline]);
}
