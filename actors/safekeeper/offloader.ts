/**
 * Looks after one replica's WAL in object storage, beside the path of commits: stores segments and tails, gives local WAL up,
 * removes it all from an idle timeline. One step at a time, none while there is nothing to do.
 *
 * Every step is written down before it is acted on, and can be taken again after a crash.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { NodeId } from '../../protocols/ids.ts';
import { formatLsn, type Lsn, segmentStart, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import type { Clock, Timer } from '../../runtime/ports/clock.ts';
import type { Log } from '../../runtime/ports/log.ts';
import { trimTarget } from './offload-state.ts';
import { type PeerView, remoteLsnOf, surveyPeers } from './peer-survey.ts';
import type { Replica } from './replica.ts';
import { isTailStored, removeOldTails, SegmentOffload, storeTail } from './segment-offload.ts';
import type { ArchiveTools } from './wal-archive.ts';

export interface OffloadTimings {
  /** Between two looks while there is work. */
  tickMs: number;
  /** A committed tail that stands still for this long is stored; one that moves, every `movingTailMs`. */
  tailMs: number;
  movingTailMs: number;
  /** While WAL is coming, a whole segment waits up to this long: bringing it to objects takes processor time from the writers. */
  busyMs: number;
  /** Nobody has written for this long, and no compute is there: local WAL is given up. */
  evictMs: number;
}

export const OFFLOAD_TIMINGS: OffloadTimings = {
  tickMs: 1000,
  tailMs: 15_000,
  movingTailMs: 5 * 60_000,
  busyMs: 5_000,
  evictMs: 15 * 60_000,
};

const RETRY_MAX_MS = 30_000;
/** Peers are asked ever more rarely how far pageservers have stored what lies here, up to so many ticks apart. */
const TRIM_TICKS_MAX = 16;
const MIN_DELAY_MS = 5;
/** More than this is not left waiting for the writers' sake. */
const WAITING_BYTES_MAX = 32 * WAL_SEGMENT_BYTES;

export interface OffloaderOptions {
  replica: Replica;
  tools: ArchiveTools;
  /** The other members, as the replica knows them now. */
  peers: () => NodeId[];
  dial: (node: NodeId) => Promise<Channel>;
  clock: Clock;
  log: Log;
  timings?: Partial<OffloadTimings>;
}

export class Offloader {
  readonly #options: OffloaderOptions;
  readonly #timings: OffloadTimings;
  readonly #segments: SegmentOffload;
  #timer: { at: number; timer: Timer } | undefined;
  #working: Promise<void> | undefined;
  #retryMs: number;
  /** What waits for pageservers is looked at then, and so long after that. */
  #trimAt = 0;
  #trimMs: number;
  #complaint: string | undefined;
  #seenCommit: Lsn;
  #movedAt: number;
  #tailStoredAt: number;
  /** The tail is to be stored soon. */
  #isAsked = false;
  /** Since when there is a whole segment to store, as far as that was looked at. */
  #dueSince: number | undefined;
  readonly #closing = new AbortController();
  #closed = false;

