/** The simulator itself: a run is a function of its seed, known bugs are found, and seeds that once failed pass. */
import { describe, expect, it } from 'vitest';
import { takeTurns } from '../runtime/adapters/event-loop-turns.ts';
import { account } from './examples/account.ts';
import { pictureOf, renderPicture } from './picture/page.ts';
import { findCanarySeed } from './runs/canary-table.ts';
import { runTwice } from './runs/determinism.ts';
import { runSeed } from './runs/run-seed.ts';
import { shrink } from './runs/shrink.ts';
import { findScenario, SCENARIOS } from './scenarios/catalog.ts';
import { RARE_SITES } from './world/rare-sites.ts';
import { RunRecorder } from './world/recorder.ts';

/** Seeds that may be needed until every mark of a scenario is reached. */
const MARKS_SEEDS_MAX = 16;
/** Where the usual seeds would take long to reach a mark: a link that is blocked until its keepalive is over, a compute that is deposed. */
const FIXED_SEEDS: Record<string, { first: number; effort: number }> = {
  'lagging-safekeeper': { first: 4, effort: 1 },
  'replaced-safekeeper': { first: 1, effort: 1 },
  'nats-leader-change': { first: 1, effort: 1 },
  'client-transactions': { first: 6, effort: 0.3 },
  'rolling-upgrade': { first: 3, effort: 0.5 },
  'restore-during-upload': { first: 23, effort: 0.3 },
  'shard-split': { first: 24, effort: 0.6 },
  'kitchen-sink': { first: 449, effort: 1 },
};

const kitchenSink = findScenario('consensus-kitchen-sink')!;

describe('scenarios', () => {
  for (const scenario of SCENARIOS) {
    it(`${scenario.name}: keeps every invariant, is the same in two runs, and reaches all its marks`, async () => {
      const { first, effort } = FIXED_SEEDS[scenario.name] ?? { first: 1, effort: 0.3 };
      const missing = new Set(scenario.marks);
      for (let seed = first; seed < first + MARKS_SEEDS_MAX && (missing.size > 0 || seed === first); seed++) {
        const run = { scenario, seed, takeTurns, effort };
        const { result, difference } =
          seed === first ? await runTwice(run) : { result: await runSeed(run), difference: undefined };
        expect(difference).toBeUndefined();
        expect(result.violation).toBeUndefined();
        expect(result.events).toBeGreaterThan(100);
        for (const mark of Object.keys(result.marks)) missing.delete(mark);
      }
      // A mark that no seed reaches: the scenario does not test what it says.
      expect([...missing]).toEqual([]);
    }, 120_000);
  }

  it('force what is rare, but allowed, where the seed has drawn it, and tell so', async () => {
    const happened: string[] = [];
    for (const seed of [42, 52]) {
      const run = { scenario: findScenario('kitchen-sink')!, seed, takeTurns };
      const { violation, marks, parameters } = await runSeed(run);
      expect(violation).toBeUndefined();
      const taken = Object.keys(marks).filter((mark) => mark.startsWith('rare: '));
      for (const mark of taken) expect(parameters[mark.replace(': ', '.')]).toBe(true);
      happened.push(...taken);
    }
    const expected = ['object-request-slow', 'snapshot-at-once', 'sync-slow', 'timer-late', 'wal-in-crumbs'];
    expect(happened.sort()).toEqual(expected.map((name) => `rare: ${name}`));
  }, 60_000);

  it('differ from seed to seed', async () => {
    const hashes = new Set<string>();
    for (const seed of [1, 2, 3]) {
      hashes.add((await runSeed({ scenario: kitchenSink, seed, takeTurns, effort: 0.05 })).hash);
    }
    expect(hashes.size).toBe(3);
  });
});

