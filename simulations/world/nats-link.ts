/** A process' connection to the simulated NATS cluster, as journals and leases use it. */
import type { JetStreamLink } from '../../runtime/adapters/nats-jetstream.ts';
import type { NatsHeaders, NatsMessage, NatsReply } from '../../runtime/adapters/nats-messages.ts';
import type { SimBroker } from './bus.ts';
import type { JetStreamAnswer, SimJetStream } from './jetstream.ts';
import type { NetworkPeer } from './network.ts';
import { hashBytes } from './random.ts';

const NO_RESPONDERS = 503;

export class SimNatsLink implements JetStreamLink {
  readonly #broker: SimBroker;
  readonly #jetstream: SimJetStream;
  readonly #owner: NetworkPeer;

  constructor(broker: SimBroker, jetstream: SimJetStream, owner: NetworkPeer) {
    this.#broker = broker;
    this.#jetstream = jetstream;
    this.#owner = owner;
  }

  get connected(): boolean {
    return !this.#owner.isDead;
  }

  request(
    subject: string,
    data: Uint8Array,
    { timeoutMs, headers = {} }: { timeoutMs: number; headers?: NatsHeaders },
  ): Promise<NatsReply> {
    return new Promise((resolve) => {
      const timeout = this.#broker.world.after(timeoutMs, this.#owner, 'nats timeout', () =>
        resolve({ status: 'timeout' }),
      );
      this.#send(subject, data, headers, (message) => {
        this.#broker.world.cancel(timeout);
        resolve(message.code === NO_RESPONDERS ? { status: 'no-responders' } : { status: 'ok', message });
      });
    });
  }

  requestMany(
    subject: string,
    data: Uint8Array,
    { timeoutMs, isLast }: { timeoutMs: number; isLast: (message: NatsMessage) => boolean },
  ): Promise<{ messages: NatsMessage[]; complete: boolean }> {
    const messages: NatsMessage[] = [];
    return new Promise((resolve) => {
      const timeout = this.#broker.world.after(timeoutMs, this.#owner, 'nats timeout', () =>
        resolve({ messages, complete: false }),
      );
      this.#send(subject, data, {}, (message) => {
        messages.push(message);
        if (!isLast(message)) return;
        this.#broker.world.cancel(timeout);
        resolve({ messages, complete: true });
      });
    });
  }

  #send(
    subject: string,
    data: Uint8Array,
    headers: NatsHeaders,
    handle: (message: NatsMessage) => void,
  ): void {
    const broker = this.#broker;
    const owner = this.#owner;
    if (owner.isDead) return;
    const copy = data.slice();
    broker.world.trace.mix(hashBytes(copy));
    broker.toBroker(owner).carry(copy.length, undefined, { label: 'nats request', subject }, () => {
      this.#jetstream.take(subject, copy, headers, (answer: JetStreamAnswer) => {
        broker
          .fromBroker(owner)
          .carry(answer.data.length, owner, { label: 'nats answer', subject }, () =>
            handle({ ...answer, subject, reply() {} }),
          );
      });
    });
  }
}
