/** What the simulator has found: seeds that once failed pass, and known bugs are found again. */
import { describe, expect, it } from 'vitest';
import { takeTurns } from '../runtime/adapters/event-loop-turns.ts';
import { findCanarySeed } from './runs/canary-table.ts';
import { type RunOptions, runSeed } from './runs/run-seed.ts';
import { shrink } from './runs/shrink.ts';
import { findScenario } from './scenarios/catalog.ts';
import { RARE_SITES } from './world/rare-sites.ts';

const kitchenSink = findScenario('consensus-kitchen-sink')!;

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
    });
  }

  /** Of the whole system, and of scenarios of their own. */
  const ofOthers: [string, string, Pick<RunOptions, 'seed' | 'only' | 'simple'>][] = [
    [
      'a pageserver that just got a timeline does not delete what its own index still lists',
      'zombie-pageserver',
      { seed: 238211952, only: [1, 7], simple: ['all'] },
    ],
    [
      'a branch can be read after a crash of everything, when nobody writes to its ancestor any more',
      'branches',
      {
        seed: 40823990,
        only: [1, 2],
        simple: ['computes', 'network.latencyMs', 'workload.thinkMs', 'workload.pieceBytes'],
      },
    ],
    [
      'a branch that is being made while its project moves is served where the project is',
      'kitchen-sink',
      { seed: 2000416, only: [0, 1] },
    ],
    [
      'another branch that is being made while its project moves is served where the project is',
      'kitchen-sink',
      { seed: 4160, only: [0, 1] },
    ],
    [
      'a branch that is being made while its project moves there and back is served where the project is',
      'kitchen-sink',
      { seed: 5000720 },
    ],
    [
      'a branch that comes back from the archive after its project moved and control was started anew is served',
      'kitchen-sink',
      { seed: 514 },
    ],
    [
      'a safekeeper without its disk that cannot join again yet is tried again soon',
      'kitchen-sink',
      { seed: 986 },
    ],
    [
      'a project that was just moving shard by shard when control ended is in one place afterwards',
      'kitchen-sink',
      { seed: 354 },
    ],
    ['a branch is restored although the answer of its compute was lost', 'kitchen-sink', { seed: 1988 }],
    [
      'what is still to be deleted of a split that was given up harms no split that was asked for since',
      'kitchen-sink',
      { seed: 4281 },
    ],
    [
      'shards that take over while they store something store it again at once, and the split is over soon',
      'kitchen-sink',
      { seed: 6894 },
    ],
    [
      'a compute that is idle before its late start is known is suspended all the same',
      'kitchen-sink',
      { seed: 11597 },
    ],
    [
      'a cancelled split that is asked for again at the very end is waited for before anything is said to be left of it',
      'shard-split',
      { seed: 24 },
    ],
    [
      'a deletion of a stored tail that is carried out late harms no tail that was stored since',
      'kitchen-sink',
      { seed: 1453 },
    ],
    [
      'a timeline that is placed while the pageserver loses its disk is attached afterwards',
      'kitchen-sink',
      { seed: 3936 },
    ],
    ['shards that take over while the pages move are attached', 'shard-split', { seed: 225 }],
    [
      'a safekeeper that crashes while it joins again is soon asked again',
      'kitchen-sink',
      { seed: 5000157, only: [1, 11] },
    ],
    [
      'a member that was never made and one that lost its disk do not wait for each other',
      'kitchen-sink',
      { seed: 7000206 },
    ],
    [
      'a change of safekeepers gets over a replica that one of the new ones has of an earlier time',
      'kitchen-sink',
      { seed: 7000869 },
    ],
    [
      'a branch of the head begins after all that a compute acknowledged, also one that is cut off since',
      'branches',
      { seed: 71042, only: [0, 1, 3, 6, 7], simple: ['computes', 'workload.pieceBytes'] },
    ],
    [
      'a replica that was made while its timeline was archived is found lost when its disk is',
      'kitchen-sink',
      { seed: 1161, simple: RARE_SITES.map(({ name }) => `rare.${name}`) },
    ],
    [
      'new shards that moved before those of a branch were made, and old ones that had come further, are no harm',
      'shard-split',
      { seed: 10 },
    ],
    [
      'a member that voted for a rival in the same term is brought up to date all the same',
      'lost-disk',
      { seed: 6 },
    ],
  ];
  for (const [behaviour, name, run] of ofOthers) {
    it(behaviour, async () => {
      const { violation } = await runSeed({ scenario: findScenario(name)!, ...run, takeTurns });
      expect(violation).toBeUndefined();
    });
  }

  it('a timeline is created also where the first answer comes too late', async () => {
    // Mostly in its simplest form: what it needs is a very slow network.
    const simple = [
      'safekeepers',
      'computes',
      'workload.clients',
      'workload.thinkMs',
      'clockDrift',
      'syncMs',
    ];
    const run = { scenario: kitchenSink, seed: 401_777, only: [], simple, takeTurns };
    const { violation, story } = await runSeed(run);
    expect(violation).toBeUndefined();
    expect(story.some(({ text }) => text.includes('did not create'))).toBe(true);
  });

  it('records far longer than the pieces of a walsender leave in few pieces, when many of them wait', async () => {
    const scenario = findScenario('lagging-safekeeper')!;
    const run = { scenario, seed: 2_266_424_626, effort: 0.05, takeTurns };
    const { violation, marks, events } = await runSeed(run);
    expect(violation).toBeUndefined();
    expect(events / marks['client: commit acknowledged']!).toBeLessThan(200);
  });
});

