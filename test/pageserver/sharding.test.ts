/**
 * Shards of one timeline over the WAL of a stock Postgres: together they answer every page at every moment as one shard does, each with its
 * own pages only; a compute finds its way to them; and a shard that is split gives to its parts what it had.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { TimelinePages } from '../../actors/compute/timeline-pages.ts';
import { copyAncestor } from '../../actors/pageserver/copy-ancestor.ts';
import { newestIndex } from '../../actors/pageserver/index-object.ts';
import { PageService } from '../../actors/pageserver/page-service.ts';
import type { Shard } from '../../actors/pageserver/shard.ts';
import { splitLayers } from '../../actors/pageserver/split-layers.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { LATEST_LSN, type Lsn, PAGE_BYTES } from '../../protocols/lsn.ts';
import { crc32c } from '../../protocols/postgres/crc32c.ts';
import { ONE_SHARD, type ShardTag, shardId, shardsOf } from '../../protocols/shard-layout.ts';
import { MemoryChannelNetwork } from '../../runtime/adapters/memory-channel.ts';
import { compareWithMoment } from './check.ts';
import { RecordedWorlds } from './recorded-worlds.ts';
import type { Reference } from './reference.ts';
import type { ShardWorld } from './shard-world.ts';
import { runSmallWorkload } from './small-workload.ts';

const MAIN = '1'.repeat(32);
/** Small, so that relations of some megabytes have many. */
const STRIPE = 16;
const layout = (count: number) => ({ count, stripeBlocks: STRIPE });
const COMPACTION = { mergeLayers: 3, targetBytes: 2 ** 19, imagePages: 64 };

const worlds = new RecordedWorlds();
let reference: Reference;

beforeAll(async () => {
  await worlds.record({}, runSmallWorkload, 8_000);
  reference = worlds.reference;
}, 180_000);

afterAll(() => worlds.destroy());

function specOf(world: ShardWorld, shard: ShardTag | undefined) {
  return { ...world.spec(MAIN, { startLsn: world.template.startLsn }), ...(shard ? { shard } : {}) };
}

async function expectAll(world: ShardWorld, shards: readonly Shard[], from = 0): Promise<void> {
  for (const moment of reference.moments) {
    if (moment.lsn < from) continue;
    for (const shard of shards) expect(await compareWithMoment(shard, world.tools, moment)).toEqual([]);
  }
}

describe.each([2, 4])('%i shards over the same WAL', (count) => {
  test('have every page at every moment, from memory, files, merges and images, each its own only', async () => {
    const world = await worlds.add({ layerBytesMax: 2 ** 18, compaction: COMPACTION });
    const shards: Shard[] = [];
    for (const tag of shardsOf(layout(count))) shards.push(await world.open(specOf(world, tag)));
    for (const shard of shards) await world.feed(shard, reference.endLsn);
    await expectAll(world, shards);
    for (const shard of shards) {
      await shard.flush();
      await shard.layers.compacted();
      await shard.createImages(reference.moments[2]!.lsn);
      await shard.uploaded();
      expect(shard.releasedLsn).toBe(reference.endLsn);
    }
    await expectAll(world, shards);
    const whole = await world.open(specOf(world, undefined));
    await world.feed(whole, reference.endLsn);
    await whole.flush();
    const bytesOf = (shard: Shard) =>
      shard.layerDescriptors().reduce((sum, { kind, bytes }) => sum + (kind === 'state' ? 0 : bytes), 0);
    for (const shard of shards) {
      expect(bytesOf(shard)).toBeGreaterThan(0);
      expect(shard.lastLsn).toBe(reference.endLsn);
    }
    await world.wipe();
    const again: Shard[] = [];
    for (const tag of shardsOf(layout(count))) again.push(await world.open(specOf(world, tag)));
    for (const shard of again) expect(shard.lastLsn).toBe(reference.endLsn);
    await expectAll(world, again);
    for (const shard of [...shards, ...again, whole]) await shard.close();
  });

  test('of a branch read what is before it from the same shard of the parent, and can be made independent of it', async () => {
    const world = await worlds.add({ layerBytesMax: 2 ** 18 });
    const moment = reference.moments.at(-3)!;
    for (const tag of shardsOf(layout(count))) {
      const main = await world.open(specOf(world, tag));
      await world.feed(main, reference.endLsn);
      const ancestor = { timeline: MAIN, lsn: moment.lsn };
      const spec = { ...world.spec('b', { startLsn: moment.lsn, ancestor }), shard: tag! };
      const branch = await world.open(spec, main);
      await world.feed(branch, reference.endLsn);
      await expectAll(world, [branch], moment.lsn);
      const template = await copyAncestor(branch, world.tools);
      const { ancestor: _, ...alone } = { ...spec, template };
      const independent = await world.open(alone);
      await world.feed(independent, reference.endLsn);
      await expectAll(world, [independent], moment.lsn);
      for (const shard of [main, branch, independent]) await shard.close();
    }
  });

  test('are found by a compute, also when it begins with another layout', async () => {
    const world = await worlds.add({});
    const shards: Shard[] = [];
    for (const tag of shardsOf(layout(count))) shards.push(await world.open(specOf(world, tag)));
    for (const shard of shards) await world.feed(shard, reference.endLsn);
    const network = new MemoryChannelNetwork();
    const served = new Set([MAIN]);
    for (const shard of shards) {
      const id = shardId(MAIN, shard.spec.shard);
      served.add(id);
      await network.listen(`mem:${id}`, (channel) => {
        new PageService(channel, { shard, tools: world.tools, waitTimeoutMs: 200 });
      });
    }
    for (const start of [layout(count), ONE_SHARD, layout(8)]) {
      const pages = new TimelinePages({
        clock: world.tools.clock,
        timeline: MAIN,
        layout: start,
        timeoutMs: 2000,
        find: async (id) => {
          if (!served.has(id)) throw new PalimpsestError('unavailable', `${id} is not served`);
          return `mem:${id === MAIN ? shardId(MAIN, shards[0]!.spec.shard) : id}`;
        },
        open: (address) => network.dial(address, { timeoutMs: 1000 }),
      });
      await expectPages(pages);
      expect(pages.layout).toEqual(layout(count));
      pages.close();
    }
    for (const shard of shards) await shard.close();
  });
});

