/**
 * The WAL of one replica: what was appended, what of it is durable, and reading it back.
 *
 * Appended bytes are copied once, into a ring (wal-ring.ts). All that arrived while a write was under way goes out as one durable
 * write (group commit). The ring also serves readers that are close behind, without touching a file.
 *
 * Invariants
 * 1. start <= flush <= write. Only what is below `flushLsn` may be acknowledged or read.
 * 2. Appends are contiguous: no gap, no rewrite.
 * 3. On disk, everything from `flushLsn` on is zeros, or the part of a write under way.
 * 4. A full disk loses nothing: the same write is tried again until there is space; until then nothing is acknowledged.
 * 5. What lies below `localLsn` is not here: it is in objects. Nothing below the commit LSN is ever cut or written again.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { formatLsn, type Lsn, segmentNumber, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import type { Disk } from '../../runtime/ports/disk.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { Counter, Histogram, Metrics } from '../../runtime/ports/metrics.ts';
import { findEndOfWal } from './wal-recovery.ts';
import { RING_BYTES_MAX, WalRing } from './wal-ring.ts';
import { WalSegments } from './wal-segments.ts';

const DISK_FULL_RETRY_MS = 500;
/** Divides a segment. */
const REWRITE_BYTES = 1024 * 1024;
/** The next segment's file is created when the current one is this full. */
const PREPARE_NEXT_AT = WAL_SEGMENT_BYTES / 2;

/** Figures of all replicas of one node. */
export interface WalFigures {
  bytes: Counter;
  writes: Counter;
  writeSeconds: Histogram;
}

const WRITE_SECONDS = [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1];

/** Registers the figures, once per process. */
export function walFigures(metrics: Metrics): WalFigures {
  return {
    bytes: metrics.counter('palimpsest_safekeeper_wal_bytes', 'WAL made durable.'),
    writes: metrics.counter(
      'palimpsest_safekeeper_wal_writes',
      'Durable writes, each of all WAL that waited.',
    ),
    writeSeconds: metrics.histogram(
      'palimpsest_safekeeper_wal_write_seconds',
      'Time of a durable write.',
      WRITE_SECONDS,
    ),
  };
}

export interface WalStoreOptions {
  disk: Disk;
  directory: string;
  startLsn: Lsn;
  /** The log is valid up to here at least, and a record ends here. */
  commitLsn: Lsn;
  /** WAL below was given up here: it is in objects. */
  localLsn?: Lsn;
  /** All whole segments below are in objects: their files may be missing. */
  backupLsn?: Lsn;
  pgVersion: number;
  clock: Clock;
  log: Log;
  figures?: WalFigures;
}

export interface WalStoreListener {
  /** More is durable. */
  onFlush(flushLsn: Lsn): void;
  /** There is room again after `hasRoom` said no. */
  onRoom(): void;
  /** Nothing more can be written: the file system failed in a way that retrying cannot mend. */
  onFailure(error: Error): void;
}

export class WalStore {
  readonly startLsn: Lsn;
  readonly #segments: WalSegments;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #figures: WalFigures | undefined;
  #listener: WalStoreListener | undefined;
  readonly #ring: WalRing;
  #flushLsn: Lsn;
  #localLsn: Lsn;
  #preparedSegment = -1;
  #running = false;
  #closed = false;
  #stalled = false;
  #failure: Error | undefined;
  #waitedForRoom = false;
  #idleWaiters: (() => void)[] = [];

  private constructor(
    options: WalStoreOptions,
    segments: WalSegments,
    { localLsn, endLsn }: { localLsn: Lsn; endLsn: Lsn },
  ) {
    this.startLsn = options.startLsn;
    this.#segments = segments;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#figures = options.figures;
    this.#ring = new WalRing(endLsn);
    this.#flushLsn = endLsn;
    this.#localLsn = localLsn;
  }

  /** Finds the end of the log and removes the torn tail behind it. */
  static async open(options: WalStoreOptions): Promise<WalStore> {
    const segments = new WalSegments(options.disk, options.directory);
    await segments.prepare();
    const { commitLsn, startLsn } = options;
    // A new replica has nothing to look through.
    if (commitLsn === startLsn && (options.localLsn ?? startLsn) <= startLsn) {
      if ((await segments.numbers()).length === 0) {
        return new WalStore(options, segments, { localLsn: startLsn, endLsn: startLsn });
      }
    }
    const localLsn = await findLocalStart(segments, options);
    const end = await findEndOfWal(segments, { from: commitLsn, pgVersion: options.pgVersion });
    await assertNoGap(segments, end);
    await segments.zeroFrom(end);
    await writeAgain(segments, commitLsn, end);
    return new WalStore(options, segments, { localLsn, endLsn: end });
  }

  listen(listener: WalStoreListener): void {
    this.#listener = listener;
  }

