/**
 * Reading WAL from safekeepers: the other end of wal-frames.ts.
 *
 *   WalReader    asks one safekeeper for stretches of WAL and for its status
 *   WalStream    follows the committed WAL for ever; goes to another safekeeper when one is lost or falls behind
 */
import {
  FRAME_ASK_STATUS,
  FRAME_FEEDBACK,
  FRAME_READ_FAILED,
  FRAME_READ_WAL,
  FRAME_START_WAL,
  FRAME_STATUS,
  FRAME_WAL,
  FRAME_WAL_BYTES,
  packFeedback,
  packReadWal,
  packRequestNumber,
  packStartWal,
  READ_WAL_BYTES_MAX,
  type ReplicaStatus,
  readReadFailure,
  readRequestNumber,
  readStatus,
  readWalHeader,
  STREAM_REQUEST,
  WAL_FRAME_HEADER_BYTES,
  type WalFeedback,
} from '../../protocols/consensus/wal-frames.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { NodeId } from '../../protocols/ids.ts';
import { formatLsn, type Lsn } from '../../protocols/lsn.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import type { Clock, Timer } from '../../runtime/ports/clock.ts';
import type { Log } from '../../runtime/ports/log.ts';

const BACKOFF_MIN_MS = 20;
const BACKOFF_MAX_MS = 1000;
/** Safekeepers give a sign of life every second; without one for this long the stream moves on. */
const SILENCE_MAX_MS = 4000;
/** When the other safekeepers are asked whether they know of more: soon after WAL came, then ever more rarely. */
const COMPARE_MIN_MS = 2000;
const COMPARE_MAX_MS = 30_000;
const REQUEST_TIMEOUT_MS = 5000;
/** A follower tells how far it is at most this often. */
const FEEDBACK_MS = 250;

interface Pending {
  resolve: (value: never) => void;
  reject: (error: Error) => void;
  timer: Timer | undefined;
}

/** Requests on one channel to one safekeeper. The reader owns the channel's frames. */
export class WalReader {
  readonly #channel: Channel;
  readonly #clock: Clock | undefined;
  readonly #committedOnly: boolean;
  readonly #pending = new Map<number, Pending>();
  #nextRequest = STREAM_REQUEST + 1;
  /** Why no more answers come. */
  #closed: string | undefined;

  constructor(channel: Channel, clock?: Clock, options: { committedOnly?: boolean } = {}) {
    this.#channel = channel;
    this.#clock = clock;
    this.#committedOnly = options.committedOnly ?? false;
    channel.onClose((reason) => this.#fail(reason?.message ?? 'the connection to the safekeeper was closed'));
    channel.onFrame((type, body) => this.#receive(type, body));
  }

  /** Reads `length` bytes from `from`; fewer only where the safekeeper's durable (or committed) WAL ends. */
  async read(from: Lsn, length: number): Promise<Uint8Array> {
    const first = await this.#readPiece(from, Math.min(length, READ_WAL_BYTES_MAX));
    if (first.length === length || first.length < Math.min(length, READ_WAL_BYTES_MAX)) return first;
    const whole = new Uint8Array(length);
    whole.set(first);
    let done = first.length;
    while (done < length) {
      const piece = await this.#readPiece((from + done) as Lsn, Math.min(length - done, READ_WAL_BYTES_MAX));
      if (piece.length === 0) break;
      whole.set(piece, done);
      done += piece.length;
    }
    return whole.subarray(0, done);
  }

  status(): Promise<ReplicaStatus> {
    return this.#request((number) => this.#channel.send(FRAME_ASK_STATUS, packRequestNumber(number)));
  }

  close(): void {
    this.#channel.close();
    this.#fail('closed');
  }

  #readPiece(from: Lsn, length: number): Promise<Uint8Array> {
    const committedOnly = this.#committedOnly;
    return this.#request((request) =>
      this.#channel.send(FRAME_READ_WAL, packReadWal({ request, from, length, committedOnly })),
    );
  }

  #request<T>(send: (number: number) => void): Promise<T> {
    if (this.#closed !== undefined) return Promise.reject(new PalimpsestError('unavailable', this.#closed));
    const number = this.#nextRequest++;
    return new Promise<T>((resolve, reject) => {
      const timer = this.#clock?.setTimer(REQUEST_TIMEOUT_MS, () => {
        this.#pending.delete(number);
        reject(
          new PalimpsestError('timeout', `the safekeeper did not answer within ${REQUEST_TIMEOUT_MS} ms`),
        );
      });
      this.#pending.set(number, { resolve: resolve as (value: never) => void, reject, timer });
      send(number);
    });
  }

  #receive(type: number, body: Uint8Array): void {
    if (type !== FRAME_WAL_BYTES && type !== FRAME_STATUS && type !== FRAME_READ_FAILED) return;
    const number = readRequestNumber(body);
    const pending = this.#pending.get(number);
    if (!pending) return;
    this.#pending.delete(number);
    pending.timer?.cancel();
    if (type === FRAME_READ_FAILED) pending.reject(PalimpsestError.fromWire(readReadFailure(body)));
    else pending.resolve((type === FRAME_STATUS ? readStatus(body) : body.slice(4)) as never);
  }

  #fail(reason: string): void {
    this.#closed ??= reason;
    for (const pending of this.#pending.values()) {
      pending.timer?.cancel();
      pending.reject(new PalimpsestError('unavailable', this.#closed));
    }
    this.#pending.clear();
  }
}

