/**
 * The keys of a cluster, and what is made with them: `palimpsest cluster init`, `cluster issue` and `cluster rotate`.
 *
 *   DIR/operator/keys.json          all private keys of the cluster: keep it off the nodes
 *   DIR/nats/<server>/              what one NATS server needs: nats.conf, server.crt, server.key, ca.crt
 *   DIR/credentials/<name>.json     what one node or user needs
 *
 * Files are written anew, never half: a crash leaves the old one or the new one.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, readFile, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ROLES } from '../../../actors/placement/plan.ts';
import { PalimpsestError } from '../../../protocols/errors.ts';
import { ALL_RIGHTS, RIGHT_READ_WAL } from '../../../protocols/tokens.ts';
import {
  type ChannelIdentity,
  type ClusterCredentials,
  formatCredentials,
} from '../../../runtime/adapters/credentials.ts';
import { ed25519, newSigningKey, publicHalf } from '../../../runtime/adapters/ed25519.ts';
import {
  type NatsKeys,
  natsTrust,
  newNatsKeys,
  newNatsUser,
  publicKeyOf,
} from '../../../runtime/adapters/nats-accounts.ts';
import { replaceFile } from '../../../runtime/adapters/replace-file.ts';
import { delegate } from '../../../runtime/channels/tokens.ts';
import { type KeyAndCertificate, newAuthority, newCertificate } from './certificates.ts';
import { type NatsServerPlace, natsConfig, natsUrl } from './nats-config.ts';
import { CLIENT, COMPUTE_HOST, type CredentialRole, permissionsOf } from './permissions.ts';

const FORMAT = 1;
const DAY_MS = 86_400_000;
const AUTHORITY_DAYS = 3_650;
const CLUSTER_ID_BYTES = 16;
const FOLDER_MODE = 0o700;

interface OperatorKeys {
  format: number;
  cluster: string;
  servers: NatsServerPlace[];
  configDirectory?: string;
  storeDirectory: string;
  /** What was issued, to be made anew when the keys are changed. */
  issued: { name: string; roles: CredentialRole[]; node?: string }[];
  /** Logins made before are refused; milliseconds since 1970. */
  revokedBeforeMs?: number;
  nats: NatsKeys;
  natsAuthority: KeyAndCertificate;
  channelAuthority: KeyAndCertificate;
  /** Private keys (hex) that sign delegations; the first signs, all are trusted. */
  tokenKeys: string[];
}

export interface InitOptions {
  directory: string;
  servers: NatsServerPlace[];
  /** Where a server's files will be on its machine; by default where they are written. */
  configDirectory?: string;
  storeDirectory: string;
  /** How long credentials and certificates live. */
  days: number;
  nowMs: number;
}

export interface InitResult {
  cluster: string;
  nats: string;
  files: string[];
}

/** Makes a new cluster's keys, its servers' configurations, and credentials for each role, for all of them, and for clients. */
export async function initCluster(options: InitOptions): Promise<InitResult> {
  const { directory, servers, configDirectory, storeDirectory } = options;
  const keysFile = keysPath(directory);
  if (await exists(keysFile)) {
    throw new PalimpsestError(
      'already-exists',
      `${directory} holds the keys of a cluster already`,
      'choose another folder, or make more credentials with: palimpsest cluster issue',
    );
  }
  const keys: OperatorKeys = {
    format: FORMAT,
    cluster: randomBytes(CLUSTER_ID_BYTES).toString('hex'),
    servers,
    ...(configDirectory === undefined ? {} : { configDirectory }),
    storeDirectory,
    issued: [
      ...ROLES.map((role) => ({ name: role, roles: [role] })),
      { name: 'node', roles: [...ROLES] },
      { name: CLIENT, roles: [CLIENT] },
    ],
    nats: newNatsKeys(),
    ...(await newTrust(options)),
  };
  return writeAll(keys, options);
}

/**
 * Changes every key but those that name the accounts, under which NATS keeps its streams, and makes all files anew. What was issued
 * before is worth nothing once the servers and nodes have their new files.
 */
export async function rotateKeys(
  options: Pick<InitOptions, 'directory' | 'days' | 'nowMs'>,
): Promise<InitResult> {
  const keys = await readKeys(options.directory);
  const { hostSigner } = newNatsKeys();
  const rotated = { ...keys, ...(await newTrust(options)), nats: { ...keys.nats, hostSigner } };
  return writeAll({ ...rotated, revokedBeforeMs: options.nowMs }, options);
}

async function newTrust({
  nowMs,
}: {
  nowMs: number;
}): Promise<Pick<OperatorKeys, 'natsAuthority' | 'channelAuthority' | 'tokenKeys'>> {
  const times = { nowMs, expiresMs: nowMs + AUTHORITY_DAYS * DAY_MS };
  return {
    natsAuthority: await newAuthority('Palimpsest NATS', times),
    channelAuthority: await newAuthority('Palimpsest channels', times),
    tokenKeys: [Buffer.from(newSigningKey()).toString('hex')],
  };
}

/** The keys come first: what follows from them can be made again. */
async function writeAll(
  keys: OperatorKeys,
  options: Pick<InitOptions, 'directory' | 'days' | 'nowMs'>,
): Promise<InitResult> {
  const files = [keysPath(options.directory)];
  await writeKeys(options.directory, keys);
  for (const server of keys.servers) files.push(...(await writeServer(keys, server, options)));
  for (const issued of keys.issued) files.push(await issueWith(keys, { ...options, ...issued }));
  return { cluster: keys.cluster, nats: natsUrl(keys.servers), files };
}

