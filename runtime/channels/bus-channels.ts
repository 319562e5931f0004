/**
 * Channels over subjects of the bus, for two processes that reach the bus and not each other.
 *
 *   pal.channel.open.<name>          asked by who dials, with the subject of its own end; answered with that of the other end
 *   pal.channel.at.<name>.<secret>   one end of a channel: whoever knows the secret, which only the two ends do, speaks to it
 *
 * Channels that others may hear have first tokens of their own instead of `pal.channel` (`subjects`).
 *
 *   message   u8 kind, u32 number, f64 bytes that this end has taken so far, and bytes of the stream of frames (little endian)
 *
 * 1. The bus delivers at most once: the numbers tell when a message was lost, and then the channel ends, as a socket would.
 * 2. So much is under way and no more; what the receiver has taken makes room for the next. A receiver that is paused takes nothing.
 * 3. Either end says something every second. One that says nothing for long is gone: the bus tells nobody of that.
 * 4. A process hears all its ends by one subscription that it has from the beginning, so no first message meets nobody.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FrameReader, frameHeader } from '../../protocols/framing.ts';
import { hexId } from '../../protocols/ids.ts';
import { packMessage, unpackMessage } from '../bus/command.ts';
import type { Bus, Subscription } from '../ports/bus.ts';
import type { Channel, ChannelListener, ChannelNetwork } from '../ports/channel.ts';
import type { Clock, Timer } from '../ports/clock.ts';
import type { Random } from '../ports/random.ts';
import { DrainWaiters } from './drain-waiters.ts';

const SUBJECTS = 'pal.channel';
const SCHEME = 'bus:';
const SECRET_BYTES = 16;

const DATA = 0;
const TAKEN = 1;
const CLOSE = 2;
const HEADER_BYTES = 13;
const MESSAGE_BYTES_MAX = 128 * 1024;
/** Bytes that are sent and not yet taken. */
const WINDOW_BYTES = 1024 * 1024;
/** After so many bytes the sender is told that they were taken. */
const TELL_BYTES = 256 * 1024;
const SIGN_OF_LIFE_MS = 1_000;
const SILENT_MS_MAX = 5_000;

export interface BusChannelsOptions {
  bus: Bus;
  clock: Clock;
  random: Random;
  /** Of this process: one token of a subject. */
  name: string;
  /** First tokens of the subjects. */
  subjects?: string;
}

export class BusChannels implements ChannelNetwork {
  readonly #options: BusChannelsOptions;
  readonly #open: string;
  readonly #at: string;
  readonly #ends = new Map<string, BusChannel>();
  readonly #hearing: Subscription;

  constructor(options: BusChannelsOptions) {
    this.#options = options;
    const { bus, name, subjects = SUBJECTS } = options;
    this.#open = `${subjects}.open.`;
    this.#at = `${subjects}.at.`;
    this.#hearing = bus.subscribe(`${this.#at}${name}.*`, ({ subject, data }) =>
      this.#ends.get(subject)?.hear(data),
    );
  }

  async listen(address: string, onChannel: (channel: Channel) => void): Promise<ChannelListener> {
    const subscription = this.#options.bus.subscribe(this.#open + nameIn(address), (message) => {
      const { from } = unpackMessage<{ from: string }>(message.data);
      if (!String(from).startsWith(this.#at)) return;
      const own = this.#newSubject();
      const channel = this.#end(own, from);
      message.reply(packMessage({ to: own }));
      onChannel(channel);
    });
    return { address, close: async () => subscription.unsubscribe() };
  }

  async dial(address: string, { timeoutMs }: { timeoutMs: number }): Promise<Channel> {
    const own = this.#newSubject();
    const { bus } = this.#options;
    const answer = await bus.request(this.#open + nameIn(address), packMessage({ from: own }), {
      timeoutMs,
    });
    if (answer.status === 'no-responders')
      throw new PalimpsestError('unavailable', `cannot connect to ${address}: nobody listens`);
    if (answer.status === 'timeout')
      throw new PalimpsestError('timeout', `no connection to ${address} within ${timeoutMs} ms`);
    return this.#end(own, unpackMessage<{ to: string }>(answer.data).to);
  }

  /** Ends hearing; channels that are open find out. */
  close(): void {
    this.#hearing.unsubscribe();
  }

  #newSubject(): string {
    const { name, random } = this.#options;
    return `${this.#at}${name}.${hexId(random.bytes(SECRET_BYTES))}`;
  }

  #end(own: string, peer: string): BusChannel {
    const { bus, clock } = this.#options;
    const publish = (data: Uint8Array) => bus.publish(peer, data);
    const channel = new BusChannel({ clock, publish, onEnd: () => this.#ends.delete(own) });
    this.#ends.set(own, channel);
    return channel;
  }
}

