/**
 * A network to an S3 server that cannot be relied on: a proxy that, by a plan drawn from a seed, answers 503, loses the
 * answer of a request that was carried out, cuts bodies off, closes connections, or lets one wait.
 */
import {
  type ClientRequest,
  createServer,
  type IncomingMessage,
  request,
  type Server,
  type ServerResponse,
} from 'node:http';
import type { Socket } from 'node:net';

export const FAULTS = ['busy', 'reset', 'answer-lost', 'cut-off', 'shortened', 'delayed'] as const;
export type Fault = (typeof FAULTS)[number];

const DELAY_MS_MAX = 120;
/** A body is cut off somewhere behind this share of it. */
const CUT_SHARE_MIN = 0.1;

export interface FaultProxyOptions {
  /** Of the real server. */
  endpoint: string;
  seed: number;
}

export class FaultProxy {
  readonly #target: URL;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #random: () => number;
  readonly counts: Record<Fault, number> = {
    busy: 0,
    reset: 0,
    'answer-lost': 0,
    'cut-off': 0,
    shortened: 0,
    delayed: 0,
  };
  requests = 0;
  /** Share of requests that something happens to. */
  faultRate = 0;
  /** When not all kinds are wanted. */
  only: Fault | undefined;
  #port = 0;

  constructor({ endpoint, seed }: FaultProxyOptions) {
    this.#target = new URL(endpoint);
    this.#random = seeded(seed);
    this.#server = createServer((incoming, answer) => this.#handle(incoming, answer));
    this.#server.on('connection', (socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket)).on('error', () => {});
    });
  }

  async listen(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    this.#port = (this.#server.address() as { port: number }).port;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** How many requests something happened to. */
  get faults(): number {
    return Object.values(this.counts).reduce((sum, count) => sum + count, 0);
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #handle(incoming: IncomingMessage, answer: ServerResponse): void {
    this.requests++;
    const fault = this.#draw();
    if (fault) this.counts[fault]++;
    if (fault === 'busy') {
      // Not read: a server that is overloaded answers before it has seen the body.
      answer.writeHead(503, { 'content-type': 'application/xml', connection: 'close' });
      answer.end('<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>later</Message></Error>');
    } else if (fault === 'reset') {
      incoming.socket.resetAndDestroy();
    } else if (fault === 'delayed') {
      setTimeout(() => this.#forward(incoming, answer, fault), this.#random() * DELAY_MS_MAX);
    } else {
      this.#forward(incoming, answer, fault);
    }
  }

  #draw(): Fault | undefined {
    const isFaulty = this.#random() < this.faultRate;
    const which = FAULTS[Math.floor(this.#random() * FAULTS.length)];
    return isFaulty ? (this.only ?? which) : undefined;
  }

  #forward(incoming: IncomingMessage, answer: ServerResponse, fault: Fault | undefined): void {
    const { hostname, port } = this.#target;
    // The host is a part of what was signed, so it stays as the client wrote it.
    const { method, url: path, headers } = incoming;
    const upstream: ClientRequest = request({ hostname, port, method, path, headers, agent: false });
    upstream.on('response', (response) => void this.#answer(response, answer, fault));
    upstream.on('error', () => answer.socket?.destroy());
    incoming.on('error', () => upstream.destroy());
    incoming.pipe(upstream);
  }

  async #answer(response: IncomingMessage, answer: ServerResponse, fault: Fault | undefined): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of response) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks);
    if (fault === 'answer-lost') {
      answer.socket?.destroy();
      return;
    }
    const headers = { ...response.headers };
    const share = CUT_SHARE_MIN + this.#random() * (1 - CUT_SHARE_MIN);
    const cut = body.subarray(0, Math.min(body.length - 1, Math.floor(body.length * share)));
    if (fault === 'cut-off' && body.length > 0) {
      answer.writeHead(response.statusCode!, headers);
      answer.write(cut, () => answer.socket?.destroy());
      return;
    }
    if (fault === 'shortened' && body.length > 0 && response.headers['content-range']) {
      // What a broken cache does: the answer is whole as it seems.
      answer.writeHead(response.statusCode!, { ...headers, 'content-length': String(cut.length) });
      answer.end(cut);
      return;
    }
    answer.writeHead(response.statusCode!, headers);
    answer.end(body);
  }
}

/** mulberry32. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
