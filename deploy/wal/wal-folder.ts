/**
 * A folder of WAL segments (a pg_wal folder or an archive): reads its records in order and says how they end.
 *
 * Where a log ends there is no mark: Postgres leaves zeros, or pages of an older segment that was renamed. A damaged record
 * looks much the same. They are told apart by what follows: pages that carry their own address were written after it.
 */
import { closeSync, existsSync, openSync, readdirSync, readSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { PalimpsestError } from '../../protocols/errors.ts';
import { PAGE_BYTES, segmentFileName, segmentNumber, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import { readU16, readU32 } from '../../protocols/postgres/bytes.ts';
import { pgVersionOfMagic } from '../../protocols/postgres/versions.ts';
import { CorruptWalError } from '../../protocols/postgres/wal/errors.ts';
import { firstRecordFrom, isOwnPage } from '../../protocols/postgres/wal/first-record.ts';
import { recordStartAt } from '../../protocols/postgres/wal/page-header.ts';
import type { DecodedRecord } from '../../protocols/postgres/wal/record.ts';
import type { WalStreamDecoder } from '../../protocols/postgres/wal/stream-decoder.ts';

const SEGMENT_NAME = /^[0-9A-F]{24}$/;
/** Read at once; larger pieces would leave the processor's cache before they are decoded. */
const FEED_BYTES = 256 * 1024;

/** How the log ends: after a whole record, or in the middle of one, as a crash leaves it. */
export interface WalEnd {
  lsn: number;
  isWhole: boolean;
}

export interface ReadOptions {
  /** Stop before the record that begins here or later. */
  toLsn?: number;
  /** Called after each piece with the bytes read and those that there may be. */
  onProgress?: (doneBytes: number, totalBytes: number) => void;
}

export class WalFolder {
  readonly path: string;
  /** Path of each segment by its number. */
  readonly #segments = new Map<number, string>();

  /** Takes a folder with segments, or one segment's file. Throws PalimpsestError when there are none. */
  constructor(path: string) {
    this.path = path;
    if (!existsSync(path)) throw new PalimpsestError('not-found', `there is no ${path}`);
    const isFolder = statSync(path).isDirectory();
    const files = isFolder ? readdirSync(path).map((name) => join(path, name)) : [path];
    for (const file of files) this.#add(file, isFolder);
    if (this.#segments.size === 0) {
      throw new PalimpsestError(
        'not-found',
        `${path} holds no WAL segments`,
        'name a pg_wal folder: its files have names of 24 hexadecimal digits',
      );
    }
  }

  get firstSegment(): number {
    return Math.min(...this.#segments.keys());
  }

  get lastSegment(): number {
    return Math.max(...this.#segments.keys());
  }

  /** The version that wrote the segment `number`. */
  pgVersionOf(number: number): number {
    const magic = readU16(this.read(number), 0);
    const version = pgVersionOfMagic(magic);
    if (version !== undefined) return version;
    throw new PalimpsestError(
      'unsupported',
      `${this.#segments.get(number)} begins with ${magic.toString(16).padStart(4, '0')}, which no Postgres from 15 to 18 writes`,
      'name a segment file of one of these versions',
    );
  }

  has(number: number): boolean {
    return this.#segments.has(number);
  }

  /** All bytes of a segment. Throws `corrupt` when it is not whole. */
  read(number: number): Uint8Array {
    const file = this.#open(number);
    try {
      const bytes = new Uint8Array(WAL_SEGMENT_BYTES);
      readSync(file, bytes, 0, WAL_SEGMENT_BYTES, 0);
      return bytes;
    } finally {
      closeSync(file);
    }
  }

  /** Opens a segment's file, which must have a segment's size. */
  #open(number: number): number {
    const path = this.#segments.get(number);
    if (path === undefined)
      throw new PalimpsestError('not-found', `segment ${segmentFileName(number)} is missing`);
    const { size } = statSync(path);
    if (size === WAL_SEGMENT_BYTES) return openSync(path, 'r');
    throw new PalimpsestError(
      'corrupt',
      `${path} has ${size} bytes, a segment has ${WAL_SEGMENT_BYTES}`,
      size < WAL_SEGMENT_BYTES
        ? 'it was cut off, or is still being copied'
        : 'only clusters with segments of 16 MiB are supported',
    );
  }

  /** LSN of the first record that begins in segment `number`: the rest of one from the segment before is passed over. */
  firstRecordIn(number: number): number {
    return firstRecordFrom(this.read(number), number * WAL_SEGMENT_BYTES);
  }

  /**
   * Gives each record that begins at or after `decoder.position` to `onRecord`, which may return false to stop; returns
   * the log's end. Throws `corrupt` for a
   * damaged record and for a missing segment.
   */
  readRecords(
    decoder: WalStreamDecoder,
    onRecord: (record: DecodedRecord) => unknown,
    options: ReadOptions = {},
  ): WalEnd {
    const { toLsn = Number.MAX_SAFE_INTEGER, onProgress } = options;
    const begin = decoder.received;
    const last = this.lastSegment;
    const piece = new Uint8Array(FEED_BYTES);
    for (let number = segmentNumber(begin); this.has(number); number++) {
      const start = number * WAL_SEGMENT_BYTES;
      const file = this.#open(number);
      try {
        for (let at = decoder.received - start; at < WAL_SEGMENT_BYTES; at = decoder.received - start) {
          const count = readSync(file, piece, 0, FEED_BYTES, at);
          if (count === 0) throw new CorruptWalError(start + at, 'the segment was cut off');
          decoder.feed(start + at, count === FEED_BYTES ? piece : piece.subarray(0, count));
          try {
            const stop = readFed(decoder, onRecord, toLsn);
            if (stop >= 0) return { lsn: stop, isWhole: true };
          } catch (error) {
            if (error instanceof CorruptWalError && error.lsn >= decoder.position)
              return this.#endAt(decoder, error);
            throw error;
          }
          onProgress?.(decoder.received - begin, (last + 1) * WAL_SEGMENT_BYTES - begin);
        }
      } finally {
        closeSync(file);
      }
    }
    this.#refuseGap(decoder.received);
    return { lsn: decoder.position, isWhole: recordStartAt(decoder.position) >= decoder.received };
  }

  #add(file: string, isFolder: boolean): void {
    const name = basename(file);
    if (!SEGMENT_NAME.test(name)) {
      if (isFolder) return;
      throw new PalimpsestError(
        'invalid-argument',
        `${file} is not named like a WAL segment`,
        'a segment has a name of 24 hexadecimal digits',
      );
    }
    const number = Number.parseInt(name.slice(8, 16), 16) * 256 + Number.parseInt(name.slice(16), 16);
    // A newer timeline's segment takes the place of its ancestor's.
    const known = this.#segments.get(number);
    if (known === undefined || basename(known) < name) this.#segments.set(number, file);
  }

  /** Tells the log's end from damage, by what follows the place where reading stopped. */
  #endAt(decoder: WalStreamDecoder, error: CorruptWalError): WalEnd {
    const bytes = this.read(segmentNumber(error.lsn));
    const at = error.lsn % WAL_SEGMENT_BYTES;
    const inPage = at % PAGE_BYTES !== 0;
    const isEmpty = inPage ? readU32(bytes, at) === 0 : !isOwnPage(bytes, at, error.lsn);
    const goesOn = this.#goesOnAfter(error.lsn);
    if (isEmpty && !goesOn) {
      return { lsn: decoder.position, isWhole: inPage || recordStartAt(decoder.position) >= error.lsn };
    }
    throw new PalimpsestError(
      'corrupt',
      `${error.message}, in ${this.#segments.get(segmentNumber(error.lsn))}`,
      goesOn
        ? 'the log goes on after it, so this is damage and not its end'
        : 'this is damage, or the last record that was being written when Postgres was killed',
      error,
    );
  }

  #goesOnAfter(lsn: number): boolean {
    const nextPage = lsn - (lsn % PAGE_BYTES) + PAGE_BYTES;
    const piece = new Uint8Array(FEED_BYTES);
    for (let number = segmentNumber(nextPage); number <= this.lastSegment; number++) {
      if (!this.has(number)) continue;
      const start = number * WAL_SEGMENT_BYTES;
      if (this.#hasOwnPage(number, Math.max(0, nextPage - start), piece)) return true;
    }
    return false;
  }

  /** Whether a page of the segment, from `from` on, carries its own address; `piece` is for reading. */
  #hasOwnPage(number: number, from: number, piece: Uint8Array): boolean {
    const file = this.#open(number);
    try {
      for (let at = from; at < WAL_SEGMENT_BYTES; at += FEED_BYTES) {
        const count = readSync(file, piece, 0, FEED_BYTES, at);
        const lsn = number * WAL_SEGMENT_BYTES + at;
        for (let page = 0; page + PAGE_BYTES <= count; page += PAGE_BYTES) {
          if (isOwnPage(piece, page, lsn + page)) return true;
        }
      }
      return false;
    } finally {
      closeSync(file);
    }
  }

  /** A later segment that was written, not only set aside under its future name, means that this one was lost. */
  #refuseGap(lsn: number): void {
    if (!this.#goesOnAfter(lsn - PAGE_BYTES)) return;
    throw new PalimpsestError(
      'corrupt',
      `segment ${segmentFileName(segmentNumber(lsn))} is missing from ${this.path}, and later ones are there`,
      'bring the missing segment, or move the later ones away',
    );
  }
}

/**
 * Gives the records that were fed to `onRecord`. Returns where it stopped, because the record there begins at `toLsn` or later or
 * `onRecord` said so, and -1 when more bytes are needed. A function of its own, so that the engine compiles the loop as a whole.
 */
function readFed(
  decoder: WalStreamDecoder,
  onRecord: (record: DecodedRecord) => unknown,
  toLsn: number,
): number {
  const { record } = decoder;
  while (decoder.next()) {
    if (record.lsn >= toLsn) return record.lsn;
    if (onRecord(record) === false) return decoder.position;
  }
  return -1;
}
