/**
 * WAL of one timeline that is not on this disk any more, read from object storage through the node's cache.
 *
 * A whole segment is read from its own object; the segment in which the local WAL begins may be there as a tail only.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { formatLsn, type Lsn, segmentNumber, segmentStart, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import { type TimelineKey, walSegmentKey } from '../../protocols/object-keys.ts';
import type { Compression } from '../../runtime/ports/compression.ts';
import type { Objects } from '../../runtime/ports/objects.ts';
import { type OffloadState, storedPartial } from './offload-state.ts';
import type { SegmentCache } from './segment-cache.ts';
import type { Turns } from './turns.ts';
import { unpackWalObject } from './wal-object.ts';

/** What all replicas of a node share for their WAL in objects. */
export interface ArchiveTools {
  objects: Objects;
  compression: Compression;
  cache: SegmentCache;
  /** Lets few uploads run at a time. */
  uploads: Turns;
}

export class WalArchive {
  readonly #tools: ArchiveTools;
  readonly #timeline: TimelineKey;
  readonly #positions: () => OffloadState;

  constructor(tools: ArchiveTools, timeline: TimelineKey, positions: () => OffloadState) {
    this.#tools = tools;
    this.#timeline = timeline;
    this.#positions = positions;
  }

  /** Whether all WAL up to `lsn` is in objects, as far as this replica knows. */
  holds(lsn: Lsn): boolean {
    const positions = this.#positions();
    return lsn <= Math.max(positions.backupLsn, storedPartial(positions)?.to ?? 0);
  }

  /**
   * Fills `into` from `from` on. Throws `not-found` for WAL whose objects were given up, `unavailable` when object storage
   * does not answer, `corrupt` when an object is missing or damaged.
   */
  async read(from: Lsn, into: Uint8Array): Promise<void> {
    const { expiredLsn } = this.#positions();
    if (from < expiredLsn) {
      throw new PalimpsestError(
        'not-found',
        `WAL at ${formatLsn(from)} is gone: what is kept begins at ${formatLsn(expiredLsn)}`,
        'ask for a later LSN, or keep a longer history',
      );
    }
    for (let done = 0; done < into.length; ) {
      const at = (from + done) as Lsn;
      const length = Math.min(into.length - done, segmentStart(at) + WAL_SEGMENT_BYTES - at);
      await this.#readWithin(at, into.subarray(done, done + length));
      done += length;
    }
  }

  /** Reads a stretch that lies in one segment. */
  async #readWithin(from: Lsn, into: Uint8Array): Promise<void> {
    const key = this.#keyFor(from);
    const count = await this.#tools.cache.read(key, from, into, (put) => this.#fetch(key, put));
    if (count === into.length) return;
    throw new PalimpsestError(
      'corrupt',
      `object ${key} has ${count} of ${into.length} bytes of WAL at ${formatLsn(from)}`,
    );
  }

  #keyFor(lsn: Lsn): string {
    const positions = this.#positions();
    if (lsn < positions.backupLsn) return walSegmentKey(this.#timeline, segmentNumber(lsn));
    const partial = storedPartial(positions);
    if (partial && segmentStart(partial.from) === segmentStart(lsn)) return partial.key;
    throw new PalimpsestError('corrupt', `WAL at ${formatLsn(lsn)} is neither on this disk nor in objects`);
  }

  async #fetch(key: string, put: (block: Uint8Array, at: Lsn, from: Lsn) => Promise<void>) {
    const { objects, compression } = this.#tools;
    const object = await objects.get(key).catch((error) => {
      if (!(error instanceof PalimpsestError && error.code === 'not-found')) throw error;
      // `not-found` tells readers that they ask for what nobody has to have; this one should be there.
      throw new PalimpsestError('corrupt', `object ${key} is missing`, undefined, error);
    });
    let first: Lsn | undefined;
    const header = await unpackWalObject(key, object, compression, (block, at) => {
      first ??= at;
      return put(block, at, first);
    });
    const { tenant, timeline } = header;
    if (tenant !== this.#timeline.tenant || timeline !== this.#timeline.timeline) {
      throw new PalimpsestError('corrupt', `object ${key} holds WAL of timeline ${timeline}`);
    }
    return header;
  }
}
