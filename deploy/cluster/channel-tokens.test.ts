import { afterEach, describe, expect, it } from 'vitest';
import type { ComputeSpec } from '../../actors/compute/spec.ts';
import { ALL_RIGHTS, RIGHT_GET_PAGE } from '../../protocols/tokens.ts';
import { ed25519, newSigningKey, publicHalf } from '../../runtime/adapters/ed25519.ts';
import { MemoryBus } from '../../runtime/bus/memory-bus.ts';
import { TokenKeeper } from '../../runtime/channels/token-keeper.ts';
import { delegate, TokenIssuer, TokenJudge } from '../../runtime/channels/tokens.ts';
import { ManualClock } from '../../test/support/manual-clock.ts';
import { ChannelTokens } from './channel-tokens.ts';

const CLUSTER = 'a1'.repeat(16);
const LIFE_MS = 4_000;
const SPEC = { tenant: 'p', timeline: 't' } as ComputeSpec;
const LOG = { debug() {}, info() {}, warn() {}, error() {}, child: () => LOG };

const keepers: TokenKeeper[] = [];
afterEach(() => {
  for (const keeper of keepers.splice(0)) keeper.close();
});

function world() {
  const clock = new ManualClock();
  const bus = new MemoryBus({ clock });
  const clusterKey = newSigningKey();
  const key = newSigningKey();
  const delegation = delegate(ed25519, clusterKey, {
    cluster: CLUSTER,
    key: publicHalf(key),
    rights: ALL_RIGHTS,
    expiresMs: clock.now() + 1e9,
  });
  const issuer = new TokenIssuer({ signatures: ed25519, clock, delegate: { key, delegation } });
  const trusted = [publicHalf(clusterKey)];
  const judge = new TokenJudge({ signatures: ed25519, clock, cluster: CLUSTER, trusted });
  const tokens = new ChannelTokens({ issuer, judge, lifeMs: LIFE_MS });
  const timelines = new Map([['t', 'p']]);
  const serve = () =>
    tokens.serve(bus, (timeline) => {
      const tenant = timelines.get(timeline);
      if (tenant === undefined) throw new Error('no such timeline');
      return tenant;
    });
  const keep = (spec: ComputeSpec = SPEC) => {
    const keeper = new TokenKeeper(tokens.issue(spec, 'a'), { bus, clock, log: LOG });
    keepers.push(keeper);
    return keeper;
  };
  const admit = (keeper: TokenKeeper) => judge.admit(keeper.admission.token, SPEC, ALL_RIGHTS);
  return { clock, serve, keep, admit, timelines };
}

describe('the token of a compute', () => {
  it('opens channels for as long as control is there', async () => {
    const { clock, serve, keep, admit } = world();
    serve();
    const keeper = keep();
    for (let i = 0; i < 10; i++) {
      await clock.advance(LIFE_MS);
      expect(admit(keeper)).toBe(ALL_RIGHTS);
    }
  });

  it('opens them for three quarters of its life without control, and again when control is back', async () => {
    const { clock, serve, keep, admit } = world();
    const keeper = keep();
    await clock.advance(LIFE_MS - 1);
    expect(admit(keeper)).toBe(ALL_RIGHTS);
    await clock.advance(LIFE_MS);
    expect(() => admit(keeper)).toThrow(/ended at/);
    serve();
    await clock.advance(LIFE_MS / 4);
    expect(admit(keeper)).toBe(ALL_RIGHTS);
  });

  it('is not renewed when its timeline is gone', async () => {
    const { clock, serve, keep, admit, timelines } = world();
    serve();
    const keeper = keep();
    timelines.delete('t');
    await clock.advance(2 * LIFE_MS);
    expect(() => admit(keeper)).toThrow(/ended at/);
  });

  it('of a past moment reads only, also when it was renewed', async () => {
    const { clock, serve, keep, admit } = world();
    serve();
    const keeper = keep({ ...SPEC, fixedLsn: 1 });
    await clock.advance(2 * LIFE_MS);
    expect(admit(keeper)).toBe(RIGHT_GET_PAGE);
  });
});
