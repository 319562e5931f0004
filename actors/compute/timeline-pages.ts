/**
 * The pages of a timeline, wherever they are: on one pageserver, or on several shards by stripes of blocks. A request that goes over the
 * end of a stripe is asked for in parts.
 *
 * 1. The layout that a compute starts with may be replaced while it runs. A shard that is asked for what it does not have refuses it; a
 *    shard that nobody serves any more is not found. In both cases the layout is asked for, and what waits is asked for again.
 * 2. With one shard nothing is done per request but handing it on.
 * 3. All shards of all layouts give the same bytes: an answer is right whichever layout it was asked by.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { type Lsn, PAGE_BYTES } from '../../protocols/lsn.ts';
import type { PageTag } from '../../protocols/pages/messages.ts';
import type { Basebackup, ReadPoint, RelationEntry, RelationTag } from '../../protocols/pages/types.ts';
import {
  ONE_SHARD,
  type ShardLayout,
  shardId,
  shardOf,
  shardsOf,
  stripeEnd,
} from '../../protocols/shard-layout.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import { PageClient } from '../pageserver/page-client.ts';
import type { PageSource } from './files/file-content.ts';
import { StoragePages } from './storage-pages.ts';

const RETRY_MS = 20;

export interface TimelinePagesOptions {
  clock: Clock;
  timeline: string;
  /** As far as it is known at the start; one shard when absent. */
  layout?: ShardLayout | undefined;
  /** Where the channels of a shard are opened now. Throws `unavailable` when nobody serves it. */
  find(shard: string): Promise<string>;
  open(address: string, shard: string): Promise<Channel>;
  /** Limit of one question, with all its attempts. */
  timeoutMs: number;
}

/** Where a compute has its pages from. */
export interface ComputePages extends PageSource {
  /** How they are spread over shards; all on one when absent. */
  readonly layout?: ShardLayout;
  connect(): Promise<void>;
  getPageList(request: ReadPoint & { pages: PageTag[] }): Promise<Uint8Array>;
  getBasebackup(lsn: Lsn): Promise<Basebackup>;
  close(): void;
}

type PagesRequest = ReadPoint & RelationTag & { firstBlock: number; count: number };

export class TimelinePages implements ComputePages {
  readonly #options: TimelinePagesOptions;
  #layout: ShardLayout;
  #shards: StoragePages[];
  #learning: Promise<void> | undefined;
  #closed = false;

  constructor(options: TimelinePagesOptions) {
    this.#options = options;
    this.#layout = options.layout ?? ONE_SHARD;
    this.#shards = this.#shardsOf(this.#layout);
  }

  /** How the pages are spread, as far as it is known. */
  get layout(): ShardLayout {
    return this.#layout;
  }

  /** Opens the channels ahead of the first question. */
  async connect(): Promise<void> {
    await Promise.all(this.#shards.map((shard) => shard.connect()));
  }

  getPages(request: PagesRequest, into?: Uint8Array): Promise<Uint8Array> {
    return this.#ask(() =>
      this.#layout.count === 1 ? this.#shards[0]!.getPages(request, into) : this.#split(request, into),
    );
  }