describe('a run that is recorded', () => {
  it('takes the same turns as one that is not', async () => {
    const run = { scenario: kitchenSink, seed: 4, takeTurns, effort: 0.1 };
    const recorder = new RunRecorder();
    expect((await runSeed({ ...run, recorder })).hash).toBe((await runSeed(run)).hash);
    expect(recorder.messages.length).toBeGreaterThan(100);
    expect(recorder.states.some(({ actor, state }) => actor === 'compute' && state === 'running')).toBe(true);
    expect(recorder.entries.some(({ text }) => text.includes('term.adopted'))).toBe(true);
  });

  it('becomes one page that loads nothing and cannot be broken by what it shows', async () => {
    const recorder = new RunRecorder();
    const result = await runSeed({ scenario: kitchenSink, seed: 4, takeTurns, effort: 0.05, recorder });
    result.story.push({ timeUs: 0, actor: 'sk1', text: 'a text with </script> in it' });
    const html = '<title>{{title}}</title><style>/* css */</style><script>/* data */\n/* scripts */</script>';
    const page = renderPicture(
      { html, css: 'b { c: d }', scripts: ['export const a = 1;'] },
      pictureOf(result, recorder),
    );
    expect(page.match(/<\/script>/g)).toHaveLength(1);
    expect(page).not.toMatch(/https?:|export const/);
    const json = /globalThis\.DATA = (.*);\n/.exec(page)![1]!;
    const data = JSON.parse(json) as ReturnType<typeof pictureOf>;
    expect(data.machines).toEqual(expect.arrayContaining(['compute1', 'sk1', 'sk3']));
    expect(data.kinds).toContain('append request');
    for (const [from, to, kind, sentUs, endUs] of data.messages) {
      expect(data.machines[from] && data.machines[to] && data.kinds[kind]).toBeTruthy();
      expect(endUs).toBeGreaterThanOrEqual(sentUs);
    }
  });
});

describe('a fork', () => {
  const run = { scenario: kitchenSink, seed: 5, takeTurns, effort: 0.1, record: true };
  const take = (future: number) => runSeed({ ...run, fork: { event: 700, future } });

  it("is the seed's own run up to its event, and the same in two runs", async () => {
    const [own, one, again, other] = [await runSeed(run), await take(1), await take(1), await take(2)];
    expect(one.recorded!.hashes.slice(0, 700)).toEqual(own.recorded!.hashes.slice(0, 700));
    expect(again.hash).toBe(one.hash);
    expect(new Set([own.hash, one.hash, other.hash]).size).toBe(3);
    expect(one.violation).toBeUndefined();
  });
});

