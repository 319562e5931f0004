/**
 * Channels: ordered, framed, two-way byte streams for bulk data (WAL, pages, layers). Framing: protocols/framing.ts.
 * Addresses: `unix:/path`, `tcp:host:port`, `mem:name`.
 */
export interface Channel {
  /**
   * Queues one frame whose body is the concatenation of `parts`. They are copied: the caller may use their memory anew at
   * once. Never throws on a closed channel: the frame is dropped, onClose has been or will be called.
   */
  send(type: number, ...parts: Uint8Array[]): void;
  /** `body` is valid only during the call: copy what you keep. One handler; frames before it is set are held back. */
  onFrame(handle: (type: number, body: Uint8Array) => void): void;
  /** Called exactly once, also when close() is called here. Several handlers may be added. */
  onClose(handle: (reason: Error | undefined) => void): void;
  /** Bytes queued and not yet taken by the transport: the measure for backpressure. */
  readonly queuedBytes: number;
  /** Resolves when less than `lowWaterBytes` are queued, or when the channel closes. */
  drained(lowWaterBytes: number): Promise<void>;
  /** Stops and restarts the delivery of frames (receive-side backpressure). */
  pause(): void;
  resume(): void;
  close(): void;
}

export interface ChannelListener {
  readonly address: string;
  close(): Promise<void>;
}

export interface ChannelNetwork {
  listen(address: string, onChannel: (channel: Channel) => void): Promise<ChannelListener>;
  /** Throws PalimpsestError `unavailable`, `timeout`, or `permission-denied`. */
  dial(address: string, options: DialChannelOptions): Promise<Channel>;
}

export interface DialChannelOptions {
  timeoutMs: number;
  /** The other end has to prove it where ends prove anything. */
  role?: string;
  /** Each frame that is sent is a request, and its answer usually comes within microseconds: waiting for it must not begin with sleep. */
  answersSoon?: boolean | undefined;
}
