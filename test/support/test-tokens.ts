/** The keys of a cluster for tests of tokens: who signs in it, and who judges. */
import { ALL_RIGHTS } from '../../protocols/tokens.ts';
import { ed25519, newSigningKey, publicHalf } from '../../runtime/adapters/ed25519.ts';
import { delegate, TokenIssuer, TokenJudge } from '../../runtime/channels/tokens.ts';
import type { Clock } from '../../runtime/ports/clock.ts';

/** The cluster of the judge. */
export const TEST_CLUSTER = 'a1'.repeat(16);

export interface TestTokensOptions {
  /** Of the signer; the judge's own by default. */
  cluster?: string;
  /** That the signer may grant. */
  rights?: number;
  delegationLifeMs?: number;
}

export function testTokens(
  clock: Clock,
  { cluster = TEST_CLUSTER, rights = ALL_RIGHTS, delegationLifeMs = 1e9 }: TestTokensOptions = {},
): { issuer: TokenIssuer; judge: TokenJudge } {
  const clusterKey = newSigningKey();
  const key = newSigningKey();
  const expiresMs = clock.now() + delegationLifeMs;
  const delegation = delegate(ed25519, clusterKey, { cluster, key: publicHalf(key), rights, expiresMs });
  const issuer = new TokenIssuer({ signatures: ed25519, clock, delegate: { key, delegation } });
  // The second key counts as well as the first.
  const trusted = [publicHalf(newSigningKey()), publicHalf(clusterKey)];
  const judge = new TokenJudge({ signatures: ed25519, clock, cluster: TEST_CLUSTER, trusted });
  return { issuer, judge };
}