describe("a scenario of one's own", () => {
  it('holds, and finds its known bug', async () => {
    const { violation } = await runSeed({ scenario: account, seed: 1, takeTurns });
    expect(violation).toBeUndefined();
    const row = await findCanarySeed({
      scenario: account,
      canary: 'deposit-twice',
      firstSeed: 1,
      seedsMax: 10,
      takeTurns,
    });
    expect(row.invariant).toBe('the balance is what was deposited');
  });

  it('that fails by itself has not found a known bug, nor has one that nobody knows', async () => {
    const broken = { ...account, run: () => Promise.reject(new Error('no account')) };
    const options = { canary: 'deposit-twice', firstSeed: 1, seedsMax: 1, takeTurns };
    await expect(findCanarySeed({ ...options, scenario: broken })).rejects.toThrow('no account');
    const unknown = { ...options, scenario: findScenario('torn-tails')!, canary: 'no-such-bug' };
    await expect(findCanarySeed(unknown)).rejects.toThrow("no canary 'no-such-bug'");
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

  it('a pageserver that just got a timeline does not delete what its own index still lists', async () => {
    const scenario = findScenario('zombie-pageserver')!;
    const run = { scenario, seed: 238211952, only: [1, 7], simple: ['all'], takeTurns };
    expect((await runSeed(run)).violation).toBeUndefined();
  }, 60_000);

  it('a branch can be read after a crash of everything, when nobody writes to its ancestor any more', async () => {
    const scenario = findScenario('branches')!;
    const simple = ['computes', 'network.latencyMs', 'workload.thinkMs', 'workload.pieceBytes'];
    const { violation } = await runSeed({ scenario, seed: 40823990, only: [1, 2], simple, takeTurns });
    expect(violation).toBeUndefined();
  }, 60_000);

  it('a branch that is being made while its project moves is served where the project is', async () => {
    const scenario = findScenario('kitchen-sink')!;
    for (const run of [
      { seed: 2000416, only: [0, 1] },
      { seed: 4160, only: [0, 1] },
    ]) {
      const { violation } = await runSeed({ scenario, ...run, takeTurns });
      expect(violation, `seed ${run.seed}`).toBeUndefined();
    }
  }, 60_000);

  it('a branch that is being made while its project moves there and back is served where the project is', async () => {
    const scenario = findScenario('kitchen-sink')!;
    const { violation } = await runSeed({ scenario, seed: 5000720, takeTurns });
    expect(violation).toBeUndefined();
  }, 120_000);

  it('a safekeeper that crashes while it joins again is soon asked again', async () => {
    const scenario = findScenario('kitchen-sink')!;
    const { violation } = await runSeed({ scenario, seed: 5000157, only: [1, 11], takeTurns });
    expect(violation).toBeUndefined();
  }, 60_000);

  it('a member that was never made and one that lost its disk do not wait for each other', async () => {
    const scenario = findScenario('kitchen-sink')!;
    const { violation } = await runSeed({ scenario, seed: 7000206, takeTurns });
    expect(violation).toBeUndefined();
  }, 60_000);

  it('a change of safekeepers gets over a replica that one of the new ones has of an earlier time', async () => {
    const scenario = findScenario('kitchen-sink')!;
    const { violation } = await runSeed({ scenario, seed: 7000869, takeTurns });
    expect(violation).toBeUndefined();
  }, 60_000);

  it('a branch of the head begins after all that a compute acknowledged, also one that is cut off since', async () => {
    const scenario = findScenario('branches')!;
    const run = { scenario, seed: 71042, only: [0, 1, 3, 6, 7], takeTurns };
    const { violation } = await runSeed({ ...run, simple: ['computes', 'workload.pieceBytes'] });
    expect(violation).toBeUndefined();
  }, 60_000);

  it('a replica that was made while its timeline was archived is found lost when its disk is', async () => {
    const simple = RARE_SITES.map(({ name }) => `rare.${name}`);
    const run = { scenario: findScenario('kitchen-sink')!, seed: 1161, simple, takeTurns };
    const { violation } = await runSeed(run);
    expect(violation).toBeUndefined();
  }, 60_000);

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
  }, 60_000);

  it('records far longer than the pieces of a walsender leave in few pieces, when many of them wait', async () => {
    const scenario = findScenario('lagging-safekeeper')!;
    const run = { scenario, seed: 2_266_424_626, effort: 0.05, takeTurns };
    const { violation, marks, events } = await runSeed(run);
    expect(violation).toBeUndefined();
    expect(events / marks['client: commit acknowledged']!).toBeLessThan(200);
  }, 60_000);

  it('new shards that moved before those of a branch were made, and old ones that had come further, are no harm', async () => {
    const run = { scenario: findScenario('shard-split')!, seed: 10, takeTurns };
    expect((await runSeed(run)).violation).toBeUndefined();
  }, 60_000);

  it('a member that voted for a rival in the same term is brought up to date all the same', async () => {
    const scenario = findScenario('lost-disk')!;
    const { violation } = await runSeed({ scenario, seed: 6, takeTurns });
    expect(violation).toBeUndefined();
  }, 60_000);
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
    }, 60_000);
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
  }, 60_000);

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
    }, 60_000);
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
    }, 60_000);
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
    }, 60_000);
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
  }, 60_000);
});
