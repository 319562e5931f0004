/**
 * Doors: how a channel to an actor is found. A process listens once and serves all its actors there; `pal.open.<kind>.<id>`
 * answers the address, and the first frame of a channel says whom it is for.
 *
 * With tokens the first frame also carries one, and the door answers whether it lets the channel in, with the reason when it does
 * not. So the side that serves never speaks first.
 */
import { PalimpsestError, toWireError, type WireError } from '../../protocols/errors.ts';
import { openSubject } from '../../protocols/subjects.ts';
import { ALL_RIGHTS } from '../../protocols/tokens.ts';
import { packMessage, unpackMessage } from '../bus/command.ts';
import type { Bus, Subscription } from '../ports/bus.ts';
import type { Channel, ChannelListener, ChannelNetwork } from '../ports/channel.ts';
import type { Clock } from '../ports/clock.ts';
import { joinAddresses, splitAddress } from './fallback.ts';
import type { TokenJudge, TokenScope } from './tokens.ts';

/** Type of a channel's first frame; its body is `{kind, id}`, and `token` where there are tokens. */
export const OPEN_FRAME = 1;
/** Answers to a first frame with a token: no body, or why not. */
const ADMITTED_FRAME = 2;
const REFUSED_FRAME = 3;

/** `rights` are those that the channel was opened with, as protocols/tokens.ts names them. */
export type OnChannel = (channel: Channel, rights: number) => void;

/** Whose channels they are, and which rights mean anything there. */
export interface DoorScope extends TokenScope {
  rights: number;
}

export interface DoorOptions {
  /** The door also answers there where its actors' channels are. */
  bus?: Bus | undefined;
  /** Only channels with a token are let in. */
  judge?: TokenJudge | undefined;
}

interface Served {
  onChannel: OnChannel;
  scope: DoorScope | undefined;
  subscription: Subscription | undefined;
}

interface OpenRequest {
  kind: string;
  id: string;
  token?: Uint8Array;
}

export class ChannelDoor {
  readonly #network: ChannelNetwork;
  readonly #address: string;
  readonly #bus: Bus | undefined;
  readonly #judge: TokenJudge | undefined;
  readonly #served = new Map<string, Served>();
  #listener: ChannelListener | undefined;

  constructor(network: ChannelNetwork, address: string, { bus, judge }: DoorOptions = {}) {
    this.#network = network;
    this.#address = address;
    this.#bus = bus;
    this.#judge = judge;
  }

  /** Starts to accept channels; returns the address that peers dial. */
  async listen(): Promise<string> {
    this.#listener = await this.#network.listen(this.#address, (channel) => this.#greet(channel));
    return this.#listener.address;
  }

  get address(): string {
    return this.#listener?.address ?? this.#address;
  }

  /**
   * Gives channels for one actor to `onChannel`, which must set the channel's frame handler before it returns. A door with
   * tokens lets nobody to an actor without a scope.
   */
  serve(kind: string, id: string, onChannel: OnChannel, scope?: DoorScope): { close(): void } {
    const key = `${kind}/${id}`;
    if (this.#served.has(key))
      throw new PalimpsestError('already-exists', `channels of ${kind} ${id} are served already`);
    const subscription = this.#bus?.subscribe(openSubject(kind, id), (message) => {
      const { direct, overBus } = splitAddress(this.address);
      message.reply(packMessage({ address: direct, ...(overBus === undefined ? {} : { overBus }) }));
    });
    this.#served.set(key, { onChannel, scope, subscription });
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
      let isAsked = this.#judge !== undefined;
      try {
        if (type !== OPEN_FRAME) throw new PalimpsestError('invalid-argument', 'no first frame of a channel');
        const request = unpackMessage<OpenRequest>(body);
        isAsked ||= request.token !== undefined;
        this.#admit(channel, request);
      } catch (error) {
        // Who brought no token to a door without any listens to the actor already.
        if (isAsked) channel.send(REFUSED_FRAME, packMessage(toWireError(error)));
        channel.close();
      }
    });
  }

  #admit(channel: Channel, { kind, id, token }: OpenRequest): void {
    const served = this.#served.get(`${kind}/${id}`);
    if (!served) throw new PalimpsestError('unavailable', `${kind} ${id} does not run here any more`);
    const { onChannel, scope } = served;
    let rights = ALL_RIGHTS;
    if (this.#judge) {
      if (!scope) throw new PalimpsestError('permission-denied', `${kind} ${id} has no channels for others`);
      rights = this.#judge.admit(token, scope, scope.rights);
    }
    if (token !== undefined) channel.send(ADMITTED_FRAME);
    onChannel(channel, rights);
  }
}

