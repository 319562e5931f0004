/**
 * The bus: small messages between actors by subject (commands, events, discovery). Bulk bytes use channels.
 * Semantics are those of core NATS: at most once, a request without any subscriber fails at once.
 */
export type BusReply =
  | { status: 'ok'; data: Uint8Array }
  | { status: 'no-responders' }
  | { status: 'timeout' };

export interface BusMessage {
  subject: string;
  data: Uint8Array;
  /** Answers a request; does nothing on a plain publish. At most one answer counts. */
  reply(data: Uint8Array): void;
}

export interface Subscription {
  unsubscribe(): void;
}

export interface Bus {
  /** Sends to all subscribers; never waits. Payloads above 1 MiB throw a RangeError. */
  publish(subject: string, data: Uint8Array): void;
  request(subject: string, data: Uint8Array, options: { timeoutMs: number }): Promise<BusReply>;
  /** `pattern` may hold `*` and a last `>`. Messages of one publisher arrive in order. */
  subscribe(pattern: string, handle: (message: BusMessage) => void): Subscription;
  /** Resolves when all that was published or subscribed before has reached the broker. */
  flush(): Promise<void>;
  /** Calls back when the broker is gone for good. */
  onClose(handle: (reason: Error | undefined) => void): void;
  close(): Promise<void>;
}