/** All pages of the newest moment: in ranges that go over the ends of stripes, and as lists over many relations. */
async function expectPages(pages: TimelinePages): Promise<void> {
  const point = { lsn: LATEST_LSN, notModifiedSince: 0 as Lsn };
  const moment = reference.moments.at(-1)!;
  const list: { tag: { spc: number; db: number; rel: number; fork: number; block: number }; sum: number }[] =
    [];
  for (const [key, sums] of moment.relations) {
    const [spc, db, rel, fork] = key.split('/').map(Number) as [number, number, number, number];
    for (let firstBlock = 0; firstBlock < sums.length; firstBlock += 100) {
      const count = Math.min(100, sums.length - firstBlock);
      const into = new Uint8Array(count * PAGE_BYTES);
      const found = await pages.getPages({ ...point, spc, db, rel, fork, firstBlock, count }, into);
      expect(found).toBe(into);
      for (let i = 0; i < count; i++) {
        expect(crc32c(found, i * PAGE_BYTES, (i + 1) * PAGE_BYTES)).toBe(sums[firstBlock + i]);
      }
      list.push({ tag: { spc, db, rel, fork, block: firstBlock }, sum: sums[firstBlock]! });
    }
  }
  for (let at = 0; at < list.length; at += 200) {
    const part = list.slice(at, at + 200);
    const found = await pages.getPageList({ ...point, pages: part.map(({ tag }) => tag) });
    part.forEach(({ sum }, i) => {
      expect(crc32c(found, i * PAGE_BYTES, (i + 1) * PAGE_BYTES)).toBe(sum);
    });
  }
  const databases = await Promise.all(
    [...moment.databases].map((db) => pages.getDirectory({ ...point, db })),
  );
  for (const relations of databases) expect(relations.length).toBeGreaterThan(100);
}

test('WAL is kept for a shard that is made beside another one until it takes over', async () => {
  const world = await worlds.add({});
  const spec = specOf(world, shardsOf(layout(2))[1]);
  const shard = await world.open({ ...spec, isComing: true });
  await world.feed(shard, reference.endLsn);
  await shard.flush();
  await shard.uploaded();
  expect(shard).toMatchObject({ remoteConsistentLsn: reference.endLsn, releasedLsn: 0 });
  shard.adopt({ ...spec, isComing: true });
  expect(shard.releasedLsn).toBe(0);
  shard.adopt(spec);
  expect(shard.releasedLsn).toBe(reference.endLsn);
  await shard.close();
});

