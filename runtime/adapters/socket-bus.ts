/**
 * The bus between processes of one machine: a hub beside the parent's in-process bus, and its clients in children and CLI.
 * Frames: runtime/bus/frames.ts, carried by any ChannelNetwork (a unix socket in the embedded system).
 *
 * 1. What a client publishes reaches the parent's bus in order; what it subscribes to comes back the same way.
 * 2. When a client is gone, so are its subscriptions, and requests that only it could answer end at once.
 * 3. When the hub is gone, every waiting request of a client fails with `unavailable`.
 * 4. Queues are bounded: a client that does not read is disconnected, loudly, rather than buffered for ever.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { BusFrame, FrameFields, frameHead, replyOf, statusNumber } from '../bus/frames.ts';
import { type BrokerMessage, checkPayload, type MemoryBus } from '../bus/memory-bus.ts';
import { checkPattern, checkSubject } from '../bus/subscriptions.ts';
import type { Bus, BusMessage, BusReply, Subscription } from '../ports/bus.ts';
import type { Channel, ChannelListener, ChannelNetwork } from '../ports/channel.ts';
import type { Clock, Timer } from '../ports/clock.ts';
import type { Log } from '../ports/log.ts';

export const QUEUED_BYTES_MAX = 64 * 1024 * 1024;
/** Requests of one client, or to one client, that wait for their answer. */
const WAITING_MAX = 65_536;
/** How much longer than the hub a client waits: the hub's own time limit should be the one that speaks. */
const CLIENT_GRACE_MS = 1_000;

export interface BusHubOptions {
  bus: MemoryBus;
  network: ChannelNetwork;
  log: Log;
  /** For tests. */
  queuedBytesMax?: number;
}

export class BusHub {
  readonly #options: BusHubOptions;
  readonly #clients = new Set<HubClient>();
  #listener: ChannelListener | undefined;

  constructor(options: BusHubOptions) {
    this.#options = options;
  }

