/**
 * A minimal client for Palimpsest's own few statements inside a compute: simple queries, no password, one at a time,
 * each with a time limit.
 */
import { type DatabaseError, serialize } from 'pg-protocol';
import type { BackendMessage } from 'pg-protocol/dist/messages.js';
import { Parser } from 'pg-protocol/dist/parser.js';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import type { ByteSocket, Sockets, SocketTarget } from '../../runtime/ports/sockets.ts';

export interface SqlClientOptions {
  clock: Clock;
  sockets: Sockets;
  target: SocketTarget;
  user: string;
  database: string;
  timeoutMs: number;
}

type Row = (string | null)[];

interface Pending {
  rows: Row[];
  error: DatabaseError | undefined;
  resolve(rows: Row[]): void;
  reject(error: Error): void;
}

export class SqlClient {
  readonly #clock: Clock;
  readonly #socket: ByteSocket;
  readonly #timeoutMs: number;
  readonly #parser = new Parser();
  #pending: Pending | undefined;
  #closed: Error | undefined;

  private constructor(options: SqlClientOptions, socket: ByteSocket) {
    this.#clock = options.clock;
    this.#socket = socket;
    this.#timeoutMs = options.timeoutMs;
    socket.onData((bytes) => this.#receive(bytes));
    socket.onClose(() => this.#fail(new PalimpsestError('unavailable', 'Postgres closed the connection')));
  }

  /** Connects as a role that needs no password. */
  static async connect(options: SqlClientOptions): Promise<SqlClient> {
    const socket = await options.sockets.dial(options.target, { timeoutMs: options.timeoutMs });
    const client = new SqlClient(options, socket);
    const { user, database } = options;
    await client.#exchange(
      serialize.startup({ user, database, application_name: 'palimpsest', client_encoding: 'UTF8' }),
      'connecting',
    );
    return client;
  }

  /** Runs statements; resolves with the rows of all of them. Throws the database's error. */
  query(sql: string): Promise<Row[]> {
    return this.#exchange(serialize.query(sql), 'a query');
  }

  get closed(): boolean {
    return this.#closed !== undefined;
  }

  close(): void {
    this.#closed ??= new PalimpsestError('unavailable', 'the connection was closed');
    this.#socket.write(serialize.end());
    this.#socket.end();
  }

  #exchange(message: Uint8Array, what: string): Promise<Row[]> {
    if (this.#closed) return Promise.reject(this.#closed);
    if (this.#pending) return Promise.reject(new PalimpsestError('conflict', 'a query is running already'));
    return new Promise<Row[]>((resolve, reject) => {
      const timer = this.#clock.setTimer(this.#timeoutMs, () => {
        this.#fail(new PalimpsestError('timeout', `${what} took more than ${this.#timeoutMs} ms`));
        this.#socket.destroy();
      });
      this.#pending = {
        rows: [],
        error: undefined,
        resolve: (rows) => {
          timer.cancel();
          resolve(rows);
        },
        reject: (error) => {
          timer.cancel();
          reject(error);
        },
      };
      this.#socket.write(message);
    });
  }

  #receive(bytes: Uint8Array): void {
    const chunk = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#parser.parse(chunk, (message) => this.#handle(message));
  }

  #handle(message: BackendMessage): void {
    const pending = this.#pending;
    if (!pending) return;
    if (message.name === 'dataRow') pending.rows.push((message as unknown as { fields: Row }).fields);
    else if (message.name === 'error') this.#keepError(pending, message as unknown as DatabaseError);
    else if (message.name === 'readyForQuery') {
      this.#pending = undefined;
      if (pending.error) pending.reject(pending.error);
      else pending.resolve(pending.rows);
    } else if (message.name.startsWith('authentication') && message.name !== 'authenticationOk') {
      this.#fail(new PalimpsestError('permission-denied', 'Postgres asks for a password'));
      this.#socket.destroy();
    }
  }

  #keepError(pending: Pending, error: DatabaseError): void {
    pending.error ??= error;
    if (error.severity === 'FATAL') this.#fail(error);
  }

  #fail(error: Error): void {
    this.#closed ??= error;
    const pending = this.#pending;
    this.#pending = undefined;
    pending?.reject(error);
  }
}

/** Quotes text as an SQL literal. */
export function sqlLiteral(text: string): string {
  const quoted = `'${text.replaceAll("'", "''")}'`;
  return text.includes('\\') ? ` E${quoted.replaceAll('\\', '\\\\')}` : quoted;
}

/** Quotes a name as an SQL identifier. */
export function sqlIdentifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
