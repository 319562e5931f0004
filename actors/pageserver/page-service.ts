/**
 * Serves the page service of one shard on one channel. A request that memory can answer is answered before the next one is
 * looked at; others wait for WAL or layers without holding those behind them.
 */
import { PalimpsestError, toWireError } from '../../protocols/errors.ts';
import { LATEST_LSN, PAGE_BYTES } from '../../protocols/lsn.ts';
import {
  BASEBACKUP,
  DIRECTORY,
  decodeGetBasebackup,
  decodeGetDirectory,
  decodeGetPageList,
  decodeGetPages,
  encodeBasebackup,
  encodeDirectory,
  encodeFailed,
  encodeLayout,
  encodeRequestId,
  FAILED,
  GET_BASEBACKUP,
  GET_DIRECTORY,
  GET_LAYOUT,
  GET_PAGE_LIST,
  GET_PAGES,
  LAYOUT,
  PAGES,
  requestIdOf,
} from '../../protocols/pages/messages.ts';
import { FORK_INIT, FORK_MAIN, type ReadPoint, type RelationTag } from '../../protocols/pages/types.ts';
import { ONE_SHARD, ownsPage, stripeEnd } from '../../protocols/shard-layout.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import type { PageBatch } from './page-reader.ts';
import type { Shard } from './shard.ts';
import { basebackupAt, directoryAt } from './shard-queries.ts';
import type { ShardTools } from './tools.ts';

/** A reader that does not take its answers is not asked for more. */
const QUEUED_BYTES_MAX = 16 * 1024 * 1024;
const REQUESTS_MAX = 1024;
const LOOKED_UP_MAX = 64;
const SPARE_ANSWERS_MAX = 4;

export interface PageServiceOptions {
  shard: Shard;
  tools: ShardTools;
  /** How long a request waits for WAL. */
  waitTimeoutMs: number;
  /** Called with the duration of each page request and its number of pages. */
  onServed?(milliseconds: number, pages: number): void;
}

export class PageService {
  /** Where the pages of one answer are put together: fresh memory for each would keep the garbage collector busy. */
  static readonly #spare: Uint8Array[] = [];
  readonly #options: PageServiceOptions;
  readonly #channel: Channel;
  /** Moments whose relations are known. */
  readonly #lookedUp = new Set<number>();
  #requests = 0;
  #paused = false;

  constructor(channel: Channel, options: PageServiceOptions) {
    this.#channel = channel;
    this.#options = options;
    channel.onFrame((type, body) => this.#receive(type, body));
  }

  static #takeMemory(bytes: number): Uint8Array {
    const spare = PageService.#spare.pop();
    return spare && spare.length >= bytes ? spare : new Uint8Array(bytes);
  }