  /** Starts to accept clients; returns the address that they dial. */
  async listen(address: string): Promise<string> {
    this.#listener = await this.#options.network.listen(address, (channel) => {
      const client = new HubClient(channel, this.#options, () => this.#clients.delete(client));
      this.#clients.add(client);
    });
    return this.#listener.address;
  }

  get clients(): number {
    return this.#clients.size;
  }

  async close(): Promise<void> {
    await this.#listener?.close();
    for (const client of [...this.#clients]) client.close();
  }
}

/** The hub's side of one client. */
class HubClient {
  readonly #channel: Channel;
  readonly #options: BusHubOptions;
  readonly #subscriptions = new Map<number, Subscription>();
  /** Requests that this client was given and has not answered. */
  readonly #deliveries = new Map<number, BrokerMessage>();
  #lastDelivery = 0;
  #waiting = 0;
  #gone = false;

  constructor(channel: Channel, options: BusHubOptions, onGone: () => void) {
    this.#channel = channel;
    this.#options = options;
    channel.onClose(() => {
      this.#leave();
      onGone();
    });
    channel.onFrame((type, body) => this.#receive(type, new FrameFields(body)));
  }

  close(): void {
    this.#channel.close();
  }

  #leave(): void {
    this.#gone = true;
    for (const subscription of this.#subscriptions.values()) subscription.unsubscribe();
    this.#subscriptions.clear();
    for (const message of this.#deliveries.values()) message.abandon();
    this.#deliveries.clear();
  }

  #receive(type: number, fields: FrameFields): void {
    try {
      this.#handle(type, fields);
    } catch (error) {
      this.#options.log.error(
        { error, type },
        'a bus client sent what cannot be understood; it is disconnected',
      );
      this.#channel.close();
    }
  }

  #handle(type: number, fields: FrameFields): void {
    switch (type) {
      case BusFrame.publish:
        this.#options.bus.publish(fields.text(), fields.payload());
        return;
      case BusFrame.request:
        void this.#request(fields);
        return;
      case BusFrame.answer: {
        const delivery = fields.number();
        this.#deliveries.get(delivery)?.reply(fields.payload());
        this.#deliveries.delete(delivery);
        return;
      }
      case BusFrame.subscribe: {
        const id = fields.number();
        const deliver = (message: BrokerMessage) => this.#deliver(id, message);
        this.#subscriptions.set(id, this.#options.bus.subscribeBroker(fields.text(), deliver));
        return;
      }
      case BusFrame.unsubscribe: {
        const id = fields.number();
        this.#subscriptions.get(id)?.unsubscribe();
        this.#subscriptions.delete(id);
        return;
      }
      case BusFrame.ping:
        this.#send(BusFrame.pong, frameHead([fields.number()]));
        return;
      default:
        throw new RangeError(`bus frame of type ${type}`);
    }
  }

  async #request(fields: FrameFields): Promise<void> {
    const id = fields.number();
    const timeoutMs = fields.number();
    const subject = fields.text();
    let reply: BusReply = { status: 'timeout' };
    if (this.#waiting < WAITING_MAX) {
      this.#waiting++;
      reply = await this.#options.bus.request(subject, fields.payload(), { timeoutMs });
      this.#waiting--;
    }
    const data = reply.status === 'ok' ? reply.data : new Uint8Array(0);
    this.#send(BusFrame.reply, frameHead([id]), Uint8Array.of(statusNumber(reply.status)), data);
  }

  #deliver(subscription: number, message: BrokerMessage): void {
    if (this.#gone) {
      message.abandon();
      return;
    }
    const delivery = message.wantsReply ? this.#remember(message) : 0;
    this.#send(BusFrame.message, frameHead([subscription, delivery], message.subject), message.data);
  }

  /** Keeps a request until it is answered, and returns its number. */
  #remember(message: BrokerMessage): number {
    if (this.#deliveries.size >= WAITING_MAX) this.#forgetSettled();
    this.#lastDelivery = (this.#lastDelivery % 0xfffffffe) + 1;
    this.#deliveries.set(this.#lastDelivery, message);
    return this.#lastDelivery;
  }

  #forgetSettled(): void {
    for (const [delivery, message] of this.#deliveries) {
      if (message.settled) this.#deliveries.delete(delivery);
    }
    if (this.#deliveries.size < WAITING_MAX) return;
    const [oldest, message] = this.#deliveries.entries().next().value!;
    this.#deliveries.delete(oldest);
    message.abandon();
  }

  #send(type: number, ...parts: Uint8Array[]): void {
    if (this.#gone) return;
    this.#channel.send(type, ...parts);
    const max = this.#options.queuedBytesMax ?? QUEUED_BYTES_MAX;
    if (this.#channel.queuedBytes <= max) return;
    this.#options.log.error(
      { queuedBytes: this.#channel.queuedBytes },
      'a bus client does not read; it is disconnected',
    );
    this.#leave();
    this.#channel.close();
  }
}

interface Waiting {
  resolve(reply: BusReply): void;
  reject(error: Error): void;
  timer: Timer;
}

export interface SocketBusOptions {
  network: ChannelNetwork;
  address: string;
  clock: Clock;
  log?: Log;
  /** Time limit of the connection. Default 5 s. */
  timeoutMs?: number;
}

export class SocketBus implements Bus {
  readonly #channel: Channel;
  readonly #clock: Clock;
  readonly #log: Log | undefined;
  readonly #handlers = new Map<number, (message: BusMessage) => void>();
  readonly #waiting = new Map<number, Waiting>();
  readonly #pings = new Map<number, () => void>();
  readonly #onClose: ((reason: Error | undefined) => void)[] = [];
  #lastId = 0;
  #closed = false;
  #reason: Error | undefined;

