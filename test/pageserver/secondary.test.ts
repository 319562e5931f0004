/** The warm secondary: it has the layers that another pageserver's index lists, and serves without fetching any when it takes over. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { findIndex } from '../../actors/pageserver/index-object.ts';
import { timelinePrefix } from '../../protocols/object-keys.ts';
import { TestNode, TIMELINE } from './node-world.ts';
import { RecordedWorlds } from './recorded-worlds.ts';
import type { Moment } from './reference.ts';
import type { ShardWorld } from './shard-world.ts';
import { recordSmallWorkload } from './small-workload.ts';

const DB = 5;
const LIMIT = { timeout: 20_000 };

let moments: Moment[];
const worlds = new RecordedWorlds();

beforeAll(async () => {
  moments = await recordSmallWorkload(worlds);
}, 120_000);

afterAll(() => worlds.destroy());

const specOf = (world: ShardWorld) => world.spec(TIMELINE, { startLsn: world.template.startLsn });

function filesOf(world: ShardWorld, folder: string): string[] {
  const path = join(world.folder, folder, 'layers', timelinePrefix(specOf(world)));
  try {
    return readdirSync(path)
      .filter((name) => !name.endsWith('.tmp'))
      .sort();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

async function listedOf(world: ShardWorld): Promise<string[]> {
  const index = await findIndex(world.objects, { ...specOf(world), generation: 99 });
  return index!.layers.map(({ key }) => key.slice(key.lastIndexOf('/') + 1)).sort();
}

test('has what the newest index lists and nothing else, and takes over without fetching a layer', async () => {
  const world = await worlds.add();
  const [early, late] = [moments[0]!.lsn, moments.at(-1)!.lsn];
  const primary = await TestNode.start(world, { folder: 'primary', walEnd: early });
  await primary.attach(1);
  await primary.settle();
  const secondary = await TestNode.start(world, { folder: 'secondary', walEnd: late });
  await secondary.keepReady(true);
  await expect.poll(() => secondary.secondary(), LIMIT).toEqual({ timelines: 1, ready: 1, missingLayers: 0 });
  const first = filesOf(world, 'secondary');
  expect(first.length).toBeGreaterThan(1);

  primary.release(late);
  await primary.settle();
  await primary.close();
  const second = await listedOf(world);
  expect(second).not.toEqual(first);
  expect(filesOf(world, 'secondary')).toEqual(first);
  secondary.indexWritten();
  await expect.poll(() => filesOf(world, 'secondary'), LIMIT).toEqual(second);
  await expect.poll(() => secondary.secondary(), LIMIT).toEqual({ timelines: 1, ready: 1, missingLayers: 0 });
  const { downloads } = secondary.store.local;
  expect(downloads).toBeGreaterThanOrEqual(second.length);
  await secondary.attach(2);
  expect(await secondary.secondary()).toMatchObject({ timelines: 0 });
  for (const moment of moments) expect(await secondary.compare(moment, DB)).toEqual([]);
  expect(secondary.store.local.downloads).toBe(downloads);
  expect(secondary.store.local.rangedReads).toBe(0);
  // Who places pages may not know yet that it serves: it keeps its files.
  await secondary.keepReady(true);
  await secondary.keepReady(false);
  for (const moment of moments) expect(await secondary.compare(moment, DB)).toEqual([]);
  await secondary.close();
}, 60_000);

test('may be asked to take over at any moment while it fetches', async () => {
  for (const pauseMs of [0, 3, 15]) {
    const world = await worlds.add();
    const late = moments.at(-1)!.lsn;
    const primary = await TestNode.start(world, { folder: 'primary', walEnd: late });
    await primary.attach(1);
    await primary.settle();
    const secondary = await TestNode.start(world, { folder: 'secondary', walEnd: late });
    await secondary.keepReady(true);
    await world.tools.clock.sleep(pauseMs);
    await secondary.attach(2);
    for (const moment of moments) expect(await secondary.compare(moment, DB)).toEqual([]);
    await secondary.settle();
    await primary.close();
    await secondary.close();
    world.destroy();
  }
}, 60_000);

test('forgets what it is not named for any more, and what an earlier life has left', async () => {
  const world = await worlds.add();
  const [early, late] = [moments[0]!.lsn, moments.at(-1)!.lsn];
  const primary = await TestNode.start(world, { folder: 'primary', walEnd: early });
  await primary.attach(1);
  await primary.settle();
  const before = await TestNode.start(world, { folder: 'secondary', walEnd: late });
  await before.keepReady(true);
  await expect.poll(() => before.secondary(), LIMIT).toMatchObject({ ready: 1 });
  await before.close();
  primary.release(late);
  await primary.settle();
  await primary.close();

  const after = await TestNode.start(world, { folder: 'secondary', walEnd: late });
  await after.keepReady(true);
  await expect.poll(() => after.secondary(), LIMIT).toMatchObject({ ready: 1 });
  expect(filesOf(world, 'secondary')).toEqual(await listedOf(world));
  await after.keepReady(false);
  await expect.poll(() => filesOf(world, 'secondary'), LIMIT).toEqual([]);
  expect(await after.secondary()).toEqual({ timelines: 0, ready: 0, missingLayers: 0 });
  await after.close();
}, 60_000);

test('keeps to its share of the disk, the newest layers first', async () => {
  const world = await worlds.add();
  const primary = await TestNode.start(world, { folder: 'primary', walEnd: moments.at(-1)!.lsn });
  await primary.attach(1);
  await primary.settle();
  const diskBytesMax = 200_000;
  const secondary = await TestNode.start(world, { folder: 'secondary', walEnd: 0, diskBytesMax });
  await secondary.keepReady(true);
  await expect.poll(async () => (await secondary.secondary()).missingLayers, LIMIT).toBeGreaterThan(0);
  await world.tools.clock.sleep(300);
  const { local } = secondary.store;
  expect(local.bytes).toBeGreaterThan(0);
  expect(local.bytes).toBeLessThanOrEqual(0.75 * diskBytesMax);
  expect(local.evictions).toBe(0);
  expect((await secondary.secondary()).ready).toBe(0);
  await primary.close();
  await secondary.close();
}, 60_000);
