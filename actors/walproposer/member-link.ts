/**
 * The connection to one safekeeper: dials, greets, and goes on trying with backoff until it is closed. What the
 * answers mean is the walproposer's affair.
 *
 *   down -> greeting -> greeted -> voting -> voted -> electing -> streaming;   any -> down when the channel closes
 */
import {
  type AcceptorGreeting,
  type AppendHeader,
  type AppendResponse,
  blankAppendResponse,
  FRAME_ACCEPTOR_GREETING,
  FRAME_APPEND_REQUEST,
  FRAME_APPEND_RESPONSE,
  FRAME_PROPOSER_ELECTED,
  FRAME_PROPOSER_GREETING,
  FRAME_REFUSED,
  FRAME_VOTE_REQUEST,
  FRAME_VOTE_RESPONSE,
  type ProposerElected,
  type ProposerGreeting,
  packAppendHeader,
  packMessage,
  readAppendResponse,
  unpackMessage,
  type VoteRequest,
  type VoteResponse,
} from '../../protocols/consensus/messages.ts';
import {
  FRAME_READ_FAILED,
  FRAME_READ_WAL,
  FRAME_WAL_BYTES,
  packReadWal,
  readReadFailure,
  readRequestNumber,
} from '../../protocols/consensus/wal-frames.ts';
import { PalimpsestError, type WireError } from '../../protocols/errors.ts';
import type { NodeId } from '../../protocols/ids.ts';
import type { Lsn } from '../../protocols/lsn.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import type { Clock, Timer } from '../../runtime/ports/clock.ts';

export type LinkState = 'down' | 'greeting' | 'greeted' | 'voting' | 'voted' | 'electing' | 'streaming';

const BACKOFF_MIN_MS = 20;
const BACKOFF_MAX_MS = 1000;
/** A member that does not answer one step of the handshake in this time is dialled anew. */
const HANDSHAKE_TIMEOUT_MS = 5000;
/** So often it is looked whether a member answers to WAL, and for so many looks it may not: it is dialled anew then. */
const LOOK_MS = 1000;
const SILENT_LOOKS_MAX = 3;

export interface LinkListener {
  onGreeting(link: MemberLink, greeting: AcceptorGreeting): void;
  onVote(link: MemberLink, response: VoteResponse): void;
  /** `response` is valid only during the call. */
  onAppendResponse(link: MemberLink, response: AppendResponse): void;
  onRefused(link: MemberLink, error: WireError): void;
  /** `wasStreaming`: commits may have counted on it. */
  onDown(link: MemberLink, how: { wasStreaming: boolean }): void;
}

export class MemberLink {
  readonly node: NodeId;
  state: LinkState = 'down';
  /** While streaming: the next LSN to send. */
  position = 0 as Lsn;
  /** Commit LSN that was sent last. */
  commitSent = 0 as Lsn;
  /** A read from a donor, or a wait for the channel's queue, goes on for this link: it is pumped afterwards. */
  waiting = false;
  /** Nobody connected has what the member needs next. */
  starved = false;
  /** Its answer to the vote of this connection. */
  vote: VoteResponse | undefined;
  /** First LSN that the member holds. */
  truncateLsn = 0 as Lsn;
  /** Up to here a pageserver that follows the member has the WAL; 0 when none does. */
  followerLsn = 0 as Lsn;
  /** The last reason for which the member could not be reached or refused. */
  lastError: string | undefined;

  readonly #dial: (node: NodeId) => Promise<Channel>;
  readonly #greeting: ProposerGreeting;
  readonly #clock: Clock;
  readonly #listener: LinkListener;
  readonly #response = blankAppendResponse();
  #channel: Channel | undefined;
  #backoffMs = BACKOFF_MIN_MS;
  #retry: Timer | undefined;
  #watchdog: Timer | undefined;
  #closed = false;
  #nextRequest = 1;
  #votesAsked = 0;
  #electedTerm = 0;
  /** Answers to WAL of this connection, and the end of what the newest one says is durable. */
  #answers = 0;
  #flushLsn = 0 as Lsn;
  #answersSeen = 0;
  #silentLooks = 0;
  #look: Timer | undefined;
  #reads = new Map<number, { resolve: (bytes: Uint8Array) => void; reject: (error: Error) => void }>();

  constructor(options: {
    node: NodeId;
    dial: (node: NodeId) => Promise<Channel>;
    greeting: ProposerGreeting;
    clock: Clock;
    listener: LinkListener;
  }) {
    this.node = options.node;
    this.#dial = options.dial;
    this.#greeting = options.greeting;
    this.#clock = options.clock;
    this.#listener = options.listener;
  }

  get queuedBytes(): number {
    return this.#channel?.queuedBytes ?? 0;
  }

  /** Dials and greets; comes back by itself whenever the connection is lost. */
  connect(): void {
    if (this.#closed || this.state !== 'down') return;
    this.#retry?.cancel();
    this.state = 'greeting';
    this.#watch();
    this.#dial(this.node).then(
      (channel) => this.#connected(channel),
      (error: Error) => this.#lost(error.message),
    );
  }

  /** Tells a member that streams of the newer configuration; it goes on streaming. */
  greetAgain(): void {
    this.#channel?.send(FRAME_PROPOSER_GREETING, packMessage(this.#greeting));
  }

  askVote(request: VoteRequest): void {
    this.state = 'voting';
    this.#votesAsked++;
    this.#watch();
    this.#channel?.send(FRAME_VOTE_REQUEST, packMessage(request));
  }

