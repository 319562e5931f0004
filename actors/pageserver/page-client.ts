/**
 * The compute's side of the page service: pairs answers with requests over one channel.
 *
 * Every request has a time limit, the number of outstanding ones is bounded, and all fail with `unavailable` when
 * the channel closes. Reconnecting is the owner's business: a client lives as long as its channel.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Lsn } from '../../protocols/lsn.ts';
import {
  BASEBACKUP,
  DIRECTORY,
  decodeBasebackup,
  decodeDirectory,
  decodeFailed,
  decodeLayout,
  decodePages,
  encodeGetBasebackup,
  encodeGetDirectory,
  encodeGetPageList,
  encodeGetPages,
  encodeRequestId,
  FAILED,
  GET_BASEBACKUP,
  GET_DIRECTORY,
  GET_LAYOUT,
  GET_PAGE_LIST,
  GET_PAGES,
  LAYOUT,
  PAGES,
  type PageTag,
  requestIdOf,
} from '../../protocols/pages/messages.ts';
import type { Basebackup, ReadPoint, RelationEntry, RelationTag } from '../../protocols/pages/types.ts';
import type { ShardLayout } from '../../protocols/shard-layout.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import type { Clock, Timer } from '../../runtime/ports/clock.ts';

export const OUTSTANDING_REQUESTS_MAX = 4096;

export interface PageClientOptions {
  clock: Clock;
  channel: Channel;
  /** Limit of one request, waiting for an LSN included. */
  timeoutMs: number;
}

interface Outstanding {
  what: string;
  answerType: number;
  timer: Timer;
  /** `body` is valid only during the call. */
  answer(body: Uint8Array): void;
  fail(error: unknown): void;
}

export class PageClient {
  readonly #options: PageClientOptions;
  readonly #outstanding = new Map<number, Outstanding>();
  #nextRequestId = 1;
  #closed: PalimpsestError | undefined;
  /** Answers that have come. */
  answers = 0;

  constructor(options: PageClientOptions) {
    this.#options = options;
    options.channel.onFrame((type, body) => this.#receive(type, body));
    options.channel.onClose((reason) => {
      this.#failAll(
        new PalimpsestError('unavailable', 'the channel to the pageserver closed', undefined, reason),
      );
    });
  }

  get closed(): boolean {
    return this.#closed !== undefined;
  }

  /** Number of requests that wait for an answer. */
  get outstanding(): number {
    return this.#outstanding.size;
  }

  /**
   * Reads `count` (<= 256) pages of a relation. Resolves with a copy, or with `into` filled when it is given.
   */
  getPages(
    request: ReadPoint & RelationTag & { firstBlock: number; count: number },
    into?: Uint8Array,
  ): Promise<Uint8Array> {
    const requestId = this.#takeRequestId();
    const body = encodeGetPages({ ...request, requestId });
    const what = `pages ${request.firstBlock}+${request.count} of ${describe(request)}`;
    return this.#request(requestId, GET_PAGES, PAGES, body, what, (answer) =>
      take(decodePages(answer, request.count), into),
    );
  }

  /** Reads pages of many relations at one moment, in the order asked. */
  getPageList(request: ReadPoint & { pages: PageTag[] }): Promise<Uint8Array> {
    const requestId = this.#takeRequestId();
    const body = encodeGetPageList({ ...request, requestId });
    const what = `${request.pages.length} pages`;
    return this.#request(requestId, GET_PAGE_LIST, PAGES, body, what, (answer) =>
      take(decodePages(answer, request.pages.length), undefined),
    );
  }

  /** All relations of database `db` (0: the shared ones). */
  getDirectory(request: ReadPoint & { db: number }): Promise<RelationEntry[]> {
    const requestId = this.#takeRequestId();
    const body = encodeGetDirectory({ ...request, requestId });
    const what = `the directory of database ${request.db}`;
    return this.#request(requestId, GET_DIRECTORY, DIRECTORY, body, what, decodeDirectory);
  }

  /** Everything that a data directory at `lsn` needs, except relation files. */
  getBasebackup(lsn: Lsn): Promise<Basebackup> {
    const requestId = this.#takeRequestId();
    const body = encodeGetBasebackup({ requestId, lsn });
    return this.#request(requestId, GET_BASEBACKUP, BASEBACKUP, body, 'a basebackup', decodeBasebackup);
  }

  /** How the pages of the timeline are spread over shards. */
  getLayout(): Promise<ShardLayout> {
    const requestId = this.#takeRequestId();
    const body = encodeRequestId(requestId);
    return this.#request(requestId, GET_LAYOUT, LAYOUT, body, 'the layout of its shards', decodeLayout);
  }

  close(): void {
    this.#options.channel.close();
  }

  #takeRequestId(): number {
    do {
      this.#nextRequestId = (this.#nextRequestId + 1) >>> 0;
    } while (this.#outstanding.has(this.#nextRequestId));
    return this.#nextRequestId;
  }

  #request<T>(
    requestId: number,
    type: number,
    answerType: number,
    body: Uint8Array,
    what: string,
    decode: (answer: Uint8Array) => T,
  ): Promise<T> {
    if (this.#closed) return Promise.reject(this.#closed);
    if (this.#outstanding.size >= OUTSTANDING_REQUESTS_MAX) {
      return Promise.reject(
        new PalimpsestError(
          'unavailable',
          `${OUTSTANDING_REQUESTS_MAX} requests wait for the pageserver already`,
        ),
      );
    }
    return new Promise<T>((resolve, reject) => {
      const timer = this.#options.clock.setTimer(this.#options.timeoutMs, () => {
        this.#outstanding.delete(requestId);
        reject(
          new PalimpsestError(
            'timeout',
            `the pageserver did not deliver ${what} within ${this.#options.timeoutMs} ms`,
          ),
        );
      });
      this.#outstanding.set(requestId, {
        what,
        answerType,
        timer,
        answer: (answer) => resolve(decode(answer)),
        fail: reject,
      });
      this.#options.channel.send(type, body);
    });
  }

  #receive(type: number, body: Uint8Array): void {
    this.answers++;
    const requestId = requestIdOf(body);
    const waiting = this.#outstanding.get(requestId);
    if (!waiting) return; // Its time limit passed before.
    this.#outstanding.delete(requestId);
    waiting.timer.cancel();
    try {
      if (type === FAILED) waiting.fail(decodeFailed(body));
      else if (type === waiting.answerType) waiting.answer(body);
      else
        waiting.fail(new PalimpsestError('internal', `frame of type ${type} in answer to ${waiting.what}`));
    } catch (error) {
      waiting.fail(error);
    }
  }

  #failAll(error: PalimpsestError): void {
    this.#closed = error;
    for (const waiting of this.#outstanding.values()) {
      waiting.timer.cancel();
      waiting.fail(error);
    }
    this.#outstanding.clear();
  }
}

function take(pages: Uint8Array, into: Uint8Array | undefined): Uint8Array {
  if (!into) return pages.slice();
  into.set(pages);
  return into;
}

function describe(tag: RelationTag): string {
  return `${tag.spc}/${tag.db}/${tag.rel}.${tag.fork}`;
}
