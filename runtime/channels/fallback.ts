/**
 * Channels by sockets where a way between the two processes exists, and over the bus where there is none.
 *
 * What goes by sockets needs no broker once it is open; what goes over the bus ends with it. So while a channel goes over the bus it is
 * looked again and again for a way by sockets, and when there is one the channel is closed: who uses it opens another.
 *
 * An address that names both is `tcp:host:port|bus:name`. Doors give the two apart (`door.ts`), for who knows only the first.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Channel, ChannelListener, ChannelNetwork, DialChannelOptions } from '../ports/channel.ts';
import type { Clock, Timer } from '../ports/clock.ts';
import type { Log } from '../ports/log.ts';

/** A connection takes less where there is a way; where packets are dropped nothing says that there is none. */
export const SOCKET_TIMEOUT_MS = 1_500;
/** So often a way is looked for while a channel goes over the bus. */
const LOOK_MS = 5_000;
const SEPARATOR = '|';

export interface FallbackOptions {
  sockets: ChannelNetwork;
  overBus: ChannelNetwork;
  /** Of this process on the bus. */
  name: string;
  clock: Clock;
  log: Log;
}

/** One address for both ways. */
export function joinAddresses(direct: string, overBus: string | undefined): string {
  return overBus === undefined ? direct : direct + SEPARATOR + overBus;
}

/** The address for sockets, and the one on the bus, if there is one. */
export function splitAddress(address: string): { direct: string; overBus: string | undefined } {
  const [direct, overBus] = address.split(SEPARATOR);
  return { direct: direct!, overBus };
}

export class FallbackNetwork implements ChannelNetwork {
  readonly #sockets: ChannelNetwork;
  readonly #overBus: ChannelNetwork;
  readonly #name: string;
  readonly #clock: Clock;
  readonly #log: Log;
  /** Addresses without a way, as far as has been told. */
  readonly #told = new Set<string>();

  constructor({ sockets, overBus, name, clock, log }: FallbackOptions) {
    this.#clock = clock;
    this.#sockets = sockets;
    this.#overBus = overBus;
    this.#name = name;
    this.#log = log;
  }

  /** Listens in both ways. */
  async listen(address: string, onChannel: (channel: Channel) => void): Promise<ChannelListener> {
    const direct = await this.#sockets.listen(address, onChannel);
    const overBus = await this.#overBus.listen(`bus:${this.#name}`, onChannel);
    return {
      address: joinAddresses(direct.address, overBus.address),
      close: async () => {
        await overBus.close();
        await direct.close();
      },
    };
  }

  async dial(address: string, options: DialChannelOptions): Promise<Channel> {
    const { direct, overBus } = splitAddress(address);
    if (overBus === undefined) return this.#sockets.dial(direct, options);
    try {
      const channel = await this.#dialDirect(direct, options);
      this.#told.delete(overBus);
      return channel;
    } catch (error) {
      if (!isWithoutWay(error)) throw error;
      // When there is nobody either way, the first reason says more.
      const channel = await this.#overBus.dial(overBus, options).catch(() => {
        throw error;
      });
      if (!this.#told.has(overBus)) {
        this.#told.add(overBus);
        const reason = error.message;
        this.#log.warn({ address, reason }, 'there is no way to it by sockets: its channels go over NATS');
      }
      this.#leaveWhenThereIsAWay(channel, direct, options);
      return channel;
    }
  }

  #dialDirect(direct: string, options: DialChannelOptions): Promise<Channel> {
    return this.#sockets.dial(direct, {
      ...options,
      timeoutMs: Math.min(options.timeoutMs, SOCKET_TIMEOUT_MS),
    });
  }

  #leaveWhenThereIsAWay(channel: Channel, direct: string, options: DialChannelOptions): void {
    let isOpen = true;
    const look = async () => {
      const way = await this.#dialDirect(direct, options).catch(() => undefined);
      way?.close();
      if (!isOpen) return;
      if (way) {
        this.#log.info({ address: direct }, 'there is a way to it by sockets again');
        channel.close();
      } else lookLater();
    };
    const lookLater = () => {
      timer = this.#clock.setTimer(LOOK_MS, () => void look());
    };
    let timer: Timer | undefined;
    channel.onClose(() => {
      isOpen = false;
      timer?.cancel();
    });
    lookLater();
  }
}

/** Nobody was reached. Not who answers and refuses, for whatever reason. */
export function isWithoutWay(error: unknown): error is PalimpsestError {
  return error instanceof PalimpsestError && (error.code === 'unavailable' || error.code === 'timeout');
}
