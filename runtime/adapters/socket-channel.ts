/**
 * Channels over unix and TCP sockets.
 *
 * 1. Frames sent in one tick leave in one write, past the socket's stream when nothing waits in it. Their bytes are copied into slabs, which are used again once they are written:
 *    memory that is allocated for every large body costs far more, in garbage collections, than a copy.
 * 2. Received bytes land in one buffer that all sockets share, since each chunk is dealt with before the next one is read; a
 *    frame that lies whole in it is not copied.
 * 3. The queue is bounded by its users: `queuedBytes` and `drained`. The kernel's buffers bound what is in flight.
 * 4. A broken frame closes the channel with the reason; nothing of the stream after it is delivered.
 */
import { unlink } from 'node:fs/promises';
import { connect, createServer, type Server, Socket } from 'node:net';
import { PalimpsestError } from '../../protocols/errors.ts';
import { FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FrameReader } from '../../protocols/framing.ts';
import { DrainWaiters } from '../channels/drain-waiters.ts';
import { splitAddress } from '../channels/fallback.ts';
import type { Channel, ChannelListener, ChannelNetwork, DialChannelOptions } from '../ports/channel.ts';
import type { ChannelIdentity } from './credentials.ts';
import { type DialTarget, dialSocket } from './dial-socket.ts';
import { systemCode } from './file-errors.ts';
import { ShortWait } from './short-wait.ts';
import { writeNow } from './write-now.ts';

const RECEIVE_BYTES = 256 * 1024;
const SLAB_BYTES = 64 * 1024;
/** Written slabs that all channels of this process together keep. */
const SPARE_SLABS_MAX = 64;
/** How long a closing channel may take to send what is queued. */
const CLOSE_TIMEOUT_MS = 2_000;
/** How long an answer that comes soon is waited for without sleep, and the request after an answer. */
const ANSWER_MS = 0.2;
const NEXT_REQUEST_MS = 0.05;
/** The kernel's limit of a unix socket's path (sun_path, with its final zero byte). */
const UNIX_PATH_BYTES_MAX = 107;

export interface SocketChannelOptions {
  /** Of channels that are accepted: each frame that is sent is an answer, and the next request usually comes within microseconds. */
  asksSoon?: boolean | undefined;
}

export class SocketChannelNetwork implements ChannelNetwork {
  readonly #identity: ChannelIdentity | undefined;
  readonly #asksSoon: boolean;

  /** With an identity, TCP is encrypted and only members of its cluster are spoken to; unix sockets stay as they are. */
  constructor(identity?: ChannelIdentity, { asksSoon = false }: SocketChannelOptions = {}) {
    this.#identity = identity;
    this.#asksSoon = asksSoon;
  }

  async listen(address: string, onChannel: (channel: Channel) => void): Promise<ChannelListener> {
    const target = parseAddress(address);
    const wait = () => (this.#asksSoon ? new ShortWait(NEXT_REQUEST_MS) : undefined);
    const server =
      this.#identity && 'port' in target
        ? (await import('./channel-tls.ts')).createTlsServer(this.#identity, (socket) =>
            onChannel(plainlyRead(socket, wait())),
          )
        : createServer({ pauseOnConnect: true, noDelay: true }, (socket) =>
            onChannel(accepted(socket, wait())),
          );
    if ('path' in target) await removeDeadSocket(target.path);
    await listenOn(server, target, address);
    return new SocketListener(server, target);
  }

  /** Of an address that names a way over the bus, too, only the other one is tried. */
  dial(given: string, options: DialChannelOptions): Promise<Channel> {
    const { timeoutMs, role, answersSoon } = options;
    const address = splitAddress(given).direct;
    const receiver = new Receiver();
    return dialSocket<Channel>(parseAddress(address), {
      timeoutMs,
      shown: address,
      onread: receiver.onread,
      secure: this.#identity && { ...this.#identity, role },
      take: (socket) =>
        new SocketChannel(socket, receiver, answersSoon ? new ShortWait(ANSWER_MS) : undefined),
      failure: (error) =>
        error
          ? unreachable(address, error)
          : new PalimpsestError('timeout', `no connection to ${address} within ${timeoutMs} ms`),
    });
  }
}

class SocketListener implements ChannelListener {
  readonly address: string;
  readonly #server: Server;

  constructor(server: Server, target: DialTarget) {
    this.#server = server;
    const bound = server.address();
    if ('path' in target) this.address = `unix:${target.path}`;
    else this.address = `tcp:${target.host}:${typeof bound === 'object' && bound ? bound.port : target.port}`;
  }

