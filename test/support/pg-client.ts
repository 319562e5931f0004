/**
 * A small Postgres client for tests and benchmarks: simple and extended queries, COPY in, cancel, SCRAM. It shows
 * what a driver would hide: notices, the way a connection ends, the exact error fields.
 */
import { createConnection, type Socket } from 'node:net';
import { DatabaseError, parse, serialize } from 'pg-protocol';
import { ScramClient } from './scram-client.ts';

export interface PgTarget {
  /** Host name, or the folder of a unix socket when it starts with a slash. */
  host: string;
  port: number;
  user: string;
  password?: string;
  database: string;
  /** The startup parameter `options`, for example `endpoint=main`. */
  options?: string;
  /** Bounds connecting with authentication, and each query unless it names its own limit. */
  timeoutMs?: number;
}

export interface PgResult {
  /** Column name to text value. */
  rows: Record<string, string | null>[];
  /** Command tag, for example `INSERT 0 1`. */
  tag: string;
}

export interface PgNotice {
  code: string | undefined;
  severity: string | undefined;
  message: string | undefined;
}

const TIMEOUT_MS = 60_000;

/** Reads a connection string as `palimpsest url` prints it. */
export function parsePgUrl(url: string): PgTarget {
  const parsed = new URL(url);
  return {
    host: parsed.searchParams.get('host') ?? parsed.hostname,
    port: Number(parsed.port || 5432),
    user: decodeURIComponent(parsed.username),
    password: decodeURIComponent(parsed.password),
    database: decodeURIComponent(parsed.pathname.slice(1)) || 'postgres',
    options: parsed.searchParams.get('options') ?? undefined,
  };
}

interface Waiter {
  results: PgResult[];
  fields: string[];
  error: DatabaseError | undefined;
  copyIn: (() => void) | undefined;
  resolve(results: PgResult[]): void;
  reject(error: Error): void;
}

export class PgClient {
  readonly target: PgTarget;
  readonly notices: PgNotice[] = [];
  /** Set once the connection is gone. */
  closed: Error | undefined;
  processId = 0;
  #secretKey = 0;
  #socket: Socket;
  #waiter: Waiter | undefined;
  #whenClosed: Promise<void>;

  private constructor(target: PgTarget, socket: Socket) {
    this.target = target;
    this.#socket = socket;
    this.#whenClosed = new Promise((resolve) => socket.once('close', () => resolve()));
  }

  static async connect(target: PgTarget | string): Promise<PgClient> {
    const to = typeof target === 'string' ? parsePgUrl(target) : target;
    const socket = createConnection(socketAddress(to));
    socket.setNoDelay(true);
    const client = new PgClient(to, socket);
    await client.#limit(client.#start(), to.timeoutMs ?? TIMEOUT_MS, 'connecting');
    return client;
  }

  /** Runs one or more statements by the simple protocol; returns the last result. */
  async query(sql: string, options: { timeoutMs?: number } = {}): Promise<PgResult> {
    const results = await this.queryAll(sql, options);
    return results.at(-1) ?? { rows: [], tag: '' };
  }

  async queryAll(sql: string, options: { timeoutMs?: number } = {}): Promise<PgResult[]> {
    const done = this.#exchange();
    this.#socket.write(serialize.query(sql));
    return this.#limit(done, options.timeoutMs ?? this.target.timeoutMs ?? TIMEOUT_MS, sql.slice(0, 80));
  }

  /** The first column of the first row, as text. */
  async value(sql: string, options: { timeoutMs?: number } = {}): Promise<string> {
    const { rows } = await this.query(sql, options);
    const [first] = Object.values(rows[0] ?? {});
    if (first === undefined || first === null) throw new Error(`no value from: ${sql}`);
    return first;
  }

  async number(sql: string, options: { timeoutMs?: number } = {}): Promise<number> {
    return Number(await this.value(sql, options));
  }

