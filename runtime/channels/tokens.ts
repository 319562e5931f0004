/**
 * Who may open which channel: signing tokens, and judging them. What they are: protocols/tokens.ts.
 *
 * 1. A token is judged with public keys alone: no question to anybody, so that no outage keeps a channel from being opened.
 * 2. It is judged when its channel is opened, and not again: what is open stays open.
 * 3. A grant holds no right that its delegation does not hold.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import {
  ANY_TENANT,
  DELEGATION_BYTES,
  type Delegation,
  delegationToSign,
  type Grant,
  grantToSign,
  RIGHT_APPEND,
  RIGHT_GET_PAGE,
  RIGHT_READ_WAL,
  type readDelegation,
  readToken,
  sealDelegation,
  sealToken,
} from '../../protocols/tokens.ts';
import type { Clock } from '../ports/clock.ts';
import type { Signatures } from '../ports/signatures.ts';

/** What a channel is about. */
export interface TokenScope {
  tenant: string;
  timeline: string;
}

/** What a process that grants holds. */
export interface Delegate {
  /** Private key. */
  key: Uint8Array;
  delegation: Uint8Array;
}

/** Signs with the cluster's key that the holder of `delegation.key` may grant. */
export function delegate(signatures: Signatures, clusterKey: Uint8Array, delegation: Delegation): Uint8Array {
  const signed = delegationToSign(delegation);
  return sealDelegation(signed, signatures.sign(clusterKey, signed));
}

/** Signs tokens. */
export class TokenIssuer {
  readonly #signatures: Signatures;
  readonly #clock: Clock;
  readonly #delegate: Delegate;

  constructor(options: { signatures: Signatures; clock: Clock; delegate: Delegate }) {
    this.#signatures = options.signatures;
    this.#clock = options.clock;
    this.#delegate = options.delegate;
  }

  /** A token that lives for `lifeMs` from now. */
  issue({ lifeMs, ...grant }: Omit<Grant, 'issuedMs' | 'expiresMs'> & { lifeMs: number }): Uint8Array {
    const issuedMs = this.#clock.now();
    const signed = grantToSign({ ...grant, issuedMs, expiresMs: issuedMs + lifeMs });
    return sealToken(this.#delegate.delegation, signed, this.#signatures.sign(this.#delegate.key, signed));
  }
}

export interface TokenJudgeOptions {
  signatures: Signatures;
  clock: Clock;
  /** Hex id of this cluster. */
  cluster: string;
  /** Public keys whose delegations count. */
  trusted: Uint8Array[];
}

const KNOWN_DELEGATIONS_MAX = 256;

/** Judges tokens. */
export class TokenJudge {
  readonly #options: TokenJudgeOptions;
  /** Delegations whose signature was found right: there are few of them, and many tokens. */
  readonly #known = new Set<string>();

  constructor(options: TokenJudgeOptions) {
    this.#options = options;
  }

  /**
   * What a token grants, if it counts here and now, or ended at most `endedMsMax` ago. Throws `permission-denied` with what is
   * wrong and what to do about it.
   */
  judge(token: Uint8Array, { endedMsMax = 0 } = {}): Grant {
    const { delegation, grant } = readToken(token);
    const { signatures, clock, cluster } = this.#options;
    if (delegation.value.cluster !== cluster) {
      throw denied(
        `the token is of cluster ${delegation.value.cluster}, and this is cluster ${cluster}`,
        'give every node credentials that were made for this cluster',
      );
    }
    if (!this.#isTrusted(delegation, token.subarray(0, DELEGATION_BYTES))) {
      throw denied(
        'the token does not come from a key that this cluster trusts',
        'make new credentials for the node that signed it: palimpsest cluster issue',
      );
    }
    if (!signatures.verify(delegation.value.key, grant.signed, grant.signature)) {
      throw denied('the signature of the token is wrong', 'it is damaged or forged; a new one is needed');
    }
    const now = clock.now();
    if (delegation.value.expiresMs <= now) {
      throw denied(
        `the credentials that signed the token ended at ${new Date(delegation.value.expiresMs).toISOString()}`,
        'make new credentials for the control nodes and storage nodes: palimpsest cluster issue',
      );
    }
    if (grant.value.expiresMs + endedMsMax <= now) {
      throw denied(
        `the token of ${grant.value.bearer} ended at ${new Date(grant.value.expiresMs).toISOString()}`,
        'a running compute renews it as soon as a control node is reachable; look also whether the clocks of the machines agree',
      );
    }
    if ((grant.value.rights & ~delegation.value.rights) !== 0) {
      throw denied(
        'the token grants more than its signer may',
        'it is forged; look which node it comes from',
      );
    }
    return grant.value;
  }

  /** The same for a channel: the rights of `wanted` that the token gives, at least one. */
  admit(token: Uint8Array | undefined, scope: TokenScope, wanted: number): number {
    if (token === undefined) {
      throw denied(
        'channels of this cluster are opened with a token',
        'run every node of the cluster with --credentials',
      );
    }
    const grant = this.judge(token);
    const isForTenant = grant.tenant === scope.tenant || grant.tenant === ANY_TENANT;
    if (!isForTenant || grant.timeline !== scope.timeline) {
      throw denied(
        `the token of ${grant.bearer} is for timeline ${grant.timeline} of project ${grant.tenant}, not for ${scope.timeline} of ${scope.tenant}`,
        'a compute reaches its own timeline only',
      );
    }
    const rights = grant.rights & wanted;
    if (rights !== 0) return rights;
    throw denied(
      `the token of ${grant.bearer} gives the rights ${rightNames(grant.rights)}; ${rightNames(wanted)} is needed`,
      'a compute of a past moment may not write',
    );
  }

  #isTrusted({ signed, signature }: ReturnType<typeof readDelegation>, bytes: Uint8Array): boolean {
    const key = Buffer.from(bytes).toString('latin1');
    if (this.#known.has(key)) return true;
    const { signatures, trusted } = this.#options;
    if (!trusted.some((clusterKey) => signatures.verify(clusterKey, signed, signature))) return false;
    if (this.#known.size >= KNOWN_DELEGATIONS_MAX) this.#known.clear();
    this.#known.add(key);
    return true;
  }
}

function rightNames(rights: number): string {
  const names = [
    ...(rights & RIGHT_APPEND ? ['append'] : []),
    ...(rights & RIGHT_READ_WAL ? ['read WAL'] : []),
    ...(rights & RIGHT_GET_PAGE ? ['get pages'] : []),
  ];
  return names.join(', ') || 'none';
}

function denied(message: string, hint: string): PalimpsestError {
  return new PalimpsestError('permission-denied', message, hint);
}
