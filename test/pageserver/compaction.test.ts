/**
 * Compaction, images and removal of layers under a shard that is fed, read, crashed and wiped: whatever happened in between, at
 * every moment every page is what a plain replay gives.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Shard } from '../../actors/pageserver/shard.ts';
import { type OracleRun, recordRun } from '../redo/cluster.ts';

import { compareWithMoment } from './check.ts';
import { type Reference, replayReference } from './reference.ts';
import { ShardWorld, type ShardWorldOptions } from './shard-world.ts';
import { runSmallWorkload } from './small-workload.ts';

const MAIN = '1'.repeat(32);
/** Small numbers, so that much happens in little WAL. */
const COMPACTION = { mergeLayers: 4, targetBytes: 128 * 1024, imagePages: 300 };

let recorded: OracleRun;
let reference: Reference;
const worlds: ShardWorld[] = [];

async function makeWorld(options: ShardWorldOptions = {}): Promise<{ world: ShardWorld; main: Shard }> {
  const world = new ShardWorld(recorded.wal, {
    layerBytesMax: 150_000,
    pageCacheBytes: 2 ** 20,
    compaction: COMPACTION,
    ...options,
  });
  worlds.push(world);
  await world.importFrom(worlds[0]!);
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
  recorded = await recordRun({ full_page_writes: 'off', track_commit_timestamp: 'on' }, runSmallWorkload);
  const world = new ShardWorld(recorded.wal);
  worlds.push(world);
  await world.import(recorded.base);
  reference = replayReference(recorded.base, recorded.wal, world.template.startLsn, 9_000);
}, 180_000);

afterAll(() => {
  for (const world of worlds) world.destroy();
  recorded?.destroy();
});

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
});
