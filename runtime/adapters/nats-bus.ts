/**
 * The bus over a NATS cluster.
 *
 * 1. Subscriptions survive the loss of a server. The bus closes only when the connection is given up for good: while no server
 *    is reachable, requests fail with `unavailable` and everything that needs no bus goes on.
 * 2. News of a subscription takes a moment to reach the other servers of a cluster. A request that meets nobody is therefore
 *    asked once more before it is said that nobody responds.
 * 3. Lifecycle events carry their id as the message's id, so that a stream which keeps them drops a repetition.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { EventEnvelope } from '../../protocols/events.ts';
import { unpackMessage } from '../bus/command.ts';
import { checkPayload } from '../bus/memory-bus.ts';
import { checkPattern, checkSubject } from '../bus/subscriptions.ts';
import type { Bus, BusMessage, BusReply, Subscription } from '../ports/bus.ts';
import type { Clock } from '../ports/clock.ts';
import type { NatsConnection } from './nats-connection.ts';
import { type NatsHeaders, unreachable } from './nats-messages.ts';

const FLUSH_TIMEOUT_MS = 5_000;
/** Pauses before a request that met nobody is asked again. */
const INTEREST_DELAYS_MS = [10, 40];
/** Requests that wait for an answer at once. */
const WAITING_MAX = 65_536;
const EVENTS = 'pal.evt.';

export class NatsBus implements Bus {
  readonly #connection: NatsConnection;
  readonly #clock: Clock;
  #waiting = 0;

  /** The bus owns the connection: closing one closes the other. */
  constructor(connection: NatsConnection, clock: Clock) {
    this.#connection = connection;
    this.#clock = clock;
  }

  publish(subject: string, data: Uint8Array): void {
    checkSubject(subject);
    checkPayload(data);
    this.#connection.publish(subject, data, subject.startsWith(EVENTS) ? eventHeaders(data) : undefined);
  }

  async request(subject: string, data: Uint8Array, { timeoutMs }: { timeoutMs: number }): Promise<BusReply> {
    checkSubject(subject);
    checkPayload(data);
    if (this.#waiting >= WAITING_MAX) {
      throw new PalimpsestError('unavailable', `${WAITING_MAX} requests wait for an answer already`);
    }
    this.#waiting++;
    try {
      for (const delayMs of [...INTEREST_DELAYS_MS, undefined]) {
        const reply = await this.#connection.request(subject, data, { timeoutMs });
        if (reply.status === 'disconnected') throw unreachable();
        if (reply.status === 'ok') return { status: 'ok', data: reply.message.data };
        if (reply.status === 'timeout' || delayMs === undefined) return { status: reply.status };
        await this.#clock.sleep(delayMs);
      }
      return { status: 'no-responders' };
    } finally {
      this.#waiting--;
    }
  }

  subscribe(pattern: string, handle: (message: BusMessage) => void): Subscription {
    checkPattern(pattern);
    return this.#connection.subscribe(pattern, (message) =>
      handle({
        subject: message.subject,
        data: message.data,
        reply: (data) => {
          checkPayload(data);
          message.reply(data);
        },
      }),
    );
  }

  flush(): Promise<void> {
    return this.#connection.flush(FLUSH_TIMEOUT_MS);
  }

  onClose(handle: (reason: Error | undefined) => void): void {
    this.#connection.onClose(handle);
  }

  close(): Promise<void> {
    return this.#connection.close();
  }
}

function eventHeaders(data: Uint8Array): NatsHeaders | undefined {
  try {
    const { id, time } = unpackMessage<EventEnvelope>(data);
    // The time tells a new journal of a name that was used before.
    return { 'Nats-Msg-Id': `${id}@${time}` };
  } catch {
    return undefined;
  }
}
