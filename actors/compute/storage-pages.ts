/**
 * Pages from the pageserver, across its restarts: asks again on a new channel until the time limit is over.
 *
 * A time limit turns into an error of the query that needs the page; nothing hangs, and the next query tries anew.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Lsn } from '../../protocols/lsn.ts';
import type { PageTag } from '../../protocols/pages/messages.ts';
import type { Basebackup, ReadPoint, RelationEntry, RelationTag } from '../../protocols/pages/types.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import { PageClient } from '../pageserver/page-client.ts';
import type { PageSource } from './files/file-content.ts';

const RETRY_MS = 20;

export interface StoragePagesOptions {
  clock: Clock;
  open(): Promise<Channel>;
  /** Limit of one question, with all its attempts. */
  timeoutMs: number;
}

export class StoragePages implements PageSource {
  readonly #options: StoragePagesOptions;
  #client: PageClient | undefined;
  #opening: Promise<PageClient> | undefined;
  #closed = false;

  constructor(options: StoragePagesOptions) {
    this.#options = options;
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

  close(): void {
    this.#closed = true;
    this.#client?.close();
  }

  async #ask<T>(question: (client: PageClient) => Promise<T>): Promise<T> {
    const { clock, timeoutMs } = this.#options;
    const deadline = clock.monotonic() + timeoutMs;
    for (;;) {
      try {
        return await question(await this.#connected());
      } catch (error) {
        if (!isTransient(error) || this.#closed || clock.monotonic() >= deadline) throw error;
        await clock.sleep(RETRY_MS);
      }
    }
  }

  #again<T>(error: unknown, question: (client: PageClient) => Promise<T>): Promise<T> {
    if (!isTransient(error) || this.#closed) throw error;
    return this.#ask(question);
  }

  async #connected(): Promise<PageClient> {
    if (this.#client && !this.#client.closed) return this.#client;
    this.#opening ??= this.#open().finally(() => {
      this.#opening = undefined;
    });
    return this.#opening;
  }

  async #open(): Promise<PageClient> {
    const { clock, timeoutMs } = this.#options;
    const channel = await this.#options.open();
    this.#client = new PageClient({ clock, channel, timeoutMs });
    return this.#client;
  }
}

/** A lost channel may come back; everything else is an answer. */
function isTransient(error: unknown): boolean {
  return error instanceof PalimpsestError && error.code === 'unavailable';
}
