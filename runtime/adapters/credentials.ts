/**
 * Credentials of a cluster: one file that says who a process is, made by `palimpsest cluster init` or `cluster issue`. It is a
 * secret: whoever has it is that node or user.
 *
 * Loaded by compute hosts too, so it imports nothing but files and errors.
 */
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { PalimpsestError } from '../../protocols/errors.ts';

const FORMAT = 1;

/** A user of the NATS cluster. */
export interface NatsLogin {
  /** The servers believe it since the account's key signed it. */
  jwt: string;
  /** The user's private key. */
  seed: string;
  /** The user's public key: the name of the only inbox that it may read. */
  user: string;
  /** Certificates (PEM) of those who may sign for NATS servers. */
  ca: string;
}

/** The inbox in which a user takes answers; nobody else may read it. */
export function inboxOf(user: string): string {
  return `_INBOX_${user}`;
}

/** How this process shows on a channel who it is: PEM. */
export interface ChannelIdentity {
  ca: string;
  cert: string;
  key: string;
}

export interface TokenKeys {
  /** Public keys (hex) of those whose word counts for tokens, the newest first. */
  trusted: string[];
  /** What this process may sign with: a private key (hex), and what the cluster's key says of it (hex). */
  delegate?: { key: string; delegation: string };
}

/** With this key the parent of compute hosts makes users that may do nothing but be one compute host. */
export interface HostSigner {
  seed: string;
  account: string;
  /** The certificate of all compute hosts; their tokens tell them apart. */
  channel: ChannelIdentity;
}

export interface ClusterCredentials {
  format: number;
  /** Hex id of the cluster that they are for. */
  cluster: string;
  name: string;
  /** Roles of a node; `client` for the command line. */
  roles: string[];
  /** Milliseconds since 1970. */
  expiresMs: number;
  nats: NatsLogin;
  /** Absent for the command line, which opens no channels. */
  channel?: ChannelIdentity;
  tokens?: TokenKeys;
  hostSigner?: HostSigner;
}

/**
 * Reads credentials: a file, or the file `node.json` in a folder. Throws `invalid-argument` when it is none,
 * `permission-denied` when others may read it.
 */
export function readCredentials(path: string): ClusterCredentials {
  const file = fileOf(path);
  let text: string;
  try {
    if ((statSync(file).mode & 0o007) !== 0) {
      throw new PalimpsestError(
        'permission-denied',
        `every user of this machine may read the credentials in ${file}`,
        `chmod 600 ${file}`,
      );
    }
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if (error instanceof PalimpsestError) throw error;
    throw unusable(file, error instanceof Error ? error.message : String(error));
  }
  return parseCredentials(text, file);
}

/** `from` names them in errors. */
export function parseCredentials(text: string, from: string): ClusterCredentials {
  let found: Partial<ClusterCredentials>;
  try {
    found = JSON.parse(text) as Partial<ClusterCredentials>;
  } catch {
    throw unusable(from, 'they are no JSON');
  }
  if (found.format !== FORMAT) throw unusable(from, `they have format ${found.format}, not ${FORMAT}`);
  const { cluster, name, roles, expiresMs, nats } = found;
  const isWhole =
    [cluster, name, nats?.jwt, nats?.seed, nats?.user, nats?.ca].every((part) => typeof part === 'string') &&
    Array.isArray(roles) &&
    typeof expiresMs === 'number';
  if (!isWhole) throw unusable(from, 'something is missing in them');
  return found as ClusterCredentials;
}

/** Throws `permission-denied` when they have ended, or are not for these roles. */
export function checkCredentials(
  { name, roles, expiresMs }: ClusterCredentials,
  { nowMs, wanted }: { nowMs: number; wanted: readonly string[] },
): void {
  if (expiresMs <= nowMs) {
    throw new PalimpsestError(
      'permission-denied',
      `the credentials "${name}" ended at ${new Date(expiresMs).toISOString()}`,
      'make new ones with: palimpsest cluster issue',
    );
  }
  const missing = wanted.filter((role) => !roles.includes(role));
  if (missing.length === 0) return;
  throw new PalimpsestError(
    'permission-denied',
    `the credentials "${name}" are for ${roles.join(', ')}, not for ${missing.join(', ')}`,
    `choose other --roles, or make credentials with: palimpsest cluster issue DIR NAME --roles ${wanted.join(',')}`,
  );
}

/** The form in which credentials are kept: one line. */
export function formatCredentials(credentials: Omit<ClusterCredentials, 'format'>): string {
  return JSON.stringify({ format: FORMAT, ...credentials });
}

function fileOf(path: string): string {
  try {
    return statSync(path).isDirectory() ? join(path, 'node.json') : path;
  } catch {
    return path;
  }
}

function unusable(file: string, reason: string): PalimpsestError {
  return new PalimpsestError(
    'invalid-argument',
    `${file} holds no credentials of a cluster: ${reason}`,
    'name a file that `palimpsest cluster init` or `palimpsest cluster issue` made',
  );
}
