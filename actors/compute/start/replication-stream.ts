/**
 * Takes apart what Postgres sends on a replication connection. WAL is handed on uncopied, in the pieces in which it arrives: a
 * message of the walsender is 128 KiB long, and would otherwise be put together first. All other messages are short, and
 * handed on whole.
 *
 * A message is a type (1 byte), its length without the type (4 bytes, big endian) and a body. CopyData with WAL: 'w', the
 * LSN of its first byte, the end of WAL and a time (8 bytes each), then the bytes.
 */
import type { Lsn } from '../../../protocols/lsn.ts';

const COPY_DATA = 0x64;
const XLOG_DATA = 0x77;
const MESSAGE_HEAD_BYTES = 5;
const WAL_HEAD_BYTES = MESSAGE_HEAD_BYTES + 25;
const LSN_AT = MESSAGE_HEAD_BYTES + 1;

export interface ReplicationStreamHandlers {
  /** The bytes are valid only during the call. */
  onWal(lsn: Lsn, bytes: Uint8Array): void;
  /** One whole message, as it came. */
  onMessage(message: Buffer): void;
}

export class ReplicationStream {
  readonly #handlers: ReplicationStreamHandlers;
  /** The beginning of the next message. */
  readonly #head = Buffer.alloc(WAL_HEAD_BYTES);
  #headBytes = 0;
  /** WAL of the current message that is still to come, and where it belongs. */
  #walLeft = 0;
  #walLsn = 0;
  /** Another message that is arriving. */
  #message: Buffer | undefined;
  #messageBytes = 0;

  constructor(handlers: ReplicationStreamHandlers) {
    this.#handlers = handlers;
  }

  /** Takes the next bytes of the stream, which may be reused afterwards. */
  push(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      if (this.#walLeft > 0) at += this.#passWal(bytes, at);
      else if (this.#message) at += this.#fillMessage(this.#message, bytes, at);
      else at += this.#fillHead(bytes, at);
    }
  }

  #passWal(bytes: Uint8Array, at: number): number {
    const count = Math.min(this.#walLeft, bytes.length - at);
    const lsn = this.#walLsn as Lsn;
    this.#walLeft -= count;
    this.#walLsn += count;
    this.#handlers.onWal(lsn, bytes.subarray(at, at + count));
    return count;
  }

  #fillMessage(message: Buffer, bytes: Uint8Array, at: number): number {
    const count = Math.min(message.length - this.#messageBytes, bytes.length - at);
    message.set(bytes.subarray(at, at + count), this.#messageBytes);
    this.#messageBytes += count;
    this.#endMessage(message);
    return count;
  }

  #endMessage(message: Buffer): void {
    if (this.#messageBytes < message.length) return;
    this.#message = undefined;
    this.#handlers.onMessage(message);
  }

  #fillHead(bytes: Uint8Array, at: number): number {
    const wanted = this.#wantedHead();
    const count = Math.min(wanted - this.#headBytes, bytes.length - at);
    this.#head.set(bytes.subarray(at, at + count), this.#headBytes);
    this.#headBytes += count;
    if (this.#headBytes === this.#wantedHead()) this.#beginMessage();
    return count;
  }

  /** How much of the beginning must be known to go on: ever more, the more it looks like WAL. */
  #wantedHead(): number {
    const head = this.#head;
    if (this.#headBytes < MESSAGE_HEAD_BYTES) return MESSAGE_HEAD_BYTES;
    const mayBeWal = head[0] === COPY_DATA && 1 + head.readUInt32BE(1) >= WAL_HEAD_BYTES;
    if (!mayBeWal) return MESSAGE_HEAD_BYTES;
    if (this.#headBytes === MESSAGE_HEAD_BYTES) return LSN_AT;
    return head[MESSAGE_HEAD_BYTES] === XLOG_DATA ? WAL_HEAD_BYTES : LSN_AT;
  }

  #beginMessage(): void {
    const head = this.#head;
    const length = 1 + head.readUInt32BE(1);
    if (this.#headBytes === WAL_HEAD_BYTES) {
      this.#walLsn = head.readUInt32BE(LSN_AT) * 0x1_0000_0000 + head.readUInt32BE(LSN_AT + 4);
      this.#walLeft = length - WAL_HEAD_BYTES;
    } else {
      const message = Buffer.alloc(length);
      message.set(head.subarray(0, this.#headBytes));
      this.#messageBytes = this.#headBytes;
      this.#message = message;
      this.#endMessage(message);
    }
    this.#headBytes = 0;
  }
}
