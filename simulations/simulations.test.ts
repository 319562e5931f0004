/** The simulator itself: a run is a function of its seed, every scenario holds and does what it says, and a user writes one too. */
import { describe, expect, it } from 'vitest';
import { takeTurns } from '../runtime/adapters/event-loop-turns.ts';
import { account } from './examples/account.ts';
import { pictureOf, renderPicture } from './picture/page.ts';
import { findCanarySeed } from './runs/canary-table.ts';
import { runTwice } from './runs/determinism.ts';
import { runSeed } from './runs/run-seed.ts';
import { findScenario, SCENARIOS } from './scenarios/catalog.ts';
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
  'shard-split': { first: 40, effort: 0.6 },
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
    });
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
  });

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
