/**
 * The token of a compute, renewed long before it ends: after a quarter of its life, so that the other three quarters are left
 * for an outage of the bus or of everything that controls. Channels that are open need none of this.
 */
import { readToken } from '../../protocols/tokens.ts';
import { sendCommand } from '../bus/command.ts';
import type { Bus } from '../ports/bus.ts';
import type { Clock, Timer } from '../ports/clock.ts';
import type { Log } from '../ports/log.ts';
import type { Admission } from './door.ts';

/** Commands that renew a token; the answer is a token of the same rights. */
export const CHANNEL_TOKEN_KIND = 'channel-token';
export const CHANNEL_TOKEN_ID = 'main';
export type ChannelTokenCommand = { type: 'renew'; token: Uint8Array };

const RENEW_AT_PART = 4;
/** Parts of its life between two attempts. */
const RETRY_PARTS = 40;
const PAUSE_MS_MIN = 50;
const PAUSE_MS_MAX = 30_000;
const TIMEOUT_MS = 5_000;

export class TokenKeeper {
  readonly #options: { bus: Bus; clock: Clock; log: Log };
  #token: Uint8Array;
  #timer: Timer | undefined;
  #failures = 0;
  #closed = false;

  constructor(token: Uint8Array, options: { bus: Bus; clock: Clock; log: Log }) {
    this.#options = options;
    // The memory of what came by the bus is the bus's.
    this.#token = new Uint8Array(token);
    this.#renewLater();
  }

  get admission(): Admission {
    return { token: this.#token, clock: this.#options.clock };
  }

  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
  }

  #renewLater(): void {
    if (this.#closed) return;
    const { clock } = this.#options;
    const { issuedMs, expiresMs } = readToken(this.#token).grant.value;
    const lifeMs = expiresMs - issuedMs;
    const wanted = issuedMs + lifeMs / RENEW_AT_PART - clock.now();
    const retryMs = Math.min(PAUSE_MS_MAX, lifeMs / RETRY_PARTS);
    const waitMs = this.#failures === 0 ? wanted : Math.max(retryMs, wanted);
    this.#timer = clock.setTimer(Math.max(PAUSE_MS_MIN, waitMs), () => void this.#renew());
  }

  async #renew(): Promise<void> {
    const { bus, log } = this.#options;
    try {
      const command: ChannelTokenCommand = { type: 'renew', token: this.#token };
      const answer = await sendCommand<{ token: Uint8Array }>(
        bus,
        CHANNEL_TOKEN_KIND,
        CHANNEL_TOKEN_ID,
        command,
        {
          timeoutMs: TIMEOUT_MS,
        },
      );
      // The answer's memory is the message's.
      this.#token = new Uint8Array(answer.token);
      this.#failures = 0;
    } catch (error) {
      if (this.#failures++ === 0) {
        log.warn({ error }, 'the token for channels cannot be renewed now; those that are open go on');
      }
    }
    this.#renewLater();
  }
}
