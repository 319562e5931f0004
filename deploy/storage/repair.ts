/**
 * Mends what can be mended without any risk:
 *
 * - A layer that is missing or damaged is put back from a local copy whose every block is sound, and whose size and name are
 *   those that the index lists.
 * - An orphan is removed: a layer of an older generation than the newest index of its timeline that no index lists. No
 *   pageserver can come to need it, since each begins with the newest index.
 *
 * - So is what is left of shards that there are no more.
 *
 * Everything is looked at once more right before.
 */
import { decodeIndex } from '../../actors/pageserver/index-object.ts';
import { generationOf } from '../../actors/pageserver/layer-descriptor.ts';
import type { Objects } from '../../runtime/ports/objects.ts';
import { readCatalog } from './catalog.ts';
import type { Finding } from './findings.ts';
import { leftOvers } from './layout-check.ts';
import type { LocalCopies } from './local-copies.ts';

/** Carries out the repairs of `findings`, and notes in each what was done. Throws when what indexes list is not certain. */
export async function repair(
  objects: Objects,
  findings: Finding[],
  local: LocalCopies | undefined,
): Promise<void> {
  if (!findings.some((finding) => finding.repair)) return;
  // Whoever is an orphan now stays one, and what the newest index lists belongs there.
  const { listed, generations, left } = await readListing(objects);
  for (const { key, repair: wanted } of findings) {
    if (!wanted || key === undefined) continue;
    if (wanted.action === 'upload') {
      const bytes = listed.get(key);
      if (bytes === undefined || (await local?.healthyLayer(key, bytes)) !== wanted.path) continue;
      await objects.putFile(key, wanted.path);
      wanted.done = 'put back from the local copy';
    } else {
      const newest = generations.get(key.slice(0, key.lastIndexOf('/') + 1));
      const isOlder = newest !== undefined && generationOf(key) < newest;
      if (listed.has(key) || (!isOlder && !left.has(key))) continue;
      await objects.delete(key);
      wanted.done = 'removed';
    }
  }
}

interface Listing {
  /** Sizes of all layers that any index lists. */
  listed: Map<string, number>;
  /** Generation of the newest index, by the folder of its timeline. */
  generations: Map<string, number>;
  /** Keys of what is left of layouts that are over. */
  left: Set<string>;
}

async function readListing(objects: Objects): Promise<Listing> {
  const catalog = await readCatalog(objects);
  const folders = await leftOvers(objects, catalog.timelines.values());
  const left = new Set([...folders.values()].flatMap((keys) => [...keys]));
  const listing: Listing = { listed: new Map(), generations: new Map(), left };
  for (const { prefix, timeline, indexes } of catalog.timelines.values()) {
    if (folders.has(timeline)) continue;
    for (const { key, generation } of indexes) {
      const { layers } = decodeIndex(key, await objects.get(key));
      for (const layer of layers) listing.listed.set(layer.key, layer.bytes);
      listing.generations.set(prefix, generation);
    }
  }
  return listing;
}
