/**
 * Channels between machines of a secured cluster: TLS 1.3, both ends with certificates of the cluster's authority.
 *
 * Certificates name no hosts: a machine may change its address, and what counts is the authority and the roles in the certificate.
 */
import {
  type ConnectionOptions,
  connect,
  createServer,
  type PeerCertificate,
  type Server,
  type TLSSocket,
} from 'node:tls';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { ChannelIdentity } from './credentials.ts';

const HANDSHAKE_TIMEOUT_MS = 5_000;
/** AES with 128 bits costs the least where the processor knows AES, and every server has one of the others. */
const CIPHERS = 'TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256';
const ROLE = /URI:palimpsest:\/\/[0-9a-f]+\/([a-z-]+)/g;

/** As Node's sockets take it: bytes are received into one buffer. */
export interface OnRead {
  buffer: Buffer;
  callback(count: number, buffer: Uint8Array): boolean;
}

/** Who this process is, and the role that the other end must have. */
export type ChannelIdentityWithRole = ChannelIdentity & { role?: string | undefined };

/** Begins to connect: 'secureConnect' or 'error' follows. With `role`, the other end must have it. */
export function connectTls(
  identity: ChannelIdentity,
  target: { host: string; port: number },
  { role, onread }: { role?: string | undefined; onread?: OnRead | undefined } = {},
): TLSSocket {
  const options: ConnectionOptions & { noDelay: boolean; onread?: OnRead } = {
    ...common(identity),
    // Nothing else of it: an address may carry a key of another kind.
    host: target.host,
    port: target.port,
    noDelay: true,
    checkServerIdentity: (_, certificate) => checkRole(certificate, role),
    ...(onread ? { onread } : {}),
  };
  const socket = connect(options);
  socket.setNoDelay(true);
  return socket;
}

/** A server that gives only connections of the cluster's own to `onSocket`; the others are closed. */
export function createTlsServer(identity: ChannelIdentity, onSocket: (socket: TLSSocket) => void): Server {
  const server = createServer(
    {
      ...common(identity),
      requestCert: true,
      rejectUnauthorized: true,
      handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
      noDelay: true,
    },
    (socket) => {
      socket.setNoDelay(true);
      onSocket(socket);
    },
  );
  // The other end is told by the alert; a port scan must not fill the log.
  server.on('tlsClientError', (_, socket) => socket.destroy());
  return server;
}

/** What to say of a connection that failed: the certificates, or the network. */
export function tlsFailure(address: string, error: Error): PalimpsestError | undefined {
  const { code = '' } = error as { code?: string };
  const isAboutTrust =
    error instanceof PalimpsestError ||
    /CERT|SSL|TLS|ISSUER|SELF_SIGNED|SIGNATURE/.test(code) ||
    /certificate|alert|tls|wrong version number/i.test(error.message);
  if (!isAboutTrust) return undefined;
  return new PalimpsestError(
    'permission-denied',
    `${address} and this process do not trust each other: ${error.message}`,
    'both need credentials of the same cluster that have not ended: palimpsest cluster issue',
    error,
  );
}

function common({ ca, cert, key }: ChannelIdentity) {
  return { ca, cert, key, minVersion: 'TLSv1.3', ciphers: CIPHERS } as const;
}

function checkRole({ subjectaltname }: PeerCertificate, role: string | undefined): Error | undefined {
  if (role === undefined) return undefined;
  const roles = [...(subjectaltname ?? '').matchAll(ROLE)].map((match) => match[1]);
  if (roles.includes(role)) return undefined;
  return new PalimpsestError(
    'permission-denied',
    `its certificate is for ${roles.join(', ') || 'no role'}, not for ${role}`,
  );
}
