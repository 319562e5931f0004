/**
 * A pageserver that is killed at any step of flush, upload, merge, image and delete: the next life has the same content, and leaves
 * no object that nobody lists. And two pageservers of one timeline at once: the older one is harmless.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { findIndex } from '../../actors/pageserver/index-object.ts';
import { Life } from './crashing.ts';
import { objectFindings, TestNode, TIMELINE } from './node-world.ts';
import { RecordedWorlds } from './recorded-worlds.ts';
import type { Moment } from './reference.ts';
import type { ShardWorld } from './shard-world.ts';
import { recordSmallWorkload } from './small-workload.ts';

const DB = 5;
/** Kills over all steps of a life, one after the other: more of them with PALIMPSEST_LONG. */
const KILLS = process.env.PALIMPSEST_LONG ? 200 : 8;

let moments: Moment[];
const worlds = new RecordedWorlds();

beforeAll(async () => {
  moments = await recordSmallWorkload(worlds);
}, 120_000);

afterAll(() => worlds.destroy());

/** An image that was just made is uploaded before the index lists it: what is under way comes to rest by itself. */
async function expectNoOrphans(world: ShardWorld, where: string): Promise<void> {
  await expect.poll(() => objectFindings(world), { message: where, timeout: 10_000 }).toEqual([]);
}

test('killed at any step, it goes on with the same content and without objects that nobody lists', async () => {
  const walEnd = moments.at(-1)!.lsn;
  const counting = await worlds.add();
  const whole = await TestNode.start(counting, { folder: 'ps', walEnd });
  await whole.attach(1);
  await whole.settle();
  await expectNoOrphans(counting, 'a whole life');
  const { steps } = whole.life;
  await whole.close();
  expect(whole.deleted.length).toBeGreaterThan(3);
  expect(steps).toBeGreaterThan(50);

  for (let kill = 0; kill < KILLS; kill++) {
    const world = await worlds.add();
    const end = 1 + Math.floor(((kill + 0.5) * steps) / KILLS);
    const first = await TestNode.start(world, { folder: 'ps', walEnd, life: new Life(end, kill % 2 === 0) });
    await first
      .attach(1)
      .then(
        () => first.settle(),
        () => {},
      )
      .catch(() => {});
    const where = `killed at step ${end}: ${first.life.last}`;
    await first.close();
    const second = await TestNode.start(world, { folder: 'ps', walEnd });
    await second.attach(2);
    expect(await second.compare(moments.at(-1)!, DB), where).toEqual([]);
    await second.settle();
    expect(await second.compare(moments[0]!, DB), where).toEqual([]);
    await expectNoOrphans(world, where);
    await second.close();
    world.destroy();
  }
}, 120_000);

test('of two pageservers the older one deletes nothing, and nobody reads what it writes', async () => {
  const world = await worlds.add();
  const [early, , late] = moments.map(({ lsn }) => lsn) as [number, number, number];
  const older = await TestNode.start(world, { folder: 'older', walEnd: early });
  await older.attach(1);
  await older.settle();
  const deletedBefore = older.deleted.length;
  const newer = await TestNode.start(world, { folder: 'newer', walEnd: early });
  await newer.attach(2);
  older.release(late);
  newer.release(late);
  await newer.settle();
  while ((await older.status()).lastLsn < late) await world.tools.clock.sleep(5);
  const spec = world.spec(TIMELINE, { startLsn: world.template.startLsn });
  // The older one has written on: an index of its own, which counts only for its own generation.
  const own = await findIndex(world.objects, { ...spec, generation: 1 });
  const current = await findIndex(world.objects, { ...spec, generation: 2 });
  expect(current!.generation).toBe(2);
  expect(own === undefined || own.generation === 1).toBe(true);
  expect(older.deleted.length).toBe(deletedBefore);
  expect((await older.status()).remoteConsistentLsn).toBeLessThanOrEqual(early);
  const keys = new Set<string>();
  for await (const { key } of world.objects.list('tenants/')) keys.add(key);
  for (const { key } of current!.layers) expect(keys.has(key)).toBe(true);

  const third = await TestNode.start(world, { folder: 'third', walEnd: late });
  await third.attach(3);
  await third.settle();
  for (const moment of moments.slice(0, 3)) expect(await third.compare(moment, DB)).toEqual([]);
  for (const node of [older, newer, third]) await node.close();
}, 60_000);

test('with little room on its disk a node reads objects by ranges and keeps within its budget', async () => {
  const world = await worlds.add();
  const walEnd = moments.at(-1)!.lsn;
  const diskBytesMax = 300_000;
  const options = {
    folder: 'ps',
    walEnd,
    diskBytesMax,
    compaction: { mergeLayers: 3, targetBytes: 2 ** 21 },
  };
  const node = await TestNode.start(world, options);
  await node.attach(1);
  await node.settle();
  for (const moment of moments) expect(await node.compare(moment, DB)).toEqual([]);
  expect(node.store.local.evictions).toBeGreaterThan(0);
  expect(node.store.local.downloads + node.store.local.rangedReads).toBeGreaterThan(0);
  await world.tools.clock.sleep(20);
  expect(node.store.local.bytes).toBeLessThanOrEqual(diskBytesMax);
  await node.close();
}, 60_000);
