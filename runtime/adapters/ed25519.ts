/** Ed25519 by OpenSSL, and new keys of it. */
import { createPrivateKey, createPublicKey, generateKeyPairSync, sign, verify } from 'node:crypto';
import type { Signatures } from '../ports/signatures.ts';

const SEED_BYTES = 32;

export const ed25519: Signatures = {
  sign(privateKey, bytes) {
    const d = toText(privateKey.subarray(0, SEED_BYTES));
    const x = toText(privateKey.subarray(SEED_BYTES));
    const key = createPrivateKey({ key: { kty: 'OKP', crv: 'Ed25519', d, x }, format: 'jwk' });
    return sign(null, bytes, key);
  },
  verify(publicKey, bytes, signature) {
    try {
      const jwk = { kty: 'OKP', crv: 'Ed25519', x: toText(publicKey) };
      return verify(null, bytes, createPublicKey({ key: jwk, format: 'jwk' }), signature);
    } catch {
      return false;
    }
  },
};

/** A new private key, as `sign` takes it; its last 32 bytes are the public key. */
export function newSigningKey(): Uint8Array {
  const { d, x } = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' });
  return Buffer.concat([Buffer.from(d!, 'base64url'), Buffer.from(x!, 'base64url')]);
}

/** The public half of a private key. */
export function publicHalf(privateKey: Uint8Array): Uint8Array {
  return privateKey.subarray(SEED_BYTES);
}

function toText(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64url');
}
