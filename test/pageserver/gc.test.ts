/**
 * Garbage collection of a shard over real WAL: while it is fed, cutoffs move and points come and go; every kept moment stays what a
 * plain replay gives, also for a branch, after the loss of all local files, and with only what is left in objects.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Shard } from '../../actors/pageserver/shard.ts';
import { basebackupAt } from '../../actors/pageserver/shard-queries.ts';
import { compareWithMoment } from './check.ts';
import { RecordedWorlds } from './recorded-worlds.ts';
import type { Moment, Reference } from './reference.ts';
import type { ShardWorld } from './shard-world.ts';
import { runSmallWorkload } from './small-workload.ts';

const MAIN = '1'.repeat(32);
/** Small numbers, so that much happens in little WAL. */
const COMPACTION = { mergeLayers: 3, targetBytes: 128 * 1024, imagePages: 300, gcGainBytesMin: 50_000 };

let reference: Reference;
const worlds = new RecordedWorlds();

async function makeWorld(): Promise<{ world: ShardWorld; main: Shard }> {
  const world = await worlds.add({
    layerBytesMax: 150_000,
    pageCacheBytes: 2 ** 20,
    compaction: COMPACTION,
  });
  return { world, main: await world.open(world.spec(MAIN, { startLsn: world.template.startLsn })) };
}

const bytesOf = (shard: Shard) => shard.layerDescriptors().reduce((total, { bytes }) => total + bytes, 0);

async function compare(world: ShardWorld, shard: Shard, moments: Moment[]): Promise<void> {
  for (const moment of moments) {
    expect(shard.collector.isReadable(moment.lsn)).toBe(true);
    expect(await compareWithMoment(shard, world.tools, moment)).toEqual([]);
  }
}

async function feedAll(world: ShardWorld, shard: Shard, end: number): Promise<void> {
  await world.feed(shard, end);
  await shard.flush();
  await shard.layers.compacted();
}

beforeAll(async () => {
  await worlds.record({ track_commit_timestamp: 'on' }, runSmallWorkload, 9_000);
  reference = worlds.reference;
}, 180_000);

afterAll(() => worlds.destroy());