function writeKeys(directory: string, keys: OperatorKeys): Promise<void> {
  return writeSecret(keysPath(directory), `${JSON.stringify(keys, null, 2)}\n`);
}

export interface IssueOptions {
  directory: string;
  /** Of the credentials, and of their file. */
  name: string;
  roles: CredentialRole[];
  /** Only the node of this name may use them. */
  node?: string;
  days: number;
  nowMs: number;
}

/** Makes credentials; returns their file. */
export async function issueCredentials(options: IssueOptions): Promise<string> {
  const { directory, name, roles, node } = options;
  const keys = await readKeys(directory);
  const others = keys.issued.filter((issued) => issued.name !== name);
  const issued = [...others, { name, roles, ...(node === undefined ? {} : { node }) }];
  await writeKeys(directory, { ...keys, issued });
  return issueWith(keys, options);
}

async function issueWith(keys: OperatorKeys, options: IssueOptions): Promise<string> {
  const { directory, name, roles, node, days, nowMs } = options;
  const expiresMs = nowMs + days * DAY_MS;
  const login = await newNatsUser(keys.nats, name, permissionsOf(roles, node), expiresMs);
  const isNode = roles.some((role) => role !== CLIENT);
  const identity = async (holder: readonly string[]): Promise<ChannelIdentity> => {
    const uris = holder.map((role) => `palimpsest://${keys.cluster}/${role}`);
    const certificate = await newCertificate(keys.channelAuthority, { name, nowMs, expiresMs, uris });
    return { ca: keys.channelAuthority.cert, ...certificate };
  };
  const credentials: Omit<ClusterCredentials, 'format'> = {
    cluster: keys.cluster,
    name,
    roles,
    expiresMs,
    nats: { ...login, ca: keys.natsAuthority.cert },
    ...(isNode ? { channel: await identity(roles), tokens: tokenKeys(keys, roles, expiresMs) } : {}),
    ...(roles.includes('compute')
      ? {
          hostSigner: {
            seed: keys.nats.hostSigner,
            account: publicKeyOf(keys.nats.account),
            channel: await identity(['compute-host']),
          },
        }
      : {}),
  };
  const file = join(directory, 'credentials', `${name}.json`);
  await writeSecret(file, `${formatCredentials(credentials)}\n`);
  return file;
}

/** Control grants everything to computes; storage nodes grant themselves to read WAL. */
function tokenKeys(
  { cluster, tokenKeys: keys }: OperatorKeys,
  roles: CredentialRole[],
  expiresMs: number,
): NonNullable<ClusterCredentials['tokens']> {
  const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
  const clusterKeys = keys.map((key) => Buffer.from(key, 'hex'));
  const trusted = clusterKeys.map((key) => hex(publicHalf(key)));
  const rights = roles.includes('control')
    ? ALL_RIGHTS
    : roles.includes('safekeeper') || roles.includes('pageserver')
      ? RIGHT_READ_WAL
      : 0;
  if (rights === 0) return { trusted };
  const own = newSigningKey();
  const statement = delegate(ed25519, clusterKeys[0]!, { cluster, key: publicHalf(own), rights, expiresMs });
  return { trusted, delegate: { key: hex(own), delegation: hex(statement) } };
}

async function writeServer(
  keys: OperatorKeys,
  server: NatsServerPlace,
  { directory, days, nowMs }: Pick<InitOptions, 'directory' | 'days' | 'nowMs'>,
): Promise<string[]> {
  const { servers, configDirectory, storeDirectory, revokedBeforeMs } = keys;
  const folder = join(directory, 'nats', server.name);
  const { cert, key } = await newCertificate(keys.natsAuthority, {
    name: server.name,
    nowMs,
    expiresMs: nowMs + days * DAY_MS,
    hosts: [...new Set([server.host, server.name, 'localhost', '127.0.0.1'])],
  });
  const config = natsConfig({
    server,
    all: servers,
    configDirectory: configDirectory ?? folder,
    storeDirectory: storeDirectory.replaceAll('{name}', server.name),
    trust: await natsTrust(keys.nats, COMPUTE_HOST, revokedBeforeMs),
  });
  const contents = {
    'nats.conf': config,
    'server.crt': cert,
    'server.key': key,
    'ca.crt': keys.natsAuthority.cert,
  };
  const files = Object.entries(contents).map(([name, text]) => ({ file: join(folder, name), text }));
  for (const { file, text } of files) await writeSecret(file, `${text.trimEnd()}\n`);
  return files.map(({ file }) => file);
}

async function readKeys(directory: string): Promise<OperatorKeys> {
  const file = keysPath(directory);
  try {
    const keys = JSON.parse(await readFile(file, 'utf8')) as OperatorKeys;
    if (keys.format === FORMAT) return keys;
  } catch (error) {
    throw new PalimpsestError(
      'not-found',
      `no keys of a cluster in ${directory}: ${error instanceof Error ? error.message : error}`,
      'name the folder that `palimpsest cluster init` made',
      error,
    );
  }
  throw new PalimpsestError('unsupported', `${file} has another format than this version writes`);
}

function keysPath(directory: string): string {
  return join(directory, 'operator', 'keys.json');
}

async function writeSecret(file: string, text: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true, mode: FOLDER_MODE });
  await replaceFile(file, text);
}

function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
