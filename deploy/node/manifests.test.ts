/** Manifests in objects, and objects that another installation has taken over. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LocalObjects } from '../../runtime/adapters/local-objects.ts';
import type { KeptState } from '../../runtime/host/actor-state.ts';
import type { Log } from '../../runtime/ports/log.ts';
import { ManualClock } from '../../test/support/manual-clock.ts';
import { eventually } from '../../test/support/processes.ts';
import { FencedObjects, MARK_TRUST_MS } from './fenced-objects.ts';
import { LATER_MS, type ManifestSource, Manifests, readManifests } from './manifests.ts';
import { claimObjects, MARK_KEY, takeOver } from './objects-mark.ts';
import { NOTE_MS, WRITTEN_KEY } from './written-manifests.ts';

const TENANT = 'a'.repeat(32);
const log = { info() {}, warn() {}, error() {}, debug() {}, child: () => log } as unknown as Log;

function state(value: string): KeptState {
  return {
    version: 1,
    machine: { value, context: { id: value }, status: 'active' },
    outstanding: [],
    deadlines: [],
  };
}

function timeline(digit: string, fingerprint = 'same') {
  return { timeline: digit.repeat(32), state: () => state(`timeline ${digit}`), fingerprint };
}

let folder: string;
let objects: LocalObjects;
let clock: ManualClock;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'palimpsest-manifests-'));
  objects = await LocalObjects.open(folder);
  clock = new ManualClock();
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe('manifests', () => {
  let known: ManifestSource | undefined;
  let manifests: Manifests;

  beforeEach(() => {
    known = { state: state('project'), timelines: [timeline('1'), timeline('2')] };
    manifests = new Manifests({ objects, clock, log, source: () => known });
  });

  it('say what was known when they were saved', async () => {
    await manifests.save(TENANT);
    const [project] = await readManifests(objects);
    expect(project!.state).toEqual(state('project'));
    expect([...project!.timelines.values()]).toEqual([state('timeline 1'), state('timeline 2')]);
  });

  it('are not written again for a timeline that has not changed', async () => {
    await manifests.save(TENANT);
    const before = await objects.head(`projects/${TENANT}/timelines/${'1'.repeat(32)}.json`);
    known = { ...known!, timelines: [timeline('1'), timeline('2', 'other')] };
    await manifests.save(TENANT);
    const key = (digit: string) => `projects/${TENANT}/timelines/${digit.repeat(32)}.json`;
    expect(await objects.head(key('1'))).toEqual(before);
  });

  it('of timelines can be saved alone; the project is told of a while later', async () => {
    await manifests.saveTimelines(TENANT);
    known = { state: state('decided'), timelines: [timeline('1'), timeline('2')] };
    const key = (digit: string) => `projects/${TENANT}/timelines/${digit.repeat(32)}.json`;
    await manifests.saveTimelines(TENANT);
    const saved = await objects.head(key('1'));
    expect(await objects.head(key('2'))).toBeDefined();
    expect(await readManifests(objects)).toEqual([]);
    await clock.advance(LATER_MS);
    await eventually('the project to be written', async () => (await readManifests(objects)).length > 0);
    const [project] = await readManifests(objects);
    expect(project!.state).toEqual(state('decided'));
    expect((await objects.head(key('1')))!.etag).toBe(saved!.etag);
  });

  it('are saved although one of their timelines is deleted meanwhile', async () => {
    const deleted = () => {
      known = { ...known!, timelines: [timeline('2')] };
      throw new Error('it was stopped');
    };
    known = { ...known!, timelines: [{ ...timeline('1'), state: deleted }, timeline('2')] };
    await manifests.save(TENANT);
    expect([...(await readManifests(objects))[0]!.timelines.keys()]).toEqual(['2'.repeat(32)]);
  });

  it('go with what they are about', async () => {
    await manifests.save(TENANT);
    known = { ...known!, timelines: [timeline('2')] };
    await manifests.save(TENANT);
    expect([...(await readManifests(objects))[0]!.timelines.keys()]).toEqual(['2'.repeat(32)]);
    known = undefined;
    await manifests.save(TENANT);
    expect(await readManifests(objects)).toEqual([]);
    for await (const { key } of objects.list('')) expect(key).toBe('nothing is left');
  });

  it('of an earlier life that nobody knows any more are removed', async () => {
    await manifests.save(TENANT);
    known = { ...known!, timelines: [timeline('2')] };
    const next = new Manifests({ objects, clock, log, source: () => known });
    await next.saveAll([TENANT]);
    expect([...(await readManifests(objects))[0]!.timelines.keys()]).toEqual(['2'.repeat(32)]);
  });

  describe('at the start of another control process', () => {
    const key = (name: string) => `projects/${TENANT}/${name}.json`;
    const keys = [key('project'), key(`timelines/${'1'.repeat(32)}`), key(`timelines/${'2'.repeat(32)}`)];
    const etags = () => Promise.all(keys.map(async (each) => (await objects.head(each))?.etag));
    const startAnew = () => new Manifests({ objects, clock, log, source: () => known }).saveAll([TENANT]);

    beforeEach(async () => {
      await manifests.save(TENANT);
      await clock.advance(NOTE_MS);
      await eventually(
        'it to be noted what is written',
        async () => (await objects.head(WRITTEN_KEY)) !== undefined,
      );
    });

    it('are left alone where they are as they should be', async () => {
      const before = await etags();
      await startAnew();
      expect(await etags()).toEqual(before);
    });

    it('are written where something has changed since', async () => {
      const before = await etags();
      known = { state: state('renamed'), timelines: [timeline('1'), timeline('2', 'moved')] };
      await startAnew();
      const after = await etags();
      expect(after.map((etag, at) => etag === before[at])).toEqual([false, true, false]);
      expect((await readManifests(objects))[0]!.state).toEqual(state('renamed'));
    });

    it('are written where they are missing or somebody has touched them', async () => {
      await objects.delete(keys[1]!);
      await objects.put(keys[2]!, Buffer.from('{}'));
      await startAnew();
      const [project] = await readManifests(objects);
      expect([...project!.timelines.values()]).toEqual([state('timeline 1'), state('timeline 2')]);
    });

    it('are all written when the note of them is of no use', async () => {
      const before = await etags();
      await objects.put(WRITTEN_KEY, Buffer.from('no JSON'));
      await startAnew();
      const after = await etags();
      for (const [at, etag] of after.entries()) expect(etag).not.toBe(before[at]);
      expect((await readManifests(objects))[0]!.timelines.size).toBe(2);
    });
  });

  it('that are damaged or of a newer format are refused', async () => {
    await manifests.save(TENANT);
    const key = `projects/${TENANT}/project.json`;
    const text = (await objects.get(key)).toString();
    await objects.put(key, Buffer.from(text.replace('"project"', '"projekt"')));
    await expect(readManifests(objects)).rejects.toMatchObject({ code: 'corrupt' });
    await objects.put(key, Buffer.from(text.replace('"format":1', '"format":9')));
    await expect(readManifests(objects)).rejects.toMatchObject({ code: 'unsupported' });
  });
});

describe('objects of a replaced installation', () => {
  it('can be read, and are neither changed nor deleted any more', async () => {
    const owner = { installation: 'one', epoch: 0 };
    const claim = { ...owner, place: folder, isPrivate: false };
    await claimObjects(objects, { ...claim, isNew: true });
    const fenced = new FencedObjects(objects, owner, clock);
    await fenced.put('x', Buffer.from('before'));
    await takeOver(objects, { format: 1, installation: 'one', epoch: 1 }, folder);
    await clock.advance(MARK_TRUST_MS);
    for (const attempt of [
      () => fenced.put('x', Buffer.from('after')),
      () => fenced.delete('x'),
      () => fenced.putFile('x', join(folder, MARK_KEY)),
    ]) {
      await expect(attempt()).rejects.toMatchObject({ code: 'deposed' });
    }
    expect((await fenced.get('x')).toString()).toBe('before');
    await expect(claimObjects(objects, { ...claim, isNew: false })).rejects.toMatchObject({
      code: 'deposed',
    });
  });

  it('are taken over by one recovery only', async () => {
    await claimObjects(objects, {
      installation: 'one',
      epoch: 0,
      place: folder,
      isPrivate: false,
      isNew: true,
    });
    const mark = { format: 1, installation: 'one', epoch: 1 };
    const both = await Promise.allSettled([takeOver(objects, mark, folder), takeOver(objects, mark, folder)]);
    expect(both.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
  });
});
