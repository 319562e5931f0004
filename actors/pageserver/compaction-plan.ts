/**
 * What background work a shard's layers need: pure decisions over descriptors and sizes.
 *
 * 1. Level 0 deltas are merged, the oldest first and without leaving one out, so that all of level 0 stays newer than level 1.
 * 2. A range of keys gets an image when reads of it go through several deltas that together are worth one.
 */
import { BLOCK_MAX, compareKeys, FIRST_KEY, LAST_KEY, type PageKey } from '../../protocols/layers/key.ts';
import { PAGE_BYTES } from '../../protocols/lsn.ts';
import type { RelationTag } from '../../protocols/pages/types.ts';
import { ownedRanges, type ShardTag } from '../../protocols/shard-layout.ts';
import type { LayerDescriptor } from './layer-descriptor.ts';

export interface CompactionOptions {
  /** So many level 0 deltas are merged, or fewer that have mergeBytes. */
  mergeLayers: number;
  mergeBytes: number;
  /** Most inputs of one merge. */
  mergeLayersMax: number;
  /** Size at which a merged file is ended. */
  targetBytes: number;
  /** Pages of one image layer. */
  imagePages: number;
  /** Garbage collection makes images, and merges, for no less than this. */
  gcGainBytesMin: number;
}

export const COMPACTION: CompactionOptions = {
  mergeLayers: 10,
  mergeBytes: 128 * 1024 * 1024,
  mergeLayersMax: 32,
  targetBytes: 64 * 1024 * 1024,
  imagePages: 16_384,
  gcGainBytesMin: 1024 * 1024,
};

/** When deltas above an image are worth a new one: so many of them, with so large a share of its bytes. */
const IMAGE_RULES = [
  { deltas: 3, share: 0.3 },
  { deltas: 10, share: 0.1 },
  { deltas: 30, share: 0.02 },
];
/** What pages take in an image where none tells. */
const COMPRESSED_SHARE = 0.25;

/** The level 0 deltas to be merged now, oldest first; none when it can wait. */
export function planMerge(layers: LayerDescriptor[], options: CompactionOptions): LayerDescriptor[] {
  const open = layers
    .filter(({ kind, level }) => kind === 'delta' && level === 0)
    .sort((a, b) => a.startLsn - b.startLsn);
  const bytes = open.reduce((total, layer) => total + layer.bytes, 0);
  const isDue = open.length >= options.mergeLayers || (open.length > 1 && bytes >= options.mergeBytes);
  return isDue ? open.slice(0, options.mergeLayersMax) : [];
}

/** A relation as of some LSN. */
export interface SizedRelation extends RelationTag {
  relation: number;
  blocks: number;
}

/** Part of the key space; all parts together are all of it. */
export interface Partition {
  firstKey: PageKey;
  lastKey: PageKey;
  pages: number;
  /** The blocks from `from` up to `to` of each relation. */
  ranges: { relation: RelationTag & { relation: number }; from: number; to: number }[];
}

/** Cuts the key space into parts of about `pages` pages. Large relations are cut at multiples of it: the same each time. */
export function partitionKeys(relations: SizedRelation[], pages: number): Partition[] {
  const sorted = relations
    .filter(({ blocks }) => blocks > 0)
    .sort((a, b) => compareKeys({ ...a, block: 0 }, { ...b, block: 0 }));
  const parts: Partition[] = [];
  let part: Partition = { firstKey: FIRST_KEY, lastKey: LAST_KEY, pages: 0, ranges: [] };
  const end = (next: PageKey) => {
    if (part.pages === 0) return;
    parts.push({ ...part, lastKey: keyBefore(next) });
    part = { firstKey: next, lastKey: LAST_KEY, pages: 0, ranges: [] };
  };
  for (const relation of sorted) {
    const { spc, db, rel, fork, blocks } = relation;
    if (part.pages > 0 && part.pages + blocks > pages) end({ spc, db, rel, fork, block: 0 });
    for (let from = 0; from < blocks; from += pages) {
      const to = Math.min(blocks, from + pages);
      if (from > 0) end({ spc, db, rel, fork, block: from });
      part.ranges.push({ relation, from, to });
      part.pages += to - from;
    }
  }
  parts.push(part);
  return parts;
}

/** The parts with only the pages that a shard of several has. */
export function partitionOfShard(
  relations: SizedRelation[],
  pages: number,
  shard: ShardTag | undefined,
): Partition[] {
  if (shard === undefined) return partitionKeys(relations, pages);
  return partitionKeys(relations, pages * shard.count).map((part) => {
    const ranges = part.ranges.flatMap(({ relation, from, to }) =>
      ownedRanges(shard, relation, from, to).map((range) => ({ relation, ...range })),
    );
    return { ...part, ranges, pages: ranges.reduce((sum, { from, to }) => sum + to - from, 0) };
  });
}

/** How a part is covered by layers at an LSN. */
export interface Coverage {
  /** LSN of the oldest of the newest images of its keys; -1 when some keys have none. */
  imageLsn: number;
  imageBytes: number;
  /** Level 1 deltas above that. */
  deltas: number;
  /** Stored bytes that they have of the part. */
  deltaBytes: number;
}

/** Whether a part should get an image. */
export function deservesImage(part: Partition, { deltas, deltaBytes, imageBytes }: Coverage): boolean {
  if (part.pages === 0) return false;
  const bytes = imageBytes > 0 ? imageBytes : part.pages * PAGE_BYTES * COMPRESSED_SHARE;
  return IMAGE_RULES.some((rule) => deltas >= rule.deltas && deltaBytes >= rule.share * bytes);
}

/** The key before one that is not the first. */
export function keyBefore({ spc, db, rel, fork, block }: PageKey): PageKey {
  if (block > 0) return { spc, db, rel, fork, block: block - 1 };
  if (fork > 0) return { spc, db, rel, fork: fork - 1, block: BLOCK_MAX };
  if (rel > 0) return { ...LAST_KEY, spc, db, rel: rel - 1 };
  if (db > 0) return { ...LAST_KEY, spc, db: db - 1 };
  return { ...LAST_KEY, spc: spc - 1 };
}
