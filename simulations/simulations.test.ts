/** The simulator itself: a run is a function of its seed, known bugs are found, and seeds that once failed pass. */
import { describe, expect, it } from 'vitest';
import { takeTurns } from '../runtime/adapters/event-loop-turns.ts';
import { findCanarySeed } from './runs/canary-table.ts';
import { runTwice } from './runs/determinism.ts';
import { runSeed } from './runs/run-seed.ts';
import { shrink } from './runs/shrink.ts';
import { findScenario, SCENARIOS } from './scenarios/catalog.ts';

const kitchenSink = findScenario('consensus-kitchen-sink')!;

describe('scenarios', () => {
  for (const scenario of SCENARIOS) {
    it(`${scenario.name}: keeps every invariant, and is the same in two runs`, async () => {
      const { result, difference } = await runTwice({ scenario, seed: 2, takeTurns, effort: 0.15 });
      expect(difference).toBeUndefined();
      expect(result.violation).toBeUndefined();
      expect(result.events).toBeGreaterThan(100);
    }, 60_000);
  }

  it('differ from seed to seed', async () => {
    const hashes = new Set<string>();
    for (const seed of [1, 2, 3]) {
      hashes.add((await runSeed({ scenario: kitchenSink, seed, takeTurns, effort: 0.05 })).hash);
    }
    expect(hashes.size).toBe(3);
  });
});

describe('seeds that once failed', () => {
  const seeds: [string, number, number[] | undefined][] = [
    ['a safekeeper that restarts on a full disk comes back when there is space', 11, undefined],
    ['a journal entry whose sync failed leaves no gap', 106, undefined],
    [
      'recovery from a peer keeps the history of an elected proposer',
      139,
      [0, 1, 5, 6, 7, 13, 14, 15, 17, 21],
    ],
  ];
  for (const [behaviour, seed, only] of seeds) {
    it(behaviour, async () => {
      const { violation } = await runSeed({ scenario: kitchenSink, seed, only, takeTurns });
      expect(violation).toBeUndefined();
    }, 60_000);
  }
});

describe('known bugs', () => {
  // Those that take many events are looked for by `palimpsest sim --canaries`.
  const quick = [
    'ack-before-fsync',
    'vote-not-durable',
    'quorum-of-one',
    'ack-what-was-sent',
    'term-of-stranger',
  ];
  for (const canary of quick) {
    it(`${canary} is found`, async () => {
      const row = await findCanarySeed({
        scenario: kitchenSink,
        canary,
        firstSeed: 1,
        seedsMax: 20,
        takeTurns,
      });
      expect(row.seedsToFind).toBeDefined();
    }, 60_000);
  }

  it('shrink to the few faults that they need', async () => {
    const run = { scenario: kitchenSink, seed: 6, canary: 'term-of-stranger', takeTurns };
    const failed = await runSeed(run);
    expect(failed.violation).toBeDefined();
    const { result } = await shrink({ run, failed, runsMax: 50 });
    expect(result.violation?.invariant).toBe(failed.violation?.invariant);
    expect(result.faults.length).toBeLessThanOrEqual(3);
  }, 60_000);
});
