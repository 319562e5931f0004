/**
 * What is left of layouts that are over. Where a timeline's pages were spread over other shards, the objects of those that there were have
 * gone; a pageserver that had been cut off then may have stored some of them after that.
 *
 * 1. Of layouts that are certainly older than those that there are, all is left over: they had fewer shards, or were given up before.
 * 2. Of others, only what an attachment before the present ones has written: neither what a split is just making (generation 0), nor what a
 *    newer attachment writes that the manifest does not tell of yet.
 */
import { generationOf } from '../../actors/pageserver/layer-descriptor.ts';
import { shardsOfTimeline } from '../../actors/timeline/machine.ts';
import { placesOf } from '../../actors/timeline/shards.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { parseShardId } from '../../protocols/shard-layout.ts';
import type { Objects } from '../../runtime/ports/objects.ts';
import { readManifest, timelineKey } from '../node/manifests.ts';
import { contextOf } from '../node/recovered-timelines.ts';
import type { TimelineObjects } from './catalog.ts';

/** Where a timeline's pages are, as its manifest says. */
interface Layout {
  /** Names of the folders: of the shards that serve, are being made, or are about to go. */
  folders: ReadonlySet<string>;
  generation: number;
  /** How many shards serve. */
  count: number;
  /** Of the newest of the layouts. */
  attempt: number;
}

/** The keys of all objects that are left over, by the names of their folders. Reads the manifests of timelines with several folders. */
export async function leftOvers(
  objects: Objects,
  folders: Iterable<TimelineObjects>,
): Promise<Map<string, Set<string>>> {
  const left = new Map<string, Set<string>>();
  for (const [owner, all] of Map.groupBy(folders, (folder) => folder.owner)) {
    const withPages = all.filter(({ indexes, layers }) => indexes.length > 0 || layers.size > 0);
    if (withPages.length < 2) continue;
    const layout = await readLayout(objects, { tenant: all[0]!.tenant, timeline: owner });
    if (!layout) continue;
    for (const folder of withPages) {
      if (!layout.folders.has(folder.timeline)) left.set(folder.timeline, leftIn(folder, layout));
    }
  }
  return left;
}

function leftIn({ timeline, indexes, layers }: TimelineObjects, layout: Layout): Set<string> {
  const all = [
    ...indexes.map(({ key, generation }) => ({ key, generation })),
    ...Array.from(layers.keys(), (key) => ({ key, generation: generationOf(key) })),
  ];
  const left = isOlder(timeline, layout)
    ? all
    : all.filter(({ generation }) => generation > 0 && generation < layout.generation);
  return new Set(left.map(({ key }) => key));
}

/** Shards become only more, and a split that is given up comes before those with a higher number. */
function isOlder(folder: string, layout: Layout): boolean {
  const { count = 1, attempt = 0 } = parseShardId(folder) ?? {};
  return count < layout.count || attempt < layout.attempt;
}

/** Undefined where nothing is known for certain: without a manifest, or with one that cannot be read, which is told elsewhere. */
async function readLayout(
  objects: Objects,
  { tenant, timeline }: { tenant: string; timeline: string },
): Promise<Layout | undefined> {
  try {
    const context = contextOf(await readManifest(objects, timelineKey(tenant, timeline)));
    const current = shardsOfTimeline(context);
    const all = [current, context.next?.to, context.retiring].filter((each) => each !== undefined);
    return {
      folders: new Set(all.flatMap((each) => placesOf(timeline, each)).map(({ id }) => id)),
      generation: context.generation,
      count: current.pageservers.length,
      attempt: Math.max(...all.map(({ attempt = 0 }) => attempt)),
    };
  } catch (error) {
    const isTold =
      error instanceof PalimpsestError && error.code !== 'unavailable' && error.code !== 'timeout';
    if (isTold) return undefined;
    throw error;
  }
}
