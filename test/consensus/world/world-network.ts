/** Channels with latency that can be cut at any moment: what was on its way is lost then. */
import { PalimpsestError } from '../../../protocols/errors.ts';
import type { Channel } from '../../../runtime/ports/channel.ts';
import type { Scheduler, Seeded, WorldClock } from './scheduler.ts';

export class WorldNetwork {
  readonly #scheduler: Scheduler;
  readonly #random: Seeded;
  readonly #listeners = new Map<string, { onChannel: (channel: Channel) => void; owner: WorldClock }>();
  readonly #pairs = new Set<WorldChannel>();
  /** Pairs of names that cannot reach each other. */
  readonly partitions = new Set<string>();

  constructor(scheduler: Scheduler, random: Seeded) {
    this.#scheduler = scheduler;
    this.#random = random;
  }

  listen(name: string, owner: WorldClock, onChannel: (channel: Channel) => void): void {
    this.#listeners.set(name, { onChannel, owner });
  }

  async dial(from: { name: string; clock: WorldClock }, to: string): Promise<Channel> {
    await new Promise<void>((resolve) => {
      this.#scheduler.at(this.latency(), () => {
        if (!from.clock.isDead) resolve();
      });
    });
    const listener = this.#listeners.get(to);
    if (!listener || listener.owner.isDead || this.partitions.has(`${from.name}>${to}`)) {
      throw new PalimpsestError('unavailable', `${to} cannot be reached`);
    }
    const here = new WorldChannel(this, from.clock);
    const there = new WorldChannel(this, listener.owner);
    here.join(there);
    there.join(here);
    this.#pairs.add(here);
    listener.onChannel(there);
    return here;
  }

  latency(): number {
    return this.#random.chance(0.05) ? this.#random.between(1, 20) : this.#random.between(0.02, 1);
  }

  at(time: number, fire: () => void): void {
    this.#scheduler.atTime(time, fire);
  }

  get now(): number {
    return this.#scheduler.now;
  }

  /** Cuts one connection at random. */
  cutSome(): void {
    const open = [...this.#pairs].filter((channel) => !channel.isClosed);
    this.#pairs.clear();
    for (const channel of open) this.#pairs.add(channel);
    if (open.length > 0) this.#random.pick(open).cut();
  }

  /** A process died: its connections are reset. */
  cutOf(clock: WorldClock): void {
    for (const channel of this.#pairs) if (channel.belongsTo(clock)) channel.cut();
  }
}

class WorldChannel implements Channel {
  readonly #network: WorldNetwork;
  readonly #owner: WorldClock;
  #peer: WorldChannel | undefined;
  #handle: ((type: number, body: Uint8Array) => void) | undefined;
  #inbox: { type: number; body: Uint8Array }[] = [];
  #onClose: ((reason: Error | undefined) => void)[] = [];
  #paused = false;
  #closed = false;
  #lastArrival = 0;
  #onTheWay = 0;

  constructor(network: WorldNetwork, owner: WorldClock) {
    this.#network = network;
    this.#owner = owner;
  }

  join(peer: WorldChannel): void {
    this.#peer = peer;
  }

  get isClosed(): boolean {
    return this.#closed;
  }

  belongsTo(clock: WorldClock): boolean {
    return this.#owner === clock || this.#peer!.#owner === clock;
  }

  get queuedBytes(): number {
    return this.#onTheWay;
  }

  send(type: number, ...parts: Uint8Array[]): void {
    if (this.#closed || this.#owner.isDead) return;
    const body = new Uint8Array(Buffer.concat(parts));
    this.#onTheWay += body.length;
    this.#lastArrival = Math.max(this.#lastArrival, this.#network.now + this.#network.latency());
    this.#network.at(this.#lastArrival, () => {
      this.#onTheWay -= body.length;
      this.#peer!.#accept(type, body);
    });
  }

  onFrame(handle: (type: number, body: Uint8Array) => void): void {
    this.#handle = handle;
    this.#deliver();
  }

  onClose(handle: (reason: Error | undefined) => void): void {
    this.#onClose.push(handle);
  }

  async drained(): Promise<void> {
    await new Promise<void>((resolve) => void this.#network.at(this.#network.now + 1, resolve));
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    this.#deliver();
  }

  close(): void {
    if (this.#closed) return;
    this.#finish();
    // The peer learns of it after everything that was sent before.
    const time = Math.max(this.#lastArrival, this.#network.now) + this.#network.latency();
    this.#network.at(time, () => this.#peer!.#finish());
  }

  cut(): void {
    this.#finish();
    this.#peer!.#finish();
  }

  #accept(type: number, body: Uint8Array): void {
    if (this.#closed || this.#owner.isDead) return;
    this.#inbox.push({ type, body });
    this.#deliver();
  }

  #deliver(): void {
    while (this.#handle && !this.#paused && !this.#closed && !this.#owner.isDead && this.#inbox.length > 0) {
      const { type, body } = this.#inbox.shift()!;
      this.#handle(type, body);
    }
  }

  #finish(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#inbox = [];
    const handlers = this.#onClose;
    this.#network.at(this.#network.now, () => {
      if (!this.#owner.isDead) for (const handle of handlers) handle(undefined);
    });
  }
}