function nameIn(address: string): string {
  if (!/^bus:[a-zA-Z0-9_-]+$/.test(address))
    throw new PalimpsestError('invalid-argument', `not an address on the bus: ${address}`);
  return address.slice(SCHEME.length);
}

interface EndOptions {
  clock: Clock;
  publish(data: Uint8Array): void;
  /** Nothing is heard any more. */
  onEnd(): void;
}

class BusChannel implements Channel {
  readonly #options: EndOptions;
  readonly #reader = new FrameReader((type, body) => this.#deliver(type, body));
  #handle: ((type: number, body: Uint8Array) => void) | undefined;
  /** Frames that wait for the handler, or for the end of a pause. */
  #held: { type: number; body: Uint8Array }[] = [];
  #heldBytes = 0;
  #paused = false;

  #queue: Uint8Array[] = [];
  #queuedBytes = 0;
  #flushing = false;
  #nextNumber = 0;
  #sentBytes = 0;
  /** Of those the peer has taken. */
  #takenByPeer = 0;

  #expectedNumber = 0;
  #heardBytes = 0;
  #toldBytes = 0;
  #heardMs: number;
  #spokeMs: number;
  #timer: Timer | undefined;

  /** The peer has closed: what it sent before is still delivered. */
  #ending = false;
  #closed = false;
  #reason: Error | undefined;
  #onClose: ((reason: Error | undefined) => void)[] = [];
  readonly #drainWaiters = new DrainWaiters();

  constructor(options: EndOptions) {
    this.#options = options;
    this.#heardMs = this.#spokeMs = options.clock.monotonic();
    this.#lookLater();
  }

  get queuedBytes(): number {
    return this.#closed ? 0 : this.#queuedBytes;
  }

