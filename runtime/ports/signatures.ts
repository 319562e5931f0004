/**
 * Signatures by Ed25519. Public keys have 32 bytes, private keys 64 (the seed, then the public key), signatures 64.
 */
export interface Signatures {
  sign(privateKey: Uint8Array, bytes: Uint8Array): Uint8Array;
  /** False for anything that was not signed by this key, also for keys and signatures that are none. */
  verify(publicKey: Uint8Array, bytes: Uint8Array, signature: Uint8Array): boolean;
}
