/**
 * What a process of a secured cluster has by its credentials: a login to NATS, an identity for channels, tokens to show and the means
 * to judge those of others. Without credentials there is none of it.
 */

import { ANY_TENANT, RIGHT_READ_WAL } from '../../protocols/tokens.ts';
import {
  type ChannelIdentity,
  type ClusterCredentials,
  readCredentials,
  type TokenKeys,
} from '../../runtime/adapters/credentials.ts';
import { ed25519 } from '../../runtime/adapters/ed25519.ts';
import type { Admission } from '../../runtime/channels/door.ts';
import { TokenIssuer, TokenJudge } from '../../runtime/channels/tokens.ts';
import type { Clock } from '../../runtime/ports/clock.ts';

/** A node's own tokens are made anew for each channel. */
const OWN_TOKEN_LIFE_MS = 300_000;

export class ClusterAccess {
  readonly credentials: ClusterCredentials;
  readonly #clock: Clock;

  constructor(credentials: ClusterCredentials, clock: Clock) {
    this.credentials = credentials;
    this.#clock = clock;
  }

  /** Reads a file of credentials; undefined without one. Throws what is wrong with it. */
  static read(file: string | undefined, clock: Clock): ClusterAccess | undefined {
    return file === undefined ? undefined : new ClusterAccess(readCredentials(file), clock);
  }

  get identity(): ChannelIdentity | undefined {
    return this.credentials.channel;
  }

  /** Judges the tokens of those who open channels here. */
  judge(): TokenJudge {
    const { cluster, tokens } = this.credentials;
    const trusted = (tokens?.trusted ?? []).map((key) => Buffer.from(key, 'hex'));
    return new TokenJudge({ signatures: ed25519, clock: this.#clock, cluster, trusted });
  }

  /** Signs tokens; undefined for a process that may not. */
  issuer(): TokenIssuer | undefined {
    const delegate = this.credentials.tokens?.delegate;
    return (
      delegate && new TokenIssuer({ signatures: ed25519, clock: this.#clock, delegate: keysOf(delegate) })
    );
  }

  /** How a storage node is let in by the others, to read the WAL of a timeline. */
  walReader(): (timeline: string) => Admission {
    const issuer = this.issuer();
    const bearer = this.credentials.name;
    return (timeline) => ({
      clock: this.#clock,
      token:
        issuer?.issue({
          tenant: ANY_TENANT,
          timeline,
          bearer,
          rights: RIGHT_READ_WAL,
          lifeMs: OWN_TOKEN_LIFE_MS,
        }) ?? new Uint8Array(0),
    });
  }
}

function keysOf({ key, delegation }: NonNullable<TokenKeys['delegate']>) {
  return { key: Buffer.from(key, 'hex'), delegation: Buffer.from(delegation, 'hex') };
}