  /** Stops accepting; channels that are open stay so. */
  async close(): Promise<void> {
    // The server's own callback waits for all connections to end, which is not what is asked here.
    this.#server.close();
  }
}

function parseAddress(address: string): DialTarget {
  if (address.startsWith('unix:/')) {
    const path = address.slice(5);
    if (Buffer.byteLength(path) > UNIX_PATH_BYTES_MAX) {
      throw new PalimpsestError(
        'invalid-argument',
        `socket path is longer than ${UNIX_PATH_BYTES_MAX} bytes: ${path}`,
        'choose a run directory with a shorter path',
      );
    }
    return { path };
  }
  const match = /^tcp:(.+):(\d{1,5})$/.exec(address);
  if (!match) throw new PalimpsestError('invalid-argument', `not a channel address: ${address}`);
  return { host: match[1]!.replace(/^\[(.*)\]$/, '$1'), port: Number(match[2]) };
}

function unreachable(address: string, error: Error): PalimpsestError {
  return new PalimpsestError(
    'unavailable',
    `cannot connect to ${address}: ${systemCode(error) || error.message}`,
    undefined,
    error,
  );
}

function listenOn(server: Server, target: DialTarget, address: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error) => {
      const taken = systemCode(error) === 'EADDRINUSE';
      reject(
        new PalimpsestError(
          taken ? 'already-exists' : 'unavailable',
          `cannot listen on ${address}: ${systemCode(error) || error.message}`,
          taken ? 'stop the process that listens there, or choose another address' : undefined,
          error,
        ),
      );
    });
    server.listen(target, resolve);
  });
}

/** A socket file outlives a process that was killed. It is removed only when nobody answers on it. */
async function removeDeadSocket(path: string): Promise<void> {
  const refused = await new Promise<boolean>((resolve) => {
    const probe = connect({ path });
    probe.once('connect', () => {
      probe.destroy();
      resolve(false);
    });
    probe.once('error', (error) => resolve(systemCode(error) === 'ECONNREFUSED'));
  });
  if (refused) await unlink(path).catch(() => {});
}

/**
 * An accepted socket, read into a preallocated buffer as a dialled one is. Node offers that option to `connect` only, so the
 * handle is moved to a socket of our own: reading is then almost three times as fast. Without a handle the plain way is used.
 */
function accepted(socket: Socket, wait: ShortWait | undefined): Channel {
  const holder = socket as unknown as { _handle: unknown };
  const handle = holder._handle;
  if (!handle) return plainlyRead(socket, wait);
  holder._handle = null;
  socket.destroy();
  const receiver = new Receiver();
  const options = { handle, onread: receiver.onread };
  const own = new Socket(options as unknown as ConstructorParameters<typeof Socket>[0]);
  own.setNoDelay(true);
  return new SocketChannel(own, receiver, wait);
}

function plainlyRead(socket: Socket, wait: ShortWait | undefined): Channel {
  const receiver = new Receiver();
  socket.on('data', (chunk: Buffer) => receiver.push(chunk));
  return new SocketChannel(socket, receiver, wait);
}

const receiveBuffer = Buffer.allocUnsafeSlow(RECEIVE_BYTES);

/** Receives bytes before and after its channel exists. */
class Receiver {
  push: (chunk: Uint8Array) => void = () => {};
  readonly onread = {
    buffer: receiveBuffer,
    callback: (count: number, buffer: Uint8Array): boolean => {
      this.push(buffer.subarray(0, count));
      return true;
    },
  };
}

const spareSlabs: Buffer[] = [];
const NO_SLABS: readonly Buffer[] = [];

function takeSlab(): Buffer {
  return spareSlabs.pop() ?? Buffer.allocUnsafeSlow(SLAB_BYTES);
}

class SocketChannel implements Channel {
  readonly #socket: Socket;
  readonly #reader: FrameReader;
  readonly #wait: ShortWait | undefined;
  #handle: ((type: number, body: Uint8Array) => void) | undefined;
  #held: { type: number; body: Uint8Array }[] = [];
  #paused = false;

  #pending: Uint8Array[] = [];
  #pendingBytes = 0;
  #flushing = false;
  #slab = takeSlab();
  /** Of the slab: bytes before are handed to the socket, bytes up to `#slabEnd` wait in the current run. */
  #slabStart = 0;
  #slabEnd = 0;
  /** Slabs that became full since the last flush, and those that flushes under way wait to get rid of, oldest flush first. */
  #full: Buffer[] = [];
  #flights: (readonly Buffer[])[] = [];
  readonly #drainWaiters = new DrainWaiters();

  #closed = false;
  #reason: Error | undefined;
  #onClose: ((reason: Error | undefined) => void)[] = [];