describe('known bugs', () => {
  // Those that take many events are looked for by `palimpsest sim --canaries`.
  const quick = [
    'ack-before-fsync',
    'vote-not-durable',
    'quorum-of-one',
    'ack-what-was-sent',
    'term-of-stranger',
    'greets-without-end',
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
    });
  }

  it('tail-stored-too-early is found', async () => {
    const scenario = findScenario('trimmed-wal')!;
    const row = await findCanarySeed({
      scenario,
      canary: 'tail-stored-too-early',
      firstSeed: 1,
      seedsMax: 5,
      takeTurns,
    });
    expect(row.seedsToFind).toBeDefined();
  });

  // Of the whole system, one of each kind, with the first of a few short runs.
  const ofTheWhole: [string, number, string][] = [
    ['quorum-of-one', 34, 'an acknowledged commit is on a quorum of disks'],
    ['upload-called-done', 34, 'what an index lists is there'],
    ['stale-page-cache', 34, 'a page at an LSN equals the model'],
    ['gc-ignores-branches', 21, 'what is leased is readable'],
    ['end-of-another', 2, 'the next compute begins where the last one stopped'],
    ['stop-told-too-far', 1, 'what stopped cleanly is committed'],
  ];
  for (const [canary, firstSeed, invariant] of ofTheWhole) {
    it(`${canary} is found in the whole system`, async () => {
      const scenario = findScenario('kitchen-sink')!;
      const row = await findCanarySeed({ scenario, canary, firstSeed, seedsMax: 3, takeTurns });
      expect(row.invariant).toBe(invariant);
    });
  }

  const ofShards: [string, number, string][] = [
    ['split-by-other-stripes', 2, 'a page at an LSN equals the model'],
    ['fastest-shard-counts', 7, 'WAL is kept for the slowest shard'],
  ];
  for (const [canary, firstSeed, invariant] of ofShards) {
    it(`${canary} is found`, async () => {
      const scenario = findScenario('shard-split')!;
      const row = await findCanarySeed({ scenario, canary, firstSeed, seedsMax: 3, takeTurns });
      expect(row.invariant).toBe(invariant);
    });
  }

  // Each with the first seed that finds it.
  const ofMembership: [string, number][] = [
    ['joint-counted-over-union', 8],
    ['old-configuration-goes-on', 4],
  ];
  for (const [canary, firstSeed] of ofMembership) {
    it(`${canary} is found`, async () => {
      const scenario = findScenario('replaced-safekeeper')!;
      const row = await findCanarySeed({ scenario, canary, firstSeed, seedsMax: 1, takeTurns });
      expect(row.invariant).toBe('an acknowledged commit is on a quorum of disks');
    });
  }

  it('shrink to the few decisions that they need', async () => {
    const run = { scenario: kitchenSink, seed: 17, canary: 'term-of-stranger', takeTurns };
    const failed = await runSeed(run);
    expect(failed.violation).toBeDefined();
    const { result, only, simple, after } = await shrink({ run, failed, runsMax: 50 });
    expect(result.violation?.invariant).toBe(failed.violation?.invariant);
    expect(after).toBeLessThanOrEqual(4);
    // What it says repeats the failure.
    const repeated = await runSeed({ ...run, only, simple });
    expect(repeated.hash).toBe(result.hash);
  });
});
