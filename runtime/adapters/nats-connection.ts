/**
 * One connection to a NATS cluster: the only file that knows the client library. The bus, the journals, the leases and the
 * event log over NATS stand on the few operations here.
 *
 * 1. The connection comes back by itself, for ever, at any server of the cluster. It ends only by `close`, or when the
 *    servers refuse it for good (wrong credentials).
 * 2. Nothing waits without a limit, and what is published while no server is reachable is bounded; what does not fit is
 *    dropped and reported, as NATS drops what nobody listens to.
 * 3. A request while no server is reachable fails after a short grace, not at its own time limit: callers learn at once that
 *    the cluster is away.
 */
import { readFileSync } from 'node:fs';
import {
  type ConnectionOptions,
  connect,
  createInbox,
  credsAuthenticator,
  ErrorCode,
  jwtAuthenticator,
  type Msg,
  type MsgHdrs,
  type NatsConnection as NatsClient,
  NatsError,
  type Subscription as NatsSubscription,
  headers as newHeaders,
} from 'nats';
import { NodeTransport } from 'nats/lib/src/node_transport.js';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Subscription } from '../ports/bus.ts';
import type { Clock } from '../ports/clock.ts';
import type { Log } from '../ports/log.ts';
import { inboxOf, type NatsLogin } from './credentials.ts';
import { type NatsHeaders, type NatsMessage, type NatsReply, unreachable } from './nats-messages.ts';

const CONNECT_TIMEOUT_MS = 5_000;
/** An attempt is given up by its transport, a little before the client itself would: see `boundTransport`. */
const TRANSPORT_TIMEOUT_MS = CONNECT_TIMEOUT_MS - 200;
const RECONNECT_WAIT_MS = 200;
/** A server that does not answer two of these is taken for dead; a frozen one keeps its sockets open. */
const PING_INTERVAL_MS = 2_000;
const PINGS_UNANSWERED_MAX = 2;
/** How long a request waits for a server to become reachable again: a change of servers takes less. */
const DISCONNECTED_GRACE_MS = 1_500;
const DISCONNECTED_BYTES_MAX = 8 * 1024 * 1024;

export interface NatsOptions {
  /** Separated by commas: `nats://[user:password@]host:port` or `tls://…`. */
  servers: string;
  /** Shown in the servers' lists of connections. */
  name: string;
  clock: Clock;
  log: Log;
  /** File with a user's JWT and seed, for clusters with operator keys. */
  credentialsFile?: string;
  /** File with the certificate authority of the servers. */
  caFile?: string;
  /** Who this process is in a secured cluster, instead of the two files. */
  login?: NatsLogin;
}

export class NatsConnection {
  readonly #client: NatsClient;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #onClose: ((reason: Error | undefined) => void)[] = [];
  readonly #whenConnected = new Set<() => void>();
  /** Requests that wait for an answer. */
  readonly #waiting = new Set<() => void>();
  /** The same for many answers: what to do when the servers forbid the subject. */
  readonly #forbidden = new Set<{ subject: string; fail(): void }>();
  readonly #inboxPrefix: string | undefined;
  #connected = true;
  #closed = false;
  #reason: Error | undefined;
  #bytesWhileDisconnected = 0;
  #dropped = 0;