  constructor(socket: Socket, receiver: Receiver, wait: ShortWait | undefined) {
    this.#socket = socket;
    this.#wait = wait;
    this.#reader = new FrameReader((type, body) => this.#deliver(type, body));
    receiver.push = (chunk) => this.#receive(chunk);
    socket.on('error', (error) => {
      this.#reason ??= error;
    });
    socket.on('close', () => this.#finish(this.#reason));
    // Nothing may be read before the handler is set: what arrives early stays in the kernel.
    socket.pause();
  }

  get queuedBytes(): number {
    return this.#closed ? 0 : this.#pendingBytes + this.#socket.writableLength;
  }

  send(type: number, ...parts: Uint8Array[]): void {
    if (this.#closed) return;
    let bodyBytes = 0;
    for (const part of parts) bodyBytes += part.length;
    if (bodyBytes + 1 > FRAME_BYTES_MAX) throw new RangeError(`frame of ${bodyBytes} bytes`);
    if (this.#slabEnd + FRAME_HEADER_BYTES > SLAB_BYTES) this.#nextSlab();
    this.#slab.writeUInt32LE(bodyBytes + 1, this.#slabEnd);
    this.#slab[this.#slabEnd + 4] = type;
    this.#slabEnd += FRAME_HEADER_BYTES;
    for (const part of parts) this.#append(part);
    this.#pendingBytes += FRAME_HEADER_BYTES + bodyBytes;
    if (this.#flushing) return;
    this.#flushing = true;
    process.nextTick(() => this.#flush());
  }

  onFrame(handle: (type: number, body: Uint8Array) => void): void {
    this.#handle = handle;
    if (!this.#paused) this.resume();
  }

  onClose(handle: (reason: Error | undefined) => void): void {
    if (this.#closed) process.nextTick(() => handle(this.#reason));
    else this.#onClose.push(handle);
  }

  drained(lowWaterBytes: number): Promise<void> {
    if (this.#closed || this.queuedBytes < lowWaterBytes) return Promise.resolve();
    return this.#drainWaiters.wait(lowWaterBytes);
  }

  pause(): void {
    this.#paused = true;
    this.#socket.pause();
  }

  resume(): void {
    this.#paused = false;
    if (!this.#handle) return;
    while (this.#held.length > 0) {
      if (this.#paused || this.#closed) return;
      const { type, body } = this.#held.shift()!;
      this.#handle(type, body);
    }
    if (!this.#paused) this.#socket.resume();
  }

  close(): void {
    if (this.#closed) return;
    this.#flush();
    this.#socket.end();
    // What the peer still sends is read and dropped, so that its end of the stream is seen.
    this.#socket.resume();
    const timer = setTimeout(() => this.#socket.destroy(), CLOSE_TIMEOUT_MS);
    timer.unref();
    this.#socket.once('close', () => clearTimeout(timer));
    this.#finish(undefined);
  }

  #receive(chunk: Uint8Array): void {
    if (this.#closed) return;
    try {
      this.#reader.push(chunk);
    } catch (error) {
      this.#reason = error instanceof Error ? error : new Error(String(error));
      this.#socket.destroy();
      this.#finish(this.#reason);
    }
  }

  #deliver(type: number, body: Uint8Array): void {
    if (this.#closed) return;
    this.#wait?.received();
    // After a pause at most one buffer's worth of frames is held.
    if (this.#paused || this.#held.length > 0 || !this.#handle) this.#held.push({ type, body: body.slice() });
    else this.#handle(type, body);
  }

  #append(part: Uint8Array): void {
    for (let done = 0; done < part.length; ) {
      if (this.#slabEnd === SLAB_BYTES) this.#nextSlab();
      const count = Math.min(part.length - done, SLAB_BYTES - this.#slabEnd);
      this.#slab.set(count === part.length ? part : part.subarray(done, done + count), this.#slabEnd);
      this.#slabEnd += count;
      done += count;
    }
  }

  #nextSlab(): void {
    this.#cutSlab();
    this.#full.push(this.#slab);
    this.#slab = takeSlab();
    this.#slabStart = this.#slabEnd = 0;
  }

  /** Moves the slab's current run to the pending parts. */
  #cutSlab(): void {
    if (this.#slabEnd === this.#slabStart) return;
    this.#pending.push(this.#slab.subarray(this.#slabStart, this.#slabEnd));
    this.#slabStart = this.#slabEnd;
  }

  #flush(): void {
    this.#flushing = false;
    if (this.#closed) return;
    this.#cutSlab();
    const parts = this.#pending;
    if (parts.length === 0) return;
    this.#pending = [];
    this.#pendingBytes = 0;
    this.#wait?.sent();
    this.#flights.push(this.#full.length > 0 ? this.#full : NO_SLABS);
    if (this.#full.length > 0) this.#full = [];
    if (parts.length === 1) {
      const part = parts[0]!;
      const taken = writeNow(this.#socket, part);
      if (taken === part.length) this.#onWritten();
      else this.#socket.write(taken === 0 ? part : part.subarray(taken), this.#onWritten);
      return;
    }
    this.#socket.cork();
    const last = parts.length - 1;
    for (let i = 0; i < last; i++) this.#socket.write(parts[i]!);
    this.#socket.write(parts[last]!, this.#onWritten);
    this.#socket.uncork();
  }

  readonly #onWritten = (error?: Error | null) => {
    const written = this.#flights.shift()!;
    // After an error nobody knows whether the system still reads them.
    if (!error) for (const slab of written) if (spareSlabs.length < SPARE_SLABS_MAX) spareSlabs.push(slab);
    if (!this.#drainWaiters.isEmpty) this.#drainWaiters.queued(this.queuedBytes);
  };

  #finish(reason: Error | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#reason = reason;
    this.#held = [];
    this.#pending = [];
    this.#drainWaiters.closed();
    const handlers = this.#onClose;
    this.#onClose = [];
    process.nextTick(() => {
      for (const handle of handlers) handle(reason);
    });
  }
}