  /** Runs `COPY … FROM STDIN` with the chunks as its data. */
  async copyIn(sql: string, chunks: Iterable<string>, options: { timeoutMs?: number } = {}): Promise<string> {
    const done = this.#exchange();
    const ready = new Promise<void>((resolve, reject) => {
      this.#waiter!.copyIn = resolve;
      done.catch(reject);
    });
    this.#socket.write(serialize.query(sql));
    await ready;
    for (const chunk of chunks) {
      if (!this.#socket.write(serialize.copyData(Buffer.from(chunk)))) {
        await Promise.race([new Promise((resolve) => this.#socket.once('drain', resolve)), this.#whenClosed]);
      }
    }
    this.#socket.write(serialize.copyDone());
    const results = await this.#limit(done, options.timeoutMs ?? TIMEOUT_MS, sql.slice(0, 80));
    return results.at(-1)?.tag ?? '';
  }

  /** Sends a cancel request for this connection's running query over a connection of its own. */
  async cancel(): Promise<void> {
    const socket = createConnection(socketAddress(this.target));
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject);
      socket.once('close', () => resolve());
      socket.write(serialize.cancel(this.processId, this.#secretKey));
      socket.setTimeout(10_000, () => socket.destroy());
    });
  }

  async close(): Promise<void> {
    if (!this.closed) this.#socket.end(serialize.end());
    await Promise.race([this.#whenClosed, new Promise((resolve) => setTimeout(resolve, 2000).unref())]);
    this.#socket.destroy();
  }

  /** Drops the connection without a word. */
  destroy(): void {
    this.#socket.destroy();
  }

  #exchange(): Promise<PgResult[]> {
    if (this.closed) return Promise.reject(this.closed);
    if (this.#waiter) return Promise.reject(new Error('a query is already running on this connection'));
    return new Promise((resolve, reject) => {
      this.#waiter = { results: [], fields: [], error: undefined, copyIn: undefined, resolve, reject };
    });
  }

  async #limit<T>(work: Promise<T>, limitMs: number, what: string): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        reject(new Error(`no answer within ${limitMs} ms: ${what}`));
        this.#socket.destroy();
      }, limitMs);
    });
    work.catch(() => {});
    try {
      return await Promise.race([work, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  #start(): Promise<PgResult[]> {
    const started = this.#exchange();
    const { user, password, database, options } = this.target;
    const scram = new ScramClient(password ?? '');
    this.#socket.once('connect', () => {
      const parameters: Record<string, string> = { user, database };
      if (options !== undefined) parameters.options = options;
      this.#socket.write(serialize.startup(parameters));
    });
    const gone = (error: Error) => {
      this.closed ??= error;
      const waiter = this.#waiter;
      this.#waiter = undefined;
      waiter?.reject(waiter.error ?? this.closed);
    };
    this.#socket.on('error', (error) => gone(error));
    this.#socket.on('close', () => gone(new Error('the server closed the connection')));
    parse(this.#socket, (message) => this.#onMessage(message as never, scram)).catch(() => {});
    return started;
  }

  #onMessage(message: { name: string } & Record<string, never>, scram: ScramClient): void {
    const waiter = this.#waiter;
    switch (message.name) {
      case 'authenticationCleartextPassword':
        this.#socket.write(serialize.password(this.target.password ?? ''));
        break;
      case 'authenticationSASL':
        this.#socket.write(serialize.sendSASLInitialResponseMessage('SCRAM-SHA-256', scram.first()));
        break;
      case 'authenticationSASLContinue':
        this.#socket.write(serialize.sendSCRAMClientFinalMessage(scram.final(message.data)));
        break;
      case 'backendKeyData':
        this.processId = message.processID;
        this.#secretKey = message.secretKey;
        break;
      case 'rowDescription':
        if (waiter) {
          waiter.fields = (message.fields as { name: string }[]).map(({ name }) => name);
          waiter.results.push({ rows: [], tag: '' });
        }
        break;
      case 'dataRow': {
        const values = message.fields as (string | null)[];
        const row = Object.fromEntries(waiter?.fields.map((name, i) => [name, values[i] ?? null]) ?? []);
        waiter?.results.at(-1)?.rows.push(row);
        break;
      }
      case 'commandComplete': {
        const last = waiter?.results.at(-1);
        if (last && last.tag === '') last.tag = message.text;
        else waiter?.results.push({ rows: [], tag: message.text });
        break;
      }
      case 'copyInResponse':
        waiter?.copyIn?.();
        break;
      case 'notice':
        this.notices.push({ code: message.code, severity: message.severity, message: message.message });
        break;
      case 'error':
        if (waiter) waiter.error = message as unknown as DatabaseError;
        else this.closed ??= message as unknown as DatabaseError;
        break;
      case 'readyForQuery':
        this.#waiter = undefined;
        if (waiter?.error) waiter.reject(waiter.error);
        else waiter?.resolve(waiter.results);
        break;
      default:
        break;
    }
  }
}

function socketAddress({ host, port }: PgTarget): { path: string } | { host: string; port: number } {
  return host.startsWith('/') ? { path: `${host}/.s.PGSQL.${port}` } : { host, port };
}

export { DatabaseError };
