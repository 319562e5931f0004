/**
 * Which pageserver shard has which page of a timeline.
 *
 *   number = mix(relation's file number, block / stripeBlocks) mod count
 *
 * A layout is a project's: all of its timelines have the same, so that shard k of a branch reads what it shares with its parent from
 * shard k of that.
 *
 * 1. The file number alone stands for the relation: a database that is copied keeps its files' numbers, so that every page of the copy
 *    is where its source is. The fork does not count: the pages of an unlogged relation are those of its init fork.
 * 2. The count is a power of two. Shard k of n has what shards k, k + n, k + 2n ... of a multiple of n have together: a split
 *    moves no page between the shards that there were.
 * 3. The pages of status logs are on shard 0. What is no page is on all shards. Shard 0 answers for both: a basebackup is made of them.
 * 4. None of this ever changes: objects are named by it.
 * 5. The shards of a layout that was given up while it was made leave their names unused for ever: what is done for them may be carried out
 *    late. A layout made after it has names of its own, by its `attempt`.
 */
import { PalimpsestError } from './errors.ts';
import { isHexId } from './ids.ts';

/** 16 MiB of pages. */
export const STRIPE_BLOCKS = 2048;
export const SHARDS_MAX = 8;

export interface ShardLayout {
  /** How many shards: a power of two. */
  count: number;
  /** So many blocks that follow one another are on one shard. */
  stripeBlocks: number;
  /** How many layouts of the project had been given up when this one was asked for; absent: none. */
  attempt?: number;
}

/** One shard of a layout of several. */
export interface ShardTag extends ShardLayout {
  number: number;
}

/** What of a relation's tag says where its pages are. */
export interface FileTag {
  spc: number;
  rel: number;
}

/** The tablespace of status logs (commits, multixacts), whose pages stand beside those of relations. */
const STATUS_LOGS = 0;

/** Everything on one shard. */
export const ONE_SHARD: ShardLayout = { count: 1, stripeBlocks: STRIPE_BLOCKS };

/** The shard that has a page. */
export function shardOf({ spc, rel }: FileTag, block: number, { count, stripeBlocks }: ShardLayout): number {
  if (count === 1 || spc === STATUS_LOGS) return 0;
  return mix(rel, Math.floor(block / stripeBlocks)) & (count - 1);
}

/** Whether a shard has a page; without a tag it has all. */
export function ownsPage(shard: ShardTag | undefined, file: FileTag, block: number): boolean {
  return shard === undefined || shardOf(file, block, shard) === shard.number;
}

/** The end of the blocks after `block` that are on the same stripe. */
export function stripeEnd(block: number, { stripeBlocks }: ShardLayout): number {
  return (Math.floor(block / stripeBlocks) + 1) * stripeBlocks;
}

/** The parts of the blocks from `from` up to `to` that a shard has, in order; neighbours are one part. */
export function ownedRanges(
  shard: ShardTag | undefined,
  file: FileTag,
  from: number,
  to: number,
): { from: number; to: number }[] {
  if (shard === undefined) return from < to ? [{ from, to }] : [];
  const ranges: { from: number; to: number }[] = [];
  for (let at = from; at < to; ) {
    const end = Math.min(to, stripeEnd(at, shard));
    const last = ranges.at(-1);
    if (ownsPage(shard, file, at)) {
      if (last?.to === at) last.to = end;
      else ranges.push({ from: at, to: end });
    }
    at = end;
  }
  return ranges;
}

/** All shards of a layout; undefined stands for the one that has everything. */
export function shardsOf(layout: ShardLayout): (ShardTag | undefined)[] {
  if (layout.count === 1) return [undefined];
  return Array.from({ length: layout.count }, (_, number) => ({ number, ...layout }));
}

/** The shard of an older layout that had all pages which a shard of `count` times as many has now. */
export function splitFrom(shard: ShardTag, before: ShardLayout): ShardTag | undefined {
  if (before.count === 1) return undefined;
  return { ...before, number: shard.number % before.count };
}

/** Throws `invalid-argument` for a number of shards that cannot be. */
export function checkShardCount(count: number): void {
  if (Number.isInteger(count) && count >= 1 && count <= SHARDS_MAX && (count & (count - 1)) === 0) return;
  throw new PalimpsestError(
    'invalid-argument',
    `a project cannot have ${count} shards`,
    'the number of shards is 1, 2, 4 or 8',
  );
}

/** The name of a shard among those that its project has. */
export function shardName(number: number, count: number): string {
  return `${number}of${count}`;
}

/** How many shards there are in the layout of one with such a name. */
export function countOfShardName(name: string): number {
  return Number(name.slice(name.indexOf('of') + 2));
}

/**
 * The name of a timeline's shard, in subjects, journals and objects: the timeline's own while it has one shard, else
 * `<timeline>-<number>of<count>`, with `-<attempt>` behind it where layouts were given up before.
 */
export function shardId(timeline: string, shard: Omit<ShardTag, 'stripeBlocks'> | undefined): string {
  if (shard === undefined) return timeline;
  const { number, count, attempt } = shard;
  return `${timeline}-${shardName(number, count)}${attempt ? `-${attempt}` : ''}`;
}

const SHARD_ID = /^([0-9a-f]{32})(?:-([0-7])of([248])(?:-([1-9]\d{0,8}))?)?$/;

export interface ParsedShardId {
  timeline: string;
  number: number;
  count: number;
  attempt?: number;
}

/** Reads the name of a shard; undefined when it is something else. */
export function parseShardId(id: string): ParsedShardId | undefined {
  const match = SHARD_ID.exec(id);
  if (!match || !isHexId(match[1]!)) return undefined;
  const number = Number(match[2] ?? 0);
  const count = Number(match[3] ?? 1);
  const attempt = match[4] === undefined ? {} : { attempt: Number(match[4]) };
  return number < count ? { timeline: match[1]!, number, count, ...attempt } : undefined;
}

/** Spreads 64 bits over 32, so that each bit of the result hangs on all of them (the finaliser of MurmurHash3, twice). */
function mix(rel: number, stripe: number): number {
  return scramble(scramble(rel | 0) ^ stripe);
}

function scramble(value: number): number {
  let hash = value;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}