  /** End of what was appended. */
  get writeLsn(): Lsn {
    return this.#ring.end;
  }

  /** End of what is durable. */
  get flushLsn(): Lsn {
    return this.#flushLsn;
  }

  /** WAL from here on is on this disk. */
  get localLsn(): Lsn {
    return this.#localLsn;
  }

  /** Whether the disk is full and appends wait for space. */
  get stalled(): boolean {
    return this.#stalled;
  }

  /** Whether `bytes` more can be appended now; after a no, `onRoom` tells when to ask again. */
  hasRoom(bytes: number): boolean {
    const fits = this.writeLsn + bytes - this.#flushLsn <= RING_BYTES_MAX;
    if (!fits) this.#waitedForRoom = true;
    return fits;
  }

  /** Appends at `writeLsn`; durable when `flushLsn` has passed it. The bytes are copied. */
  append(lsn: Lsn, bytes: Uint8Array): void {
    if (lsn !== this.writeLsn) {
      throw new RangeError(`append at ${formatLsn(lsn)} to a log that ends at ${formatLsn(this.writeLsn)}`);
    }
    if (this.#failure) throw this.#failure;
    if (!this.hasRoom(bytes.length)) throw new RangeError('append without room');
    this.#ring.push(bytes);
    if (this.#running || this.#closed) return;
    this.#running = true;
    // The frames of one packet arrive one after the other within this turn: they shall make one write.
    queueMicrotask(() => void this.#run());
  }

  /** Resolves when all that was appended is durable; throws when that will not happen. */
  async settled(): Promise<void> {
    while (this.#running) await new Promise<void>((resolve) => this.#idleWaiters.push(resolve));
    if (this.#failure) throw this.#failure;
  }

  /**
   * Reads durable WAL from `from` into `into`, as much as there is; returns how many bytes. `from` must not lie below
   * `localLsn`; it may have been passed by it when the call returns, and then the bytes mean nothing.
   */
  async read(from: Lsn, into: Uint8Array): Promise<number> {
    if (from < this.#localLsn) throw new RangeError(`read at ${formatLsn(from)}, which is not here any more`);
    const length = Math.min(into.length, this.#flushLsn - from);
    if (length <= 0) return 0;
    const part = into.subarray(0, length);
    if (from >= this.#ring.start) this.#ring.copy(from, part);
    else if ((await this.#segments.read(from, part)) < length) throw missingWal(from);
    return length;
  }

  /**
   * Gives up local WAL below `to`, which objects hold; at the end of the log everything. What a crash leaves of it is always
   * one stretch. Nothing may be appended meanwhile when `to` is the end.
   */
  async trim(to: Lsn): Promise<void> {
    if (to > this.#flushLsn) throw new RangeError(`cannot trim at ${formatLsn(to)}`);
    this.#localLsn = Math.max(this.#localLsn, to) as Lsn;
    const isAll = to === this.writeLsn && !this.#running;
    if (isAll) {
      this.releaseMemory();
      this.#preparedSegment = -1;
    }
    await (isAll ? this.#segments.removeAll() : this.#segments.removeBelow(segmentNumber(to)));
  }

  /** Cuts the log at `to`, durably. Nothing may be appended meanwhile. */
  async truncate(to: Lsn): Promise<void> {
    await this.settled();
    if (to > this.#flushLsn || to < this.startLsn) throw new RangeError(`cannot cut at ${formatLsn(to)}`);
    if (to === this.#flushLsn) return;
    this.#ring.cut(to);
    this.#flushLsn = to;
    this.#preparedSegment = -1;
    try {
      await this.#segments.zeroFrom(to);
    } catch (error) {
      // Bytes beyond the end may be left: nothing may follow them until a restart has looked at the files again.
      this.#failure = error as Error;
      this.#listener?.onFailure(this.#failure);
      throw error;
    }
  }

  /** Gives the ring's memory back; the next append takes it again. */
  releaseMemory(): void {
    if (!this.#running) this.#ring.release();
  }

  /** Stops writing and closes the files. What was not durable yet is not acknowledged either. */
  async close(): Promise<void> {
    this.#closed = true;
    while (this.#running) await new Promise<void>((resolve) => this.#idleWaiters.push(resolve));
    await this.#segments.close();
  }

  async #run(): Promise<void> {
    while (this.#flushLsn < this.writeLsn && !this.#closed && !this.#failure) {
      const from = this.#flushLsn;
      const segmentEnd = (segmentNumber(from) + 1) * WAL_SEGMENT_BYTES;
      const to = Math.min(this.writeLsn, segmentEnd) as Lsn;
      const begun = this.#clock.monotonic();
      try {
        await this.#segments.write(from, this.#ring.parts(from, to), to - from);
      } catch (error) {
        await this.#handleWriteError(error as Error);
        continue;
      }
      this.#recovered();
      this.#flushLsn = to;
      this.#count(to - from, begun);
      this.#listener?.onFlush(to);
      if (this.#waitedForRoom) {
        this.#waitedForRoom = false;
        this.#listener?.onRoom();
      }
      this.#prepareNext(to);
    }
    this.#running = false;
    const waiters = this.#idleWaiters;
    this.#idleWaiters = [];
    for (const resolve of waiters) resolve();
  }

  #count(bytes: number, begun: number): void {
    const figures = this.#figures;
    if (!figures) return;
    figures.bytes.add(bytes);
    figures.writes.add(1);
    figures.writeSeconds.observe((this.#clock.monotonic() - begun) / 1000);
  }

  async #handleWriteError(error: Error): Promise<void> {
    if (error instanceof PalimpsestError && error.code === 'disk-full') {
      if (!this.#stalled) {
        this.#log.error(
          { flushLsn: formatLsn(this.#flushLsn) },
          `WAL waits for disk space: ${error.message}`,
        );
      }
      this.#stalled = true;
      await this.#clock.sleep(DISK_FULL_RETRY_MS);
      return;
    }
    this.#failure = error;
    this.#log.error({ flushLsn: formatLsn(this.#flushLsn) }, `WAL cannot be written: ${error.message}`);
    this.#listener?.onFailure(error);
  }

  #recovered(): void {
    if (!this.#stalled) return;
    this.#stalled = false;
    this.#log.info({}, 'there is disk space again: WAL is being written');
  }

  #prepareNext(at: Lsn): void {
    const number = segmentNumber(at);
    if (at % WAL_SEGMENT_BYTES < PREPARE_NEXT_AT || this.#preparedSegment === number + 1) return;
    this.#preparedSegment = number + 1;
    // Only a preparation: an error will come back where it matters.
    this.#segments.prepareNext(at).catch(() => {});
  }
}

/**
 * Writes what was found once more, durably: a process that ended after a failed write may have left it in the system's
 * cache only, where it reads well until the power fails.
 */
async function writeAgain(segments: WalSegments, from: Lsn, end: Lsn): Promise<void> {
  const chunk = new Uint8Array(REWRITE_BYTES);
  for (let at: number = from; at < end; ) {
    const limit = Math.min(end, at - (at % REWRITE_BYTES) + REWRITE_BYTES);
    const part = chunk.subarray(0, limit - at);
    await segments.read(at as Lsn, part);
    await segments.write(at as Lsn, [part], part.length);
    at = limit;
  }
}

/**
 * Where the local WAL begins: what was given up is removed for good, and files that are missing although they should be here
 * are no harm as long as objects hold their WAL.
 */
async function findLocalStart(segments: WalSegments, options: WalStoreOptions): Promise<Lsn> {
  const { startLsn, commitLsn, log } = options;
  const base = Math.max(options.localLsn ?? 0, startLsn) as Lsn;
  await segments.removeBelow(segmentNumber(base));
  if (commitLsn <= base) return base;
  const last = (commitLsn - 1) as Lsn;
  const present = new Set(await segments.numbers());
  let first = segmentNumber(last);
  if ((await segments.bytesOf(first)) < (last % WAL_SEGMENT_BYTES) + 1) throw lostWal(commitLsn);
  while (present.has(first - 1)) first--;
  const start = Math.max(base, first * WAL_SEGMENT_BYTES) as Lsn;
  if (start === base) return base;
  if (start > (options.backupLsn ?? startLsn)) throw lostWal(start);
  log.warn(
    { from: formatLsn(base), to: formatLsn(start) },
    'WAL files are missing here: their WAL is read from objects',
  );
  return start;
}

/** What lies beyond the log's end follows it file by file; else it is no torn tail, but WAL whose beginning is missing. */
async function assertNoGap(segments: WalSegments, end: Lsn): Promise<void> {
  const later = (await segments.numbers()).filter((number) => number >= segmentNumber(end));
  const gap = later.findIndex((number, at) => number !== segmentNumber(end) + at);
  if (gap < 0 || (gap === 0 && (await areEmpty(segments, later)))) return;
  throw lostWal((later[gap]! * WAL_SEGMENT_BYTES) as Lsn);
}

/** Files that were only prepared. */
async function areEmpty(segments: WalSegments, numbers: number[]): Promise<boolean> {
  for (const number of numbers) if ((await segments.bytesOf(number)) > 0) return false;
  return true;
}

function lostWal(end: Lsn): PalimpsestError {
  return new PalimpsestError(
    'corrupt',
    `the WAL up to ${formatLsn(end)} was committed, but its segment file is missing or too short`,
    'restore the segment file from another safekeeper, or delete this replica so that it is made anew',
  );
}

function missingWal(at: Lsn): PalimpsestError {
  return new PalimpsestError(
    'corrupt',
    `WAL at ${formatLsn(at)} should be on this disk, but its segment file is missing or too short`,
  );
}