export interface CommittedReadOptions {
  clock: Clock;
  /** Connects to a safekeeper's replica of the timeline. */
  dial: (node: NodeId) => Promise<Channel>;
  safekeepers: NodeId[];
}

/**
 * Reads committed WAL from the first safekeeper that has some of it: up to `length` bytes, none when nobody has any.
 * Throws the last failure when that might be the reason.
 */
export async function readCommittedWal(
  { clock, dial, safekeepers }: CommittedReadOptions,
  from: Lsn,
  length: number,
): Promise<Uint8Array> {
  let failure: unknown;
  for (const node of safekeepers) {
    try {
      const reader = new WalReader(await dial(node), clock, { committedOnly: true });
      try {
        const bytes = await reader.read(from, length);
        if (bytes.length > 0) return bytes;
      } finally {
        reader.close();
      }
    } catch (error) {
      failure = error;
    }
  }
  if (failure) throw failure;
  return new Uint8Array(0);
}

export interface WalStreamOptions {
  clock: Clock;
  log: Log;
  /** Connects to a safekeeper's replica of the timeline. */
  dial: (node: NodeId) => Promise<Channel>;
  safekeepers: NodeId[];
  /** First LSN wanted: the end of what the reader has. */
  from: Lsn;
  /**
   * Takes WAL at `beginLsn`, contiguous from `from`; `bytes` is valid only during the call. A promise holds the stream
   * back until it resolves; one that rejects, or a throw, ends the stream.
   */
  onWal: (beginLsn: Lsn, bytes: Uint8Array, commitLsn: Lsn) => void | Promise<void>;
  /** The stream has ended: the WAL wanted is nowhere, what came is not contiguous, or `onWal` failed. */
  onError: (error: Error) => void;
  /** How far this reader is: told to the safekeeper that is followed, as WAL and signs of life come. */
  feedback?: () => WalFeedback;
}

/** Follows the committed WAL of a timeline. Starts at once; ends with `close` or after `onError`. */
export class WalStream {
  readonly #options: WalStreamOptions;
  #safekeepers: readonly NodeId[];
  #position: Lsn;
  #channel: Channel | undefined;
  /** Index of the safekeeper that is being followed or dialled. */
  #current = 0;
  #backoffMs = BACKOFF_MIN_MS;
  /** Safekeepers in a row that could not be reached. */
  #failures = 0;
  #silence: Timer | undefined;
  #retry: Timer | undefined;
  #compare: Timer | undefined;
  #compareMs = COMPARE_MIN_MS;
  #holding = 0;
  #closed = false;
  #feedbackAt = 0;
  #feedbackTold: WalFeedback | undefined;

  constructor(options: WalStreamOptions) {
    this.#options = options;
    this.#safekeepers = options.safekeepers;
    this.#position = options.from;
    this.#connect();
    this.#armCompare();
  }

  /** End of the WAL that was handed over. */
  get position(): Lsn {
    return this.#position;
  }

  /** The safekeeper that is being followed. */
  get safekeeper(): NodeId {
    return this.#safekeepers[this.#current]!;
  }

  /** The timeline's safekeepers are others now; the stream stays with the one that it follows while that is one of them. */
  follow(safekeepers: readonly NodeId[]): void {
    const now = this.safekeeper;
    this.#safekeepers = safekeepers;
    const at = safekeepers.indexOf(now);
    this.#current = Math.max(0, at);
    if (at < 0) this.#moveOn(`${now} is no safekeeper of the timeline any more`);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const timer of [this.#silence, this.#retry, this.#compare]) timer?.cancel();
    this.#channel?.close();
    this.#channel = undefined;
  }

