/**
 * The simulated bus: a broker on a machine of its own, with the semantics of core NATS. A message is delivered at most once;
 * what meets a blocked link is lost; a request that nobody subscribes to is answered so at once; subscriptions of a
 * process end with it. One publisher's messages arrive in order.
 */
import { checkPayload } from '../../runtime/bus/memory-bus.ts';
import { checkPattern, checkSubject, SubscriptionTable } from '../../runtime/bus/subscriptions.ts';
import type { Bus, BusMessage, BusReply, Subscription } from '../../runtime/ports/bus.ts';
import type { NetworkPeer, SimLink, SimNetwork } from './network.ts';
import type { World } from './world.ts';

const BROKER_MACHINE = 'broker';
/** So long before the end of its time limit an answer may come; and no limit is waited for that is longer. */
const LAST_MOMENT_MS = 20;
const LAST_MOMENT_MS_MAX = 2_000;

interface Subscriber {
  owner: NetworkPeer;
  handle: (message: BusMessage) => void;
}

/** Keeps the order of one direction of one process' connection. */
class Lane {
  readonly #link: SimLink;
  readonly #network: SimNetwork;
  readonly #from: string;
  readonly #to: string;
  #lastUs = 0;

  constructor(network: SimNetwork, from: string, to: string) {
    this.#network = network;
    this.#link = network.link(from, to);
    this.#from = from;
    this.#to = to;
  }

