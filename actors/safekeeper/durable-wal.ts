/**
 * Durable WAL of a replica, wherever it lies: on this disk, or in objects when it was given up here. Readers see no
 * difference.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { formatLsn, type Lsn } from '../../protocols/lsn.ts';
import type { WalArchive } from './wal-archive.ts';
import type { WalStore } from './wal-store.ts';

export class DurableWal {
  readonly #store: WalStore;
  readonly #archive: WalArchive | undefined;

  constructor(store: WalStore, archive: WalArchive | undefined) {
    this.#store = store;
    this.#archive = archive;
  }

  /**
   * Reads from `from` into `into`, as much as there is; returns how many bytes. Throws `not-found` for WAL that this timeline
   * never had or that was given up for good, `unavailable` when objects cannot be reached, `corrupt` when WAL is missing.
   */
  async read(from: Lsn, into: Uint8Array): Promise<number> {
    const { startLsn, flushLsn } = this.#store;
    if (from < startLsn) {
      throw new PalimpsestError(
        'not-found',
        `WAL at ${formatLsn(from)} is not here: this timeline's own WAL begins at ${formatLsn(startLsn)}`,
      );
    }
    const length = Math.max(0, Math.min(into.length, flushLsn - from));
    for (let done = 0; done < length; ) {
      const at = (from + done) as Lsn;
      const rest = into.subarray(done, length);
      done += at < this.#store.localLsn ? await this.#readOld(at, rest) : await this.#readLocal(at, rest);
    }
    return length;
  }

  /** The part below the local WAL. */
  async #readOld(at: Lsn, rest: Uint8Array): Promise<number> {
    const count = Math.min(rest.length, this.#store.localLsn - at);
    await this.#fromArchive(at, rest.subarray(0, count));
    return count;
  }

  /** Returns 0 when the WAL was given up while it was read. */
  async #readLocal(at: Lsn, rest: Uint8Array): Promise<number> {
    try {
      const count = await this.#store.read(at, rest);
      return at < this.#store.localLsn ? 0 : count;
    } catch (error) {
      if (at < this.#store.localLsn) return 0;
      // A file that somebody removed is no loss when objects have what was in it.
      const isLost = error instanceof PalimpsestError && error.code === 'corrupt';
      if (!isLost || !this.#archive?.holds((at + rest.length) as Lsn)) throw error;
      await this.#archive.read(at, rest);
      return rest.length;
    }
  }

  async #fromArchive(at: Lsn, into: Uint8Array): Promise<void> {
    if (this.#archive) return this.#archive.read(at, into);
    throw new PalimpsestError(
      'unavailable',
      `WAL at ${formatLsn(at)} is in objects, which are not configured`,
    );
  }
}
