/**
 * One client connection, from its first byte to its last.
 *
 *   reading   the first packet: encryption is declined, a cancel request is passed on, a startup message names the branch
 *   waking    the compute starts; the client is held, and what it sends meanwhile is kept (bounded)
 *   piping    bytes pass both ways; the compute's messages are followed without being copied
 *   closed
 *
 * Postgres answers a commit whose wait for the quorum was cancelled with success and a warning. Passing that on
 * would tell the client that a commit is safe which may be lost, so the warning becomes the end of the connection with
 * SQLSTATE 08007 (transaction resolution unknown).
 */
import { type PalimpsestError, toWireError } from '../../protocols/errors.ts';
import {
  BackendScanner,
  TYPE_ERROR,
  TYPE_KEY_DATA,
  TYPE_NOTICE,
  type Verdict,
} from '../../protocols/postgres-wire/backend-scanner.ts';
import {
  decodeFields,
  type ErrorFields,
  encodeErrorResponse,
} from '../../protocols/postgres-wire/error-response.ts';
import { parseRouting } from '../../protocols/postgres-wire/routing.ts';
import { encodeCancel, encodeStartup, parseFirstPacket } from '../../protocols/postgres-wire/startup.ts';
import type { Timer } from '../../runtime/ports/clock.ts';
import type { ByteSocket, SocketTarget } from '../../runtime/ports/sockets.ts';
import { describeUnknown, describeWakeFailure, unknownCommit } from './failures.ts';
import type { Gateway } from './gateway.ts';

/** A client may send ahead while its compute starts, but not more than this. */
const EARLY_BYTES_MAX = 256 * 1024;
/** Encryption may be asked for twice (GSS, then SSL); more is a client that plays games. */
const ENCRYPTION_REQUESTS_MAX = 4;
/** Wait before a compute that was just stopping is tried again. */
const RETRY_MS = 50;
/** The function in Postgres that waits for the quorum; unlike the text, its name is never translated. */
const QUORUM_WAIT_ROUTINE = 'SyncRepWaitForLSN';
/** "the database system is starting up / shutting down": the compute is just being replaced. */
const CANNOT_CONNECT_NOW = '57P03';
/** The role by which Palimpsest itself looks into a compute; it has no password, so nobody may borrow it. */
const RESERVED_USER = 'palimpsest_internal';

type State = 'reading' | 'waking' | 'piping' | 'closed';

export class Session {
  /** Set once the client has named a branch that exists. */
  timeline: string | undefined;
  /** Where its compute listens. */
  target: SocketTarget | undefined;
  /** BackendKeyData in hexadecimal. */
  key: string | undefined;

  readonly #gateway: Gateway;
  readonly #client: ByteSocket;
  #backend: ByteSocket | undefined;
  #state: State = 'reading';
  #early: Uint8Array = new Uint8Array(0);
  #encryptionRequests = 0;
  #startupTimer: Timer | undefined;
  #scanner: BackendScanner | undefined;
  /** Whether the client has got anything from the compute: from then on there is no second try. */
  #forwarded = false;
  #clientFull = false;

  constructor(gateway: Gateway, client: ByteSocket) {
    this.#gateway = gateway;
    this.#client = client;
  }

  get state(): State {
    return this.#state;
  }