  /** Carries `bytes` about `subject` over; what meets a blocked link is lost. */
  carry(
    bytes: number,
    owner: NetworkPeer | undefined,
    { label, subject }: { label: string; subject: string },
    arrive: () => void,
  ): void {
    const { world } = this.#network;
    const record = (endUs: number, isLost: boolean) => {
      const what = `${label} ${subject}`;
      world.recorder?.message({
        from: this.#from,
        to: this.#to,
        what,
        bytes,
        sentUs: world.nowUs,
        endUs,
        isLost,
      });
    };
    if (this.#link.isBlocked) {
      record(world.nowUs, true);
      world.mark('bus: a message was lost');
      return;
    }
    const delayUs = Math.round(this.#network.delayMs(this.#link, bytes) * 1000);
    this.#lastUs = Math.max(this.#lastUs, world.nowUs + delayUs);
    record(this.#lastUs, false);
    world.after((this.#lastUs - world.nowUs) / 1000, owner, label, arrive);
  }
}

export class SimBroker {
  readonly world: World;
  readonly network: SimNetwork;
  readonly #subscriptions = new SubscriptionTable<Subscriber>();
  readonly #lanes = new Map<string, Lane>();

  constructor(network: SimNetwork) {
    this.network = network;
    this.world = network.world;
  }

  add(pattern: string, subscriber: Subscriber): void {
    this.#subscriptions.add(pattern, subscriber);
  }

  remove(pattern: string, subscriber: Subscriber): void {
    this.#subscriptions.remove(pattern, subscriber);
  }

  /** Passes a message on to all who want it; returns how many there are. */
  distribute(subject: string, data: Uint8Array, answer?: (data: Uint8Array) => void): number {
    const subscribers = this.#subscriptions.match(subject).filter(({ owner }) => !owner.isDead);
    for (const { owner, handle } of subscribers) {
      const message: BusMessage = {
        subject,
        data,
        reply: (reply) => {
          checkPayload(reply);
          if (owner.isDead || !answer) return;
          this.toBroker(owner).carry(reply.length, undefined, { label: 'bus answer', subject }, () =>
            answer(reply),
          );
        },
      };
      this.fromBroker(owner).carry(data.length, owner, { label: 'bus message', subject }, () => {
        try {
          handle(message);
        } catch (error) {
          // As with the real bus, it harms nobody else.
          this.world.mark('bus: a handler failed');
          this.world.tell(owner.label, `error: a bus handler failed: ${(error as Error).message}`);
        }
      });
    }
    return subscribers.length;
  }

  toBroker(peer: NetworkPeer): Lane {
    return this.#lane(peer.machine.name, BROKER_MACHINE);
  }

  fromBroker(peer: NetworkPeer): Lane {
    return this.#lane(BROKER_MACHINE, peer.machine.name);
  }

  #lane(from: string, to: string): Lane {
    const name = `${from}>${to}`;
    let lane = this.#lanes.get(name);
    if (!lane) this.#lanes.set(name, (lane = new Lane(this.network, from, to)));
    return lane;
  }
}

/** The bus as one process has it. */
export class SimBus implements Bus {
  readonly #broker: SimBroker;
  readonly #owner: NetworkPeer;
  readonly #own = new Map<Subscriber, string>();
  readonly #closeHandlers: ((reason: Error | undefined) => void)[] = [];
  #isClosed = false;

  constructor(broker: SimBroker, owner: NetworkPeer) {
    this.#broker = broker;
    this.#owner = owner;
  }

  publish(subject: string, data: Uint8Array): void {
    checkSubject(subject);
    checkPayload(data);
    if (this.#isClosed || this.#owner.isDead) return;
    const copy = data.slice();
    this.#broker
      .toBroker(this.#owner)
      .carry(data.length, undefined, { label: 'bus publish', subject }, () =>
        this.#broker.distribute(subject, copy),
      );
  }

  request(subject: string, data: Uint8Array, options: { timeoutMs: number }): Promise<BusReply> {
    checkSubject(subject);
    checkPayload(data);
    if (this.#isClosed) return Promise.resolve({ status: 'no-responders' });
    const broker = this.#broker;
    const owner = this.#owner;
    const copy = data.slice();
    return new Promise((resolve) => {
      const timeout = broker.world.after(options.timeoutMs, owner, 'bus timeout', () =>
        resolve({ status: 'timeout' }),
      );
      const latestMs = broker.world.nowMs + Math.min(options.timeoutMs, LAST_MOMENT_MS_MAX) - LAST_MOMENT_MS;
      const settle = (reply: BusReply) => {
        if (!broker.world.rare.happens('answer-late')) return bring(reply);
        broker.world.after(latestMs - broker.world.nowMs, owner, 'bus answer is late', () => bring(reply));
      };
      const bring = (reply: BusReply) => {
        broker
          .fromBroker(owner)
          .carry(
            reply.status === 'ok' ? reply.data.length : 0,
            owner,
            { label: 'bus reply', subject },
            () => {
              broker.world.cancel(timeout);
              resolve(reply);
            },
          );
      };
      broker.toBroker(owner).carry(data.length, undefined, { label: 'bus request', subject }, () => {
        let isAnswered = false;
        const count = broker.distribute(subject, copy, (answer) => {
          if (isAnswered) return;
          isAnswered = true;
          settle({ status: 'ok', data: answer });
        });
        if (count === 0) settle({ status: 'no-responders' });
      });
    });
  }

  subscribe(pattern: string, handle: (message: BusMessage) => void): Subscription {
    checkPattern(pattern);
    const subscriber: Subscriber = { owner: this.#owner, handle };
    this.#broker.add(pattern, subscriber);
    this.#own.set(subscriber, pattern);
    return { unsubscribe: () => this.#drop(subscriber) };
  }

  flush(): Promise<void> {
    return new Promise((resolve) => this.#broker.world.after(0.2, this.#owner, 'bus flushed', resolve));
  }

  onClose(handle: (reason: Error | undefined) => void): void {
    this.#closeHandlers.push(handle);
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.processDied();
    for (const handle of this.#closeHandlers) handle(undefined);
  }

  processDied(): void {
    this.#isClosed = true;
    for (const subscriber of [...this.#own.keys()]) this.#drop(subscriber);
  }

  #drop(subscriber: Subscriber): void {
    const pattern = this.#own.get(subscriber);
    if (pattern === undefined) return;
    this.#own.delete(subscriber);
    this.#broker.remove(pattern, subscriber);
  }
}
