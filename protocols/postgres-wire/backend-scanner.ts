/**
 * Follows the bytes that a backend sends to its client, message by message, without copying what just passes.
 *
 * Backend messages are a type byte, u32 length (itself included), body. Only three kinds are looked into, and held back
 * until they are whole: BackendKeyData, NoticeResponse, and an ErrorResponse that comes as the very first message.
 * Everything else is forwarded as it arrives, as views of the chunk.
 *
 * Invariants
 * 1. What is forwarded, in order, equals what was scanned, minus the messages that `inspect` refused.
 * 2. A held message is bounded: a longer one passes without a look.
 */
export const TYPE_KEY_DATA = 0x4b;
export const TYPE_NOTICE = 0x4e;
export const TYPE_ERROR = 0x45;

/** No message that matters here is near this size. */
export const HELD_BYTES_MAX = 64 * 1024;
const HEADER_BYTES = 5;

/** `forward`: pass it on; `drop`: leave it out; `stop`: leave it out and look at nothing more. */
export type Verdict = 'forward' | 'drop' | 'stop';

export interface BackendScannerOptions {
  /** Called with each whole message of the three kinds; `body` is valid only during the call. */
  inspect(type: number, body: Uint8Array): Verdict;
  /** Gets views that stay valid as long as the scanned chunk does. */
  forward(bytes: Uint8Array): void;
}

export class BackendScanner {
  readonly #options: BackendScannerOptions;
  /** Bytes of the current message's body that still pass. */
  #passing = 0;
  /** Header bytes seen of a passing message whose header is split. */
  #headerFill = 0;
  #length = 0;
  /** The message being held back, whole or in part. */
  #held: Uint8Array | undefined;
  #heldFill = 0;
  #messages = 0;
  #lastType = 0;
  #stopped = false;

  constructor(options: BackendScannerOptions) {
    this.#options = options;
  }

  /** Whether the bytes forwarded so far end with a whole message. */
  get atBoundary(): boolean {
    return this.#passing === 0 && this.#headerFill === 0 && this.#held === undefined;
  }

  /** Type of the newest message; 0 before the first. */
  get lastType(): number {
    return this.#lastType;
  }

  /** Takes the next bytes. Throws a RangeError when they are not the Postgres protocol. */
  scan(chunk: Uint8Array): void {
    let from = 0;
    let at = 0;
    while (at < chunk.length && !this.#stopped) {
      if (this.#passing > 0) {
        const step = Math.min(this.#passing, chunk.length - at);
        this.#passing -= step;
        at += step;
      } else if (this.#held !== undefined) {
        at = this.#fillHeld(chunk, at);
        from = at;
      } else if (this.#headerFill > 0) {
        at = this.#fillHeader(chunk, at);
      } else if (this.#holds(chunk[at]!)) {
        if (at > from) this.#options.forward(chunk.subarray(from, at));
        this.#beginMessage(chunk[at]!);
        this.#held = new Uint8Array(HEADER_BYTES);
        this.#heldFill = 0;
        from = at;
      } else {
        this.#beginMessage(chunk[at]!);
        if (chunk.length - at >= HEADER_BYTES) {
          this.#passing = bodyBytes(readLength(chunk, at + 1));
          at += HEADER_BYTES;
        } else {
          this.#headerFill = 1;
          this.#length = 0;
          at += 1;
        }
      }
    }
    if (!this.#stopped && chunk.length > from && this.#held === undefined) {
      this.#options.forward(from === 0 ? chunk : chunk.subarray(from));
    }
  }

  #holds(type: number): boolean {
    return type === TYPE_NOTICE || type === TYPE_KEY_DATA || (type === TYPE_ERROR && this.#messages === 0);
  }

  #beginMessage(type: number): void {
    this.#messages++;
    this.#lastType = type;
  }

  #fillHeader(chunk: Uint8Array, start: number): number {
    let at = start;
    while (at < chunk.length && this.#headerFill < HEADER_BYTES) {
      this.#length = this.#length * 256 + chunk[at++]!;
      this.#headerFill++;
    }
    if (this.#headerFill === HEADER_BYTES) {
      this.#passing = bodyBytes(this.#length);
      this.#headerFill = 0;
    }
    return at;
  }

  /** Copies into the held message; hands it over when it is whole. Returns where the rest of the chunk begins. */
  #fillHeld(chunk: Uint8Array, start: number): number {
    const held = this.#held!;
    const step = Math.min(held.length - this.#heldFill, chunk.length - start);
    held.set(chunk.subarray(start, start + step), this.#heldFill);
    this.#heldFill += step;
    if (this.#heldFill < held.length) return start + step;
    const wanted = HEADER_BYTES + bodyBytes(readLength(held, 1));
    if (wanted > HELD_BYTES_MAX) {
      this.#held = undefined;
      this.#passing = wanted - HEADER_BYTES;
      this.#options.forward(held);
    } else if (held.length < wanted) {
      this.#held = new Uint8Array(wanted);
      this.#held.set(held);
    } else {
      this.#held = undefined;
      const verdict = this.#options.inspect(held[0]!, held.subarray(HEADER_BYTES));
      if (verdict === 'forward') this.#options.forward(held);
      this.#stopped = verdict === 'stop';
    }
    return start + step;
  }
}

function readLength(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}

function bodyBytes(length: number): number {
  if (length < 4) throw new RangeError(`backend message of length ${length}`);
  return length - 4;
}