  tellElected(message: ProposerElected): void {
    this.state = 'electing';
    this.#electedTerm = message.term;
    this.position = message.startStreamingAt;
    this.commitSent = 0 as Lsn;
    this.#watch();
    this.#channel?.send(FRAME_PROPOSER_ELECTED, packMessage(message));
  }

  sendAppend(header: AppendHeader, wal: Uint8Array): void {
    this.position = (this.position + wal.length) as Lsn;
    this.commitSent = header.commitLsn;
    this.#channel?.send(FRAME_APPEND_REQUEST, packAppendHeader(header), wal);
  }

  drained(lowWaterBytes: number): Promise<void> {
    return this.#channel?.drained(lowWaterBytes) ?? Promise.resolve();
  }

  /** Reads WAL that the member holds durably; fewer bytes when it has no more. */
  readWal(from: Lsn, length: number): Promise<Uint8Array> {
    const channel = this.#channel;
    if (!channel) return Promise.reject(new PalimpsestError('unavailable', `${this.node} is not connected`));
    const request = this.#nextRequest++;
    return new Promise((resolve, reject) => {
      this.#reads.set(request, { resolve, reject });
      channel.send(FRAME_READ_WAL, packReadWal({ request, from, length, committedOnly: false }));
    });
  }

  /** Gives the connection up; it is dialled anew after the backoff. */
  drop(reason: string): void {
    this.#lost(reason);
  }

  close(): void {
    this.#closed = true;
    this.#lost('closed');
    this.#retry?.cancel();
  }

  #connected(channel: Channel): void {
    if (this.#closed || this.state !== 'greeting' || this.#channel) {
      channel.close();
      return;
    }
    this.#channel = channel;
    channel.onClose((reason) => {
      if (this.#channel === channel) this.#lost(reason?.message ?? 'the connection was closed');
    });
    channel.onFrame((type, body) => {
      if (this.#channel === channel) this.#receive(type, body);
    });
    channel.send(FRAME_PROPOSER_GREETING, packMessage(this.#greeting));
  }

  #receive(type: number, body: Uint8Array): void {
    switch (type) {
      case FRAME_APPEND_RESPONSE: {
        const response = readAppendResponse(body, this.#response);
        this.#answers++;
        this.#flushLsn = response.flushLsn;
        if (this.state === 'electing' && response.term === this.#electedTerm) this.#settled('streaming');
        this.#listener.onAppendResponse(this, response);
        return;
      }
      case FRAME_ACCEPTOR_GREETING:
        // One that streams says by this that it has taken over a newer configuration.
        if (this.state === 'greeting') this.#settled('greeted');
        this.#listener.onGreeting(this, unpackMessage(body));
        return;
      case FRAME_VOTE_RESPONSE: {
        // Answers to votes of earlier attempts mean nothing any more.
        if (--this.#votesAsked > 0) return;
        const response = unpackMessage<VoteResponse>(body);
        this.#settled('voted');
        this.truncateLsn = response.truncateLsn;
        this.#listener.onVote(this, response);
        return;
      }
      case FRAME_REFUSED: {
        const error = unpackMessage<WireError>(body);
        this.lastError = error.message;
        this.#listener.onRefused(this, error);
        return;
      }
      case FRAME_WAL_BYTES: {
        const request = readRequestNumber(body);
        const read = this.#reads.get(request);
        this.#reads.delete(request);
        read?.resolve(body.slice(4));
        return;
      }
      case FRAME_READ_FAILED: {
        const request = readRequestNumber(body);
        const read = this.#reads.get(request);
        this.#reads.delete(request);
        read?.reject(PalimpsestError.fromWire(readReadFailure(body)));
        return;
      }
    }
  }

  #settled(state: LinkState): void {
    this.state = state;
    this.#watchdog?.cancel();
    if (state === 'streaming') {
      this.#backoffMs = BACKOFF_MIN_MS;
      this.lastError = undefined;
      this.#silentLooks = 0;
      this.#lookLater();
    }
  }

  /** Where packets are dropped nobody closes the connection. */
  #lookLater(): void {
    this.#look?.cancel();
    this.#look = this.#clock.setTimer(LOOK_MS, () => {
      if (this.state !== 'streaming') return;
      const isSilent = this.position > this.#flushLsn && this.#answers === this.#answersSeen;
      this.#answersSeen = this.#answers;
      this.#silentLooks = isSilent ? this.#silentLooks + 1 : 0;
      if (this.#silentLooks >= SILENT_LOOKS_MAX) this.#lost('it does not answer');
      else this.#lookLater();
    });
  }

  #watch(): void {
    this.#watchdog?.cancel();
    this.#watchdog = this.#clock.setTimer(HANDSHAKE_TIMEOUT_MS, () => this.#lost('no answer in time'));
  }

  #lost(reason: string): void {
    const channel = this.#channel;
    if (this.state === 'down' && !channel) return;
    const wasStreaming = this.state === 'streaming';
    this.#channel = undefined;
    this.state = 'down';
    this.waiting = false;
    this.starved = false;
    this.followerLsn = 0 as Lsn;
    this.#votesAsked = 0;
    this.lastError ??= reason;
    this.#watchdog?.cancel();
    this.#look?.cancel();
    channel?.close();
    const reads = [...this.#reads.values()];
    this.#reads.clear();
    const error = new PalimpsestError('unavailable', `${this.node}: ${reason}`);
    for (const read of reads) read.reject(error);
    if (this.#closed) return;
    this.#listener.onDown(this, { wasStreaming });
    this.#retry = this.#clock.setTimer(this.#backoffMs, () => this.connect());
    this.#backoffMs = Math.min(BACKOFF_MAX_MS, this.#backoffMs * 1.6);
  }
}
