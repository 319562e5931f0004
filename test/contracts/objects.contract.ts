/** What every Objects store must do. Run by each adapter with its own factory. */
import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ObjectInfo, Objects } from '../../runtime/ports/objects.ts';

export interface ObjectsFixture {
  objects: Objects;
  /** A local directory for files that are stored and downloaded. */
  folder: string;
  cleanUp(): Promise<void>;
}

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (data: Uint8Array) => new TextDecoder().decode(data);

export function objectsContract(name: string, create: () => Promise<ObjectsFixture>): void {
  describe(`objects contract: ${name}`, () => {
    let fixture: ObjectsFixture;
    let objects: Objects;
    beforeEach(async () => {
      fixture = await create();
      objects = fixture.objects;
    });
    afterEach(() => fixture.cleanUp());

    async function keys(prefix: string): Promise<string[]> {
      const found: ObjectInfo[] = [];
      for await (const info of objects.list(prefix)) found.push(info);
      return found.map(({ key }) => key);
    }

    it('stores, reads, reads parts, replaces and deletes', async () => {
      const put = await objects.put('t/x/layer-1', bytes('hello world'));
      expect(put.status).toBe('ok');
      expect(text(await objects.get('t/x/layer-1'))).toBe('hello world');
      expect(text(await objects.get('t/x/layer-1', { offset: 6, length: 3 }))).toBe('wor');
      expect(text(await objects.get('t/x/layer-1', { offset: 6, length: 300 }))).toBe('world');
      const head = await objects.head('t/x/layer-1');
      expect(head).toEqual({ key: 't/x/layer-1', bytes: 11, etag: put.status === 'ok' ? put.etag : '' });
      await objects.put('t/x/layer-1', bytes('new'));
      expect(text(await objects.get('t/x/layer-1'))).toBe('new');
      expect((await objects.head('t/x/layer-1'))!.etag).not.toBe(head!.etag);
      await objects.delete('t/x/layer-1');
      await objects.delete('t/x/layer-1');
      expect(await objects.head('t/x/layer-1')).toBeUndefined();
      await expect(objects.get('t/x/layer-1')).rejects.toMatchObject({
        name: 'PalimpsestError',
        code: 'not-found',
      });
    });

    it('holds empty and large objects', async () => {
      const large = new Uint8Array(randomBytes(5_000_000));
      await objects.put('empty', new Uint8Array(0));
      await objects.put('large', large);
      expect((await objects.get('empty')).length).toBe(0);
      expect(Buffer.compare(await objects.get('large'), large)).toBe(0);
      expect(
        Buffer.compare(
          await objects.get('large', { offset: 4_999_000, length: 1_000 }),
          large.subarray(4_999_000),
        ),
      ).toBe(0);
    });

    it('lets exactly one of ten racers create an object', async () => {
      const results = await Promise.all(
        Array.from({ length: 10 }, (_, i) =>
          objects.put('race/one', bytes(`racer ${i}`), { ifAbsent: true }),
        ),
      );
      expect(results.filter(({ status }) => status === 'ok').length).toBe(1);
      const winner = results.findIndex(({ status }) => status === 'ok');
      expect(text(await objects.get('race/one'))).toBe(`racer ${winner}`);
    });

    it('lets exactly one of ten racers replace an object with a known etag', async () => {
      const first = await objects.put('race/two', bytes('first'));
      const etag = first.status === 'ok' ? first.etag : '';
      const results = await Promise.all(
        Array.from({ length: 10 }, (_, i) => objects.put('race/two', bytes(`racer ${i}`), { ifMatch: etag })),
      );
      expect(results.filter(({ status }) => status === 'ok').length).toBe(1);
      expect(await objects.put('race/two', bytes('late'), { ifMatch: etag })).toEqual({ status: 'conflict' });
      expect(await objects.put('race/never', bytes('x'), { ifMatch: etag })).toEqual({ status: 'conflict' });
    });

    it('lists in key order below any prefix', async () => {
      const all = ['a', 'b/c/1', 'b/c/10', 'b/c-d', 'b/c/2', 'b/cc/1', 'b0', 'z/y/x/w'];
      for (const key of [...all].reverse()) await objects.put(key, bytes(key));
      const sorted = [...all].sort();
      expect(await keys('')).toEqual(sorted);
      for (const prefix of ['b/', 'b/c', 'b/c/', 'b/c/1', 'b', 'z/y/', 'nothing/here', 'q']) {
        expect(await keys(prefix), prefix).toEqual(sorted.filter((key) => key.startsWith(prefix)));
      }
    });

    it('stores and downloads files', async () => {
      const source = join(fixture.folder, 'source');
      const target = join(fixture.folder, 'target');
      const content = randomBytes(3_000_000);
      await writeFile(source, content);
      expect((await objects.putFile('t/file', source)).status).toBe('ok');
      await objects.getFile('t/file', target);
      expect((await readFile(target)).equals(content)).toBe(true);
      await expect(objects.getFile('t/none', target)).rejects.toMatchObject({ code: 'not-found' });
      expect((await readFile(target)).equals(content)).toBe(true);
      await expect(objects.putFile('t/other', join(fixture.folder, 'missing'))).rejects.toMatchObject({
        code: 'not-found',
      });
      expect(await objects.head('t/other')).toBeUndefined();
    });

    it('puts and deletes side by side without losing an object', async () => {
      await Promise.all(
        Array.from({ length: 100 }, async (_, i) => {
          await objects.put(`side/${i % 3}/${i}`, bytes(String(i)));
          if (i % 2 === 0) await objects.delete(`side/${i % 3}/${i}`);
        }),
      );
      expect((await keys('side/')).length).toBe(50);
    });

    it('refuses keys that are no keys', async () => {
      for (const key of [
        '',
        '/a',
        'a/',
        'a//b',
        '../a',
        'a/../b',
        './a',
        'a\0b',
        'a b',
        'ä',
        'a\\b',
        'x'.repeat(2_000),
      ]) {
        await expect(objects.put(key, bytes('x')), key).rejects.toMatchObject({ code: 'invalid-argument' });
        await expect(objects.get(key), key).rejects.toMatchObject({ code: 'invalid-argument' });
      }
    });
  });
}