  start(): void {
    const { clock } = this.#gateway.options;
    this.#startupTimer = clock.setTimer(this.#gateway.limits.startupTimeoutMs, () => this.#close());
    this.#client.onClose(() => this.#close());
    this.#client.onDrain(() => {
      this.#clientFull = false;
      this.#backend?.resume();
    });
    this.#client.onData((bytes) => this.#fromClient(bytes));
  }

  /** Ends the session with an error that the client's user sees. */
  fail(fields: ErrorFields): void {
    if (this.#state === 'closed') return;
    this.#client.write(encodeErrorResponse(fields));
    this.#close();
  }

  #close(): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    this.#startupTimer?.cancel();
    this.#backend?.end();
    this.#client.end();
    this.#gateway.left(this);
  }

  #fromClient(bytes: Uint8Array): void {
    if (this.#state === 'piping') {
      if (!this.#forwarded) this.#early = concat(this.#early, bytes);
      if (!this.#backend!.write(bytes)) this.#client.pause();
      return;
    }
    if (this.#state === 'closed') return;
    this.#early = this.#early.length === 0 ? bytes : concat(this.#early, bytes);
    if (this.#state === 'reading') this.#readFirstPacket();
    else if (this.#early.length > EARLY_BYTES_MAX) this.#client.pause();
  }

  #readFirstPacket(): void {
    for (;;) {
      const packet = parseFirstPacket(this.#early);
      if (packet.kind === 'incomplete') return;
      if (packet.kind === 'invalid') {
        this.fail({ severity: 'FATAL', code: '08P01', message: packet.reason });
        return;
      }
      this.#early = this.#early.subarray(packet.bytes);
      if (packet.kind === 'cancel') {
        void this.#gateway.cancel(toHex(packet.key), encodeCancel(packet.key));
        this.#close();
        return;
      }
      if (packet.kind === 'startup') {
        this.#startupTimer?.cancel();
        this.#state = 'waking';
        void this.#route(packet.version, packet.parameters);
        return;
      }
      if (++this.#encryptionRequests > ENCRYPTION_REQUESTS_MAX) {
        this.#close();
        return;
      }
      this.#client.write(Uint8Array.of(0x4e));
    }
  }

  async #route(version: number, parameters: [string, string][]): Promise<void> {
    const value = (name: string) => parameters.find(([key]) => key === name)?.[1];
    const routing = parseRouting(value('options'));
    if (value('user') === RESERVED_USER) {
      this.fail({ severity: 'FATAL', code: '28000', message: `role "${RESERVED_USER}" is reserved` });
      return;
    }
    const found = await this.#gateway.options.directory.find(routing.project, routing.endpoint);
    if (this.#state !== 'waking') return;
    if (found.status !== 'found') {
      this.fail(describeUnknown(found, routing));
      return;
    }
    this.timeline = found.timeline;
    this.#gateway.joined(found.timeline);
    const kept = parameters.filter(([name]) => name !== 'options');
    if (routing.options !== undefined) kept.push(['options', routing.options]);
    void this.#wake(encodeStartup(version, kept), this.#now() + this.#gateway.limits.wakeTimeoutMs);
  }

  #now(): number {
    return this.#gateway.options.clock.monotonic();
  }

  /** Brings the client to its compute; tries again while the compute is just being replaced. */
  async #wake(startup: Uint8Array, deadline: number): Promise<void> {
    const { clock, computes, sockets } = this.#gateway.options;
    let failure: PalimpsestError | undefined;
    while (this.#state === 'waking') {
      const timeoutMs = deadline - this.#now();
      if (timeoutMs <= 0) break;
      try {
        const target = await computes.wake(this.timeline!, { timeoutMs });
        const backend = await sockets.dial(target, { timeoutMs: Math.max(1, deadline - this.#now()) });
        this.#connect(backend, target, startup, deadline);
        return;
      } catch (error) {
        failure = error as PalimpsestError;
        if (toWireError(error).code !== 'unavailable') break;
        await clock.sleep(RETRY_MS);
      }
    }
    if (this.#state === 'waking') this.fail(describeWakeFailure(failure));
  }

  #connect(backend: ByteSocket, target: SocketTarget, startup: Uint8Array, deadline: number): void {
    if (this.#state !== 'waking') {
      backend.destroy();
      return;
    }
    this.#backend = backend;
    this.target = target;
    this.#state = 'piping';
    let retry = false;
    const scanner = new BackendScanner({
      forward: (bytes) => this.#toClient(bytes),
      inspect: (type, body) => {
        if (type === TYPE_ERROR && !this.#forwarded && this.#isBeingReplaced(body, deadline)) {
          retry = true;
          return 'stop';
        }
        return this.#inspect(type, body);
      },
    });
    this.#scanner = scanner;
    backend.onDrain(() => this.#client.resume());
    backend.onClose(() => {
      if (this.#backend !== backend) return;
      if (retry) this.#tryAgain(startup, deadline);
      else this.#backendClosed();
    });
    backend.onData((bytes) => this.#fromBackend(scanner, bytes));
    backend.write(startup);
    // What the client sent ahead stays at hand until the compute has answered: it may have to be sent to its successor.
    if (this.#early.length > 0) backend.write(this.#early);
    this.#client.resume();
  }

  #tryAgain(startup: Uint8Array, deadline: number): void {
    if (this.#state !== 'piping') return;
    this.#state = 'waking';
    this.#backend = undefined;
    void this.#gateway.options.clock.sleep(RETRY_MS).then(() => this.#wake(startup, deadline));
  }

  #isBeingReplaced(body: Uint8Array, deadline: number): boolean {
    return decodeFields(body).get('C') === CANNOT_CONNECT_NOW && this.#now() < deadline;
  }

  #fromBackend(scanner: BackendScanner, bytes: Uint8Array): void {
    if (this.#state !== 'piping') return;
    try {
      scanner.scan(bytes);
    } catch (error) {
      this.#gateway.options.log.error({ error: String(error) }, 'a compute broke the protocol');
      this.#close();
    }
    if (this.#clientFull) this.#backend?.pause();
  }

  #toClient(bytes: Uint8Array): void {
    if (!this.#forwarded) {
      this.#forwarded = true;
      this.#early = new Uint8Array(0);
    }
    if (!this.#client.write(bytes)) this.#clientFull = true;
  }

  #inspect(type: number, body: Uint8Array): Verdict {
    if (type === TYPE_KEY_DATA && this.key === undefined) {
      this.key = toHex(body);
      this.#gateway.keyed(this, this.key);
    }
    if (type === TYPE_NOTICE && decodeFields(body).get('R') === QUORUM_WAIT_ROUTINE) {
      this.#gateway.unknownCommits.add(1);
      this.fail(unknownCommit());
      return 'stop';
    }
    return 'forward';
  }

  #backendClosed(): void {
    this.endBackend({
      severity: 'FATAL',
      code: '57P01',
      message: 'terminating connection because the compute of this branch has stopped',
      hint: 'Connect again: the compute starts by itself.',
    });
  }

  /** Ends the session because its compute is gone; says so unless the client stands in the middle of a message, or knows. */
  endBackend(fields: ErrorFields): void {
    if (this.#state !== 'piping') return;
    const scanner = this.#scanner!;
    if (scanner.atBoundary && scanner.lastType !== TYPE_ERROR) this.fail(fields);
    else this.#close();
  }
}

function concat(a: Uint8Array, b: Uint8Array): Uint8Array {
  const joined = new Uint8Array(a.length + b.length);
  joined.set(a);
  joined.set(b, a.length);
  return joined;
}

function toHex(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += byte.toString(16).padStart(2, '0');
  return text;
}
