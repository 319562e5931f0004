/**
 * One end of a simulated connection.
 *
 * It also holds its users to a rule of channels: a frame's body is gone after its handler (it is overwritten).
 */
import { FRAME_BYTES_MAX, FRAME_HEADER_BYTES } from '../../protocols/framing.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import type { SimEvent } from './event-queue.ts';
import type { NetworkPeer, SimLink, SimNetwork } from './network.ts';
import { hashBytes } from './random.ts';

const POISON = 0xdb;

interface Frame {
  type: number;
  body: Uint8Array;
  sentUs: number;
  arrivesUs: number;
  /** The connection's end after all frames. */
  isEnd: boolean;
}

export class SimChannel implements Channel {
  readonly owner: NetworkPeer;
  readonly #network: SimNetwork;
  #peer!: SimChannel;
  #link!: SimLink;
  /** Sent from here and not arrived at the peer, oldest first. */
  #underWay: Frame[] = [];
  #arrival: SimEvent | undefined;
  #keepalive: SimEvent | undefined;
  /** Arrived here and not yet handled. */
  #inbox: Frame[] = [];
  #queuedBytes = 0;
  #handle: ((type: number, body: Uint8Array) => void) | undefined;
  #isPaused = false;
  #isDelivering = false;
  #isClosed = false;
  #closeHandlers: ((reason: Error | undefined) => void)[] = [];
  #closeReason: Error | undefined;
  #drainWaiters: { lowWaterBytes: number; resolve: () => void }[] = [];

  constructor(network: SimNetwork, owner: NetworkPeer) {
    this.#network = network;
    this.owner = owner;
  }

  join(peer: SimChannel): void {
    this.#peer = peer;
    this.#link = this.#network.link(this.owner.machine.name, peer.owner.machine.name);
  }

  connects(a: string, b: string): boolean {
    const here = this.owner.machine.name;
    const there = this.#peer.owner.machine.name;
    return (here === a && there === b) || (here === b && there === a);
  }

  get queuedBytes(): number {
    return this.#isClosed ? 0 : this.#queuedBytes;
  }

