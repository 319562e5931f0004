/**
 * The replication connection: takes the WAL out of Postgres as a synchronous standby would, and tells it what a quorum of
 * safekeepers has.
 *
 * Postgres answers a COMMIT only when the standby has acknowledged it as flushed, so acknowledging the commit LSN, and
 * nothing else, is what makes commits durable.
 */
import { type DatabaseError, serialize } from 'pg-protocol';
import type { BackendMessage } from 'pg-protocol/dist/messages.js';
import { Parser } from 'pg-protocol/dist/parser.js';
import { PalimpsestError } from '../../../protocols/errors.ts';
import { formatLsn, type Lsn } from '../../../protocols/lsn.ts';
import type { Clock, Timer } from '../../../runtime/ports/clock.ts';
import type { ByteSocket, Sockets, SocketTarget } from '../../../runtime/ports/sockets.ts';
import { ReplicationStream } from './replication-stream.ts';

const KEEPALIVE = 0x6b;
const STATUS_UPDATE = 0x72;
const COPY_DATA = 0x64;
/** Read at once: more than a message of the walsender. */
const RECEIVE_BYTES = 256 * 1024;
/** The status is repeated this often also when nothing is new, as a standby does. */
const HEARTBEAT_MS = 1_000;
/** And this often until Postgres counts on it: a status that comes while it still catches up is forgotten by Postgres. */
const CATCH_UP_HEARTBEAT_MS = 1;
/** Milliseconds from 1970 to 2000, where Postgres counts from. */
const POSTGRES_EPOCH_MS = 946_684_800_000;

export interface ReplicationOptions {
  clock: Clock;
  sockets: Sockets;
  target: SocketTarget;
  user: string;
  /** Under which synchronous_standby_names knows it; also the name of its slot. */
  applicationName: string;
  startLsn: Lsn;
  timeoutMs: number;
  /** WAL in order; the bytes are valid only during the call. */
  onWal(lsn: Lsn, bytes: Uint8Array): void;
  onClose(reason: Error): void;
}

export class ReplicationConnection {
  readonly #options: ReplicationOptions;
  readonly #socket: ByteSocket;
  readonly #parser = new Parser();
  readonly #stream: ReplicationStream;
  readonly #status = Buffer.alloc(1 + 4 + 34);
  #started: { resolve(): void; reject(error: Error): void } | undefined;
  #failure: Error | undefined;
  #acknowledged = 0;
  #heartbeat: Timer | undefined;
  #heartbeatMs = CATCH_UP_HEARTBEAT_MS;
  #over = false;

  private constructor(options: ReplicationOptions, socket: ByteSocket) {
    this.#options = options;
    this.#socket = socket;
    this.#acknowledged = options.startLsn;
    this.#stream = new ReplicationStream({
      onWal: options.onWal,
      onMessage: (bytes) => this.#parser.parse(bytes, (message) => this.#handle(message)),
    });
    this.#status[0] = COPY_DATA;
    this.#status.writeInt32BE(this.#status.length - 1, 1);
    this.#status[5] = STATUS_UPDATE;
    socket.onData((bytes) => this.#stream.push(bytes));
    socket.onClose(() => this.#closed());
  }

  /** Resolves once WAL streams. Throws Postgres' error, `unavailable` or `timeout`. */
  static async start(options: ReplicationOptions): Promise<ReplicationConnection> {
    const { timeoutMs } = options;
    const dialling = { timeoutMs, reusedBufferBytes: RECEIVE_BYTES };
    const socket = await options.sockets.dial(options.target, dialling);
    const connection = new ReplicationConnection(options, socket);
    await new Promise<void>((resolve, reject) => {
      const timer = options.clock.setTimer(timeoutMs, () => {
        socket.destroy();
        reject(new PalimpsestError('timeout', `replication did not start within ${timeoutMs} ms`));
      });
      connection.#started = {
        resolve: () => {
          timer.cancel();
          resolve();
        },
        reject: (error) => {
          timer.cancel();
          reject(error);
        },
      };
      socket.write(openingMessages(options));
    });
    connection.#started = undefined;
    connection.#beat();
    return connection;
  }

  /** Postgres has taken it as its synchronous standby. */
  settled(): void {
    this.#heartbeatMs = HEARTBEAT_MS;
  }

  /** Tells Postgres that everything up to `lsn` is durable. */
  acknowledge(lsn: Lsn): void {
    if (lsn <= this.#acknowledged) return;
    this.#acknowledged = lsn;
    this.#sendStatus();
  }

  /** Stops and restarts taking WAL. */
  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  close(): void {
    this.#socket.destroy();
  }

  #beat(): void {
    if (this.#over) return;
    this.#sendStatus();
    this.#heartbeat = this.#options.clock.setTimer(this.#heartbeatMs, () => this.#beat());
  }

  #handle(message: BackendMessage): void {
    switch (message.name) {
      case 'copyData':
        this.#handleCopyData((message as unknown as { chunk: Buffer }).chunk);
        break;
      case 'readyForQuery':
        if (this.#failure) this.#socket.destroy();
        break;
      case 'replicationStart':
        this.#started?.resolve();
        break;
      case 'error':
        this.#failure = message as unknown as DatabaseError;
        break;
      default:
        break;
    }
  }

  #handleCopyData(data: Buffer): void {
    if (data[0] === KEEPALIVE && data[17] === 1) this.#sendStatus();
  }

  /** Written, flushed and applied are all the acknowledged LSN. */
  #sendStatus(): void {
    const status = Buffer.from(this.#status);
    const high = Math.floor(this.#acknowledged / 0x1_0000_0000);
    const low = this.#acknowledged % 0x1_0000_0000;
    for (const at of [6, 14, 22]) {
      status.writeUInt32BE(high, at);
      status.writeUInt32BE(low, at + 4);
    }
    status.writeBigInt64BE(BigInt(Math.round(this.#options.clock.now() - POSTGRES_EPOCH_MS)) * 1000n, 30);
    this.#socket.write(status);
  }

  #closed(): void {
    this.#over = true;
    this.#heartbeat?.cancel();
    const error =
      this.#failure ?? new PalimpsestError('unavailable', 'Postgres closed the replication connection');
    if (this.#started) this.#started.reject(error);
    else this.#options.onClose(error);
  }
}

/**
 * All that is to be said until WAL streams, sent at once: Postgres answers one after the other, and nothing here depends on an
 * answer. With a slot, Postgres keeps the WAL that safekeepers do not have yet, however far they lag behind.
 */
function openingMessages({ user, applicationName, startLsn }: ReplicationOptions): Uint8Array {
  return Buffer.concat([
    serialize.startup({ user, replication: 'true', application_name: applicationName }),
    serialize.query(`CREATE_REPLICATION_SLOT ${applicationName} TEMPORARY PHYSICAL RESERVE_WAL`),
    serialize.query(`START_REPLICATION SLOT ${applicationName} PHYSICAL ${formatLsn(startLsn)} TIMELINE 1`),
  ]);
}
