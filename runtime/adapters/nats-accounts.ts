/**
 * Accounts and users of NATS as signed statements (JWT): the servers know only the operator's public key, and believe whatever
 * follows from it. So users are made without the servers, and compute hosts get users of their own. Only this file knows
 * the library.
 *
 *   operator -> account PALIMPSEST -> users of nodes and of the command line
 *                                  -> a signing key whose users may only ever be one compute host
 *            -> account SYS, which answers what the servers' settings are
 */
import {
  createAccount,
  createOperator,
  createUser,
  encodeAccount,
  encodeOperator,
  encodeUser,
  fromSeed,
  type KeyPair,
  newScopedSigner,
} from '@nats-io/jwt';
import { inboxOf, type NatsLogin } from './credentials.ts';

const SETTINGS = '$SYS.REQ.SERVER.PING.VARZ';
/** Longest time that a command may take and still be answered. */
const ANSWER_TTL_NS = 3_700_000_000_000;
const UNLIMITED = -1;

/** Subjects that a user may publish to and subscribe; answers to what it was asked, and its own inbox, come with it. */
export interface NatsPermissions {
  publish: string[];
  subscribe: string[];
}

/** Seeds of the keys: secrets. */
export interface NatsKeys {
  operator: string;
  account: string;
  systemAccount: string;
  hostSigner: string;
}

/** What the servers are configured with; no secrets. */
export interface NatsTrust {
  operatorJwt: string;
  systemAccount: string;
  accounts: { id: string; jwt: string }[];
}

export function newNatsKeys(): NatsKeys {
  return {
    operator: seedOf(createOperator()),
    account: seedOf(createAccount()),
    systemAccount: seedOf(createAccount()),
    hostSigner: seedOf(createAccount()),
  };
}

/**
 * `hosts` is what every compute host may do; `{{name()}}` in it stands for its id. Users that were made before
 * `revokedBeforeMs` (milliseconds since 1970) are refused.
 */
export async function natsTrust(
  keys: NatsKeys,
  hosts: NatsPermissions,
  revokedBeforeMs: number | undefined,
): Promise<NatsTrust> {
  const operator = pairOf(keys.operator);
  const account = pairOf(keys.account);
  const system = pairOf(keys.systemAccount);
  const none = { subs: UNLIMITED, data: UNLIMITED, payload: UNLIMITED, conn: UNLIMITED, leaf: 0 };
  const limits = { ...none, imports: UNLIMITED, exports: UNLIMITED, wildcards: true, disallow_bearer: true };
  const operatorJwt = await encodeOperator('palimpsest', operator, {
    system_account: system.getPublicKey(),
  });
  const systemJwt = await encodeAccount(
    'SYS',
    system,
    {
      limits,
      exports: [{ name: 'settings', subject: SETTINGS, type: 'service', response_type: 'Stream' }],
    },
    { signer: operator },
  );
  const accountJwt = await encodeAccount(
    'PALIMPSEST',
    account,
    {
      limits: {
        ...limits,
        mem_storage: UNLIMITED,
        disk_storage: UNLIMITED,
        streams: UNLIMITED,
        consumer: UNLIMITED,
        mem_max_stream_bytes: UNLIMITED,
        disk_max_stream_bytes: UNLIMITED,
        max_ack_pending: UNLIMITED,
      },
      imports: [{ name: 'settings', subject: SETTINGS, type: 'service', account: system.getPublicKey() }],
      signing_keys: [
        newScopedSigner(pairOf(keys.hostSigner), 'compute-host', userClaims(hosts, '{{subject()}}')),
      ],
      ...(revokedBeforeMs === undefined
        ? {}
        : // Whole seconds, that one included: those that are made now are of it.
          { revocations: { '*': Math.floor(revokedBeforeMs / 1000) - 1 } }),
    },
    { signer: operator },
  );
  return {
    operatorJwt,
    systemAccount: system.getPublicKey(),
    accounts: [
      { id: system.getPublicKey(), jwt: systemJwt },
      { id: account.getPublicKey(), jwt: accountJwt },
    ],
  };
}

/** Makes a user with these permissions, which ends at a moment (milliseconds since 1970). */
export async function newNatsUser(
  keys: NatsKeys,
  name: string,
  permissions: NatsPermissions,
  expiresMs: number,
): Promise<Omit<NatsLogin, 'ca'>> {
  const user = createUser();
  const claims = userClaims(permissions, user.getPublicKey());
  const jwt = await encodeUser(name, user, pairOf(keys.account), claims, {
    exp: Math.floor(expiresMs / 1000),
  });
  return { jwt, seed: seedOf(user), user: user.getPublicKey() };
}

/** Makes the user of one compute host; the servers give it what the signing key's template says, and nothing more. */
export async function newHostUser(
  signer: { seed: string; account: string },
  hostId: string,
): Promise<Omit<NatsLogin, 'ca'>> {
  const user = createUser();
  const claims = { issuer_account: signer.account };
  const jwt = await encodeUser(hostId, user, pairOf(signer.seed), claims, { scopedUser: true });
  return { jwt, seed: seedOf(user), user: user.getPublicKey() };
}

export function publicKeyOf(seed: string): string {
  return pairOf(seed).getPublicKey();
}

function userClaims({ publish, subscribe }: NatsPermissions, user: string) {
  return {
    pub: { allow: publish, deny: [] },
    sub: { allow: [...subscribe, `${inboxOf(user)}.>`], deny: [] },
    resp: { max: 1, ttl: ANSWER_TTL_NS },
    subs: UNLIMITED,
    data: UNLIMITED,
    payload: UNLIMITED,
  };
}

function pairOf(seed: string): KeyPair {
  return fromSeed(new TextEncoder().encode(seed));
}

function seedOf(pair: KeyPair): string {
  return new TextDecoder().decode(pair.getSeed());
}
