/** Deletes what object storage has of a shard, or of a timeline. The index goes first: what is listed must exist. */
import { timelinePrefix } from '../../protocols/object-keys.ts';
import { parseShardId } from '../../protocols/shard-layout.ts';
import type { Objects } from '../../runtime/ports/objects.ts';

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

async function deleteInOrder(objects: Objects, keys: string[]): Promise<void> {
  keys.sort((a, b) => Number(b.includes('/index')) - Number(a.includes('/index')));
  for (const key of keys) await objects.delete(key);
}
