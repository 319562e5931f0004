/**
 * One channel to a replica: consensus messages of a proposer, and requests of WAL readers.
 *
 * Consensus messages of one channel are obeyed strictly in order. A message that cannot be obeyed yet (a vote or an
 * election is being made durable, or the disk lags) waits in a short inbox while the channel is paused.
 */
import {
  type AcceptorGreeting,
  APPEND_HEADER_BYTES,
  blankAppendHeader,
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
  packAppendResponse,
  packMessage,
  readAppendHeader,
  unpackMessage,
  type VoteRequest,
} from '../../protocols/consensus/messages.ts';
import {
  FRAME_ASK_STATUS,
  FRAME_FEEDBACK,
  FRAME_READ_FAILED,
  FRAME_READ_WAL,
  FRAME_START_WAL,
  FRAME_STATUS,
  FRAME_WAL_BYTES,
  packReadFailure,
  packRequestNumber,
  packStatus,
  READ_WAL_BYTES_MAX,
  type ReadWalRequest,
  readFeedback,
  readReadWal,
  readRequestNumber,
  readStartWal,
} from '../../protocols/consensus/wal-frames.ts';
import { PalimpsestError, toWireError } from '../../protocols/errors.ts';
import type { Term } from '../../protocols/ids.ts';
import type { Lsn } from '../../protocols/lsn.ts';
import { RIGHT_APPEND } from '../../protocols/tokens.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import { judgeAppend } from './decide.ts';
import type { Replica } from './replica.ts';
import { WalSender } from './wal-sender.ts';

const NO_BYTES = new Uint8Array(0);

export class AcceptorConnection {
  readonly #replica: Replica;
  readonly #channel: Channel;
  readonly #clock: Clock;
  readonly #mayPropose: boolean;
  readonly #header = blankAppendHeader();
  #inbox: { type: number; body: Uint8Array }[] = [];
  /** A message of this channel is being made durable. */
  #busy = false;
  #closed = false;
  /** Term of the election that this channel told of and that was obeyed; 0 before. */
  #electedTerm = 0;
  #greeted = false;
  /** End of the WAL that was taken, and of what was answered to be durable of it. */
  #taken = 0 as Lsn;
  #answered = 0 as Lsn;
  #sender: WalSender | undefined;
  /** Of the last answered read, for the next one. */
  #readMemory = NO_BYTES;

