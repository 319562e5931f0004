/**
 * Certificates of a cluster (X.509, P-256): an authority of its own for the NATS servers, and another for the channels, so that no
 * node's certificate lets it pass for a NATS server.
 *
 * A certificate of a channel tells the roles of its holder as URIs, `palimpsest://<cluster>/<role>`.
 */
import 'reflect-metadata';
import { randomBytes, webcrypto } from 'node:crypto';
import { isIP } from 'node:net';
import {
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  SubjectAlternativeNameExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509';

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
/** Clocks of machines differ a little. */
const BACKDATED_MS = 3_600_000;
const SERIAL_BYTES = 15;

/** PEM. */
export interface KeyAndCertificate {
  key: string;
  cert: string;
}

/** Makes an authority, which signs others' certificates. */
export async function newAuthority(
  name: string,
  { nowMs, expiresMs }: { nowMs: number; expiresMs: number },
): Promise<KeyAndCertificate> {
  const keys = await newKeys();
  const certificate = await X509CertificateGenerator.createSelfSigned(
    {
      serialNumber: serialNumber(),
      name: nameOf(name),
      notBefore: new Date(nowMs - BACKDATED_MS),
      notAfter: new Date(expiresMs),
      signingAlgorithm: ALGORITHM,
      keys,
      extensions: [
        new BasicConstraintsExtension(true, 0, true),
        new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      ],
    },
    webcrypto,
  );
  return { key: await privatePem(keys), cert: certificate.toString('pem') };
}

export interface CertificateOptions {
  name: string;
  nowMs: number;
  expiresMs: number;
  /** Names and addresses under which a server is reached. */
  hosts?: string[];
  uris?: string[];
}

/** Makes a key and a certificate of it, for a server and for a client. */
export async function newCertificate(
  authority: KeyAndCertificate,
  { name, nowMs, expiresMs, hosts = [], uris = [] }: CertificateOptions,
): Promise<KeyAndCertificate> {
  const keys = await newKeys();
  const issuer = new X509Certificate(authority.cert);
  const names = [
    ...hosts.map((host) => ({ type: isIP(host) ? ('ip' as const) : ('dns' as const), value: host })),
    ...uris.map((uri) => ({ type: 'url' as const, value: uri })),
  ];
  const certificate = await X509CertificateGenerator.create(
    {
      serialNumber: serialNumber(),
      subject: nameOf(name),
      issuer: issuer.subject,
      notBefore: new Date(nowMs - BACKDATED_MS),
      // It cannot outlive what it rests on.
      notAfter: new Date(Math.min(expiresMs, issuer.notAfter.getTime())),
      signingAlgorithm: ALGORITHM,
      publicKey: keys.publicKey,
      signingKey: await privateKey(authority.key),
      extensions: [
        new BasicConstraintsExtension(false, undefined, true),
        new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
        new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth, ExtendedKeyUsage.clientAuth]),
        new SubjectAlternativeNameExtension(names),
      ],
    },
    webcrypto,
  );
  return { key: await privatePem(keys), cert: certificate.toString('pem') };
}

function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
}

async function privatePem({ privateKey }: webcrypto.CryptoKeyPair): Promise<string> {
  const bytes = await webcrypto.subtle.exportKey('pkcs8', privateKey);
  return PemConverter.encode(bytes, PemConverter.PrivateKeyTag);
}

function privateKey(pem: string): Promise<webcrypto.CryptoKey> {
  const [bytes] = PemConverter.decode(pem);
  return webcrypto.subtle.importKey('pkcs8', bytes!, ALGORITHM, false, ['sign']);
}

function nameOf(name: string): { CN: string[] }[] {
  return [{ CN: [name] }];
}

/** Positive, so its first bit is not set. */
function serialNumber(): string {
  return `01${randomBytes(SERIAL_BYTES).toString('hex')}`;
}
