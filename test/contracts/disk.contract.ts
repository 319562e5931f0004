/** What every Disk must do. Run by each adapter with its own factory. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Disk } from '../../runtime/ports/disk.ts';

export interface DiskFixture {
  disk: Disk;
  cleanUp(): Promise<void>;
}

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (data: Uint8Array) => new TextDecoder().decode(data);

export function diskContract(name: string, create: () => Promise<DiskFixture>): void {
  describe(`disk contract: ${name}`, () => {
    let fixture: DiskFixture;
    let disk: Disk;
    beforeEach(async () => {
      fixture = await create();
      disk = fixture.disk;
    });
    afterEach(() => fixture.cleanUp());

    it('writes parts one after the other at a position and reads them back', async () => {
      const file = await disk.open('a', { create: true });
      await file.write([bytes('ab'), new Uint8Array(0), bytes('cd'), bytes('e')], 3);
      await file.sync();
      expect(await file.size()).toBe(8);
      const into = new Uint8Array(16);
      expect(await file.read(into, 0)).toBe(8);
      expect([...into.subarray(0, 3)]).toEqual([0, 0, 0]);
      expect(text(into.subarray(3, 8))).toBe('abcde');
      expect(await file.read(into, 8)).toBe(0);
      expect(await file.read(into.subarray(0, 2), 4)).toBe(2);
      await file.truncate(4);
      expect(await file.size()).toBe(4);
      await file.close();
      await file.close();
    });

    it('writes thousands of parts in one call', async () => {
      const file = await disk.open('many', { create: true, durable: true });
      await file.write(
        Array.from({ length: 5_000 }, (_, i) => Uint8Array.of(i & 255, i >> 8)),
        0,
      );
      expect(await file.size()).toBe(10_000);
      const into = new Uint8Array(10_000);
      await file.read(into, 0);
      expect(into.every((byte, i) => byte === (i % 2 === 0 ? (i >> 1) & 255 : i >> 9))).toBe(true);
      await file.write([], 0);
      await file.close();
    });

    it('opens exclusively once, and not at all what is missing', async () => {
      await expect(disk.open('none')).rejects.toMatchObject({ name: 'PalimpsestError', code: 'not-found' });
      await (await disk.open('one', { create: true, exclusive: true })).close();
      await expect(disk.open('one', { create: true, exclusive: true })).rejects.toMatchObject({
        code: 'already-exists',
      });
      await expect(disk.readFile('none')).rejects.toMatchObject({ code: 'not-found' });
      await expect(disk.remove('none')).rejects.toMatchObject({ code: 'not-found' });
    });

    it('replaces a file atomically and leaves no temporary file', async () => {
      await disk.writeFileAtomic('f', bytes('one'));
      await disk.writeFileAtomic('f', bytes('two'));
      expect(text(await disk.readFile('f'))).toBe('two');
      expect(await disk.list('.')).toEqual(['f']);
      await Promise.all(
        Array.from({ length: 20 }, (_, i) => disk.writeFileAtomic('g', bytes(`${i}`.repeat(1_000)))),
      );
      const got = text(await disk.readFile('g'));
      expect(new Set(got.match(/../g) ?? []).size).toBeLessThanOrEqual(2);
      expect(await disk.list('.')).toEqual(['f', 'g']);
    });

    it('preallocates zeros', async () => {
      await disk.preallocate('p', 3_000_001);
      const content = await disk.readFile('p');
      expect(content.length).toBe(3_000_001);
      expect(content.every((byte) => byte === 0)).toBe(true);
      await expect(disk.preallocate('p', 10)).rejects.toMatchObject({ code: 'already-exists' });
      expect((await disk.readFile('p')).length).toBe(3_000_001);
    });

    it('makes, lists, renames and removes in directories', async () => {
      await disk.makeDirectory('d/e');
      await disk.makeDirectory('d/e');
      for (const name of ['c', 'a', 'b']) await disk.writeFileAtomic(`d/e/${name}`, bytes(name));
      expect(await disk.list('d/e')).toEqual(['a', 'b', 'c']);
      expect(await disk.list('nowhere')).toEqual([]);
      await disk.rename('d/e/a', 'd/z');
      await disk.syncDirectory('d');
      expect(await disk.exists('d/e/a')).toBe(false);
      expect(await disk.exists('d/z')).toBe(true);
      await disk.remove('d/z');
      await disk.removeTree('d');
      await disk.removeTree('d');
      expect(await disk.exists('d')).toBe(false);
    });

    it('keeps paths inside its root', async () => {
      for (const path of ['../x', '/etc/passwd', 'a/../../x', 'a\0b']) {
        await expect(disk.open(path, { create: true }), path).rejects.toMatchObject({
          code: 'invalid-argument',
        });
        await expect(disk.readFile(path), path).rejects.toMatchObject({ code: 'invalid-argument' });
      }
    });
  });
}