describe('garbage collection of a shard', () => {
  test('keeps what is after the cutoff and the points of branches and readers; the rest goes, from objects too', async () => {
    const { world, main } = await makeWorld();
    // Every few moments are enough to look at.
    const every = Math.ceil(reference.moments.length / 7);
    const moments = reference.moments.filter((_, i) => i % every === 0).concat(reference.moments.at(-1)!);
    expect(moments.length).toBeGreaterThan(5);
    let retained: Moment[] = [];
    let removed = 0;
    for (let i = 1; i < moments.length; i++) {
      await feedAll(world, main, moments[i]!.lsn);
      const cutoff = moments[Math.max(0, i - 1)]!;
      if (i % 3 === 2) retained = [...retained.slice(-1), moments[i - 2]!];
      const report = await main.collector.collect({
        cutoffLsn: cutoff.lsn,
        retained: retained.map(({ lsn }) => lsn),
      });
      removed += report.removedLayers;
      // The exact state of everything that is kept needs no WAL from before the floor.
      world.walBeginLsn = report.walFloorLsn;
      await compare(world, main, [...retained, cutoff]);
      await expect(basebackupAt(main, world.tools, cutoff.lsn).then(({ lsn }) => lsn)).resolves.toBe(
        cutoff.lsn,
      );
    }
    expect(removed).toBeGreaterThan(5);
    await main.uploaded();
    const listed = new Set(main.layerDescriptors().map(({ key }) => key));
    for await (const { key } of world.objects.list('tenants/')) {
      if (key.endsWith('.layer')) expect(listed.has(key)).toBe(true);
    }
    await main.close();
    await world.wipe();
    const spec = { ...main.spec, retained: retained.map(({ lsn }) => lsn) };
    const again = await world.open(spec);
    expect(again.layers.gcCutoff).toBe(moments.at(-2)!.lsn);
    await compare(world, again, [...retained, ...moments.slice(-2)]);
    expect(() => again.readLsn(moments.at(-2)!.lsn - 8)).toThrow(/history window, which begins at/);
    await again.close();
  });

  test('keeps a branch whole whose ancestor lets go everything but its point', async () => {
    const { world, main } = await makeWorld();
    const middle = reference.moments[Math.floor(reference.moments.length / 2)]!;
    const last = reference.moments.at(-1)!;
    await feedAll(world, main, reference.endLsn);
    const ancestor = { timeline: main.spec.timeline, lsn: middle.lsn };
    const branch = await world.open(world.spec('b', { startLsn: middle.lsn, ancestor }), main);
    const before = bytesOf(main);
    await main.collector.collect({ cutoffLsn: last.lsn, retained: [middle.lsn] });
    await compare(world, branch, [middle]);
    await feedAll(world, branch, reference.endLsn);
    await compare(world, branch, [middle, last]);
    // The branch keeps nothing of its own past; all the more of it comes from the point in the ancestor.
    await branch.collector.collect({ cutoffLsn: last.lsn, retained: [] });
    await compare(world, branch, [last]);
    await branch.close();
    await main.collector.collect({ cutoffLsn: last.lsn, retained: [] });
    expect(bytesOf(main)).toBeLessThan(before);
    await compare(world, main, [last]);
    await main.close();
  });

  test('what compaction makes after a restart is right, also when the end of level 1 is not kept any more', async () => {
    const { world, main } = await makeWorld();
    let shard = main;
    let behind = 0;
    for (const moment of reference.moments) {
      await feedAll(world, shard, moment.lsn);
      const { walFloorLsn } = await shard.collector.collect({ cutoffLsn: moment.lsn, retained: [] });
      world.walBeginLsn = walFloorLsn;
      const oldest = shard.history.files.levelZero.at(-1);
      if (oldest && oldest.startLsn < moment.lsn) behind++;
      await shard.uploaded();
      await shard.close();
      await world.restart();
      shard = await world.open(shard.spec);
      await shard.layers.compacted();
      await compare(world, shard, [moment]);
    }
    expect(behind).toBeGreaterThan(1);
    await shard.close();
  });

  test('an old point keeps nothing of what comes after it: neither layers, nor small state, nor WAL', async () => {
    const { world, main } = await makeWorld();
    const { moments } = reference;
    const kept = moments.slice(2, 4);
    const from = Math.floor(moments.length / 2);
    const floors: number[] = [];
    for (const cutoff of [moments[from]!, moments.at(-4)!, moments.at(-2)!]) {
      await feedAll(world, main, moments[moments.indexOf(cutoff) + 1]!.lsn);
      const retained = kept.map(({ lsn }) => lsn);
      const report = await main.collector.collect({ cutoffLsn: cutoff.lsn, retained });
      world.walBeginLsn = report.walFloorLsn;
      floors.push(report.walFloorLsn);
    }
    // Layers that the cutoff lies in hold up the WAL, as they do without such points.
    expect(floors.at(-1)).toBeGreaterThan(moments[from]!.lsn);
    const cutoffLsn = moments.at(-2)!.lsn;
    const ended = main.layerDescriptors().filter(({ endLsn }) => endLsn <= cutoffLsn);
    expect(ended.filter(({ kind }) => kind === 'state')).toHaveLength(1);
    expect(ended.filter(({ kind, level }) => kind === 'delta' && level === 0).length).toBeLessThan(2);
    await compare(world, main, [...kept, ...moments.slice(-2)]);
    await main.uploaded();
    await main.close();
    await world.wipe();
    const again = await world.open({ ...main.spec, retained: kept.map(({ lsn }) => lsn) });
    const ancestor = { timeline: main.spec.timeline, lsn: kept[0]!.lsn };
    const branch = await world.open(world.spec('b', { startLsn: kept[0]!.lsn, ancestor }), again);
    await compare(world, again, [...kept, ...moments.slice(-2)]);
    await compare(world, branch, [kept[0]!]);
    // A moment before the branch begins is one of the ancestor that is not kept.
    await expect(branch.foldAtTime(1)).rejects.toThrow(/history window/);
    await branch.close();
    await again.close();
  });

  test('a crash at any step of it leaves every kept moment as it was', async () => {
    const { world, main } = await makeWorld();
    const { moments } = reference;
    const [kept, cutoff, last] = [moments[1]!, moments.at(-3)!, moments.at(-1)!];
    await feedAll(world, main, reference.endLsn);
    await main.uploaded();
    let shard = main;
    const points = { cutoffLsn: cutoff.lsn, retained: [kept.lsn] };
    for (const steps of [0, 1, 2, 4, 8]) {
      // The life ends when so many events of the collection are durable; what comes after counts for nothing.
      world.eventsMax = world.events.length + steps;
      await shard.collector.collect(points).catch(() => {});
      await shard.uploaded();
      world.eventsMax = Number.POSITIVE_INFINITY;
      await world.crash(shard);
      shard = await world.reopen({ ...main.spec, retained: [kept.lsn] });
      await compare(world, shard, [kept, cutoff]);
    }
    await shard.collector.collect(points);
    await shard.uploaded();
    await compare(world, shard, [kept, cutoff, last]);
    await shard.close();
  });
});
