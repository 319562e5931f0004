/**
 * The simulated network: connections between processes, over links between machines.
 *
 * A link has a latency and a rate, and faults that last until they are taken back: blocked (one way or both), slow. A
 * connection is like TCP: ordered, loses nothing while it lives. What meets a blocked link waits; a connection that waits
 * too long breaks, and each end learns that by itself. When a process dies its peers are told, if the link lets that through.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Channel, ChannelListener, ChannelNetwork } from '../../runtime/ports/channel.ts';
import { SimChannel } from './channel.ts';
import type { EventOwner } from './event-queue.ts';
import type { SimRandom } from './random.ts';
import type { World } from './world.ts';

/** A process as the network sees it. */
export interface NetworkPeer extends EventOwner {
  readonly machine: { readonly name: string };
}

export interface NetworkLimits {
  /** Mean one-way latency. */
  latencyMs: number;
  /** A share of all frames takes much longer. */
  slowShare: number;
  slowMs: number;
  bytesPerMs: number;
  /** A connection over a blocked link breaks after this long. */
  keepaliveMs: number;
}

export const CALM_NETWORK: NetworkLimits = {
  latencyMs: 0.15,
  slowShare: 0,
  slowMs: 20,
  bytesPerMs: 500_000,
  keepaliveMs: 8000,
};

/** One direction between two machines. */
export class SimLink {
  isBlocked = false;
  extraMs = 0;
  readonly random: SimRandom;
  /** Called when the link lets things through again. */
  readonly waiting = new Set<() => void>();

  constructor(random: SimRandom) {
    this.random = random;
  }

  setBlocked(isBlocked: boolean): void {
    this.isBlocked = isBlocked;
    if (isBlocked) return;
    const waiting = [...this.waiting];
    this.waiting.clear();
    for (const go of waiting) go();
  }
}

interface Listener {
  owner: NetworkPeer;
  onChannel: (channel: Channel) => void;
}

export class SimNetwork {
  readonly world: World;
  readonly limits: NetworkLimits;
  readonly #links = new Map<string, SimLink>();
  readonly #listeners = new Map<string, Listener>();
  /** Open connections between two machines, to be cut by a fault. */
  readonly #channels = new Set<SimChannel>();

  constructor(world: World, limits: NetworkLimits = CALM_NETWORK) {
    this.world = world;
    this.limits = limits;
  }

  link(from: string, to: string): SimLink {
    const name = `${from}>${to}`;
    let link = this.#links.get(name);
    if (!link) this.#links.set(name, (link = new SimLink(this.world.random(`network/${name}`))));
    return link;
  }

  /** How long `bytes` take over a link, this time. */
  delayMs(link: SimLink, bytes: number): number {
    const { latencyMs, slowShare, slowMs, bytesPerMs } = this.limits;
    const { random } = link;
    const slow = slowShare > 0 && random.chance(slowShare) ? random.exponential(slowMs) : 0;
    return latencyMs * random.between(0.5, 1.5) + bytes / bytesPerMs + link.extraMs + slow;
  }

  /** Breaks all connections between two machines; what is under way on them is lost. */
  cut(a: string, b: string): void {
    for (const channel of [...this.#channels]) {
      if (channel.connects(a, b)) channel.sever('connection reset');
    }
  }

  listen(address: string, listener: Listener): ChannelListener {
    if (this.#listeners.get(address)?.owner.isDead === false) {
      throw new PalimpsestError('already-exists', `cannot listen on ${address}: it is taken`);
    }
    this.#listeners.set(address, listener);
    return {
      address,
      close: async () => {
        if (this.#listeners.get(address) === listener) this.#listeners.delete(address);
      },
    };
  }

  dial(dialer: NetworkPeer, address: string, options: { timeoutMs: number }): Promise<Channel> {
    const { world } = this;
    return new Promise((resolve, reject) => {
      const timeout = world.after(options.timeoutMs, dialer, 'dial timeout', () => {
        reject(new PalimpsestError('timeout', `cannot connect to ${address} within ${options.timeoutMs} ms`));
      });
      const host = this.#listeners.get(address)?.owner.machine.name ?? dialer.machine.name;
      const there = this.link(dialer.machine.name, host);
      const back = this.link(host, dialer.machine.name);
      if (there.isBlocked || back.isBlocked) return;
      world.after(this.delayMs(there, 64), undefined, 'dial', () => {
        if (dialer.isDead || timeout.isCancelled || there.isBlocked || back.isBlocked) return;
        const listener = this.#listeners.get(address);
        const ends = listener && !listener.owner.isDead ? this.#connect(dialer, listener.owner) : undefined;
        if (ends) world.after(0, listener!.owner, 'accept', () => listener!.onChannel(ends[1]));
        world.after(this.delayMs(back, 64), dialer, 'dialled', () => {
          if (timeout.isCancelled) {
            ends?.[0].close();
            return;
          }
          world.cancel(timeout);
          if (ends) resolve(ends[0]);
          else reject(new PalimpsestError('unavailable', `cannot connect to ${address}: nobody listens`));
        });
      });
    });
  }

  forget(channel: SimChannel): void {
    this.#channels.delete(channel);
  }

  /** Connections of a process that died. */
  channelsOf(owner: NetworkPeer): SimChannel[] {
    return [...this.#channels].filter((channel) => channel.owner === owner);
  }

  #connect(dialer: NetworkPeer, acceptor: NetworkPeer): [SimChannel, SimChannel] {
    const here = new SimChannel(this, dialer);
    const there = new SimChannel(this, acceptor);
    here.join(there);
    there.join(here);
    this.#channels.add(here);
    this.#channels.add(there);
    return [here, there];
  }
}

/** The network as one process has it. */
export class SimNetworkPort implements ChannelNetwork {
  readonly #network: SimNetwork;
  readonly #owner: NetworkPeer;

  constructor(network: SimNetwork, owner: NetworkPeer) {
    this.#network = network;
    this.#owner = owner;
  }

  async listen(address: string, onChannel: (channel: Channel) => void): Promise<ChannelListener> {
    return this.#network.listen(address, { owner: this.#owner, onChannel });
  }

  dial(address: string, options: { timeoutMs: number }): Promise<Channel> {
    return this.#network.dial(this.#owner, address, options);
  }

  processDied(): void {
    for (const channel of this.#network.channelsOf(this.#owner)) channel.ownerDied();
  }
}
