/**
 * The part of JetStream's API that journals, leases and the event log use: JSON requests on `$JS.API.*`, publishing with
 * expectations, and reading by subject.
 *
 * Reads of one message go to the stream's leader. Batches may come from any replica and may lag behind: who builds on them
 * proves it with a publish that expects the sequence seen.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Clock } from '../ports/clock.ts';
import type { NatsConnection } from './nats-connection.ts';
import { type NatsHeaders, unreachable } from './nats-messages.ts';

const API_TIMEOUT_MS = 5_000;
const BATCH_MESSAGES = 512;
const BATCH_BYTES = 8 * 1024 * 1024;

/** Code of a status or error: try again later. */
const UNAVAILABLE = 503;
/** How long reads are tried while a stream elects its leader. */
const READ_TIMEOUT_MS = 10_000;
const READ_RETRY_MS = 100;

interface ApiError {
  code: number;
  err_code: number;
  description: string;
}

function unanswered(what: string, reason: string): PalimpsestError {
  return new PalimpsestError(
    'unavailable',
    `JetStream does not answer to ${what} (${reason})`,
    'look whether a majority of the NATS servers runs',
  );
}

/** Codes of JetStream's own errors. */
export const JetStreamCode = {
  streamNotFound: 10059,
  messageNotFound: 10037,
  wrongLastSequence: 10071,
  wrongLastSequenceConstant: 10164,
  insufficientResources: 10023,
  storageExceeded: 10047,
  maximumBytes: 10077,
} as const;

export class JetStreamError extends Error {
  readonly errCode: number;

  constructor(errCode: number, description: string) {
    super(description);
    this.name = 'JetStreamError';
    this.errCode = errCode;
  }
}

export interface StoredMessage {
  subject: string;
  /** Its place in the stream. */
  sequence: number;
  /** Milliseconds since 1970, by the server. */
  time: number;
  headers: NatsHeaders;
  data: Uint8Array;
}

export type PublishResult =
  | { status: 'ok'; sequence: number; duplicate: boolean }
  /** The server refused it; nothing was stored by this attempt. */
  | { status: 'refused'; errCode: number; description: string }
  /** No answer: it may have been stored or not. */
  | { status: 'unknown'; reason: string };

export interface StreamInfo {
  config: Record<string, unknown>;
  state: {
    messages: number;
    bytes: number;
    first_seq: number;
    last_seq: number;
    subjects?: Record<string, number>;
  };
  /** The server's time. */
  ts?: string;
}

export interface BatchRequest {
  /** May hold wildcards. */
  subject: string;
  /** First place in the stream that counts. */
  fromSequence?: number;
  /** Or: the first message not older than this, milliseconds since 1970. */
  fromTimeMs?: number;
  /** Messages at most. */
  limit?: number;
}

/** What is needed of a connection. */
export type JetStreamLink = Pick<NatsConnection, 'connected' | 'request' | 'requestMany'>;

export class JetStream {
  readonly #connection: JetStreamLink;
  readonly #clock: Clock;

  constructor(connection: JetStreamLink, clock: Clock) {
    this.#connection = connection;
    this.#clock = clock;
  }

  /** One request to the API. Throws JetStreamError for its errors, `unavailable` when nobody answers. */
  async api<T>(name: string, body: object = {}, timeoutMs = API_TIMEOUT_MS): Promise<T> {
    const subject = `$JS.API.${name}`;
    const reply = await this.#connection.request(subject, encode(body), { timeoutMs });
    if (reply.status === 'disconnected') throw unreachable();
    if (reply.status !== 'ok') throw unanswered(name, reply.status);
    const { error } = decode<{ error?: ApiError }>(reply.message.data);
    if (error?.code === UNAVAILABLE) throw unanswered(name, error.description);
    if (error) throw new JetStreamError(error.err_code, error.description);
    return decode<T>(reply.message.data);
  }

  /** Publishes one message and waits until it is stored by a majority, or refused. */
  async publish(
    subject: string,
    data: Uint8Array,
    { headers, timeoutMs }: { headers: NatsHeaders; timeoutMs: number },
  ): Promise<PublishResult> {
    const reply = await this.#connection.request(subject, data, { timeoutMs, headers });
    if (reply.status !== 'ok') return { status: 'unknown', reason: `no acknowledgement (${reply.status})` };
    const answer = decode<{
      seq?: number;
      duplicate?: boolean;
      error?: { err_code: number; description: string };
    }>(reply.message.data);
    if (answer.error) {
      return { status: 'refused', errCode: answer.error.err_code, description: answer.error.description };
    }
    if (typeof answer.seq !== 'number')
      return { status: 'unknown', reason: 'the acknowledgement cannot be read' };
    return { status: 'ok', sequence: answer.seq, duplicate: answer.duplicate === true };
  }

  /** The newest message of a subject as the stream's leader has it; waits for an election. */
  lastOf(stream: string, subject: string): Promise<StoredMessage | undefined> {
    return this.#patiently(() => this.lastOfNow(stream, subject));
  }

  /** The same, but fails at once with `unavailable` while the stream has no leader. */
  lastOfNow(stream: string, subject: string): Promise<StoredMessage | undefined> {
    return this.#get(stream, { last_by_subj: subject });
  }

  /** Messages of a subject in their order, up to the newest or to the limit; from any replica. */
  batch(stream: string, request: BatchRequest): Promise<{ messages: StoredMessage[]; more: boolean }> {
    return this.#patiently(() => this.#batch(stream, request));
  }

