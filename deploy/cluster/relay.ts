/**
 * The way of a client from a gateway on another machine to a compute: a TCP port that passes bytes on to the compute's unix
 * socket. Whoever reaches that socket may become any role of the database, so the first bytes must be the key that the
 * gateway was told; anything else is closed without an answer.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { createTlsServer } from '../../runtime/adapters/channel-tls.ts';
import type { ChannelIdentity } from '../../runtime/adapters/credentials.ts';
import type { ByteSocket, Sockets, SocketTarget } from '../../runtime/ports/sockets.ts';

const KEY_BYTES = 32;
const KEY_TIMEOUT_MS = 5_000;

export interface RelayAddress {
  host: string;
  port: number;
  key: string;
}

export class Relay {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly address: RelayAddress;

  private constructor(server: Server, address: RelayAddress) {
    this.#server = server;
    this.address = address;
  }

  /** Listens on a free port of `host` for the compute behind `path`; with an identity, by TLS for gateways of the cluster only. */
  static open(host: string, path: string, identity?: ChannelIdentity): Promise<Relay> {
    const key = randomBytes(KEY_BYTES);
    const onSocket = (socket: Socket) => relay.#greet(socket, key, path);
    const server = identity ? createTlsServer(identity, onSocket) : createServer({ noDelay: true }, onSocket);
    let relay: Relay;
    return new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen({ host, port: 0 }, () => {
        const { port } = server.address() as { port: number };
        relay = new Relay(server, { host, port, key: key.toString('hex') });
        resolve(relay);
      });
    });
  }

  close(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #greet(socket: Socket, key: Buffer, path: string): void {
    this.#keep(socket);
    socket.setTimeout(KEY_TIMEOUT_MS, () => socket.destroy());
    const take = () => {
      const start = socket.read(KEY_BYTES) as Buffer | null;
      if (!start) return;
      socket.off('readable', take);
      if (start.length !== KEY_BYTES || !timingSafeEqual(start, key)) {
        socket.destroy();
        return;
      }
      socket.setTimeout(0);
      const backend = connect({ path });
      this.#keep(backend);
      backend.on('close', () => socket.destroy());
      socket.on('close', () => backend.destroy());
      socket.pipe(backend);
      backend.pipe(socket);
    };
    socket.on('readable', take);
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => this.#sockets.delete(socket));
  }
}

/** Sockets of a gateway: those to computes of other machines begin with their key. */
export class RelayedSockets implements Sockets {
  readonly #sockets: Sockets;
  readonly #identity: ChannelIdentity | undefined;

  constructor(sockets: Sockets, identity?: ChannelIdentity) {
    this.#sockets = sockets;
    this.#identity = identity;
  }

  listen(...args: Parameters<Sockets['listen']>): ReturnType<Sockets['listen']> {
    return this.#sockets.listen(...args);
  }

  async dial(target: SocketTarget, options: { timeoutMs: number }): Promise<ByteSocket> {
    const secure = this.#identity && { ...this.#identity, role: 'compute' };
    const socket = await this.#sockets.dial(target, secure ? { ...options, secure } : options);
    const { key } = target as Partial<RelayAddress>;
    if (key !== undefined) socket.write(Buffer.from(key, 'hex'));
    return socket;
  }
}
