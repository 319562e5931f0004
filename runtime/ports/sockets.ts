/**
 * Plain byte streams: the client side of the gateway. Everything between Palimpsest's own parts uses channels instead.
 */
export interface ByteSocket {
  /** Address of the peer, for logs. */
  readonly peer: string;
  /** Queues bytes, which the caller must not change any more. False: stop reading the source until onDrain. */
  write(bytes: Uint8Array): boolean;
  /** One handler. Nothing is read before it is set. A chunk belongs to the receiver. */
  onData(handle: (bytes: Uint8Array) => void): void;
  /** The queue is empty again. One handler. */
  onDrain(handle: () => void): void;
  /** Called once, when the connection is over for whatever reason, also when it is closed here. */
  onClose(handle: () => void): void;
  pause(): void;
  resume(): void;
  /** Sends what is queued, then closes. A peer that does not take it is cut off after a while. */
  end(): void;
  /** Closes now. */
  destroy(): void;
}

export interface SocketListener {
  readonly port: number;
  /** Stops accepting; open connections stay. */
  close(): Promise<void>;
}

export type SocketTarget = { path: string } | { host: string; port: number };

export interface DialOptions {
  timeoutMs: number;
  /**
   * Read into one buffer of this size, for streams of many megabytes: a chunk is then valid only during the handler's call,
   * instead of belonging to the receiver.
   */
  reusedBufferBytes?: number;
  /** TLS within a secured cluster: who this process is (PEM), and the role that the other end must have. */
  secure?: { ca: string; cert: string; key: string; role: string };
}

export interface Sockets {
  /** Throws PalimpsestError `already-exists` when the port is taken. Port 0 takes a free one. */
  listen(
    target: { host: string; port: number },
    onSocket: (socket: ByteSocket) => void,
  ): Promise<SocketListener>;
  /** Throws PalimpsestError `unavailable` or `timeout`. */
  dial(target: SocketTarget, options: DialOptions): Promise<ByteSocket>;
}