  async #batch(stream: string, request: BatchRequest): Promise<{ messages: StoredMessage[]; more: boolean }> {
    const limit = Math.min(request.limit ?? BATCH_MESSAGES, BATCH_MESSAGES);
    const body = {
      next_by_subj: request.subject,
      batch: limit,
      max_bytes: BATCH_BYTES,
      ...(request.fromTimeMs === undefined
        ? { seq: Math.max(1, request.fromSequence ?? 1) }
        : { start_time: new Date(request.fromTimeMs).toISOString() }),
    };
    const { messages, complete } = await this.#connection.requestMany(
      `$JS.API.DIRECT.GET.${stream}`,
      encode(body),
      { timeoutMs: API_TIMEOUT_MS, isLast: ({ code }) => code !== 0 },
    );
    const last = messages.at(-1);
    if (!complete || last?.code === UNAVAILABLE) throw unanswered(`a read of ${stream}`, 'no answer');
    const stored = messages.filter(({ code }) => code === 0).map(fromDirect);
    if (last!.code === 404) return { messages: [], more: false };
    if (last!.code !== 204) throw new JetStreamError(last!.code, last!.description);
    return {
      messages: stored,
      more: stored.length > 0 && Number(last!.headers['Nats-Num-Pending'] ?? 0) > 0,
    };
  }

  /** All messages of a subject from a place on. */
  async *all(stream: string, subject: string, fromSequence: number): AsyncGenerator<StoredMessage> {
    for (let from = fromSequence; ; ) {
      const { messages, more } = await this.batch(stream, { subject, fromSequence: from });
      yield* messages;
      if (!more) return;
      from = messages.at(-1)!.sequence + 1;
    }
  }

  /** The newest message of each subject that one of the patterns matches; from any replica. */
  async lastOfEach(stream: string, patterns: string[]): Promise<StoredMessage[]> {
    const { messages, complete } = await this.#connection.requestMany(
      `$JS.API.DIRECT.GET.${stream}`,
      encode({ multi_last: patterns }),
      { timeoutMs: API_TIMEOUT_MS, isLast: ({ code }) => code !== 0 },
    );
    const code = messages.at(-1)?.code;
    if (!complete || (code !== 204 && code !== 404)) {
      throw unanswered(`a read of ${stream}`, String(code ?? 'timeout'));
    }
    return messages.filter((message) => message.code === 0).map(fromDirect);
  }

  /** Subjects of a stream that match, with the number of their messages. */
  async subjects(stream: string, pattern: string): Promise<string[]> {
    const found: string[] = [];
    for (let offset = 0; ; ) {
      const body = { subjects_filter: pattern, offset };
      const info = await this.api<StreamInfo & { total?: number }>(`STREAM.INFO.${stream}`, body);
      const page = Object.keys(info.state.subjects ?? {});
      found.push(...page);
      offset += page.length;
      if (page.length === 0 || offset >= (info.total ?? 0)) return found;
    }
  }

  /** Removes the messages of a subject, up to but without a place in the stream when one is given. */
  async purge(stream: string, subject: string, beforeSequence?: number): Promise<void> {
    const body = { filter: subject, ...(beforeSequence === undefined ? {} : { seq: beforeSequence }) };
    await this.api(`STREAM.PURGE.${stream}`, body);
  }

  async deleteMessage(stream: string, sequence: number): Promise<void> {
    await this.api(`STREAM.MSG.DELETE.${stream}`, { seq: sequence, no_erase: true });
  }

  async #patiently<T>(read: () => Promise<T>): Promise<T> {
    const deadline = this.#clock.monotonic() + READ_TIMEOUT_MS;
    for (;;) {
      try {
        return await read();
      } catch (error) {
        // A stream that was made a moment ago is not known to every server yet.
        const mayPass =
          (error instanceof PalimpsestError && error.code === 'unavailable') ||
          (error instanceof JetStreamError && error.errCode === JetStreamCode.streamNotFound);
        if (!mayPass || !this.#connection.connected || this.#clock.monotonic() > deadline) throw error;
      }
      await this.#clock.sleep(READ_RETRY_MS);
    }
  }

  async #get(stream: string, body: object): Promise<StoredMessage | undefined> {
    interface Answer {
      message: { subject: string; seq: number; time: string; hdrs?: string; data?: string };
    }
    try {
      const { message } = await this.api<Answer>(`STREAM.MSG.GET.${stream}`, body);
      return {
        subject: message.subject,
        sequence: message.seq,
        time: Date.parse(message.time),
        headers: parseHeaders(Buffer.from(message.hdrs ?? '', 'base64').toString('utf8')),
        data: Buffer.from(message.data ?? '', 'base64'),
      };
    } catch (error) {
      if (error instanceof JetStreamError && error.errCode === JetStreamCode.messageNotFound)
        return undefined;
      throw error;
    }
  }
}

function fromDirect({ headers, data }: { headers: NatsHeaders; data: Uint8Array }): StoredMessage {
  return {
    subject: headers['Nats-Subject'] ?? '',
    sequence: Number(headers['Nats-Sequence']),
    time: Date.parse(headers['Nats-Time-Stamp'] ?? ''),
    headers,
    data,
  };
}

/** `NATS/1.0`, then `Name: value` lines. */
function parseHeaders(text: string): NatsHeaders {
  const headers: NatsHeaders = {};
  for (const line of text.split('\r\n').slice(1)) {
    const colon = line.indexOf(':');
    if (colon > 0) headers[line.slice(0, colon)] = line.slice(colon + 1).trim();
  }
  return headers;
}

function encode(body: object): Uint8Array {
  return Buffer.from(JSON.stringify(body));
}

function decode<T>(data: Uint8Array): T {
  return JSON.parse(Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('utf8')) as T;
}
