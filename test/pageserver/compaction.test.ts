/**
 * Compaction, images and removal of layers under a shard that is fed, read, crashed and wiped: whatever happened in between, at
 * every moment every page is what a plain replay gives.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Shard } from '../../actors/pageserver/shard.ts';
import { compareWithMoment } from './check.ts';
import { RecordedWorlds } from './recorded-worlds.ts';
import type { Reference } from './reference.ts';
import { readWalFiles, type ShardWorld, type ShardWorldOptions } from './shard-world.ts';
import { runSmallWorkload } from './small-workload.ts';

const MAIN = '1'.repeat(32);
/** Small numbers, so that much happens in little WAL. */
const COMPACTION = { mergeLayers: 4, targetBytes: 128 * 1024, imagePages: 300 };

let reference: Reference;
const worlds = new RecordedWorlds();

async function makeWorld(options: ShardWorldOptions = {}): Promise<{ world: ShardWorld; main: Shard }> {
  const world = await worlds.add({
    layerBytesMax: 150_000,
    pageCacheBytes: 2 ** 20,
    compaction: COMPACTION,
    ...options,
  });
  return { world, main: await world.open(mainSpec(world)) };
}

function mainSpec(world: ShardWorld) {
  return world.spec(MAIN, { startLsn: world.template.startLsn });
}

async function compare(world: ShardWorld, shard: Shard, moments = reference.moments): Promise<void> {
  for (const moment of moments) {
    if (moment.lsn > shard.lastLsn) continue;
    expect(await compareWithMoment(shard, world.tools, moment)).toEqual([]);
  }
}

const kinds = (shard: Shard) => {
  const counts: Record<string, number> = {};
  for (const { kind, level } of shard.layerDescriptors()) {
    const name = `${kind} ${level}`;
    counts[name] = (counts[name] ?? 0) + 1;
  }
  return counts;
};

beforeAll(async () => {
  await worlds.record({ track_commit_timestamp: 'on' }, runSmallWorkload, 9_000);
  reference = worlds.reference;
}, 180_000);

afterAll(() => worlds.destroy());

describe('a shard with compaction', () => {
  test('merges what was flushed into few layers by key, adds images, and serves the same at every moment', async () => {
    const { world, main } = await makeWorld();
    await world.feed(main, reference.endLsn);
    await main.flush();
    await main.layers.compacted();
    await main.uploaded();
    const counts = kinds(main);
    expect(counts['delta 0'] ?? 0).toBeLessThan(4);
    expect(counts['delta 1']).toBeGreaterThan(3);
    expect(counts['state 1']).toBeGreaterThan(1);
    await compare(world, main);
    await main.close();
    await world.wipe();
    const again = await world.open(mainSpec(world));
    expect(again.lastLsn).toBe(reference.endLsn);
    await compare(world, again);
    await again.close();
  });

  for (const seed of process.env.PALIMPSEST_LONG ? [1, 2, 3, 4, 5, 6, 7, 8] : [1]) {
    test(`whatever happens to it, every page at every moment is right (${seed})`, async () => {
      const { world, main } = await makeWorld({ diskBytesMax: 400_000 });
      const spec = mainSpec(world);
      let random = seed * 7919;
      const next = (bound: number) => {
        random = (Math.imul(random, 1103515245) + 12345) & 0x7fffffff;
        return Math.floor((random / 0x80000000) * bound);
      };
      let shard = main;
      // WAL comes in pieces that end anywhere; after a crash it comes again from the last record on.
      let received = shard.lastLsn;
      const feed = async () => {
        for (let pieces = next(20); pieces > 0 && received < reference.endLsn; pieces--) {
          const bytes = readWalFiles(worlds.wal, received, Math.min(60_000, reference.endLsn - received));
          await shard.takeWal(received, bytes);
          received += bytes.length;
        }
      };
      const done: string[] = [];
      const steps: [string, () => Promise<unknown>][] = [
        ['feed', feed],
        ['feed', feed],
        ['flush', () => shard.flush()],
        ['compact', () => shard.layers.compacted()],
        ['images', () => shard.createImages(spec.startLsn + 1 + next(shard.lastLsn - spec.startLsn))],
        ['upload', () => shard.uploaded()],
        [
          'crash',
          async () => {
            await world.crash(shard);
            shard = await world.reopen(spec);
            received = shard.lastLsn;
          },
        ],
        [
          'wipe',
          async () => {
            await shard.uploaded();
            await world.crash(shard);
            await world.wipe();
            shard = await world.open(spec);
            received = shard.lastLsn;
            world.events.length = 0;
            world.events.push({ type: 'attach.completed', layers: shard.layerDescriptors(), replaces: true });
          },
        ],
      ];
      for (let step = 0; step < 25 || shard.lastLsn < reference.endLsn; step++) {
        const [name, run] = steps[next(steps.length)]!;
        if (name === 'images' && shard.lastLsn === spec.startLsn) continue;
        done.push(name);
        await run();
        if (step % 5 !== 0) continue;
        const moment = reference.moments[next(reference.moments.length)]!;
        if (moment.lsn > shard.lastLsn) continue;
        const only = (key: string) => /\/5\/\d{5,}\//.test(key);
        expect(await compareWithMoment(shard, world.tools, moment, only), done.join(' ')).toEqual([]);
      }
      await compare(world, shard, reference.moments.slice(-2));
      await shard.close();
    }, 60_000);
  }
});
