/** What goes over a connection to a NATS cluster, apart from the library that carries it. */
import { PalimpsestError } from '../../protocols/errors.ts';

export type NatsHeaders = Record<string, string>;

export interface NatsMessage {
  subject: string;
  data: Uint8Array;
  headers: NatsHeaders;
  /** Status of a message without content (`204`, `404`, `503` …), else 0. */
  code: number;
  description: string;
  /** Answers it, where an answer is wanted. */
  reply(data: Uint8Array): void;
}

export type NatsReply =
  | { status: 'ok'; message: NatsMessage }
  | { status: 'no-responders' }
  | { status: 'timeout' }
  /** No server of the cluster is reachable; it may have been sent before or not. */
  | { status: 'disconnected' };

/** What every operation says while no server answers. */
export function unreachable(): PalimpsestError {
  return new PalimpsestError(
    'unavailable',
    'no NATS server is reachable',
    'running computes go on; start the NATS servers again',
  );
}
