/**
 * Channels inside one process, for tests and for actors that share one. Same contract as sockets: delivery is
 * asynchronous, in order, and never inside the sender's call.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { FRAME_BYTES_MAX, FRAME_HEADER_BYTES } from '../../protocols/framing.ts';
import { DrainWaiters } from '../channels/drain-waiters.ts';
import type { Channel, ChannelListener, ChannelNetwork } from '../ports/channel.ts';

export class MemoryChannelNetwork implements ChannelNetwork {
  readonly #listeners = new Map<string, (channel: Channel) => void>();

  async listen(address: string, onChannel: (channel: Channel) => void): Promise<ChannelListener> {
    if (!address.startsWith('mem:'))
      throw new PalimpsestError('invalid-argument', `not a memory address: ${address}`);
    if (this.#listeners.has(address))
      throw new PalimpsestError('already-exists', `cannot listen on ${address}: it is taken`);
    this.#listeners.set(address, onChannel);
    return { address, close: async () => void this.#listeners.delete(address) };
  }

  async dial(address: string, _options: { timeoutMs: number }): Promise<Channel> {
    const onChannel = this.#listeners.get(address);
    if (!onChannel) throw new PalimpsestError('unavailable', `cannot connect to ${address}: nobody listens`);
    const [here, there] = memoryChannelPair();
    setImmediate(() => onChannel(there));
    return here;
  }
}

/** Two ends of one channel. */
export function memoryChannelPair(): [Channel, Channel] {
  const a = new MemoryChannel();
  const b = new MemoryChannel();
  a.join(b);
  b.join(a);
  return [a, b];
}

class MemoryChannel implements Channel {
  #peer: MemoryChannel | undefined;
  #handle: ((type: number, body: Uint8Array) => void) | undefined;
  #inbox: { type: number; body: Uint8Array }[] = [];
  #inboxBytes = 0;
  #paused = false;
  #scheduled = false;
  /** The peer closed: what it sent before is still delivered. */
  #ending = false;
  #closed = false;
  #onClose: ((reason: Error | undefined) => void)[] = [];
  readonly #drainWaiters = new DrainWaiters();

  join(peer: MemoryChannel): void {
    this.#peer = peer;
  }

  get queuedBytes(): number {
    return this.#closed ? 0 : this.#peer!.#inboxBytes;
  }

  send(type: number, ...parts: Uint8Array[]): void {
    if (this.#closed) return;
    const body = new Uint8Array(Buffer.concat(parts));
    if (body.length + 1 > FRAME_BYTES_MAX) throw new RangeError(`frame of ${body.length} bytes`);
    this.#peer!.#accept(type, body);
  }

  onFrame(handle: (type: number, body: Uint8Array) => void): void {
    this.#handle = handle;
    this.#schedule();
  }

  onClose(handle: (reason: Error | undefined) => void): void {
    if (this.#closed) setImmediate(() => handle(undefined));
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
    this.#schedule();
  }

  close(): void {
    if (this.#closed) return;
    const peer = this.#peer!;
    this.#finish();
    peer.#ending = true;
    peer.#schedule();
  }

  #accept(type: number, body: Uint8Array): void {
    if (this.#closed || this.#ending) return;
    this.#inbox.push({ type, body });
    this.#inboxBytes += body.length + FRAME_HEADER_BYTES;
    this.#schedule();
  }

  /** Not a microtask: two ends that answer each other must leave the event loop its turns. */
  #schedule(): void {
    if (this.#scheduled || this.#closed) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.#deliver();
    });
  }

  #deliver(): void {
    while (this.#handle && !this.#paused && !this.#closed && this.#inbox.length > 0) {
      const { type, body } = this.#inbox.shift()!;
      this.#inboxBytes -= body.length + FRAME_HEADER_BYTES;
      this.#handle(type, body);
    }
    this.#peer!.#wakeDrained();
    if (this.#ending && (this.#inbox.length === 0 || !this.#handle)) this.#finish();
  }

  #wakeDrained(): void {
    if (this.#closed) this.#drainWaiters.closed();
    else this.#drainWaiters.queued(this.queuedBytes);
  }

  #finish(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#inbox = [];
    this.#inboxBytes = 0;
    this.#wakeDrained();
    this.#peer!.#wakeDrained();
    const handlers = this.#onClose;
    this.#onClose = [];
    setImmediate(() => {
      for (const handle of handlers) handle(undefined);
    });
  }
}
