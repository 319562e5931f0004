/**
 * Connecting to a socket within a time limit: plainly, or by TLS to a member of the own cluster.
 *
 * What speaks TLS is loaded only where it is spoken: it takes some 5 ms of a compute host's start.
 */
import { connect, type Socket } from 'node:net';
import type { ChannelIdentityWithRole, OnRead } from './channel-tls.ts';

export type DialTarget = { path: string } | { host: string; port: number };

export interface DialSocketOptions<T> {
  timeoutMs: number;
  /** The target, as errors name it. */
  shown: string;
  /** Receives into one buffer, which is used again. */
  onread?: OnRead | undefined;
  /** TLS: who this process is, and the role that the other end must have. Means nothing to a unix socket. */
  secure?: ChannelIdentityWithRole | undefined;
  /** Takes the socket in the moment it is open: before anything can be read from it, or go wrong. */
  take(socket: Socket): T;
  /** What to say of a failure; of none when the time is over. */
  failure(error: Error | undefined): Error;
}

/** Resolves with what `take` made of the open socket. Rejects with `failure`, or `permission-denied` when the ends do not trust each other. */
export async function dialSocket<T>(target: DialTarget, options: DialSocketOptions<T>): Promise<T> {
  const { shown, onread, secure, failure } = options;
  if (!secure || 'path' in target) {
    return opened(connect({ ...target, noDelay: true, ...(onread && { onread }) }), 'connect', options);
  }
  const { connectTls, tlsFailure } = await import('./channel-tls.ts');
  return opened(connectTls(secure, target, { role: secure.role, onread }), 'secureConnect', {
    ...options,
    failure: (error) => (error && tlsFailure(shown, error)) ?? failure(error),
  });
}

function opened<T>(
  socket: Socket,
  event: 'connect' | 'secureConnect',
  { timeoutMs, take, failure }: DialSocketOptions<T>,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      socket.destroy();
      reject(failure(undefined));
    }, timeoutMs);
    const onError = (error: Error) => {
      clearTimeout(timer);
      reject(failure(error));
    };
    socket.once('error', onError);
    socket.once(event, () => {
      clearTimeout(timer);
      socket.off('error', onError);
      resolve(take(socket));
    });
  });
}
