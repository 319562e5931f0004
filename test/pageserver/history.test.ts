/**
 * A shard over the WAL of a stock Postgres: at every moment every page is what a plain replay gives, whether it comes from
 * memory, from layer files, from objects or through an ancestor.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Shard } from '../../actors/pageserver/shard.ts';
import { basebackupAt } from '../../actors/pageserver/shard-queries.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { runWorkload } from '../redo/workload.ts';
import { compareWithMoment } from './check.ts';
import { RecordedWorlds } from './recorded-worlds.ts';
import type { Reference } from './reference.ts';
import type { ShardWorld } from './shard-world.ts';

const MAIN = '1'.repeat(32);

let reference: Reference;
const worlds = new RecordedWorlds();

async function makeWorld(layerBytesMax: number): Promise<{ world: ShardWorld; main: Shard }> {
  const world = await worlds.add({ layerBytesMax, pageCacheBytes: 2 ** 21 });
  const main = await world.open(world.spec(MAIN, { startLsn: world.template.startLsn }));
  return { world, main };
}

beforeAll(async () => {
  await worlds.record({ track_commit_timestamp: 'on' }, runWorkload, 60_000);
  reference = worlds.reference;
}, 180_000);

afterAll(() => worlds.destroy());

describe('a shard fed with the WAL of a stock Postgres', () => {
  test('serves every page at every moment from memory', async () => {
    const { world, main } = await makeWorld(2 ** 30);
    await world.feed(main, reference.endLsn);
    expect(main.lastLsn).toBe(reference.endLsn);
    for (const moment of reference.moments) {
      expect(await compareWithMoment(main, world.tools, moment)).toEqual([]);
    }
    await main.close();
  });

  test('serves the same from layer files, after a restart, and after the loss of its local files', async () => {
    const { world, main } = await makeWorld(2 ** 20);
    await world.feed(main, reference.endLsn);
    await main.flush();
    expect(main.diskConsistentLsn).toBe(reference.endLsn);
    expect(main.history.files.size).toBeGreaterThan(5);
    for (const moment of reference.moments) {
      expect(await compareWithMoment(main, world.tools, moment)).toEqual([]);
    }
    await main.uploaded();
    expect(main.remoteConsistentLsn).toBe(reference.endLsn);
    await main.close();
    for (const lose of [() => world.restart(), () => world.wipe()]) {
      await lose();
      const again = await world.open(world.spec(MAIN, { startLsn: world.template.startLsn }));
      expect(again.lastLsn).toBe(reference.endLsn);
      for (const moment of reference.moments) {
        expect(await compareWithMoment(again, world.tools, moment)).toEqual([]);
      }
      await again.close();
    }
    expect(world.tools.store.local.downloads).toBeGreaterThan(5);
  });

  test('a branch at any moment sees the pages of that moment, three levels deep', async () => {
    const { world, main } = await makeWorld(2 ** 20);
    await world.feed(main, reference.endLsn);
    let parent = main;
    const branches: Shard[] = [];
    for (const moment of reference.moments.slice(-4, -1).reverse()) {
      const ancestor = { timeline: parent.spec.timeline, lsn: moment.lsn };
      const spec = world.spec(`b${branches.length}`, { startLsn: moment.lsn, ancestor });
      const branch = await world.open(spec, parent);
      expect(await compareWithMoment(branch, world.tools, moment)).toEqual([]);
      branches.push(branch);
      parent = branch;
    }
    // The deepest branch goes its own way: as the WAL is the same, so must the pages be.
    const deepest = branches.at(-1)!;
    await world.feed(deepest, reference.endLsn);
    await deepest.flush();
    expect(await compareWithMoment(deepest, world.tools, reference.moments.at(-1)!)).toEqual([]);
    for (const shard of [...branches.reverse(), main]) await shard.close();
  });

  test('crashes at any moment change nothing: what was in memory is ingested again', async () => {
    const { world, main } = await makeWorld(2 ** 20);
    const spec = world.spec(MAIN, { startLsn: world.template.startLsn });
    let shard = main;
    let random = 12345;
    const next = (bound: number) => {
      random = (Math.imul(random, 1103515245) + 12345) & 0x7fffffff;
      return random % bound;
    };
    let ends = shard.lastLsn;
    for (let life = 0; life < 8; life++) {
      ends = Math.min(
        reference.endLsn,
        Math.max(ends, shard.lastLsn) + next(reference.endLsn - spec.startLsn) / 4,
      );
      await world.feed(shard, Math.floor(ends));
      // The files that were flushed so far are all that the next life finds.
      await world.crash(shard);
      shard = await world.openWith(spec, world.journaledLayers());
      expect(shard.lastLsn).toBe(shard.diskConsistentLsn);
    }
    await world.feed(shard, reference.endLsn);
    for (const moment of [reference.moments[1]!, reference.moments.at(-1)!]) {
      expect(await compareWithMoment(shard, world.tools, moment)).toEqual([]);
    }
    await shard.close();
  });

  test('pages read while their layer is being written are right', async () => {
    const { world, main } = await makeWorld(2 ** 30);
    await world.feed(main, reference.endLsn);
    const flushing = main.flush();
    for (const moment of reference.moments.slice(-2)) {
      expect(await compareWithMoment(main, world.tools, moment)).toEqual([]);
    }
    await flushing;
    expect(main.history.files.size).toBe(1);
    expect(await compareWithMoment(main, world.tools, reference.moments.at(-1)!)).toEqual([]);
    await main.close();
  });

  test('a full disk delays the layers; when there is room again nothing is missing', async () => {
    const { world, main } = await makeWorld(2 ** 20);
    const { disk } = world.tools;
    const open = disk.open.bind(disk);
    let refusals = 2;
    disk.open = async (path, options) => {
      if (path.endsWith('.layer.tmp') && refusals-- > 0)
        throw new PalimpsestError('disk-full', 'no space left');
      return open(path, options);
    };
    await world.feed(main, reference.endLsn);
    expect(refusals).toBeLessThan(0);
    expect(main.failure).toBeUndefined();
    expect(await compareWithMoment(main, world.tools, reference.moments.at(-1)!)).toEqual([]);
    await main.close();
  });

  test('a damaged local layer is fetched again; damaged in objects too, it is an error that names file and block', async () => {
    const { world, main } = await makeWorld(2 ** 21);
    await world.feed(main, reference.endLsn);
    await main.flush();
    await main.uploaded();
    await main.close();
    const spec = world.spec(MAIN, { startLsn: world.template.startLsn });
    const last = reference.moments.at(-1)!;
    await world.restart();
    const damagedFiles = world.damageLayers('pageserver');
    expect(damagedFiles).toBeGreaterThan(2);
    const healed = await world.open(spec);
    expect(await compareWithMoment(healed, world.tools, last)).toEqual([]);
    expect(world.tools.store.local.downloads).toBeGreaterThan(0);
    await healed.close();
    await world.restart();
    world.damageLayers('objects');
    world.damageLayers('pageserver');
    const broken = await world.open(spec);
    await expect(compareWithMoment(broken, world.tools, last)).rejects.toThrow(
      /layer file .*\.layer: the data of block \d+ at offset \d+ does not match its checksum/,
    );
    await broken.close();
  });

  test('a basebackup in the middle of the log is exact', async () => {
    const { world, main } = await makeWorld(2 ** 21);
    await world.feed(main, reference.endLsn);
    const moment = reference.moments[1]!;
    const basebackup = await basebackupAt(main, world.tools, moment.lsn + 8);
    expect(basebackup.lsn).toBe(moment.lsn);
    expect(basebackup.databases.sort()).toEqual([...moment.databases].sort());
    expect(basebackup.files.map(({ path }) => path)).toContain('pg_xact/0000');
    await main.close();
  });
});
