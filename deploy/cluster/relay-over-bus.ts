/**
 * The way of a client to a compute over NATS, for a gateway that reaches NATS and not the compute's machine.
 *
 *   pal.relay.open.<node>   opens a channel to a node's computes
 *   KEY_FRAME               first, from the gateway: the key of a compute's relay (`relay.ts`)
 *   ADMITTED_FRAME          the answer, once the compute's socket is open; a key that is not known gets none, but the end
 *   BYTES_FRAME             then what the client and Postgres say to each other
 *
 * It ends when NATS does, so it is taken only where TCP has no way.
 */
import { timingSafeEqual } from 'node:crypto';
import { PalimpsestError } from '../../protocols/errors.ts';
import { isWithoutWay, SOCKET_TIMEOUT_MS } from '../../runtime/channels/fallback.ts';
import type { Channel, ChannelNetwork } from '../../runtime/ports/channel.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { ByteSocket, Sockets, SocketTarget } from '../../runtime/ports/sockets.ts';
import type { RelayAddress } from './relay.ts';

/** First tokens of the subjects of these channels. */
export const RELAY_SUBJECTS = 'pal.relay';

const KEY_FRAME = 1;
const ADMITTED_FRAME = 2;
const BYTES_FRAME = 3;
/** For the key, for the compute's socket, and for the answer. */
const GREETING_TIMEOUT_MS = 5_000;
/** So long the next clients need not find out that there is no way. */
const WITHOUT_WAY_MS = 5_000;
/** A side that sends more than the other takes is not read while so much is queued, until this little is left. */
const QUEUED_BYTES_MAX = 1024 * 1024;
const QUEUED_BYTES_LOW = 256 * 1024;

export interface RelaysOverBusOptions {
  channels: ChannelNetwork;
  sockets: Sockets;
  clock: Clock;
  node: string;
}

/** Of a node with computes: the same computes as by their relays, with the same keys. */
export class RelaysOverBus {
  readonly #options: RelaysOverBusOptions;
  readonly #served = new Set<{ key: Buffer; path: string; sockets: Set<ByteSocket> }>();

  constructor(options: RelaysOverBusOptions) {
    this.#options = options;
  }

  async listen(): Promise<void> {
    const { channels, node } = this.#options;
    await channels.listen(`bus:${node}`, (channel) => this.#greet(channel));
  }

  /** Lets who knows the key to the compute behind `path`, until it is closed. */
  serve({ key }: RelayAddress, path: string): { close(): void } {
    const served = { key: Buffer.from(key, 'hex'), path, sockets: new Set<ByteSocket>() };
    this.#served.add(served);
    return {
      close: () => {
        this.#served.delete(served);
        for (const socket of served.sockets) socket.destroy();
      },
    };
  }

  #greet(channel: Channel): void {
    const { sockets, clock } = this.#options;
    const timer = clock.setTimer(GREETING_TIMEOUT_MS, () => channel.close());
    channel.onClose(() => timer.cancel());
    const admit = async (type: number, key: Uint8Array) => {
      const served = [...this.#served].find((known) => type === KEY_FRAME && isSame(known.key, key));
      if (!served) throw new PalimpsestError('permission-denied', 'not the key of a compute');
      channel.pause();
      const backend = await sockets.dial({ path: served.path }, { timeoutMs: GREETING_TIMEOUT_MS });
      served.sockets.add(backend);
      backend.onClose(() => served.sockets.delete(backend));
      timer.cancel();
      channel.send(ADMITTED_FRAME);
      const client = new ChannelSocket(channel);
      pass(client, backend);
      pass(backend, client);
      channel.resume();
    };
    channel.onFrame((type, body) => void admit(type, body).catch(() => channel.close()));
  }
}

/** Sockets of a gateway: over NATS to a compute of a node to which TCP has no way. */
export class SocketsOrBus implements Sockets {
  readonly #sockets: Sockets;
  readonly #channels: ChannelNetwork;
  readonly #clock: Clock;
  readonly #log: Log;
  /** Nodes without a way, and until when that is taken for true. */
  readonly #withoutWay = new Map<string, number>();

  constructor(options: { sockets: Sockets; channels: ChannelNetwork; clock: Clock; log: Log }) {
    this.#sockets = options.sockets;
    this.#channels = options.channels;
    this.#clock = options.clock;
    this.#log = options.log;
  }