test('what was refused for an older generation is stored at once when the shard gets the new one', async () => {
  const world = await worlds.add({});
  const spec = { ...specOf(world, shardsOf(layout(2))[1]), generation: 1 };
  const shard = await world.open(spec);
  await world.feed(shard, reference.endLsn);
  world.generation = 2;
  await shard.flush();
  await shard.uploaded();
  expect(shard.remoteConsistentLsn).toBeLessThan(reference.endLsn);
  shard.adopt({ ...spec, generation: 2 });
  await shard.uploaded();
  expect(shard.remoteConsistentLsn).toBe(reference.endLsn);
  await shard.close();
});

test('a shard refuses the pages of another', async () => {
  const world = await worlds.add({});
  const [tag] = shardsOf(layout(2));
  const shard = await world.open(specOf(world, tag));
  await world.feed(shard, reference.endLsn);
  const network = new MemoryChannelNetwork();
  await network.listen('mem:one', (channel) => {
    new PageService(channel, { shard, tools: world.tools, waitTimeoutMs: 200 });
  });
  const pages = new TimelinePages({
    clock: world.tools.clock,
    timeline: MAIN,
    timeoutMs: 300,
    find: async (id) => {
      if (id === shardId(MAIN, { ...layout(2), number: 1 })) throw new PalimpsestError('unavailable', 'gone');
      return 'mem:one';
    },
    open: (address) => network.dial(address, { timeoutMs: 1000 }),
  });
  const large = [...reference.moments.at(-1)!.relations].find(([, sums]) => sums.length > 8 * STRIPE)!;
  const [spc, db, rel, fork] = large[0].split('/').map(Number) as [number, number, number, number];
  const ask = {
    lsn: LATEST_LSN,
    notModifiedSince: 0 as Lsn,
    spc,
    db,
    rel,
    fork,
    firstBlock: 0,
    count: 8 * STRIPE,
  };
  // One of the two is nowhere: an error, and never what was there before there were two.
  await expect(pages.getPages(ask)).rejects.toMatchObject({ code: 'unavailable' });
  pages.close();
  await shard.close();
});

test.each([
  [1, 2],
  [2, 8],
])('%i shards split into %i go on with all of their history', async (before, after) => {
  const world = await worlds.add({ layerBytesMax: 2 ** 18, compaction: COMPACTION });
  const half = reference.moments[Math.floor(reference.moments.length / 2)]!;
  for (const tag of shardsOf(layout(before))) {
    const shard = await world.open(specOf(world, tag));
    await world.feed(shard, half.lsn);
    await shard.flush();
    await shard.layers.compacted();
    await shard.uploaded();
    // Some of it is in level 0, some merged, some in images.
    await world.feed(shard, reference.moments.at(-3)!.lsn);
    await shard.flush();
    await shard.uploaded();
    await shard.close();
  }
  // On a machine of its own.
  await world.wipe();
  const parts: Shard[] = [];
  for (const tag of shardsOf(layout(after))) {
    const from = before === 1 ? undefined : { ...layout(before), number: tag!.number % before };
    const spec = specOf(world, tag);
    const report = await splitLayers({ spec, from, tools: world.tools });
    expect(report.layers).toBeGreaterThan(1);
    expect(await splitLayers({ spec, from, tools: world.tools })).toEqual(report);
    // An attempt that was given up went on while what it had made was deleted.
    const made = await newestIndex(world.tools.objects, spec);
    await world.tools.objects.delete(made!.layers[0]!.key);
    const stop = new AbortController();
    stop.abort();
    const givenUp = splitLayers({ spec, from, tools: world.tools, signal: stop.signal });
    await expect(givenUp).rejects.toMatchObject({ code: 'unavailable' });
    expect(await world.tools.objects.head(made!.layers[0]!.key)).toBeUndefined();
    expect(await splitLayers({ spec, from, tools: world.tools })).toEqual(report);
    const part = await world.open(spec);
    expect(part.lastLsn).toBe(reference.moments.at(-3)!.lsn);
    parts.push(part);
  }
  for (const part of parts) await world.feed(part, reference.endLsn);
  await expectAll(world, parts);
  for (const part of parts) {
    await part.flush();
    await part.layers.compacted();
    await part.uploaded();
  }
  await expectAll(world, parts);
  for (const part of parts) await part.close();
});