  #receive(type: number, body: Uint8Array): void {
    let requestId = 0;
    try {
      requestId = requestIdOf(body);
      const work = this.#serve(type, body);
      if (!work) return;
      this.#requests++;
      this.#holdBack();
      work.then(
        () => this.#done(),
        (error) => {
          this.#answerFailure(requestId, error);
          this.#done();
        },
      );
    } catch (error) {
      this.#answerFailure(requestId, error);
    }
  }

  #serve(type: number, body: Uint8Array): Promise<void> | undefined {
    switch (type) {
      case GET_PAGES:
        return this.#getPages(body);
      case GET_PAGE_LIST:
        return this.#getPageList(body);
      case GET_DIRECTORY:
        return this.#getDirectory(decodeGetDirectory(body));
      case GET_BASEBACKUP:
        return this.#getBasebackup(decodeGetBasebackup(body));
      case GET_LAYOUT:
        this.#channel.send(LAYOUT, body, encodeLayout(this.#options.shard.spec.shard ?? ONE_SHARD));
        return undefined;
      default:
        throw new PalimpsestError('unsupported', `the page service knows no frame of type ${type}`);
    }
  }

  #getPages(body: Uint8Array): Promise<void> | undefined {
    const request = decodeGetPages(body);
    this.#checkOwned(request, request.firstBlock, request.count);
    const blocks = new Float64Array(request.count);
    for (let i = 0; i < blocks.length; i++) blocks[i] = request.firstBlock + i;
    return this.#afterWait(request, () => {
      const relation = this.#servingRelation(request, this.#lsnOf(request));
      if (relation instanceof Promise) {
        return relation.then((found) => this.#sendPages(request, repeated(found, blocks)));
      }
      return this.#sendPages(request, repeated(relation, blocks));
    });
  }

  #getPageList(body: Uint8Array): Promise<void> | undefined {
    const request = decodeGetPageList(body);
    if (this.#options.shard.spec.shard)
      for (const page of request.pages) this.#checkOwned(page, page.block, 1);
    return this.#afterWait(request, () => {
      const batch: PageBatch = {
        relations: new Int32Array(request.pages.length),
        blocks: Float64Array.from(request.pages, (page) => page.block),
      };
      const lsn = this.#lsnOf(request);
      const pending: Promise<void>[] = [];
      request.pages.forEach((page, i) => {
        const relation = this.#servingRelation(page, lsn);
        if (!(relation instanceof Promise)) batch.relations[i] = relation;
        else {
          pending.push(
            relation.then((found) => {
              batch.relations[i] = found;
            }),
          );
        }
      });
      if (pending.length === 0) return this.#sendPages(request, batch);
      return Promise.all(pending).then(() => this.#sendPages(request, batch));
    });
  }

  /** Pages of other shards are not here: what would be read is what they were before there were several. */
  #checkOwned(relation: RelationTag, firstBlock: number, count: number): void {
    const { shard, timeline } = this.#options.shard.spec;
    if (!shard) return;
    for (let block = firstBlock; block < firstBlock + count; block = stripeEnd(block, shard)) {
      if (ownsPage(shard, relation, block)) continue;
      throw new PalimpsestError(
        'wrong-shard',
        `block ${block} of relation ${relation.rel} is not on shard ${shard.number} of ${shard.count} of timeline ${timeline}`,
      );
    }
  }

  #sendPages(request: ReadPoint & { requestId: number }, batch: PageBatch): Promise<void> | undefined {
    const { shard, tools, onServed } = this.#options;
    const began = tools.clock.monotonic();
    const bytes = batch.blocks.length * PAGE_BYTES;
    const memory = PageService.#takeMemory(bytes);
    const pages = memory.subarray(0, bytes);
    const lsn = this.#lsnOf(request);
    const send = (): Promise<void> | undefined => {
      this.#channel.send(PAGES, encodeRequestId(request.requestId), pages);
      if (PageService.#spare.length < SPARE_ANSWERS_MAX) PageService.#spare.push(memory);
      onServed?.(tools.clock.monotonic() - began, batch.blocks.length);
      this.#holdBack();
      return undefined;
    };
    const reading = shard.reader.read(batch, lsn, pages);
    if (!reading) return send();
    // Layers may have gone while it was fetched: what was read at an LSN that is not kept any more counts for nothing.
    const sendIfKept = () => (shard.collector.isReadable(lsn) ? send() : this.#sendPages(request, batch));
    return reading.then(sendIfKept, (error) => {
      if (shard.collector.isReadable(lsn)) throw error;
      return this.#sendPages(request, batch);
    });
  }

  async #getDirectory(request: ReadPoint & { requestId: number; db: number }): Promise<void> {
    const { shard, tools, waitTimeoutMs } = this.#options;
    await shard.waitFor(request.notModifiedSince, waitTimeoutMs);
    const lsn = this.#lsnOf(request);
    const entries = await directoryAt(shard, tools, lsn, request.db);
    if (!shard.collector.isReadable(lsn)) return this.#getDirectory(request);
    this.#channel.send(DIRECTORY, encodeRequestId(request.requestId), encodeDirectory(entries));
  }

  async #getBasebackup(request: { requestId: number; lsn: number }): Promise<void> {
    const { shard, tools, waitTimeoutMs } = this.#options;
    if (request.lsn !== LATEST_LSN) await shard.waitFor(request.lsn, waitTimeoutMs);
    const lsn = shard.readLsn(request.lsn);
    const basebackup = await basebackupAt(shard, tools, lsn);
    shard.collector.checkReadable(lsn);
    this.#channel.send(BASEBACKUP, encodeRequestId(request.requestId), encodeBasebackup(basebackup));
  }

  /** Runs `read` when what the request must see is ingested: at once if it is. */
  #afterWait(request: ReadPoint, read: () => Promise<void> | undefined): Promise<void> | undefined {
    const waiting = this.#options.shard.waitFor(request.notModifiedSince, this.#options.waitTimeoutMs);
    return waiting ? waiting.then(read) : read();
  }

  #lsnOf(request: ReadPoint): number {
    return this.#options.shard.readLsn(request.lsn);
  }

  /**
   * The relation whose pages answer: for the main fork of an unlogged relation its init fork, for its other forks none.
   */
  #servingRelation(tag: RelationTag, lsn: number): number | Promise<number> {
    const { relations } = this.#options.tools;
    const own = relations.find(tag.spc, tag.db, tag.rel, tag.fork);
    // Of relations that are gone by now this process may know only what it reads of the moment.
    if (own < 0 && lsn < this.#options.shard.lastLsn && !this.#lookedUp.has(lsn)) {
      return this.#lookUp(lsn).then(() => this.#servingRelation(tag, lsn));
    }
    const init = tag.fork === FORK_INIT ? -1 : relations.find(tag.spc, tag.db, tag.rel, FORK_INIT);
    if (init < 0) return own;
    const { shard } = this.#options;
    const choose = (size: number) => {
      if (size < 0) return own;
      return tag.fork === FORK_MAIN ? init : -1;
    };
    if (lsn >= shard.lastLsn) return choose(shard.headSizeOf(init));
    return shard.view(lsn).then((view) => choose(view.sizeOf(init)));
  }

  /** Gives all relations of a moment their numbers. */
  async #lookUp(lsn: number): Promise<void> {
    const view = await this.#options.shard.view(lsn);
    view.forEachSize(() => {});
    if (this.#lookedUp.size >= LOOKED_UP_MAX) this.#lookedUp.clear();
    this.#lookedUp.add(lsn);
  }

  #answerFailure(requestId: number, error: unknown): void {
    const wire = toWireError(error);
    const { tools, shard } = this.#options;
    tools.log.warn({ timeline: shard.spec.timeline, error: wire }, 'a page request failed');
    this.#channel.send(FAILED, encodeRequestId(requestId), encodeFailed(wire));
  }

  #done(): void {
    this.#requests--;
  }

  /** Stops taking requests while too many are under way or too much waits to be sent. */
  #holdBack(): void {
    if (this.#paused) return;
    if (this.#channel.queuedBytes < QUEUED_BYTES_MAX && this.#requests < REQUESTS_MAX) return;
    this.#paused = true;
    this.#channel.pause();
    void this.#resumeLater();
  }

  async #resumeLater(): Promise<void> {
    await this.#channel.drained(QUEUED_BYTES_MAX / 4);
    while (this.#requests >= REQUESTS_MAX) await this.#options.tools.clock.sleep(1);
    this.#paused = false;
    this.#channel.resume();
  }
}

function repeated(relation: number, blocks: Float64Array): PageBatch {
  return { relations: new Int32Array(blocks.length).fill(relation), blocks };
}