  listen(...args: Parameters<Sockets['listen']>): ReturnType<Sockets['listen']> {
    return this.#sockets.listen(...args);
  }

  /** `node` of a target says where its computes are asked for on the bus. */
  async dial(
    target: SocketTarget & Partial<RelayTarget>,
    options: { timeoutMs: number },
  ): Promise<ByteSocket> {
    const { node, key } = target;
    if (node === undefined || key === undefined) return this.#sockets.dial(target, options);
    const overBus = () => this.#dialOverBus(node, key, options);
    const until = this.#withoutWay.get(node);
    if (until !== undefined && this.#clock.monotonic() < until) {
      const socket = await overBus().catch(() => undefined);
      if (socket) return socket;
    }
    try {
      const timeoutMs = Math.min(options.timeoutMs, SOCKET_TIMEOUT_MS);
      const socket = await this.#sockets.dial(target, { ...options, timeoutMs });
      this.#withoutWay.delete(node);
      return socket;
    } catch (error) {
      if (!isWithoutWay(error)) throw error;
      // A compute that is gone answers neither way, and then the first reason says more.
      const socket = await overBus().catch(() => {
        throw error;
      });
      if (until === undefined) {
        const reason = error.message;
        this.#log.warn({ node, reason }, 'there is no way to its computes by sockets: clients go over NATS');
      }
      this.#withoutWay.set(node, this.#clock.monotonic() + WITHOUT_WAY_MS);
      return socket;
    }
  }

  async #dialOverBus(node: string, key: string, options: { timeoutMs: number }): Promise<ByteSocket> {
    const timeoutMs = Math.min(options.timeoutMs, GREETING_TIMEOUT_MS);
    const channel = await this.#channels.dial(`bus:${node}`, { timeoutMs });
    const answer = Promise.withResolvers<void>();
    const timer = this.#clock.setTimer(timeoutMs, () => channel.close());
    channel.onClose(() => answer.reject(new PalimpsestError('unavailable', `no such compute on ${node}`)));
    channel.onFrame((type) => {
      // What Postgres says next is for the socket's user, who is not there yet.
      channel.pause();
      if (type === ADMITTED_FRAME) answer.resolve();
      else channel.close();
    });
    channel.send(KEY_FRAME, Buffer.from(key, 'hex'));
    try {
      await answer.promise;
    } finally {
      timer.cancel();
    }
    return new ChannelSocket(channel, node);
  }
}

/** A relay's address, and the node on which it is. */
export interface RelayTarget extends RelayAddress {
  node: string;
}

/** The stream of bytes that goes in the frames of a channel. */
class ChannelSocket implements ByteSocket {
  readonly peer: string;
  readonly #channel: Channel;
  #isFull = false;
  #onDrain = () => {};

  constructor(channel: Channel, peer = 'a gateway') {
    this.#channel = channel;
    this.peer = peer;
  }

  write(bytes: Uint8Array): boolean {
    this.#channel.send(BYTES_FRAME, bytes);
    if (this.#channel.queuedBytes < QUEUED_BYTES_MAX) return true;
    if (!this.#isFull) {
      this.#isFull = true;
      void this.#channel.drained(QUEUED_BYTES_LOW).then(() => {
        this.#isFull = false;
        this.#onDrain();
      });
    }
    return false;
  }

  onData(handle: (bytes: Uint8Array) => void): void {
    this.#channel.onFrame((_, body) => handle(body.slice()));
    this.#channel.resume();
  }

  onDrain(handle: () => void): void {
    this.#onDrain = handle;
  }

  onClose(handle: () => void): void {
    this.#channel.onClose(handle);
  }

  pause(): void {
    this.#channel.pause();
  }

  resume(): void {
    this.#channel.resume();
  }

  end(): void {
    this.#channel.close();
  }

  destroy(): void {
    this.#channel.close();
  }
}

function pass(from: ByteSocket, to: ByteSocket): void {
  to.onDrain(() => from.resume());
  from.onClose(() => to.end());
  from.onData((bytes) => {
    if (!to.write(bytes)) from.pause();
  });
}

function isSame(known: Buffer, given: Uint8Array): boolean {
  return given.length === known.length && timingSafeEqual(known, given);
}