  #connect(): void {
    const node = this.safekeeper;
    this.#options.dial(node).then(
      (channel) => this.#start(channel),
      (error: Error) => this.#moveOn(`${node} cannot be reached: ${error.message}`),
    );
  }

  #start(channel: Channel): void {
    if (this.#closed || this.#channel) {
      channel.close();
      return;
    }
    this.#channel = channel;
    channel.onClose((reason) => {
      if (this.#channel === channel)
        this.#moveOn(`${this.safekeeper} was lost: ${reason?.message ?? 'closed'}`);
    });
    channel.onFrame((type, body) => {
      if (this.#channel === channel) this.#receive(channel, type, body);
    });
    this.#feedbackTold = undefined;
    channel.send(FRAME_START_WAL, packStartWal(this.#position));
    this.#hearLife();
  }

  #receive(channel: Channel, type: number, body: Uint8Array): void {
    this.#hearLife();
    if (type === FRAME_READ_FAILED) {
      const error = PalimpsestError.fromWire(readReadFailure(body));
      if (error.code === 'not-found') {
        this.#end(error);
        return;
      }
      this.#moveOn(`${this.safekeeper}: ${error.message}`);
      return;
    }
    if (type !== FRAME_WAL) return;
    this.#backoffMs = BACKOFF_MIN_MS;
    this.#failures = 0;
    const { beginLsn, commitLsn } = readWalHeader(body);
    const bytes = body.subarray(WAL_FRAME_HEADER_BYTES);
    if (beginLsn !== this.#position) {
      this.#end(
        new PalimpsestError(
          'corrupt',
          `WAL from ${this.safekeeper} goes on at ${formatLsn(beginLsn)}, expected ${formatLsn(this.#position)}`,
        ),
      );
      return;
    }
    this.#position = (beginLsn + bytes.length) as Lsn;
    this.#handOver(channel, beginLsn, bytes, commitLsn);
    this.#tellFeedback(channel);
  }

  #tellFeedback(channel: Channel): void {
    const { feedback, clock } = this.#options;
    if (!feedback || this.#channel !== channel) return;
    const now = clock.monotonic();
    if (this.#feedbackTold && now - this.#feedbackAt < FEEDBACK_MS) return;
    this.#feedbackAt = now;
    const { receivedLsn, remoteLsn, shard } = feedback();
    const told = this.#feedbackTold;
    if (told?.receivedLsn === receivedLsn && told.remoteLsn === remoteLsn) return;
    this.#feedbackTold = { receivedLsn, remoteLsn };
    channel.send(FRAME_FEEDBACK, packFeedback({ receivedLsn, remoteLsn, ...(shard ? { shard } : {}) }));
  }

  #handOver(channel: Channel, beginLsn: Lsn, bytes: Uint8Array, commitLsn: Lsn): void {
    try {
      const held = this.#options.onWal(beginLsn, bytes, commitLsn);
      if (!held) return;
      this.#holding++;
      channel.pause();
      this.#silence?.cancel();
      held.then(
        () => {
          if (--this.#holding > 0 || this.#closed) return;
          this.#hearLife();
          channel.resume();
        },
        (error: Error) => this.#end(error),
      );
    } catch (error) {
      this.#end(error as Error);
    }
  }

  #hearLife(): void {
    this.#silence?.cancel();
    if (this.#closed || this.#holding > 0) return;
    this.#silence = this.#options.clock.setTimer(SILENCE_MAX_MS, () =>
      this.#moveOn(`${this.safekeeper} is silent`),
    );
  }

  /** Goes to the next safekeeper; waits longer the more of them could not be reached in a row. */
  #moveOn(reason: string): void {
    if (this.#closed) return;
    this.#silence?.cancel();
    const channel = this.#channel;
    this.#channel = undefined;
    channel?.close();
    this.#options.log.info({ position: formatLsn(this.#position) }, `WAL stream moves on: ${reason}`);
    this.#current = (this.#current + 1) % this.#safekeepers.length;
    this.#failures++;
    const wait = this.#failures < this.#safekeepers.length ? BACKOFF_MIN_MS : this.#backoffMs;
    if (this.#failures >= this.#safekeepers.length) {
      this.#backoffMs = Math.min(BACKOFF_MAX_MS, this.#backoffMs * 1.6);
    }
    this.#retry?.cancel();
    this.#retry = this.#options.clock.setTimer(wait, () => this.#connect());
  }

  #end(error: Error): void {
    if (this.#closed) return;
    this.close();
    this.#options.onError(error);
  }

  /** A safekeeper that lost its proposer stands still without knowing it: the others are asked now and then. */
  #armCompare(): void {
    if (this.#safekeepers.length < 2) return;
    this.#compare = this.#options.clock.setTimer(this.#compareMs, () => {
      const before = this.#position;
      void this.#anyoneAhead(before).then((ahead) => {
        if (this.#closed) return;
        const moved = this.#position !== before;
        this.#compareMs = moved ? COMPARE_MIN_MS : Math.min(COMPARE_MAX_MS, this.#compareMs * 2);
        const stuck = !moved && this.#holding === 0 && this.#channel !== undefined;
        const at = ahead === undefined ? -1 : this.#safekeepers.indexOf(ahead);
        if (at >= 0 && stuck) {
          this.#current = (at + this.#safekeepers.length - 1) % this.#safekeepers.length;
          this.#moveOn(`${ahead} knows of more WAL`);
        }
        this.#armCompare();
      });
    });
  }

  /** Another safekeeper that knows more to be committed than we have. */
  async #anyoneAhead(position: Lsn): Promise<NodeId | undefined> {
    const { dial, clock } = this.#options;
    for (const node of this.#safekeepers) {
      if (this.#closed) return undefined;
      if (node === this.safekeeper) continue;
      try {
        const reader = new WalReader(await dial(node), clock);
        try {
          if ((await reader.status()).commitLsn > position) return node;
        } finally {
          reader.close();
        }
      } catch {
        // Not reachable now: it has nothing to offer either.
      }
    }
    return undefined;
  }
}
