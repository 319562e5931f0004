import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ALL_RIGHTS, RIGHT_APPEND, RIGHT_GET_PAGE, RIGHT_READ_WAL } from '../../protocols/tokens.ts';
import { ManualClock } from '../../test/support/manual-clock.ts';
import { type TestTokensOptions, testTokens } from '../../test/support/test-tokens.ts';

const LIFE_MS = 60_000;
const SCOPE = { tenant: 'project', timeline: 'f0'.repeat(16) };

/** Who signs in a cluster with these rights, and who judges. */
function world(options: TestTokensOptions = {}) {
  const clock = new ManualClock();
  const { rights = ALL_RIGHTS } = options;
  const { issuer, judge } = testTokens(clock, { delegationLifeMs: 3_600_000, ...options });
  const issue = (changes: { rights?: number; tenant?: string; timeline?: string } = {}) =>
    issuer.issue({ ...SCOPE, bearer: 'compute on a', rights, lifeMs: LIFE_MS, ...changes });
  return { clock, issuer, judge, issue };
}

/** The code of what is thrown; undefined when nothing is. */
function refusal(work: () => unknown): string | undefined {
  try {
    work();
    return undefined;
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
}

describe('a token', () => {
  it('lets its bearer in with the rights that it gives and that mean something there', () => {
    const { judge, issue } = world();
    expect(judge.admit(issue(), SCOPE, RIGHT_APPEND | RIGHT_READ_WAL)).toBe(RIGHT_APPEND | RIGHT_READ_WAL);
    expect(judge.admit(issue({ rights: RIGHT_READ_WAL }), SCOPE, RIGHT_APPEND | RIGHT_READ_WAL)).toBe(
      RIGHT_READ_WAL,
    );
  });

  it('is refused when any byte of it was changed, or it was cut or made longer', () => {
    const { judge, issue } = world();
    const token = issue();
    fc.assert(
      fc.property(fc.nat(token.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
        const changed = new Uint8Array(token);
        changed[at]! ^= flip;
        expect(refusal(() => judge.admit(changed, SCOPE, ALL_RIGHTS))).toBe('permission-denied');
      }),
      { numRuns: 500 },
    );
    for (let length = 0; length < token.length; length++) {
      const cut = token.subarray(0, length);
      expect(refusal(() => judge.admit(cut, SCOPE, ALL_RIGHTS))).toBe('permission-denied');
    }
    expect(() => judge.admit(Buffer.concat([token, Buffer.alloc(1)]), SCOPE, ALL_RIGHTS)).toThrow();
    expect(judge.admit(token, SCOPE, ALL_RIGHTS)).toBe(ALL_RIGHTS);
  });

  it('ends at its time, to the millisecond', async () => {
    const { clock, judge, issue } = world();
    const token = issue();
    await clock.advance(LIFE_MS - 1);
    expect(judge.admit(token, SCOPE, ALL_RIGHTS)).toBe(ALL_RIGHTS);
    await clock.advance(1);
    expect(() => judge.admit(token, SCOPE, ALL_RIGHTS)).toThrow(/the token of compute on a ended at/);
  });

  it('ends with the credentials of its signer', async () => {
    const { clock, judge, issue } = world({ delegationLifeMs: 1_000 });
    const token = issue();
    await clock.advance(1_000);
    expect(() => judge.admit(token, SCOPE, ALL_RIGHTS)).toThrow(/credentials that signed the token ended/);
  });

  it('is for one timeline of one project', () => {
    const { judge, issue } = world();
    const elsewhere = { ...SCOPE, timeline: '0f'.repeat(16) };
    expect(() => judge.admit(issue(), elsewhere, ALL_RIGHTS)).toThrow(/is for timeline f0f0/);
    expect(() => judge.admit(issue(), { ...SCOPE, tenant: 'other' }, ALL_RIGHTS)).toThrow(
      /of project project/,
    );
    expect(judge.admit(issue({ tenant: '*' }), SCOPE, ALL_RIGHTS)).toBe(ALL_RIGHTS);
  });

  it('does not open what its rights are not for', () => {
    const { judge, issue } = world();
    const token = issue({ rights: RIGHT_GET_PAGE });
    expect(() => judge.admit(token, SCOPE, RIGHT_APPEND | RIGHT_READ_WAL)).toThrow(
      /gives the rights get pages; append, read WAL is needed/,
    );
  });

  it('cannot give what its signer may not', () => {
    const { judge, issue } = world({ rights: RIGHT_READ_WAL });
    expect(() => judge.admit(issue({ rights: ALL_RIGHTS }), SCOPE, ALL_RIGHTS)).toThrow(/grants more/);
  });

  it('of another cluster is refused, also when it claims to be of this one', () => {
    const { judge } = world();
    const foreign = world({ cluster: 'b2'.repeat(16) });
    expect(() => judge.admit(foreign.issue(), SCOPE, ALL_RIGHTS)).toThrow(
      /of cluster b2b2.*this is cluster a1a1/,
    );
    const pretending = world();
    expect(() => judge.admit(pretending.issue(), SCOPE, ALL_RIGHTS)).toThrow(/key that this cluster trusts/);
  });

  it('is needed', () => {
    expect(() => world().judge.admit(undefined, SCOPE, ALL_RIGHTS)).toThrow(/opened with a token/);
  });
});
