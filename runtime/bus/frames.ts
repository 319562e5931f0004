/**
 * Frames between a bus client and its hub, over any channel. Numbers are little endian; a subject or pattern is a u16 length
 * and its bytes; what follows the named fields is the payload.
 *
 *   to the hub    SUBSCRIBE (1) u32 subscription, pattern      UNSUBSCRIBE (2) u32 subscription
 *                 PUBLISH (3) subject, data                    REQUEST (4) u32 request, u32 timeoutMs, subject, data
 *                 ANSWER (5) u32 delivery, data                PING (6) u32 number
 *   to the client MESSAGE (10) u32 subscription, u32 delivery (0: no answer wanted), subject, data
 *                 REPLY (11) u32 request, u8 status, data      PONG (12) u32 number
 */
import type { BusReply } from '../ports/bus.ts';

export const BusFrame = {
  subscribe: 1,
  unsubscribe: 2,
  publish: 3,
  request: 4,
  answer: 5,
  ping: 6,
  message: 10,
  reply: 11,
  pong: 12,
} as const;

const STATUSES: BusReply['status'][] = ['ok', 'no-responders', 'timeout'];

/** Numbers (u32 each), then text, as the head of a frame. */
export function frameHead(numbers: number[], text?: string): Uint8Array {
  const textBytes = text === undefined ? 0 : 2 + Buffer.byteLength(text);
  const head = Buffer.allocUnsafe(numbers.length * 4 + textBytes);
  let at = 0;
  for (const number of numbers) at = head.writeUInt32LE(number, at);
  if (text !== undefined) {
    at = head.writeUInt16LE(textBytes - 2, at);
    head.write(text, at);
  }
  return head;
}

/** Reads a frame's body front to back. A field beyond its end throws a RangeError. */
export class FrameFields {
  readonly #body: Buffer;
  #at = 0;

  constructor(body: Uint8Array) {
    this.#body = Buffer.from(body.buffer, body.byteOffset, body.byteLength);
  }

  number(): number {
    const value = this.#body.readUInt32LE(this.#at);
    this.#at += 4;
    return value;
  }

  text(): string {
    const end = this.#at + 2 + this.#body.readUInt16LE(this.#at);
    if (end > this.#body.length) throw new RangeError('text beyond the end of its frame');
    const text = this.#body.toString('utf8', this.#at + 2, end);
    this.#at = end;
    return text;
  }

  /** A copy of what is left: the frame's own bytes are gone after its handler returns. */
  payload(): Uint8Array {
    return new Uint8Array(this.#body.subarray(this.#at));
  }
}

export function statusNumber(status: BusReply['status']): number {
  return STATUSES.indexOf(status);
}

export function replyOf(status: number, data: Uint8Array): BusReply {
  const name = STATUSES[status] ?? 'timeout';
  return name === 'ok' ? { status: name, data } : { status: name };
}
