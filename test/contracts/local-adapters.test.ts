/** Disk, objects and clock of this machine, and what they do when the disk is full. */
import { spawnSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { LocalObjects } from '../../runtime/adapters/local-objects.ts';
import { NodeDisk } from '../../runtime/adapters/node-disk.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { clockContract } from './clock.contract.ts';
import { diskContract } from './disk.contract.ts';
import { objectsContract } from './objects.contract.ts';

async function newFolder(): Promise<{ folder: string; cleanUp(): Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), 'pal-contract-'));
  return { folder, cleanUp: () => rm(folder, { recursive: true }) };
}

diskContract('a directory', async () => {
  const { folder, cleanUp } = await newFolder();
  return { disk: new NodeDisk(folder), cleanUp };
});

objectsContract('a directory', async () => {
  const { folder, cleanUp } = await newFolder();
  return { objects: await LocalObjects.open(join(folder, 'objects')), folder, cleanUp };
});

clockContract('the system', () => ({
  clock: new SystemClock(),
  pass: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
}));

clockContract('by hand', () => {
  const clock = new ManualClock();
  return { clock, pass: (ms) => clock.advance(ms) };
});

it('keeps temporary files of objects out of reach, and refuses a key that is a folder of another', async () => {
  const { folder, cleanUp } = await newFolder();
  const objects = await LocalObjects.open(folder);
  await expect(objects.put('.temporary/x', new Uint8Array(1))).rejects.toMatchObject({
    code: 'invalid-argument',
  });
  await objects.put('a/b', new Uint8Array(1));
  await expect(objects.put('a', new Uint8Array(1))).rejects.toMatchObject({ code: 'unsupported' });
  await expect(objects.put('a/b/c', new Uint8Array(1))).rejects.toMatchObject({ code: 'unsupported' });
  await expect(objects.get('a')).rejects.toMatchObject({ code: 'not-found' });
  await writeFile(join(folder, 'loose'), 'x');
  expect((await objects.head('loose'))!.bytes).toBe(1);
  await cleanUp();
});

const mayMount = spawnSync('unshare', ['-m', '--kill-child', 'true']).status === 0;

/** In a mount namespace of its own, so that nothing can be left behind. */
it.skipIf(!mayMount)('says that a disk is full, loses nothing, and goes on when there is room again', () => {
  const script = join(import.meta.dirname, 'full-disk.ts');
  const command = `mount -t tmpfs -o size=512k tmpfs /mnt && exec "${process.execPath}" "${script}" /mnt`;
  const result = spawnSync('unshare', ['-m', '--fork', '--pid', '--kill-child', 'sh', '-c', command], {
    encoding: 'utf8',
    timeout: 15_000,
  });
  expect(result.stderr).toBe('');
  expect(JSON.parse(result.stdout)).toEqual({
    journal: 'disk-full',
    hint: true,
    afterwards: 'ok',
    replayed: true,
    disk: 'disk-full',
    objects: 'disk-full',
    objectsLeft: [],
  });
});
