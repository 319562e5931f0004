/**
 * Tokens: what lets its bearer open channels to one timeline. A token is a chain of two statements.
 *
 *   delegation   the cluster's key says: whoever holds this key may grant these rights, until then
 *   grant        the holder of that key says: the bearer has these rights on this timeline, until then
 *
 * So whoever knows the cluster's public key can judge a token, and needs to ask nobody. Numbers are little-endian; every byte is
 * covered by one of the two signatures.
 *
 *   delegation = version u8 | cluster 16 bytes | key 32 bytes | rights u8 | expires u64 ms | signature 64 bytes
 *   grant      = version u8 | rights u8 | issued u64 ms | expires u64 ms | tenant, timeline, bearer (u8 length, UTF-8) | signature
 */
import { PalimpsestError } from './errors.ts';

/** Rights are bits. */
export const RIGHT_APPEND = 1;
export const RIGHT_READ_WAL = 2;
export const RIGHT_GET_PAGE = 4;
export const ALL_RIGHTS = RIGHT_APPEND | RIGHT_READ_WAL | RIGHT_GET_PAGE;
/** In a grant of a storage node to itself: the tenant does not matter. */
export const ANY_TENANT = '*';

export const SIGNATURE_BYTES = 64;
const VERSION = 1;
const CLUSTER_BYTES = 16;
const KEY_BYTES = 32;
const DELEGATION_BODY_BYTES = 1 + CLUSTER_BYTES + KEY_BYTES + 1 + 8;
export const DELEGATION_BYTES = DELEGATION_BODY_BYTES + SIGNATURE_BYTES;
const GRANT_FIXED_BYTES = 1 + 1 + 8 + 8;
const NAME_BYTES_MAX = 255;
/** Set before what is signed, so that no statement can pass for one of another kind. */
const DELEGATION_PREFIX = new TextEncoder().encode('palimpsest delegation 1\0');
const GRANT_PREFIX = new TextEncoder().encode('palimpsest grant 1\0');

export interface Delegation {
  /** Hex, 32 digits. */
  cluster: string;
  /** Public key of who may grant. */
  key: Uint8Array;
  rights: number;
  /** Milliseconds since 1970. */
  expiresMs: number;
}

export interface Grant {
  tenant: string;
  timeline: string;
  /** For logs, and for who renews it: the compute host, or the node. */
  bearer: string;
  rights: number;
  issuedMs: number;
  expiresMs: number;
}

/** A statement as it is signed, and its signature. */
export interface Signed<T> {
  value: T;
  /** What the signature is of. */
  signed: Uint8Array;
  signature: Uint8Array;
}

/** What the cluster's key signs. */
export function delegationToSign({ cluster, key, rights, expiresMs }: Delegation): Uint8Array {
  const body = Buffer.alloc(DELEGATION_BODY_BYTES);
  body[0] = VERSION;
  body.set(Buffer.from(cluster, 'hex').subarray(0, CLUSTER_BYTES), 1);
  body.set(key, 1 + CLUSTER_BYTES);
  body[1 + CLUSTER_BYTES + KEY_BYTES] = rights;
  body.writeBigUInt64LE(BigInt(Math.floor(expiresMs)), 2 + CLUSTER_BYTES + KEY_BYTES);
  return Buffer.concat([DELEGATION_PREFIX, body]);
}

/** What the holder of a delegation signs. */
export function grantToSign(grant: Grant): Uint8Array {
  const head = Buffer.alloc(GRANT_FIXED_BYTES);
  head[0] = VERSION;
  head[1] = grant.rights;
  head.writeBigUInt64LE(BigInt(Math.floor(grant.issuedMs)), 2);
  head.writeBigUInt64LE(BigInt(Math.floor(grant.expiresMs)), 10);
  const names = [grant.tenant, grant.timeline, grant.bearer].map((name) => {
    const bytes = Buffer.from(name);
    if (bytes.length > NAME_BYTES_MAX) throw new RangeError(`a name of ${bytes.length} bytes in a token`);
    return Buffer.concat([Buffer.from([bytes.length]), bytes]);
  });
  return Buffer.concat([GRANT_PREFIX, head, ...names]);
}

/** The delegation as it is kept and sent. */
export function sealDelegation(signed: Uint8Array, signature: Uint8Array): Uint8Array {
  return Buffer.concat([signed.subarray(DELEGATION_PREFIX.length), signature]);
}

/** The token of a delegation and a grant. */
export function sealToken(delegation: Uint8Array, signed: Uint8Array, signature: Uint8Array): Uint8Array {
  return Buffer.concat([delegation, signed.subarray(GRANT_PREFIX.length), signature]);
}

/** Takes a delegation apart; says nothing about its signature. Throws `permission-denied` when it is none. */
export function readDelegation(bytes: Uint8Array): Signed<Delegation> {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (buffer.length !== DELEGATION_BYTES || buffer[0] !== VERSION) throw malformed();
  const keyAt = 1 + CLUSTER_BYTES;
  return {
    value: {
      cluster: buffer.toString('hex', 1, keyAt),
      key: buffer.subarray(keyAt, keyAt + KEY_BYTES),
      rights: buffer[keyAt + KEY_BYTES]!,
      expiresMs: Number(buffer.readBigUInt64LE(keyAt + KEY_BYTES + 1)),
    },
    signed: Buffer.concat([DELEGATION_PREFIX, buffer.subarray(0, DELEGATION_BODY_BYTES)]),
    signature: buffer.subarray(DELEGATION_BODY_BYTES),
  };
}

/** Takes a token apart; says nothing about its signatures. Throws `permission-denied` when it is none. */
export function readToken(bytes: Uint8Array): { delegation: Signed<Delegation>; grant: Signed<Grant> } {
  const delegation = readDelegation(bytes.subarray(0, DELEGATION_BYTES));
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).subarray(DELEGATION_BYTES);
  const bodyBytes = buffer.length - SIGNATURE_BYTES;
  if (bodyBytes < GRANT_FIXED_BYTES || buffer[0] !== VERSION) throw malformed();
  const names: string[] = [];
  let at = GRANT_FIXED_BYTES;
  for (let i = 0; i < 3; i++) {
    const end = at + 1 + buffer[at]!;
    if (end > bodyBytes) throw malformed();
    names.push(buffer.toString('utf8', at + 1, end));
    at = end;
  }
  if (at !== bodyBytes) throw malformed();
  const [tenant, timeline, bearer] = names as [string, string, string];
  return {
    delegation,
    grant: {
      value: {
        tenant,
        timeline,
        bearer,
        rights: buffer[1]!,
        issuedMs: Number(buffer.readBigUInt64LE(2)),
        expiresMs: Number(buffer.readBigUInt64LE(10)),
      },
      signed: Buffer.concat([GRANT_PREFIX, buffer.subarray(0, bodyBytes)]),
      signature: buffer.subarray(bodyBytes),
    },
  };
}

function malformed(): PalimpsestError {
  return new PalimpsestError(
    'permission-denied',
    'the token cannot be read',
    'it is damaged, or of another version of Palimpsest: run the same version on all nodes',
  );
}