  getPageList(request: ReadPoint & { pages: PageTag[] }): Promise<Uint8Array> {
    return this.#ask(() =>
      this.#layout.count === 1 ? this.#shards[0]!.getPageList(request) : this.#splitList(request),
    );
  }

  getDirectory(request: ReadPoint & { db: number }): Promise<RelationEntry[]> {
    return this.#ask(() => this.#shards[0]!.getDirectory(request));
  }

  getBasebackup(lsn: Lsn): Promise<Basebackup> {
    return this.#ask(() => this.#shards[0]!.getBasebackup(lsn));
  }

  close(): void {
    this.#closed = true;
    for (const shard of this.#shards) shard.close();
  }

  async #split(request: PagesRequest, into: Uint8Array | undefined): Promise<Uint8Array> {
    const { firstBlock, count } = request;
    const end = firstBlock + count;
    const firstEnd = stripeEnd(firstBlock, this.#layout);
    if (firstEnd >= end) return this.#shardOf(request, firstBlock).getPages(request, into);
    const pages = into ?? new Uint8Array(count * PAGE_BYTES);
    const parts: Promise<unknown>[] = [];
    for (let from = firstBlock; from < end; ) {
      const to = Math.min(end, stripeEnd(from, this.#layout));
      const place = pages.subarray((from - firstBlock) * PAGE_BYTES, (to - firstBlock) * PAGE_BYTES);
      const part = { ...request, firstBlock: from, count: to - from };
      parts.push(this.#shardOf(request, from).getPages(part, place));
      from = to;
    }
    await allOrFirstError(parts);
    return pages;
  }

  async #splitList(request: ReadPoint & { pages: PageTag[] }): Promise<Uint8Array> {
    const pages = new Uint8Array(request.pages.length * PAGE_BYTES);
    const byShard = Map.groupBy(request.pages.keys(), (at) => {
      const page = request.pages[at]!;
      return this.#shardOf(page, page.block);
    });
    const parts = [...byShard].map(async ([shard, places]) => {
      const part = await shard.getPageList({ ...request, pages: places.map((at) => request.pages[at]!) });
      places.forEach((at, i) => {
        pages.set(part.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES), at * PAGE_BYTES);
      });
    });
    await allOrFirstError(parts);
    return pages;
  }

  #shardOf(relation: RelationTag, block: number): StoragePages {
    return this.#shards[shardOf(relation, block, this.#layout)]!;
  }

  #ask<T>(question: () => Promise<T>): Promise<T> {
    return question().catch((error) => this.#again(error, question));
  }

  /** Asks again by the layout as it is now, when it was another that it was asked by. */
  async #again<T>(first: unknown, question: () => Promise<T>): Promise<T> {
    const { clock, timeoutMs } = this.#options;
    const deadline = clock.monotonic() + timeoutMs;
    for (let error = first; ; ) {
      if (!isWrongShard(error) || this.#closed || clock.monotonic() >= deadline) throw error;
      await this.#learn();
      try {
        return await question();
      } catch (next) {
        error = next;
      }
    }
  }

  /** One shard of several that is not there may be of a layout that is over. */
  async #find(id: string, layout: ShardLayout): Promise<string> {
    try {
      return await this.#options.find(id);
    } catch (error) {
      if (layout.count === 1 || this.#closed) throw error;
      if (layout === this.#layout && isSame(await this.#askLayout().catch(() => layout), layout)) throw error;
      throw new PalimpsestError('wrong-shard', `shard ${id} is of a layout that is over`);
    }
  }

  #learn(): Promise<void> {
    this.#learning ??= this.#learnOnce().finally(() => {
      this.#learning = undefined;
    });
    return this.#learning;
  }

  /** Takes the layout as it is now, and leaves the shards of the one before when it is another. */
  async #learnOnce(): Promise<void> {
    const { clock, timeoutMs } = this.#options;
    const deadline = clock.monotonic() + timeoutMs;
    for (;;) {
      try {
        const layout = await this.#askLayout();
        if (!isSame(layout, this.#layout)) this.#take(layout);
        else await clock.sleep(RETRY_MS);
        return;
      } catch (error) {
        const mayPass = error instanceof PalimpsestError && PASSING.has(error.code);
        if (!mayPass || this.#closed || clock.monotonic() >= deadline) throw error;
        await clock.sleep(RETRY_MS);
      }
    }
  }

  /** The layout, from the shard that answers for the timeline. */
  async #askLayout(): Promise<ShardLayout> {
    const { clock, timeline, timeoutMs, find, open } = this.#options;
    const channel = await open(await find(timeline), timeline);
    const client = new PageClient({ clock, channel, timeoutMs });
    try {
      return await client.getLayout();
    } finally {
      client.close();
    }
  }

  #take(layout: ShardLayout): void {
    const before = this.#shards;
    this.#layout = layout;
    this.#shards = this.#shardsOf(layout);
    // What was asked for there is asked for again here.
    for (const shard of before) shard.leave();
  }

  #shardsOf(layout: ShardLayout): StoragePages[] {
    const { clock, timeline, timeoutMs, open } = this.#options;
    return shardsOf(layout).map((tag) => {
      const id = shardId(timeline, tag);
      return new StoragePages({
        clock,
        timeoutMs,
        find: () => this.#find(id, layout),
        open: (address) => open(address!, id),
      });
    });
  }
}

/** Errors of a pageserver that is just being replaced. */
const PASSING = new Set<string>(['unavailable', 'timeout']);

function isWrongShard(error: unknown): boolean {
  return error instanceof PalimpsestError && error.code === 'wrong-shard';
}

function isSame(a: ShardLayout, b: ShardLayout): boolean {
  return a.count === b.count && a.stripeBlocks === b.stripeBlocks && a.attempt === b.attempt;
}

/** All of them are over when this resolves or throws: the memory that they write to is the caller's. */
async function allOrFirstError(parts: Promise<unknown>[]): Promise<void> {
  for (const outcome of await Promise.allSettled(parts)) {
    if (outcome.status === 'rejected') throw outcome.reason;
  }
}
