/**
 * Sends committed WAL down one channel as the commit LSN advances, and a sign of life when nothing happens.
 *
 * Small advances are gathered for a millisecond, or a few when one follows the other, so that a reader wakes up for many
 * commits at once; the channel's queue bounds how far it runs ahead of a slow reader.
 */
import {
  FRAME_READ_FAILED,
  FRAME_WAL,
  packReadFailure,
  packRequestNumber,
  packWalHeader,
  STREAM_REQUEST,
} from '../../protocols/consensus/wal-frames.ts';
import { toWireError } from '../../protocols/errors.ts';
import type { Lsn } from '../../protocols/lsn.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import type { Clock, Timer } from '../../runtime/ports/clock.ts';

const FRAME_BYTES_MAX = 256 * 1024;
const QUEUED_BYTES_MAX = 1024 * 1024;
const GATHER_MS = 1;
/** While WAL comes all the time it is sent this often: a reader's turn costs the same for much of it as for little. */
const GATHER_BUSY_MS = 5;
/** An advance of this much is sent at once. */
const SEND_AT_ONCE_BYTES = 64 * 1024;
export const HEARTBEAT_MS = 1000;

export interface WalSource {
  readonly commitLsn: Lsn;
  read(from: Lsn, into: Uint8Array): Promise<number>;
}

export class WalSender {
  readonly #channel: Channel;
  readonly #source: WalSource;
  readonly #clock: Clock;
  #position: Lsn;
  #pumping = false;
  #pumpedAtMs = Number.NEGATIVE_INFINITY;
  #gather: Timer | undefined;
  #heartbeat: Timer;
  #lastBeat = -1;
  #closed = false;
  /** What is read lies here until it is sent; given back when nothing happens. */
  #buffer = new Uint8Array(0);

  constructor(options: { channel: Channel; source: WalSource; clock: Clock; from: Lsn }) {
    this.#channel = options.channel;
    this.#source = options.source;
    this.#clock = options.clock;
    this.#position = options.from;
    this.#heartbeat = this.#armHeartbeat();
    this.#sendNothing();
    void this.#pump();
  }

  /** The commit LSN moved. */
  advance(): void {
    if (this.#pumping || this.#closed) return;
    if (this.#source.commitLsn - this.#position >= SEND_AT_ONCE_BYTES) {
      void this.#pump();
    } else {
      this.#gather ??= this.#clock.setTimer(this.#gatherMs(), () => void this.#pump());
    }
  }

  close(): void {
    this.#closed = true;
    this.#gather?.cancel();
    this.#heartbeat.cancel();
  }

  #gatherMs(): number {
    return Math.max(GATHER_MS, this.#pumpedAtMs + GATHER_BUSY_MS - this.#clock.monotonic());
  }

  async #pump(): Promise<void> {
    this.#gather?.cancel();
    this.#gather = undefined;
    if (this.#pumping) return;
    this.#pumping = true;
    try {
      while (!this.#closed && this.#position < this.#source.commitLsn) {
        if (this.#channel.queuedBytes > QUEUED_BYTES_MAX) await this.#channel.drained(QUEUED_BYTES_MAX / 2);
        else await this.#sendNext();
      }
    } catch (error) {
      this.close();
      this.#channel.send(
        FRAME_READ_FAILED,
        packRequestNumber(STREAM_REQUEST),
        packReadFailure(toWireError(error)),
      );
      this.#channel.close();
    } finally {
      this.#pumping = false;
      this.#pumpedAtMs = this.#clock.monotonic();
    }
  }

  async #sendNext(): Promise<void> {
    const commitLsn = this.#source.commitLsn;
    const wanted = Math.min(FRAME_BYTES_MAX, commitLsn - this.#position);
    if (this.#buffer.length < wanted) this.#buffer = new Uint8Array(2 ** Math.ceil(Math.log2(wanted)));
    const bytes = this.#buffer.subarray(0, wanted);
    const count = await this.#source.read(this.#position, bytes);
    if (this.#closed) return;
    this.#channel.send(FRAME_WAL, packWalHeader(this.#position, commitLsn), bytes.subarray(0, count));
    this.#position = (this.#position + count) as Lsn;
  }

  #sendNothing(): void {
    this.#channel.send(FRAME_WAL, packWalHeader(this.#position, this.#source.commitLsn));
  }

  #armHeartbeat(): Timer {
    return this.#clock.setTimer(HEARTBEAT_MS, () => {
      if (this.#closed) return;
      if (!this.#pumping) {
        if (this.#position === this.#lastBeat) this.#buffer = new Uint8Array(0);
        this.#lastBeat = this.#position;
        this.#sendNothing();
      }
      this.#heartbeat = this.#armHeartbeat();
    });
  }
}