  private constructor(channel: Channel, options: SocketBusOptions) {
    this.#channel = channel;
    this.#clock = options.clock;
    this.#log = options.log;
    channel.onClose((reason) => this.#end(reason));
    channel.onFrame((type, body) => this.#receive(type, new FrameFields(body)));
  }

  /** Connects to a hub. Throws `unavailable` or `timeout`. */
  static async connect(options: SocketBusOptions): Promise<SocketBus> {
    const channel = await options.network.dial(options.address, { timeoutMs: options.timeoutMs ?? 5_000 });
    return new SocketBus(channel, options);
  }

  publish(subject: string, data: Uint8Array): void {
    checkSubject(subject);
    checkPayload(data);
    this.#send(BusFrame.publish, frameHead([], subject), data);
  }

  async request(subject: string, data: Uint8Array, options: { timeoutMs: number }): Promise<BusReply> {
    checkSubject(subject);
    checkPayload(data);
    if (this.#closed) throw this.#goneError();
    if (this.#waiting.size >= WAITING_MAX) {
      throw new PalimpsestError('unavailable', `${WAITING_MAX} requests wait for an answer already`);
    }
    const id = this.#nextId();
    const timeoutMs = Math.min(Math.max(0, Math.ceil(options.timeoutMs)), 0x7fffffff);
    return new Promise((resolve, reject) => {
      const timer = this.#clock.setTimer(timeoutMs + CLIENT_GRACE_MS, () =>
        this.#settle(id, { status: 'timeout' }),
      );
      this.#waiting.set(id, { resolve, reject, timer });
      this.#send(BusFrame.request, frameHead([id, timeoutMs], subject), data);
    });
  }

  subscribe(pattern: string, handle: (message: BusMessage) => void): Subscription {
    checkPattern(pattern);
    const id = this.#nextId();
    this.#handlers.set(id, handle);
    this.#send(BusFrame.subscribe, frameHead([id], pattern));
    return {
      unsubscribe: () => {
        if (this.#handlers.delete(id)) this.#send(BusFrame.unsubscribe, frameHead([id]));
      },
    };
  }

  flush(): Promise<void> {
    if (this.#closed) return Promise.resolve();
    const id = this.#nextId();
    return new Promise((resolve) => {
      this.#pings.set(id, resolve);
      this.#send(BusFrame.ping, frameHead([id]));
    });
  }

  onClose(handle: (reason: Error | undefined) => void): void {
    if (this.#closed) queueMicrotask(() => handle(this.#reason));
    else this.#onClose.push(handle);
  }

  async close(): Promise<void> {
    this.#channel.close();
    this.#end(undefined);
  }

  #receive(type: number, fields: FrameFields): void {
    const id = fields.number();
    if (type === BusFrame.message) this.#deliver(id, fields);
    else if (type === BusFrame.reply) {
      const rest = fields.payload();
      this.#settle(id, replyOf(rest[0] ?? 2, rest.subarray(1)));
    } else if (type === BusFrame.pong) {
      this.#pings.get(id)?.();
      this.#pings.delete(id);
    }
  }

  #deliver(subscription: number, fields: FrameFields): void {
    const delivery = fields.number();
    const subject = fields.text();
    const handle = this.#handlers.get(subscription);
    if (!handle) return;
    const reply = (data: Uint8Array) => {
      checkPayload(data);
      if (delivery !== 0) this.#send(BusFrame.answer, frameHead([delivery]), data);
    };
    try {
      handle({ subject, data: fields.payload(), reply });
    } catch (error) {
      this.#log?.error({ error, subject }, 'a bus handler failed');
    }
  }

  #settle(id: number, reply: BusReply): void {
    const waiting = this.#waiting.get(id);
    if (!waiting) return;
    this.#waiting.delete(id);
    waiting.timer.cancel();
    waiting.resolve(reply);
  }

  #send(type: number, ...parts: Uint8Array[]): void {
    if (this.#closed) return;
    this.#channel.send(type, ...parts);
    if (this.#channel.queuedBytes <= QUEUED_BYTES_MAX) return;
    this.#channel.close();
    this.#end(new Error(`the bus hub does not read: ${QUEUED_BYTES_MAX} bytes wait`));
  }

  #end(reason: Error | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#reason = reason;
    for (const waiting of this.#waiting.values()) {
      waiting.timer.cancel();
      waiting.reject(this.#goneError());
    }
    this.#waiting.clear();
    for (const resolve of this.#pings.values()) resolve();
    this.#pings.clear();
    for (const handle of this.#onClose) handle(reason);
  }

  #goneError(): PalimpsestError {
    return new PalimpsestError(
      'unavailable',
      'the connection to the bus is closed',
      'look whether Palimpsest still runs, and at its log',
      this.#reason,
    );
  }

  #nextId(): number {
    this.#lastId = (this.#lastId % 0xfffffffe) + 1;
    return this.#lastId;
  }
}