  send(type: number, ...parts: Uint8Array[]): void {
    if (this.#closed) return;
    const bodyBytes = parts.reduce((sum, part) => sum + part.length, 0);
    if (bodyBytes + 1 > FRAME_BYTES_MAX) throw new RangeError(`frame of ${bodyBytes} bytes`);
    const frame = Buffer.concat([frameHeader(type, bodyBytes), ...parts]);
    this.#queue.push(frame);
    this.#queuedBytes += frame.length;
    if (this.#flushing) return;
    this.#flushing = true;
    // What is sent in one turn goes together.
    queueMicrotask(() => {
      this.#flushing = false;
      this.#flush(WINDOW_BYTES);
    });
  }

  onFrame(handle: (type: number, body: Uint8Array) => void): void {
    this.#handle = handle;
    if (!this.#paused) this.resume();
  }

  onClose(handle: (reason: Error | undefined) => void): void {
    if (this.#closed) queueMicrotask(() => handle(this.#reason));
    else this.#onClose.push(handle);
  }

  drained(lowWaterBytes: number): Promise<void> {
    if (this.#closed || this.queuedBytes < lowWaterBytes) return Promise.resolve();
    return this.#drainWaiters.wait(lowWaterBytes);
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    while (this.#handle && !this.#paused && !this.#closed && this.#held.length > 0) {
      const { type, body } = this.#held.shift()!;
      this.#heldBytes -= body.length + FRAME_HEADER_BYTES;
      this.#handle(type, body);
    }
    this.#tellTaken();
    if (this.#ending && this.#held.length === 0) this.#finish(undefined);
  }

  close(): void {
    if (this.#closed) return;
    // Nobody waits for room any more: what was queued goes before the end.
    this.#flush(Number.POSITIVE_INFINITY);
    this.#publish(CLOSE);
    this.#finish(undefined);
  }

  /** A message of the other end. */
  hear(data: Uint8Array): void {
    if (this.#closed || data.length < HEADER_BYTES) return;
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    this.#heardMs = this.#options.clock.monotonic();
    this.#takenByPeer = Math.max(this.#takenByPeer, view.getFloat64(5, true));
    const kind = view.getUint8(0);
    if (kind !== TAKEN && view.getUint32(1, true) !== this.#expectedNumber++ >>> 0) {
      this.#fail(new PalimpsestError('unavailable', 'a message of the channel was lost'));
      return;
    }
    if (kind === DATA) this.#take(data.subarray(HEADER_BYTES));
    if (kind === CLOSE) {
      this.#ending = true;
      if (this.#held.length === 0 || !this.#handle) this.#finish(undefined);
    }
    this.#flush(WINDOW_BYTES);
  }

  #take(bytes: Uint8Array): void {
    this.#heardBytes += bytes.length;
    try {
      this.#reader.push(bytes);
    } catch (error) {
      this.#fail(error instanceof Error ? error : new Error(String(error)));
      return;
    }
    this.#tellTaken();
  }

  #deliver(type: number, body: Uint8Array): void {
    if (this.#closed) return;
    if (this.#paused || this.#held.length > 0 || !this.#handle) {
      this.#held.push({ type, body: body.slice() });
      this.#heldBytes += body.length + FRAME_HEADER_BYTES;
    } else this.#handle(type, body);
  }

  #flush(windowBytes: number): void {
    while (this.#queuedBytes > 0 && !this.#closed && this.#sentBytes - this.#takenByPeer < windowBytes) {
      const bytes = this.#nextBytes();
      this.#sentBytes += bytes.length;
      this.#queuedBytes -= bytes.length;
      this.#publish(DATA, bytes);
    }
    this.#wakeDrained();
  }

  /** As many of the queued bytes as go into one message. */
  #nextBytes(): Uint8Array {
    const parts: Uint8Array[] = [];
    for (let room = MESSAGE_BYTES_MAX; room > 0 && this.#queue.length > 0; ) {
      const first = this.#queue[0]!;
      parts.push(first.subarray(0, room));
      if (first.length <= room) this.#queue.shift();
      else this.#queue[0] = first.subarray(room);
      room -= Math.min(room, first.length);
    }
    return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
  }

  #tellTaken(): void {
    if (!this.#closed && this.#takenBytes - this.#toldBytes >= TELL_BYTES) this.#publish(TAKEN);
  }

  /** Of a frame that is not whole yet the bytes count as taken: there may be no room for the rest otherwise. */
  get #takenBytes(): number {
    return this.#heardBytes - this.#heldBytes;
  }

  #publish(kind: number, bytes: Uint8Array = new Uint8Array(0)): void {
    const message = new Uint8Array(HEADER_BYTES + bytes.length);
    const view = new DataView(message.buffer);
    view.setUint8(0, kind);
    if (kind !== TAKEN) view.setUint32(1, this.#nextNumber++, true);
    view.setFloat64(5, this.#takenBytes, true);
    message.set(bytes, HEADER_BYTES);
    this.#toldBytes = this.#takenBytes;
    this.#spokeMs = this.#options.clock.monotonic();
    this.#options.publish(message);
  }

  #lookLater(): void {
    this.#timer = this.#options.clock.setTimer(SIGN_OF_LIFE_MS, () => {
      if (this.#closed) return;
      const now = this.#options.clock.monotonic();
      if (now - this.#heardMs > SILENT_MS_MAX) {
        this.#fail(new PalimpsestError('unavailable', 'the other end of the channel says nothing'));
        return;
      }
      if (now - this.#spokeMs >= SIGN_OF_LIFE_MS) this.#publish(TAKEN);
      this.#lookLater();
    });
  }

  #fail(reason: Error): void {
    if (this.#closed) return;
    // The other end, if it is there, need not find out by itself.
    this.#publish(CLOSE);
    this.#finish(reason);
  }

  #wakeDrained(): void {
    if (this.#closed) this.#drainWaiters.closed();
    else this.#drainWaiters.queued(this.queuedBytes);
  }

  #finish(reason: Error | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#reason = reason;
    this.#timer?.cancel();
    this.#queue = [];
    this.#held = [];
    this.#wakeDrained();
    this.#options.onEnd();
    const handlers = this.#onClose;
    this.#onClose = [];
    queueMicrotask(() => {
      for (const handle of handlers) handle(reason);
    });
  }
}
