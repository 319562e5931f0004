/**
 * Doors: how a channel to an actor is found. A process listens once and serves all its actors there; `pal.open.<kind>.<id>`
 * answers the address, and the first frame of a channel says whom it is for.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { openSubject } from '../../protocols/subjects.ts';
import { packMessage, unpackMessage } from '../bus/command.ts';
import type { Bus, Subscription } from '../ports/bus.ts';
import type { Channel, ChannelListener, ChannelNetwork } from '../ports/channel.ts';

/** Type of a channel's first frame; its body is `{kind, id}`. */
export const OPEN_FRAME = 1;

export type OnChannel = (channel: Channel) => void;

export class ChannelDoor {
  readonly #network: ChannelNetwork;
  readonly #address: string;
  readonly #bus: Bus | undefined;
  readonly #served = new Map<string, { onChannel: OnChannel; subscription: Subscription | undefined }>();
  #listener: ChannelListener | undefined;

  /** With a bus, the door also answers where its actors' channels are. */
  constructor(network: ChannelNetwork, address: string, bus?: Bus) {
    this.#network = network;
    this.#address = address;
    this.#bus = bus;
  }

  /** Starts to accept channels; returns the address that peers dial. */
  async listen(): Promise<string> {
    this.#listener = await this.#network.listen(this.#address, (channel) => this.#greet(channel));
    return this.#listener.address;
  }

  get address(): string {
    return this.#listener?.address ?? this.#address;
  }

  /** Gives channels for one actor to `onChannel`, which must set the channel's frame handler before it returns. */
  serve(kind: string, id: string, onChannel: OnChannel): { close(): void } {
    const key = `${kind}/${id}`;
    if (this.#served.has(key))
      throw new PalimpsestError('already-exists', `channels of ${kind} ${id} are served already`);
    const subscription = this.#bus?.subscribe(openSubject(kind, id), (message) =>
      message.reply(packMessage({ address: this.address })),
    );
    this.#served.set(key, { onChannel, subscription });
    return {
      close: () => {
        subscription?.unsubscribe();
        this.#served.delete(key);
      },
    };
  }

  async close(): Promise<void> {
    for (const { subscription } of this.#served.values()) subscription?.unsubscribe();
    this.#served.clear();
    await this.#listener?.close();
  }

  #greet(channel: Channel): void {
    channel.onFrame((type, body) => {
      const onChannel = type === OPEN_FRAME ? this.#find(body) : undefined;
      if (!onChannel) {
        channel.close();
        return;
      }
      onChannel(channel);
    });
  }

  #find(body: Uint8Array): OnChannel | undefined {
    try {
      const { kind, id } = unpackMessage<{ kind: string; id: string }>(body);
      return this.#served.get(`${kind}/${id}`)?.onChannel;
    } catch {
      return undefined;
    }
  }
}

/**
 * Opens a channel to an actor, wherever it runs. Throws `unavailable` when nobody serves it or its process does not accept,
 * or `timeout`.
 */
export async function openChannel(
  bus: Bus,
  network: ChannelNetwork,
  kind: string,
  id: string,
  options: { timeoutMs: number },
): Promise<Channel> {
  const answer = await bus.request(openSubject(kind, id), new Uint8Array(0), options);
  if (answer.status === 'no-responders') {
    throw new PalimpsestError(
      'unavailable',
      `${kind} ${id} does not run`,
      'look at its state with `palimpsest status`',
    );
  }
  if (answer.status === 'timeout') {
    throw new PalimpsestError(
      'timeout',
      `${kind} ${id} did not say where its channel is within ${options.timeoutMs} ms`,
    );
  }
  const { address } = unpackMessage<{ address: string }>(answer.data);
  const channel = await network.dial(address, options);
  channel.send(OPEN_FRAME, packMessage({ kind, id }));
  return channel;
}