  private constructor(client: NatsClient, options: NatsOptions) {
    this.#client = client;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#inboxPrefix = options.login && inboxOf(options.login.user);
    void this.#watch();
    void client.closed().then((error) => this.#end(error instanceof Error ? error : undefined));
  }

  /** Connects to one of the servers. Throws `unavailable`, or `permission-denied` for wrong credentials. */
  static async connect(options: NatsOptions): Promise<NatsConnection> {
    try {
      return new NatsConnection(await connect(clientOptions(options)), options);
    } catch (error) {
      throw connectError(options.servers, error);
    }
  }

  /** Version of the server that this connection is at, for example `2.15.1`. */
  get serverVersion(): string {
    return this.#client.info?.version ?? '';
  }

  get connected(): boolean {
    return this.#connected && !this.#closed;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Messages that were dropped because no server was reachable for too long. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Sends without waiting; see rule 2. */
  publish(subject: string, data: Uint8Array, headers?: NatsHeaders): void {
    if (this.#closed) return;
    if (!this.#connected && !this.#mayBuffer(subject, data.length)) return;
    this.#client.publish(subject, data, headers ? { headers: toHeaders(headers) } : {});
  }

  async request(
    subject: string,
    data: Uint8Array,
    { timeoutMs, headers }: { timeoutMs: number; headers?: NatsHeaders },
  ): Promise<NatsReply> {
    if (!(await this.#untilConnected(Math.min(timeoutMs, DISCONNECTED_GRACE_MS)))) {
      return { status: 'disconnected' };
    }
    try {
      const options = { timeout: Math.max(1, Math.ceil(timeoutMs)), noMux: false };
      const answer = this.#client.request(
        subject,
        data,
        headers ? { ...options, headers: toHeaders(headers) } : options,
      );
      return await this.#unlessLost(
        answer.then((message) => ({ status: 'ok', message: toMessage(message) })),
      );
    } catch (error) {
      const code = error instanceof NatsError ? error.code : '';
      if (code === ErrorCode.NoResponders) return { status: 'no-responders' };
      if (code === ErrorCode.Timeout)
        return this.connected ? { status: 'timeout' } : { status: 'disconnected' };
      if (this.#closed || code === ErrorCode.ConnectionClosed) return { status: 'disconnected' };
      if (code === ErrorCode.PermissionsViolation) throw forbidden(subject);
      throw error;
    }
  }

  /**
   * Sends a request with many answers; ends when `isLast` says so, when none has come for `silenceMs` after the first, or at the
   * time limit.
   */
  async requestMany(
    subject: string,
    data: Uint8Array,
    options: { timeoutMs: number; silenceMs?: number; isLast: (message: NatsMessage) => boolean },
  ): Promise<{ messages: NatsMessage[]; complete: boolean }> {
    const { timeoutMs, silenceMs, isLast } = options;
    if (!(await this.#untilConnected(Math.min(timeoutMs, DISCONNECTED_GRACE_MS)))) throw unreachable();
    const messages: NatsMessage[] = [];
    const inbox = createInbox(this.#inboxPrefix);
    const ended = new Promise<boolean>((resolve, reject) => {
      let timer = this.#clock.setTimer(timeoutMs, () => finish(false));
      const watch = {
        subject,
        fail: () => {
          reject(forbidden(subject));
          finish(false);
        },
      };
      this.#forbidden.add(watch);
      const subscription = this.subscribe(inbox, (message) => {
        messages.push(message);
        if (isLast(message)) finish(true);
        else if (silenceMs !== undefined) {
          timer.cancel();
          timer = this.#clock.setTimer(silenceMs, () => finish(true));
        }
      });
      const finish = (complete: boolean) => {
        timer.cancel();
        subscription.unsubscribe();
        this.#forbidden.delete(watch);
        resolve(complete);
      };
    });
    this.#client.publish(subject, data, { reply: inbox });
    return { complete: await ended, messages };
  }

  /** Calls back for each message, in order; what a handler throws is reported and harms nobody else. */
  subscribe(pattern: string, handle: (message: NatsMessage) => void): Subscription {
    if (this.#closed) return { unsubscribe() {} };
    const subscription: NatsSubscription = this.#client.subscribe(pattern, {
      callback: (error, message) => {
        if (error) {
          this.#log.error({ error: error.message, pattern }, 'NATS refuses a subscription');
          return;
        }
        try {
          handle(toMessage(message));
        } catch (failure) {
          this.#log.error({ error: failure, subject: message.subject }, 'a bus handler failed');
        }
      },
    });
    return {
      unsubscribe: () => {
        if (!subscription.isClosed() && !this.#closed) subscription.unsubscribe();
      },
    };
  }

  /** Resolves when the server has everything that was sent before. Throws `unavailable` when none answers in time. */
  async flush(timeoutMs: number): Promise<void> {
    if (this.#closed) return;
    let late: () => void = () => {};
    const timeout = new Promise<false>((resolve) => {
      late = () => resolve(false);
    });
    const timer = this.#clock.setTimer(timeoutMs, late);
    const flushed = await Promise.race([this.#client.flush().then(() => true), timeout]).finally(() =>
      timer.cancel(),
    );
    if (!flushed && !this.#closed) throw unreachable();
  }

  onClose(handle: (reason: Error | undefined) => void): void {
    if (this.#closed) queueMicrotask(() => handle(this.#reason));
    else this.#onClose.push(handle);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    await this.#client.close();
    this.#end(undefined);
  }

  async #watch(): Promise<void> {
    for await (const { type, data, permissionContext } of this.#client.status()) {
      if (type === 'disconnect') {
        this.#connected = false;
        this.#lostLater();
        this.#log.warn({ server: String(data) }, 'the connection to NATS is lost; another server is tried');
      } else if (type === 'reconnect') {
        this.#connected = true;
        this.#bytesWhileDisconnected = 0;
        this.#log.info({ server: String(data), dropped: this.#dropped }, 'connected to NATS again');
        for (const tell of [...this.#whenConnected]) tell();
      } else if (permissionContext) {
        const { operation, subject } = permissionContext;
        for (const watch of [...this.#forbidden]) if (watch.subject === subject) watch.fail();
        this.#log.error({ operation, subject }, 'the NATS servers do not permit it to this user');
      } else if (type === 'error') {
        this.#log.error({ error: String(data) }, 'NATS reports an error');
      }
    }
  }

  #end(reason: Error | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#reason = reason;
    for (const tell of [...this.#whenConnected]) tell();
    for (const handle of this.#onClose) handle(reason);
  }

  async #untilConnected(limitMs: number): Promise<boolean> {
    if (this.connected) return true;
    if (this.#closed) return false;
    await new Promise<void>((resolve) => {
      const done = () => {
        timer.cancel();
        this.#whenConnected.delete(done);
        resolve();
      };
      const timer = this.#clock.setTimer(limitMs, done);
      this.#whenConnected.add(done);
    });
    return this.connected;
  }

  /** Ends the wait for an answer when no server is reachable for longer than a change of servers takes. */
  async #unlessLost(answer: Promise<NatsReply>): Promise<NatsReply> {
    let give: () => void = () => {};
    const lost = new Promise<NatsReply>((resolve) => {
      give = () => resolve({ status: 'disconnected' });
    });
    this.#waiting.add(give);
    answer.catch(() => {});
    try {
      return await Promise.race([answer, lost]);
    } finally {
      this.#waiting.delete(give);
    }
  }

  #lostLater(): void {
    this.#clock.setTimer(DISCONNECTED_GRACE_MS, () => {
      if (this.#connected) return;
      for (const give of [...this.#waiting]) give();
    });
  }

  #mayBuffer(subject: string, bytes: number): boolean {
    this.#bytesWhileDisconnected += bytes;
    if (this.#bytesWhileDisconnected <= DISCONNECTED_BYTES_MAX) return true;
    if (this.#dropped++ === 0) {
      this.#log.error({ subject }, 'no NATS server is reachable; messages are dropped');
    }
    return false;
  }
}

interface ClientTransport {
  connected: boolean;
  socket?: { removeAllListeners(): void; destroy(): void };
  connect(server: unknown, options: unknown): Promise<unknown>;
}

/**
 * Keeps an attempt to connect that took too long from coming back. In the client such an attempt goes on behind the next one; when
 * it succeeds at last, because the network is whole again, the server soon ends it, as it never logs in. The client takes that for
 * the end of its present connection, and opens another beside it: every message then comes twice, for ever.
 */
function boundTransport({ prototype }: { prototype: ClientTransport }): void {
  const connectTransport = prototype.connect;
  prototype.connect = function bounded(this: ClientTransport, server, options): Promise<unknown> {
    return new Promise((resolve, reject) => {
      let late = false;
      const timer = setTimeout(() => {
        late = true;
        reject(NatsError.errorForCode(ErrorCode.Timeout));
      }, TRANSPORT_TIMEOUT_MS);
      connectTransport.call(this, server, options).then(
        (value) => {
          clearTimeout(timer);
          if (late) {
            this.connected = false;
            this.socket?.removeAllListeners();
            this.socket?.destroy();
          }
          resolve(value);
        },
        (error) => {
          clearTimeout(timer);
          reject(error);
        },
      );
    });
  };
}

boundTransport(NodeTransport as unknown as { prototype: ClientTransport });

function clientOptions(options: NatsOptions): ConnectionOptions {
  const urls = options.servers.split(',').map((text) => parseServer(text.trim()));
  const { user, password } = urls.find((url) => url.user !== undefined) ?? {};
  const { login, caFile } = options;
  const secure = urls.some((url) => url.secure) || caFile !== undefined || login !== undefined;
  const authority = login ? { ca: login.ca } : caFile === undefined ? {} : { caFile };
  return {
    servers: urls.map((url) => url.server),
    name: options.name,
    timeout: CONNECT_TIMEOUT_MS,
    reconnect: true,
    maxReconnectAttempts: -1,
    reconnectTimeWait: RECONNECT_WAIT_MS,
    reconnectJitter: RECONNECT_WAIT_MS,
    pingInterval: PING_INTERVAL_MS,
    maxPingOut: PINGS_UNANSWERED_MAX,
    noAsyncTraces: true,
    ...(user === undefined ? {} : { user, ...(password === undefined ? {} : { pass: password }) }),
    ...loginOptions(options),
    ...(options.credentialsFile === undefined
      ? {}
      : { authenticator: credsAuthenticator(readFileSync(options.credentialsFile)) }),
    ...(secure ? { tls: authority } : {}),
  };
}

/** A login of a secured cluster: its user, its inbox, and whose servers it trusts. */
function loginOptions({ login }: NatsOptions): Partial<ConnectionOptions> {
  if (!login) return {};
  return {
    authenticator: jwtAuthenticator(login.jwt, new TextEncoder().encode(login.seed)),
    inboxPrefix: inboxOf(login.user),
  };
}

function parseServer(text: string): { server: string; user?: string; password?: string; secure: boolean } {
  try {
    const url = new URL(text.includes('://') ? text : `nats://${text}`);
    if (!/^(nats|tls):$/.test(url.protocol) || url.hostname === '') throw new TypeError(text);
    const server = `${url.hostname}:${url.port || '4222'}`;
    const login = url.username
      ? { user: decodeURIComponent(url.username), password: decodeURIComponent(url.password) }
      : {};
    return { server, secure: url.protocol === 'tls:', ...login };
  } catch {
    throw new PalimpsestError(
      'invalid-argument',
      `not the address of a NATS server: ${JSON.stringify(text)}`,
      'write nats://host:4222; several are separated by commas',
    );
  }
}

function connectError(servers: string, error: unknown): PalimpsestError {
  if (error instanceof PalimpsestError) return error;
  const message = error instanceof Error ? error.message : String(error);
  const where = servers.replaceAll(/\/\/[^@,]*@/g, '//');
  if (error instanceof NatsError && /AUTHORIZATION|AUTHENTICATION|PERMISSIONS|BAD_/.test(error.code)) {
    return new PalimpsestError(
      'permission-denied',
      `NATS at ${where} refuses the login: ${message}`,
      'look at the user and password in --nats, or whether --credentials are of this cluster and have not ended',
      error,
    );
  }
  if (/certificate|TLS|SSL/i.test(message)) {
    return new PalimpsestError(
      'permission-denied',
      `NATS at ${where} is not trusted: ${message}`,
      'the servers and --credentials must come from the same `palimpsest cluster init`, and the servers must be reached by the names that it was told',
      error,
    );
  }
  return new PalimpsestError(
    'unavailable',
    `no NATS server answers at ${where}: ${message}`,
    'start the NATS servers, or name others with --nats',
    error,
  );
}

function forbidden(subject: string): PalimpsestError {
  return new PalimpsestError(
    'permission-denied',
    `the NATS servers do not permit this user to publish to ${subject}`,
    'its credentials are for other roles, or for another node: make others with palimpsest cluster issue',
  );
}

function toHeaders(values: NatsHeaders): MsgHdrs {
  const headers = newHeaders();
  for (const [name, value] of Object.entries(values)) headers.set(name, value);
  return headers;
}

function toMessage(message: Msg): NatsMessage {
  const headers: NatsHeaders = {};
  for (const name of message.headers?.keys() ?? []) headers[name] = message.headers!.get(name);
  return {
    subject: message.subject,
    data: message.data,
    headers,
    code: message.headers?.code ?? 0,
    description: message.headers?.description ?? '',
    reply: (data) => {
      if (message.reply) message.respond(data);
    },
  };
}