/** What lets one in where there are tokens. */
export interface Admission {
  token: Uint8Array;
  clock: Clock;
}

export interface OpenOptions {
  timeoutMs: number;
  /** For a cluster with tokens: then the answer of the door is waited for. */
  admission?: Admission | undefined;
  answersSoon?: boolean;
}

/**
 * A process that was suspended, or cut off, keeps its place at the broker and says nothing; another may take over meanwhile. So it is
 * asked again soon, and then a little later: a machine that is busy answers late, but it does.
 */
const ASK_TIMEOUT_MS_MIN = 250;
const ASK_TIMEOUT_MS_MAX = 500;

/** Where the channels of an actor are opened now. Throws `unavailable` when nobody serves it, or `timeout`. */
export async function findDoor(
  bus: Bus,
  kind: string,
  id: string,
  { timeoutMs }: { timeoutMs: number },
): Promise<string> {
  let askMs = ASK_TIMEOUT_MS_MIN;
  for (let leftMs = timeoutMs; leftMs > 0; leftMs -= askMs, askMs = Math.min(2 * askMs, ASK_TIMEOUT_MS_MAX)) {
    const limit = { timeoutMs: Math.min(leftMs, askMs) };
    const answer = await bus.request(openSubject(kind, id), new Uint8Array(0), limit);
    if (answer.status === 'ok') {
      const { address, overBus } = unpackMessage<{ address: string; overBus?: string }>(answer.data);
      return joinAddresses(address, overBus);
    }
    if (answer.status === 'no-responders') {
      throw new PalimpsestError(
        'unavailable',
        `${kind} ${id} does not run`,
        'look at its state with `palimpsest status`',
      );
    }
  }
  throw new PalimpsestError(
    'timeout',
    `${kind} ${id} did not say where its channel is within ${timeoutMs} ms`,
  );
}

/**
 * Opens a channel to an actor, wherever it runs. Throws `unavailable` when nobody serves it or its process does not accept,
 * `timeout`, or `permission-denied` when the token does not count there.
 */
export async function openChannel(
  bus: Bus,
  network: ChannelNetwork,
  kind: string,
  id: string,
  options: OpenOptions,
): Promise<Channel> {
  const address = await findDoor(bus, kind, id, options);
  return openDoor(network, address, { kind, id, ...options });
}

/** Opens a channel to an actor at an address that `findDoor` gave. Throws as `openChannel` does. */
export async function openDoor(
  network: ChannelNetwork,
  address: string,
  { kind, id, ...options }: OpenOptions & { kind: string; id: string },
): Promise<Channel> {
  const { timeoutMs, admission, answersSoon } = options;
  const channel = await network.dial(address, { timeoutMs, role: kind, answersSoon });
  if (!admission) {
    channel.send(OPEN_FRAME, packMessage({ kind, id }));
    return channel;
  }
  channel.send(OPEN_FRAME, packMessage({ kind, id, token: admission.token }));
  const late = admission.clock.setTimer(timeoutMs, () => channel.close());
  try {
    await admitted(channel, `${kind} ${id}`);
    return channel;
  } finally {
    late.cancel();
  }
}

/** Waits for the door's word, or for the end of the channel. */
function admitted(channel: Channel, what: string): Promise<void> {
  return new Promise((resolve, reject) => {
    channel.onFrame((type, body) => {
      if (type === ADMITTED_FRAME) resolve();
      else if (type === REFUSED_FRAME) reject(PalimpsestError.fromWire(unpackMessage<WireError>(body)));
      else channel.close();
    });
    channel.onClose((reason) =>
      reject(
        new PalimpsestError(
          'unavailable',
          `the channel to ${what} was closed before it was open${reason ? `: ${reason.message}` : ''}`,
          'if it stays so, both ends need credentials of the same cluster that have not ended',
          reason,
        ),
      ),
    );
  });
}
