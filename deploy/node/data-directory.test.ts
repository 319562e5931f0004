/** The data directory's format and lock. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ObjectsLocation } from '../../runtime/adapters/objects-location.ts';
import { openDataDirectory, runDirectoryOf, runningProcess } from './data-directory.ts';

describe('a data directory', () => {
  let root: string;

  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'palimpsest-data-'));
  });
  afterEach(() => rmSync(root, { recursive: true, force: true }));

  it('is made once and found again', async () => {
    const first = await openDataDirectory(root, { safekeepers: 5 });
    expect(first).toMatchObject({ isNew: true, installation: { safekeepers: 5 } });
    await first.release();
    const again = await openDataDirectory(root, {});
    expect(again.isNew).toBe(false);
    expect(again.installation).toEqual(first.installation);
    await again.release();
  });

  it('belongs to one process at a time, which the refusal names', async () => {
    const first = await openDataDirectory(root, {});
    await expect(openDataDirectory(root, {})).rejects.toThrow(`in use by process ${process.pid}`);
    expect(existsSync(first.runDirectory)).toBe(true);
    await first.release();
    await (await openDataDirectory(root, {})).release();
  });

  it('tells where its process can be reached, and nothing when it is gone', async () => {
    const open = await openDataDirectory(root, {});
    await open.publish(4711);
    expect(await runningProcess(root)).toMatchObject({
      pid: process.pid,
      port: 4711,
      runDirectory: runDirectoryOf(root),
    });
    await open.release();
    expect(await runningProcess(root)).toBeUndefined();
    expect(existsSync(open.runDirectory)).toBe(false);
  });

  it('is taken over from a process that was killed, also when its number is in use again', async () => {
    const stale = { pid: process.pid, started: 'another boot/1', port: 1, runDirectory: '/nowhere' };
    await (await openDataDirectory(root, {})).release();
    writeFileSync(join(root, 'palimpsest.pid'), JSON.stringify(stale));
    expect(await runningProcess(root)).toBeUndefined();
    await (await openDataDirectory(root, {})).release();
    writeFileSync(join(root, 'palimpsest.pid'), '{"pid": 12');
    await (await openDataDirectory(root, {})).release();
  });

  it('of another format is left as it is', async () => {
    const path = join(root, 'palimpsest.json');
    for (const content of ['{"format":999}', '{"format":0}', 'no json', '{}']) {
      writeFileSync(path, content);
      await expect(openDataDirectory(root, {})).rejects.toThrow(/format|not readable/);
      expect(readFileSync(path, 'utf8')).toBe(content);
    }
    expect(existsSync(join(root, 'palimpsest.pid'))).toBe(false);
  });

  it('keeps its number of safekeepers', async () => {
    await (await openDataDirectory(root, { safekeepers: 3 })).release();
    await expect(openDataDirectory(root, { safekeepers: 1 })).rejects.toThrow(/made with 3 safekeepers/);
  });

  it("is not made among other people's files", async () => {
    writeFileSync(join(root, 'thesis.tex'), 'years of work');
    await expect(openDataDirectory(root, {})).rejects.toThrow(/not empty/);
  });
});

describe('the place of objects', () => {
  let root: string;
  const bucket: ObjectsLocation = { kind: 's3', bucket: 'backups', prefix: 'one' };

  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'palimpsest-data-'));
  });
  afterEach(() => rmSync(root, { recursive: true, force: true }));

  async function reopened(wanted: { objects?: ObjectsLocation }, mark = false): Promise<ObjectsLocation> {
    const directory = await openDataDirectory(root, wanted);
    if (mark) await directory.objectsAreMarked();
    await directory.release();
    return directory.objects;
  }

  it('is in the data directory when nothing is said', async () => {
    expect(await reopened({}, true)).toEqual({ kind: 'local', directory: join(root, 'objects') });
    await expect(reopened({ objects: bucket })).rejects.toThrow(/keeps its objects in/);
  });

  it('is found again by a later start, and cannot be another one', async () => {
    await reopened({ objects: bucket }, true);
    expect(await reopened({})).toEqual(bucket);
    await expect(reopened({ objects: { ...bucket, prefix: 'two' } })).rejects.toMatchObject({
      code: 'conflict',
      message: expect.stringContaining('keeps its objects in s3://backups/one, not in s3://backups/two'),
    });
  });

  it('can be chosen anew as long as nothing is there, and its server may move later', async () => {
    await reopened({ objects: { ...bucket, bucket: 'mistyped' } });
    await reopened({ objects: bucket }, true);
    const elsewhere: ObjectsLocation = { ...bucket, endpoint: 'http://127.0.0.1:9000' };
    expect(await reopened({ objects: elsewhere })).toEqual(elsewhere);
    expect(await reopened({})).toEqual(elsewhere);
  });
});