  constructor(replica: Replica, channel: Channel, { clock, rights }: { clock: Clock; rights: number }) {
    this.#replica = replica;
    this.#channel = channel;
    this.#clock = clock;
    this.#mayPropose = (rights & RIGHT_APPEND) !== 0;
    channel.onClose(() => this.#end());
    channel.onFrame((type, body) => this.#receive(type, body));
  }

  /** Whether a proposer speaks here. */
  get hasProposer(): boolean {
    return this.#greeted;
  }

  /** More WAL is durable. */
  onFlush(): void {
    if (this.#answered >= this.#taken) return;
    this.#answered = this.#replica.flushLsn;
    this.#answerAppend();
  }

  onCommit(): void {
    this.#sender?.advance();
  }

  /** Another proposer's term was taken over: tells ours that it is over, so that it need not write to find out. */
  onTerm(term: Term): void {
    if (this.#electedTerm > 0 && this.#electedTerm < term) this.#answerAppend();
  }

  /** A newer configuration was taken over: a proposer that streams here learns of it before any answer that counts in it. */
  onMembership(greeting: AcceptorGreeting): void {
    if (this.#closed || this.#electedTerm === 0) return;
    this.#channel.send(FRAME_ACCEPTOR_GREETING, packMessage(greeting));
    this.#answerAppend();
  }

  /** What was in the way may be gone: goes on with the inbox. */
  resume(): void {
    if (this.#closed) return;
    while (this.#inbox.length > 0 && !this.#busy) {
      const { type, body } = this.#inbox[0]!;
      if (!this.#obey(type, body)) return;
      this.#inbox.shift();
    }
    if (this.#inbox.length === 0 && !this.#busy) this.#channel.resume();
  }

  close(): void {
    this.#channel.close();
    this.#end();
  }

  #end(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#inbox = [];
    this.#sender?.close();
    this.#replica.forget(this);
  }

  #receive(type: number, body: Uint8Array): void {
    if (this.#closed) return;
    if (type >= FRAME_START_WAL) {
      this.#serve(type, body);
      return;
    }
    if (!this.#mayPropose) {
      this.#refuse(new PalimpsestError('permission-denied', 'this channel was opened for reading WAL only'));
      return;
    }
    if (this.#inbox.length === 0 && !this.#busy && this.#obey(type, body)) return;
    this.#inbox.push({ type, body: body.slice() });
    this.#channel.pause();
  }

  /** Obeys one consensus message. False: it must wait. */
  #obey(type: number, body: Uint8Array): boolean {
    if (type === FRAME_APPEND_REQUEST) return this.#append(body);
    switch (type) {
      case FRAME_PROPOSER_GREETING:
        this.#durably(async (greeting: ProposerGreeting) => {
          const reply = (await this.#replica.greet(greeting)) as AcceptorGreeting;
          this.#greeted = true;
          this.#channel.send(FRAME_ACCEPTOR_GREETING, packMessage(reply));
          // Greeted once more, with a newer configuration: what is durable here counts in that one now.
          if (this.#electedTerm > 0) this.#answerAppend();
        }, body);
        return true;
      case FRAME_VOTE_REQUEST:
        this.#durably(async (request: VoteRequest) => {
          this.#channel.send(FRAME_VOTE_RESPONSE, packMessage(await this.#replica.vote(request)));
        }, body);
        return true;
      case FRAME_PROPOSER_ELECTED:
        this.#durably(async (message: ProposerElected) => {
          await this.#replica.followElected(message);
          this.#electedTerm = message.term;
          this.#taken = this.#answered = this.#replica.flushLsn;
          this.#answerAppend();
        }, body);
        return true;
      default:
        this.#refuse(new PalimpsestError('invalid-argument', `unknown frame type ${type}`));
        return true;
    }
  }

  /** Runs a rare message to its end before the next one of this channel. */
  #durably<T>(work: (message: T) => Promise<void>, body: Uint8Array): void {
    this.#busy = true;
    const run = async () => work(unpackMessage<T>(body));
    run()
      .catch((error) => this.#refuse(error))
      .finally(() => {
        this.#busy = false;
        this.resume();
      });
  }

  #append(body: Uint8Array): boolean {
    const replica = this.#replica;
    if (replica.isGated) return false;
    const header = readAppendHeader(body, this.#header);
    const wal = body.subarray(APPEND_HEADER_BYTES);
    const verdict = judgeAppend(replica.view, header, {
      walBytes: wal.length,
      writeLsn: replica.writeLsn,
      sentByElected: this.#electedTerm === header.term,
    });
    if (verdict === 'stale-term') {
      this.#answerAppend();
      return true;
    }
    if (verdict !== 'accept') {
      this.#refuse(PalimpsestError.fromWire(verdict));
      return true;
    }
    if (wal.length > 0) {
      if (!replica.hasRoom(wal.length)) return false;
      replica.append(header.beginLsn, wal);
      this.#taken = replica.writeLsn;
    }
    replica.hearCommit(header.commitLsn);
    return true;
  }

  #answerAppend(): void {
    const { generation, term } = this.#replica.view;
    const { flushLsn, commitLsn, followerLsn } = this.#replica;
    const response = { generation, term, flushLsn, commitLsn, followerLsn };
    this.#channel.send(FRAME_APPEND_RESPONSE, packAppendResponse(response));
  }

  /** A peer that broke a rule is told why and cut off: what it would send next rests on a wrong idea of this log. */
  #refuse(error: unknown): void {
    if (this.#closed) return;
    this.#replica.logRefusal(error);
    this.#channel.send(FRAME_REFUSED, packMessage(toWireError(error)));
    this.close();
  }

  #serve(type: number, body: Uint8Array): void {
    switch (type) {
      case FRAME_START_WAL:
        this.#sender?.close();
        this.#sender = new WalSender({
          channel: this.#channel,
          source: this.#replica,
          clock: this.#clock,
          from: readStartWal(body),
        });
        return;
      case FRAME_READ_WAL: {
        const wanted = readReadWal(body);
        this.#answerRead(wanted).catch((error) => this.#failRequest(wanted.request, error));
        return;
      }
      case FRAME_ASK_STATUS:
        this.#channel.send(
          FRAME_STATUS,
          packRequestNumber(readRequestNumber(body)),
          packStatus(this.#replica.status()),
        );
        return;
      case FRAME_FEEDBACK:
        this.#replica.hearFollower(this, readFeedback(body));
        return;
      default:
        this.#refuse(new PalimpsestError('invalid-argument', `unknown frame type ${type}`));
    }
  }

  async #answerRead({ request, from, length, committedOnly }: ReadWalRequest): Promise<void> {
    if (length > READ_WAL_BYTES_MAX) throw new PalimpsestError('invalid-argument', `read of ${length} bytes`);
    const limit = committedOnly ? Math.max(0, this.#replica.commitLsn - from) : length;
    const wanted = Math.min(length, limit);
    const memory = this.#readMemory.length >= wanted ? this.#readMemory : new Uint8Array(wanted);
    this.#readMemory = NO_BYTES;
    const count = await this.#replica.read(from, memory.subarray(0, wanted));
    this.#channel.send(FRAME_WAL_BYTES, packRequestNumber(request), memory.subarray(0, count));
    this.#readMemory = memory;
  }

  #failRequest(request: number, error: unknown): void {
    this.#channel.send(FRAME_READ_FAILED, packRequestNumber(request), packReadFailure(toWireError(error)));
  }
}