  send(type: number, ...parts: Uint8Array[]): void {
    if (this.#isClosed || this.owner.isDead) return;
    const body = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    if (body.length + 1 > FRAME_BYTES_MAX) throw new RangeError(`frame of ${body.length} bytes`);
    let at = 0;
    for (const part of parts) {
      body.set(part, at);
      at += part.length;
    }
    this.#network.world.trace.mix(hashBytes(body, type));
    this.#queuedBytes += body.length + FRAME_HEADER_BYTES;
    this.#post({ type, body, sentUs: 0, arrivesUs: 0, isEnd: false });
  }

  onFrame(handle: (type: number, body: Uint8Array) => void): void {
    this.#handle = handle;
    this.#scheduleDelivery();
  }

  onClose(handle: (reason: Error | undefined) => void): void {
    if (this.#isClosed) this.#soon('closed', () => handle(this.#closeReason));
    else this.#closeHandlers.push(handle);
  }

  drained(lowWaterBytes: number): Promise<void> {
    if (this.#isClosed || this.#queuedBytes < lowWaterBytes) return Promise.resolve();
    return new Promise((resolve) => this.#drainWaiters.push({ lowWaterBytes, resolve }));
  }

  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    this.#isPaused = false;
    this.#scheduleDelivery();
  }

  close(): void {
    if (this.#isClosed || this.owner.isDead) return;
    this.#post({ type: 0, body: new Uint8Array(0), sentUs: 0, arrivesUs: 0, isEnd: true });
    this.#finish(undefined);
  }

  /** Both ends break now; each is told by its own event. */
  sever(reason: string): void {
    const { world } = this.#network;
    for (const end of [this, this.#peer]) {
      end.#dropUnderWay();
      world.after(this.#network.delayMs(this.#link, 64), end.owner, 'connection lost', () =>
        end.#finish(new Error(reason)),
      );
    }
  }

  /** The process is gone: its kernel tells the peer, unless the link is blocked. */
  ownerDied(): void {
    const { world } = this.#network;
    this.#dropUnderWay();
    this.#isClosed = true;
    this.#network.forget(this);
    const peer = this.#peer;
    const delayMs = this.#link.isBlocked
      ? this.#network.limits.keepaliveMs
      : this.#network.delayMs(this.#link, 64);
    world.after(delayMs, peer.owner, 'peer died', () => peer.#finish(new Error('connection reset by peer')));
  }

  // --- the way to the peer ------------------------------------------------------------------------------------

  #post(frame: Frame): void {
    const { world } = this.#network;
    const before = this.#underWay.at(-1)?.arrivesUs ?? 0;
    const delayUs = Math.round(this.#network.delayMs(this.#link, frame.body.length) * 1000);
    frame.sentUs = world.nowUs;
    frame.arrivesUs = Math.max(before, world.nowUs + delayUs);
    this.#underWay.push(frame);
    if (this.#underWay.length === 1) this.#scheduleArrival();
  }

  #scheduleArrival(): void {
    const { world } = this.#network;
    const first = this.#underWay[0];
    if (!first || this.#arrival) return;
    this.#arrival = world.after((first.arrivesUs - world.nowUs) / 1000, undefined, 'arrive', () =>
      this.#arrive(),
    );
  }

  #arrive(): void {
    this.#arrival = undefined;
    if (this.#link.isBlocked) {
      this.#waitForLink();
      return;
    }
    const frame = this.#underWay.shift();
    if (!frame) return;
    this.#record(frame, false);
    if (!this.#peer.#isClosed && !this.#peer.owner.isDead) {
      this.#peer.#inbox.push(frame);
      this.#peer.#scheduleDelivery();
    }
    this.#scheduleArrival();
  }

  #waitForLink(): void {
    const { world, limits } = this.#network;
    world.mark('network: frames met a blocked link');
    this.#keepalive ??= world.after(limits.keepaliveMs, undefined, 'keepalive', () => {
      this.#keepalive = undefined;
      if (!this.#link.isBlocked) return;
      world.mark('network: connection broke over a blocked link');
      this.sever('connection timed out');
    });
    this.#link.waiting.add(() => {
      if (this.#keepalive) world.cancel(this.#keepalive);
      this.#keepalive = undefined;
      this.#scheduleArrival();
    });
  }

  #dropUnderWay(): void {
    for (const frame of this.#underWay) this.#record(frame, true);
    this.#underWay = [];
    if (this.#arrival) this.#network.world.cancel(this.#arrival);
    this.#arrival = undefined;
  }

  #record(frame: Frame, isLost: boolean): void {
    const { recorder, nowUs } = this.#network.world;
    recorder?.message({
      from: this.owner.machine.name,
      to: this.#peer.owner.machine.name,
      what: frame.isEnd ? 'close' : `frame ${frame.type}`,
      bytes: frame.body.length,
      sentUs: frame.sentUs,
      endUs: nowUs,
      isLost,
    });
  }

  // --- what has arrived ---------------------------------------------------------------------------------------

  #scheduleDelivery(): void {
    if (this.#isDelivering || this.#inbox.length === 0 || this.#isPaused || this.#isClosed) return;
    if (!this.#handle && !this.#inbox[0]!.isEnd) return;
    this.#isDelivering = true;
    this.#soon('frame', () => {
      this.#isDelivering = false;
      this.#deliver();
    });
  }

  #deliver(): void {
    if (this.#isPaused || this.#isClosed) return;
    const frame = this.#inbox.shift();
    if (!frame) return;
    if (frame.isEnd) {
      this.#finish(undefined);
      return;
    }
    this.#peer.#taken(frame.body.length + FRAME_HEADER_BYTES);
    this.#handle!(frame.type, frame.body);
    frame.body.fill(POISON);
    this.#scheduleDelivery();
  }

  #taken(bytes: number): void {
    this.#queuedBytes -= bytes;
    this.#wakeDrained();
  }

  #wakeDrained(): void {
    if (this.#drainWaiters.length === 0) return;
    this.#drainWaiters = this.#drainWaiters.filter((waiter) => {
      if (!this.#isClosed && this.#queuedBytes >= waiter.lowWaterBytes) return true;
      this.#soon('drained', waiter.resolve);
      return false;
    });
  }

  #finish(reason: Error | undefined): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#closeReason = reason;
    this.#inbox = [];
    if (reason) this.#dropUnderWay();
    this.#network.forget(this);
    this.#wakeDrained();
    const handlers = this.#closeHandlers;
    this.#closeHandlers = [];
    for (const handle of handlers) this.#soon('closed', () => handle(reason));
  }

  #soon(label: string, fire: () => void): void {
    this.#network.world.after(0, this.owner, label, fire);
  }
}