  constructor(options: OffloaderOptions) {
    const { replica, tools, clock } = options;
    this.#options = options;
    this.#timings = { ...OFFLOAD_TIMINGS, ...options.timings };
    this.#segments = new SegmentOffload(replica, tools, clock);
    this.#retryMs = this.#trimMs = this.#timings.tickMs;
    this.#seenCommit = replica.commitLsn;
    this.#movedAt = this.#tailStoredAt = clock.monotonic();
    replica.onProgress(() => this.#arm(this.#timings.tickMs));
    this.#arm(this.#timings.tickMs);
  }

  /** Ends after the step that is under way; one that waits for its turn is given up. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#closing.abort();
    this.#timer?.timer.cancel();
    await this.#working;
  }

  /** Somebody counts on what is committed now: it is stored without waiting for it to rest, but once in a tick at most. */
  storeSoon(): void {
    this.#isAsked = true;
    this.#arm(MIN_DELAY_MS);
  }

  /** Stores what is committed and not in objects yet; for a clean stop. */
  async storeAll(): Promise<void> {
    await this.#working;
    const { replica, tools } = this.#options;
    if (!this.#segments.isDue) await storeTail(replica, tools);
  }

  #arm(wantedMs: number): void {
    if (this.#closed || this.#working) return;
    // A clock may be a fraction behind the deadline that it was asked for.
    const delayMs = Math.max(MIN_DELAY_MS, wantedMs);
    const at = this.#options.clock.monotonic() + delayMs;
    if (this.#timer && this.#timer.at <= at) return;
    this.#timer?.timer.cancel();
    this.#timer = { at, timer: this.#options.clock.setTimer(delayMs, () => this.#begin()) };
  }

  #begin(): void {
    this.#timer = undefined;
    if (this.#closed || this.#working) return;
    this.#working = this.#step()
      .then(
        (delayMs) => {
          this.#complaint = undefined;
          return delayMs;
        },
        (error) => this.#complain(error),
      )
      .then((delayMs) => {
        this.#working = undefined;
        if (delayMs !== undefined) this.#arm(delayMs);
      });
  }

  /** Says once what is in the way; returns when to try again. */
  #complain(error: unknown): number {
    const message = error instanceof Error ? error.message : String(error);
    if (message !== this.#complaint && !this.#closed) {
      this.#complaint = message;
      this.#options.log.warn({}, `WAL cannot be brought to objects, will be tried again: ${message}`);
    }
    return this.#backOff();
  }

  #backOff(): number {
    const delayMs = this.#retryMs;
    this.#retryMs = Math.min(RETRY_MAX_MS, this.#retryMs * 2);
    return delayMs;
  }

  /** Does what is due; returns when to look again, or nothing to rest until WAL comes. */
  async #step(): Promise<number | undefined> {
    const { replica } = this.#options;
    const now = this.#options.clock.monotonic();
    if (replica.commitLsn !== this.#seenCommit) {
      // Only with another segment there is more to give up.
      if (segmentStart(replica.commitLsn) !== segmentStart(this.#seenCommit)) {
        this.#trimMs = this.#timings.tickMs;
        this.#trimAt = now;
      }
      this.#seenCommit = replica.commitLsn;
      this.#movedAt = now;
      this.#retryMs = this.#timings.tickMs;
    }
    if (this.#letsWriterPass(now)) return this.#timings.tickMs;
    const before = replica.positions.backupLsn;
    const waits = await this.#offloadAndTrim(now);
    if (replica.positions.backupLsn > before) this.#retryMs = this.#timings.tickMs;
    if (this.#closed) return undefined;
    if (waits === 'segments') {
      return replica.positions.backupLsn > before ? 0 : Math.min(this.#backOff(), 4 * this.#timings.tickMs);
    }
    const tail = await this.#storeTailWhenDue(now);
    const eviction = tail === undefined ? await this.#evictWhenDue(now) : undefined;
    const delays = [tail, eviction, waits === 'pageserver' ? this.#trimAt - now : undefined];
    const known = delays.filter((delay) => delay !== undefined);
    return known.length > 0 ? Math.min(...known) : undefined;
  }

  /** Whether what is due can wait, because WAL is coming at this moment. */
  #letsWriterPass(now: number): boolean {
    const { commitLsn, positions } = this.#options.replica;
    if (!this.#segments.isDue) {
      this.#dueSince = undefined;
      return false;
    }
    this.#dueSince ??= now;
    const isComing = this.#movedAt === now;
    const isDueNow =
      now - this.#dueSince >= this.#timings.busyMs || commitLsn - positions.backupLsn > WAITING_BYTES_MAX;
    return isComing && !isDueNow;
  }

  /** Returns what the local WAL below the commit LSN waits for, if it waits. */
  async #offloadAndTrim(now: number): Promise<'segments' | 'pageserver' | undefined> {
    if (!this.#segments.isDue) {
      if (!this.#isTrimmable) return undefined;
      if (now < this.#trimAt) return 'pageserver';
    }
    const peers = await surveyPeers({ ...this.#options, peers: this.#options.peers() });
    if (this.#closed) return undefined;
    await this.#segments.advance(peers, this.#closing.signal);
    await this.#trim(peers);
    if (this.#segments.isDue) return 'segments';
    if (!this.#isTrimmable) return undefined;
    this.#trimAt = now + this.#trimMs;
    this.#trimMs = Math.min(TRIM_TICKS_MAX * this.#timings.tickMs, 2 * this.#trimMs);
    return 'pageserver';
  }

  /** Whether whole segments lie here that are committed. */
  get #isTrimmable(): boolean {
    const { positions, commitLsn } = this.#options.replica;
    return positions.localLsn < segmentStart(commitLsn);
  }

  async #trim(peers: PeerView[]): Promise<void> {
    const { replica, log } = this.#options;
    const remoteLsn = remoteLsnOf(replica, peers);
    const { commitLsn, positions } = replica;
    if (trimTarget({ ...positions, remoteLsn }, commitLsn) <= positions.localLsn) return;
    await replica.decide({ type: 'note-remote', lsn: remoteLsn });
    await replica.persistCommit();
    const target = trimTarget(replica.positions, replica.context.commitLsn);
    await replica.trim(target);
    await removeOldTails(replica, this.#options.tools);
    log.debug({ below: formatLsn(target) }, 'local WAL was trimmed');
  }

  /** Returns when to look again; undefined when the tail is in objects. */
  async #storeTailWhenDue(now: number): Promise<number | undefined> {
    const { replica, tools, clock } = this.#options;
    if (isTailStored(replica)) return undefined;
    const restsAt = this.#movedAt + this.#timings.tailMs;
    const { movingTailMs, tickMs } = this.#timings;
    const dueAt = Math.min(restsAt, this.#tailStoredAt + (this.#isAsked ? tickMs : movingTailMs));
    if (now < dueAt) return dueAt - now;
    this.#isAsked = false;
    await storeTail(replica, tools, this.#closing.signal);
    this.#tailStoredAt = clock.monotonic();
    return isTailStored(replica) ? undefined : this.#timings.tickMs;
  }

  /** Returns when to look again; undefined when there is nothing left to give up. */
  async #evictWhenDue(now: number): Promise<number | undefined> {
    const { replica, log } = this.#options;
    const { commitLsn, positions } = replica;
    if (positions.localLsn >= commitLsn) return undefined;
    const dueAt = this.#movedAt + this.#timings.evictMs;
    if (now < dueAt) return dueAt - now;
    if (replica.hasProposer || !(await this.#evict())) return this.#timings.evictMs / 4;
    log.info(
      { at: formatLsn(commitLsn) },
      'the timeline is idle: its local WAL was given up, objects hold it',
    );
    return undefined;
  }

  async #evict(): Promise<boolean> {
    try {
      return await this.#options.replica.evict();
    } catch (error) {
      // Somebody wrote a moment ago.
      if (error instanceof PalimpsestError && error.code === 'conflict') return false;
      throw error;
    }
  }
}
