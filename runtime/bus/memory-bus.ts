/**
 * The bus inside one process; also the heart of the hub that other processes connect to.
 *
 * 1. Subscribers are chosen when a message is sent and called later, in order, never inside the sender's call.
 * 2. A request has exactly one outcome. When every subscriber that got it is gone, it ends as `timeout` at once:
 *    whether it was carried out cannot be learnt any more.
 * 3. A handler that throws is reported and harms nobody else.
 */
import type { Bus, BusMessage, BusReply, Subscription } from '../ports/bus.ts';
import type { Clock, Timer } from '../ports/clock.ts';
import type { Log } from '../ports/log.ts';
import { checkPattern, checkSubject, SubscriptionTable } from './subscriptions.ts';

export const PAYLOAD_BYTES_MAX = 1024 * 1024;

/** A message as the hub sees it. */
export interface BrokerMessage extends BusMessage {
  /** Whether somebody waits for an answer. */
  readonly wantsReply: boolean;
  /** Whether the request has its outcome. */
  readonly settled: boolean;
  /** Says that this subscriber will never answer. */
  abandon(): void;
}

interface Subscriber {
  handle: (message: BrokerMessage) => void;
  active: boolean;
}

export class MemoryBus implements Bus {
  readonly #clock: Clock;
  readonly #log: Log | undefined;
  readonly #subscriptions = new SubscriptionTable<Subscriber>();
  readonly #requests = new Set<Request>();
  readonly #onClose: ((reason: Error | undefined) => void)[] = [];
  #closed = false;

  constructor(options: { clock: Clock; log?: Log }) {
    this.#clock = options.clock;
    this.#log = options.log;
  }

  publish(subject: string, data: Uint8Array): void {
    checkSubject(subject);
    checkPayload(data);
    if (this.#closed) return;
    for (const subscriber of this.#subscriptions.match(subject)) {
      this.#deliver(subscriber, new PlainMessage(subject, data));
    }
  }

  request(subject: string, data: Uint8Array, options: { timeoutMs: number }): Promise<BusReply> {
    checkSubject(subject);
    checkPayload(data);
    if (this.#closed) return Promise.resolve({ status: 'no-responders' });
    const subscribers = this.#subscriptions.match(subject);
    if (subscribers.length === 0) return Promise.resolve({ status: 'no-responders' });
    return new Promise((resolve) => {
      const request = new Request(subscribers.length, (reply) => {
        this.#requests.delete(request);
        resolve(reply);
      });
      this.#requests.add(request);
      request.startTimer(this.#clock, options.timeoutMs);
      for (const subscriber of subscribers) {
        this.#deliver(subscriber, new RequestMessage(subject, data, request));
      }
    });
  }

  subscribe(pattern: string, handle: (message: BusMessage) => void): Subscription {
    return this.subscribeBroker(pattern, handle);
  }

  /** As subscribe, for a broker that passes messages on. */
  subscribeBroker(pattern: string, handle: (message: BrokerMessage) => void): Subscription {
    checkPattern(pattern);
    const subscriber: Subscriber = { handle, active: true };
    this.#subscriptions.add(pattern, subscriber);
    return {
      unsubscribe: () => {
        subscriber.active = false;
        this.#subscriptions.remove(pattern, subscriber);
      },
    };
  }

  async flush(): Promise<void> {
    await new Promise<void>((resolve) => queueMicrotask(resolve));
  }

  onClose(handle: (reason: Error | undefined) => void): void {
    this.#onClose.push(handle);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const request of [...this.#requests]) request.settle({ status: 'timeout' });
    for (const handle of this.#onClose) handle(undefined);
  }

  #deliver(subscriber: Subscriber, message: BrokerMessage): void {
    queueMicrotask(() => {
      if (!subscriber.active) {
        message.abandon();
        return;
      }
      try {
        subscriber.handle(message);
      } catch (error) {
        this.#log?.error({ error, subject: message.subject }, 'a bus handler failed');
      }
    });
  }
}

export function checkPayload(data: Uint8Array): void {
  if (data.length > PAYLOAD_BYTES_MAX)
    throw new RangeError(`bus payload of ${data.length} bytes; bulk data needs a channel`);
}

class PlainMessage implements BrokerMessage {
  readonly subject: string;
  readonly data: Uint8Array;
  readonly wantsReply = false;
  readonly settled = true;

  constructor(subject: string, data: Uint8Array) {
    this.subject = subject;
    this.data = data;
  }

  reply(): void {}

  abandon(): void {}
}

class RequestMessage implements BrokerMessage {
  readonly subject: string;
  readonly data: Uint8Array;
  readonly wantsReply = true;
  readonly #request: Request;

  constructor(subject: string, data: Uint8Array, request: Request) {
    this.subject = subject;
    this.data = data;
    this.#request = request;
  }

  get settled(): boolean {
    return this.#request.settled;
  }

  reply(data: Uint8Array): void {
    checkPayload(data);
    this.#request.settle({ status: 'ok', data });
  }

  abandon(): void {
    this.#request.abandon();
  }
}

class Request {
  settled = false;
  #hopes: number;
  readonly #resolve: (reply: BusReply) => void;
  #timer: Timer | undefined;

  constructor(subscribers: number, resolve: (reply: BusReply) => void) {
    this.#hopes = subscribers;
    this.#resolve = resolve;
  }

  startTimer(clock: Clock, timeoutMs: number): void {
    this.#timer = clock.setTimer(timeoutMs, () => this.settle({ status: 'timeout' }));
  }

  settle(reply: BusReply): void {
    if (this.settled) return;
    this.settled = true;
    this.#timer?.cancel();
    this.#resolve(reply);
  }

  abandon(): void {
    if (--this.#hopes <= 0) this.settle({ status: 'timeout' });
  }
}
