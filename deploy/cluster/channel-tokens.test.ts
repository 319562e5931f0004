import { afterEach, describe, expect, it } from 'vitest';
import type { ComputeSpec } from '../../actors/compute/spec.ts';
import { ALL_RIGHTS, RIGHT_GET_PAGE } from '../../protocols/tokens.ts';
import { MemoryBus } from '../../runtime/bus/memory-bus.ts';
import { TokenKeeper } from '../../runtime/channels/token-keeper.ts';
import { ManualClock } from '../../test/support/manual-clock.ts';
import { testTokens } from '../../test/support/test-tokens.ts';
import { ChannelTokens } from './channel-tokens.ts';

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
  const { issuer, judge } = testTokens(clock);
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
