/**
 * Pages from the pageserver, across its restarts: asks again on a new channel until the time limit is over.
 *
 * A time limit turns into an error of the query that needs the page; nothing hangs, and the next query tries anew. A pageserver that
 * says nothing while it is asked may be suspended or cut off, with its channel still open: then it is looked up where the pages
 * are served now, and when that is elsewhere, the questions go there. One that says nothing for long is asked on another channel.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Lsn } from '../../protocols/lsn.ts';
import type { PageTag } from '../../protocols/pages/messages.ts';
import type { Basebackup, ReadPoint, RelationEntry, RelationTag } from '../../protocols/pages/types.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import type { Clock, Timer } from '../../runtime/ports/clock.ts';
import { PageClient } from '../pageserver/page-client.ts';
import type { PageSource } from './files/file-content.ts';

const RETRY_MS = 20;
/** So often it is looked whether answers come, and for so many looks there may be none. */
const LOOK_MS = 250;
const SILENT_LOOKS_MAX = 2;
/** After so many it is asked on another channel: where packets are dropped nobody closes this one. The next time it takes twice as many. */
const STUCK_LOOKS = 24;

export interface StoragePagesOptions {
  clock: Clock;
  /** `address` is what `find` said, where there is one. */
  open(address: string | undefined): Promise<Channel>;
  /** Where the pages are served now; for pages that may come to be served elsewhere. */
  find?(): Promise<string>;
  /** Limit of one question, with all its attempts. */
  timeoutMs: number;
}

export class StoragePages implements PageSource {
  readonly #options: StoragePagesOptions;
  #client: PageClient | undefined;
  #opening: Promise<PageClient> | undefined;
  #closed = false;
  #left = false;
  /** Of the open channel. */
  #address: string | undefined;
  #answersSeen = 0;
  #silentLooks = 0;
  #stuckLooks = STUCK_LOOKS;
  #timer: Timer | undefined;

  constructor(options: StoragePagesOptions) {
    this.#options = options;
    if (options.find) this.#lookLater(options.find);
  }

  /** Opens the channel ahead of the first question. */
  async connect(): Promise<void> {
    await this.#connected();
  }

  getPages(
    request: ReadPoint & RelationTag & { firstBlock: number; count: number },
    into?: Uint8Array,
  ): Promise<Uint8Array> {
    // The common case without the detour over retries.
    const client = this.#client;
    if (client && !client.closed) {
      return client
        .getPages(request, into)
        .catch((error) => this.#again(error, (next) => next.getPages(request, into)));
    }
    return this.#ask((next) => next.getPages(request, into));
  }

  getPageList(request: ReadPoint & { pages: PageTag[] }): Promise<Uint8Array> {
    return this.#ask((client) => client.getPageList(request));
  }

  getDirectory(request: ReadPoint & { db: number }): Promise<RelationEntry[]> {
    return this.#ask((client) => client.getDirectory(request));
  }

  getBasebackup(lsn: Lsn): Promise<Basebackup> {
    return this.#ask((client) => client.getBasebackup(lsn));
  }

  /** Its pages are elsewhere from now on: what waits is refused with `wrong-shard`, so that it is asked for there. */
  leave(): void {
    this.#left = true;
    this.close();
  }

  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
    this.#client?.close();
  }

  async #ask<T>(question: (client: PageClient) => Promise<T>): Promise<T> {
    const { clock, timeoutMs } = this.#options;
    const deadline = clock.monotonic() + timeoutMs;
    for (;;) {
      try {
        return await question(await this.#connected());
      } catch (error) {
        if (this.#left) throw this.#wrongShard(error);
        if (!isTransient(error) || this.#closed || clock.monotonic() >= deadline) throw error;
        await clock.sleep(RETRY_MS);
      }
    }
  }

  #again<T>(error: unknown, question: (client: PageClient) => Promise<T>): Promise<T> {
    if (this.#left) throw this.#wrongShard(error);
    if (!isTransient(error) || this.#closed) throw error;
    return this.#ask(question);
  }

  #wrongShard(cause: unknown): PalimpsestError {
    return new PalimpsestError('wrong-shard', 'the pages have been given to other shards', undefined, cause);
  }

  async #connected(): Promise<PageClient> {
    if (this.#client && !this.#client.closed) return this.#client;
    this.#opening ??= this.#open().finally(() => {
      this.#opening = undefined;
    });
    return this.#opening;
  }

  async #open(): Promise<PageClient> {
    const { clock, timeoutMs, find, open } = this.#options;
    let channel: Channel;
    try {
      this.#address = await find?.();
      channel = await open(this.#address);
    } catch (error) {
      // The pageserver may be suspended or cut off: until it is replaced nobody answers.
      if (!(error instanceof PalimpsestError && error.code === 'timeout')) throw error;
      throw new PalimpsestError('unavailable', error.message, error.hint, error);
    }
    this.#client = new PageClient({ clock, channel, timeoutMs });
    this.#answersSeen = 0;
    this.#silentLooks = 0;
    return this.#client;
  }

  #lookLater(find: () => Promise<string>): void {
    if (this.#closed) return;
    this.#timer = this.#options.clock.setTimer(
      LOOK_MS,
      () => void this.#look(find).finally(() => this.#lookLater(find)),
    );
  }

  /** Leaves a pageserver that does not answer when the pages are served elsewhere now, and a channel that says nothing for long. */
  async #look(find: () => Promise<string>): Promise<void> {
    const client = this.#client;
    if (!client || client.closed) return;
    const isSilent = client.outstanding > 0 && client.answers === this.#answersSeen;
    if (client.answers > this.#answersSeen) this.#stuckLooks = STUCK_LOOKS;
    this.#answersSeen = client.answers;
    this.#silentLooks = isSilent ? this.#silentLooks + 1 : 0;
    if (this.#silentLooks < SILENT_LOOKS_MAX) return;
    const address = await find().catch(() => undefined);
    if (address === undefined) return;
    const isStuck = this.#silentLooks >= this.#stuckLooks;
    if (isStuck) this.#stuckLooks *= 2;
    if (isStuck || address !== this.#address) client.close();
  }
}

/** A lost channel may come back; everything else is an answer. */
function isTransient(error: unknown): boolean {
  return error instanceof PalimpsestError && error.code === 'unavailable';
}
