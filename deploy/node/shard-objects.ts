/** Deletes what object storage has of a shard, or of a timeline. The index goes first: what is listed must exist. */
import { newestIndex } from '../../actors/pageserver/index-object.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { formatLsn } from '../../protocols/lsn.ts';
import { type TimelineKey, timelinePrefix } from '../../protocols/object-keys.ts';
import { parseShardId, type ShardTag, shardId } from '../../protocols/shard-layout.ts';
import type { Objects } from '../../runtime/ports/objects.ts';
import { inParallel } from './in-parallel.ts';

/** Throws `unavailable` while the objects of a shard reach further than those of one that takes its place. */
export async function checkReplaced(
  objects: Objects,
  key: TimelineKey & { shard?: ShardTag | undefined },
  replacedBy: readonly ShardTag[],
): Promise<void> {
  const endOf = async (shard: ShardTag | undefined) =>
    (await newestIndex(objects, { ...key, shard }))?.diskConsistentLsn ?? 0;
  const [end, ...ends] = await Promise.all([endOf(key.shard), ...replacedBy.map(endOf)]);
  const at = ends.findIndex((each) => each < end!);
  if (at < 0) return;
  const [old, other] = [key.shard, replacedBy[at]].map((shard) => shardId(key.timeline, shard));
  throw new PalimpsestError(
    'unavailable',
    `the objects of shard ${old} reach up to ${formatLsn(end!)}, those of ${other} only up to ${formatLsn(ends[at]!)}`,
    'try again when it has followed',
  );
}

/** Layers and indexes alone: in the folder of a shard that was alone there is the WAL of its timeline, too. */
export async function deleteShardObjects(objects: Objects, prefix: string): Promise<void> {
  const keys: string[] = [];
  for await (const { key } of objects.list(`${prefix}/`)) {
    const name = key.slice(prefix.length + 1);
    if (/^index-[0-9a-f]{8}$/.test(name) || (!name.includes('/') && name.endsWith('.layer'))) keys.push(key);
  }
  await deleteInOrder(objects, keys);
}

/** Everything: the folders of the timeline and of its shards, and the templates that were made for it. */
export async function deleteTimelineObjects(
  objects: Objects,
  { tenant, timeline }: { tenant: string; timeline: string },
): Promise<void> {
  const keys: string[] = [];
  const timelines = timelinePrefix({ tenant, timeline });
  for (const prefix of [timelines, `templates/branches/${timeline}`]) {
    const folder = prefix.length - timeline.length;
    for await (const { key } of objects.list(prefix)) {
      const name = key.slice(folder, key.indexOf('/', folder));
      if (parseShardId(name)?.timeline === timeline) keys.push(key);
    }
  }
  await deleteInOrder(objects, keys);
}

/** Indexes first: what an index lists must be there. A store answers many requests together almost as fast as one. */
async function deleteInOrder(objects: Objects, keys: readonly string[]): Promise<void> {
  const isIndex = (key: string) => key.includes('/index');
  const others = keys.filter((key) => !isIndex(key));
  for (const part of [keys.filter(isIndex), others]) await inParallel(part, (key) => objects.delete(key));
}
