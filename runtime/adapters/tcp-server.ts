/**
 * Byte streams over TCP and unix sockets of Node.
 *
 * Chunks are passed on as Node read them; nothing is copied here.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { ByteSocket, DialOptions, SocketListener, Sockets, SocketTarget } from '../ports/sockets.ts';
import type { OnRead } from './channel-tls.ts';
import { dialSocket } from './dial-socket.ts';
import { systemCode } from './file-errors.ts';
import { writeNow } from './write-now.ts';

/** How long a closing socket may take to send what is queued. */
const END_TIMEOUT_MS = 2_000;
/** Connections that the kernel may hold before they are accepted. */
const BACKLOG = 511;

export class NodeSockets implements Sockets {
  async listen(
    target: { host: string; port: number },
    onSocket: (socket: ByteSocket) => void,
  ): Promise<SocketListener> {
    const server = createServer({ pauseOnConnect: true, noDelay: true, keepAlive: true }, (socket) =>
      onSocket(new NodeByteSocket(socket)),
    );
    await new Promise<void>((resolve, reject) => {
      server.once('error', (error) => reject(refused(target, error)));
      server.listen({ ...target, backlog: BACKLOG }, resolve);
    });
    // Errors of single accepts (no file descriptors left) must not end the process; the client sees a reset.
    server.on('error', () => {});
    return new NodeListener(server);
  }

  dial(target: SocketTarget, options: DialOptions): Promise<ByteSocket> {
    const receiver = options.reusedBufferBytes ? new Receiver(options.reusedBufferBytes) : undefined;
    const { timeoutMs, secure } = options;
    return dialSocket<ByteSocket>(target, {
      timeoutMs,
      shown: shown(target),
      onread: receiver?.onread,
      secure,
      take: (socket) => new NodeByteSocket(socket, receiver),
      failure: (error) =>
        error
          ? new PalimpsestError(
              'unavailable',
              `cannot connect to ${shown(target)}: ${systemCode(error) || error.message}`,
            )
          : new PalimpsestError('timeout', `no connection to ${shown(target)} in ${timeoutMs} ms`),
    });
  }
}

/** Receives into one buffer. */
class Receiver {
  handle: (chunk: Uint8Array) => void = () => {};
  readonly onread: OnRead;

  constructor(bytes: number) {
    this.onread = {
      buffer: Buffer.allocUnsafeSlow(bytes),
      callback: (count, buffer) => {
        this.handle(buffer.subarray(0, count));
        return true;
      },
    };
  }
}

class NodeListener implements SocketListener {
  readonly port: number;
  readonly #server: Server;

  constructor(server: Server) {
    this.#server = server;
    const address = server.address();
    this.port = typeof address === 'object' && address !== null ? address.port : 0;
  }

  async close(): Promise<void> {
    // The server's own callback waits for all connections to end, which is not what is asked here.
    this.#server.close();
  }
}

class NodeByteSocket implements ByteSocket {
  readonly peer: string;
  readonly #socket: Socket;
  readonly #receiver: Receiver | undefined;

  constructor(socket: Socket, receiver?: Receiver) {
    this.#socket = socket;
    this.#receiver = receiver;
    // Nothing may be read before there is a handler.
    if (receiver) socket.pause();
    this.peer = `${socket.remoteAddress ?? 'local'}:${socket.remotePort ?? 0}`;
    // A reset by the peer is an end like any other: 'close' follows.
    socket.on('error', () => {});
    // Half-open connections are of no use here: when the peer has finished, so have we.
    socket.on('end', () => this.end());
  }

  write(bytes: Uint8Array): boolean {
    if (!this.#socket.writable) return true;
    const taken = writeNow(this.#socket, bytes);
    if (taken === bytes.length) return true;
    return this.#socket.write(taken === 0 ? bytes : bytes.subarray(taken));
  }

  onData(handle: (bytes: Uint8Array) => void): void {
    if (this.#receiver) this.#receiver.handle = handle;
    else this.#socket.on('data', handle);
    this.#socket.resume();
  }

  onDrain(handle: () => void): void {
    this.#socket.on('drain', handle);
  }

  onClose(handle: () => void): void {
    if (this.#socket.closed) queueMicrotask(handle);
    else this.#socket.once('close', handle);
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  end(): void {
    if (this.#socket.destroyed) return;
    this.#socket.end();
    const timer = setTimeout(() => this.#socket.destroy(), END_TIMEOUT_MS);
    timer.unref();
    this.#socket.once('close', () => clearTimeout(timer));
  }

  destroy(): void {
    this.#socket.destroy();
  }
}

function shown(target: SocketTarget): string {
  return 'path' in target ? target.path : `${target.host}:${target.port}`;
}

function refused(target: { host: string; port: number }, error: Error): PalimpsestError {
  const code = systemCode(error);
  if (code === 'EADDRINUSE') {
    return new PalimpsestError(
      'already-exists',
      `port ${target.port} of ${target.host} is in use by another program`,
      'choose another one with --port, or stop the other program',
      error,
    );
  }
  if (code === 'EACCES') {
    return new PalimpsestError(
      'permission-denied',
      `this user may not listen on port ${target.port}`,
      'choose a port above 1023 with --port',
      error,
    );
  }
  return new PalimpsestError('unavailable', `cannot listen on ${shown(target)}: ${code || error.message}`);
}
