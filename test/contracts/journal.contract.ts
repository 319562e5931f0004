/** What every JournalStore must do. Run by each adapter with its own factory. */
import { afterEach, describe, expect, it } from 'vitest';
import type { JournalStore } from '../../runtime/ports/journal.ts';

export interface JournalFixture {
  store: JournalStore;
  /** A second store over the same truth, as another process would have it. */
  reopen(): Promise<JournalStore>;
  cleanUp(): Promise<void>;
}

export function journalContract(name: string, create: () => Promise<JournalFixture>): void {
  describe(`journal contract: ${name}`, () => {
    const fixtures: JournalFixture[] = [];
    afterEach(async () => {
      for (const fixture of fixtures.splice(0)) await fixture.cleanUp();
    });
    async function start(): Promise<JournalFixture> {
      const fixture = await create();
      fixtures.push(fixture);
      return fixture;
    }

    it('is empty at first and leaves no trace until something is appended', async () => {
      const { store } = await start();
      const journal = await store.open('thing', 'a');
      expect(await journal.load()).toEqual({ entries: [] });
      await journal.close();
      expect(await store.list('thing')).toEqual([]);
    });

    it('gives back what was appended, in order, with sequence and time', async () => {
      const { store, reopen } = await start();
      const journal = await store.open('thing', 'a');
      await journal.load();
      const data = [
        { n: 1, text: 'ä', bytes: new Uint8Array([1, 2]) },
        ['x', null, 2n ** 60n],
        { deep: { list: [1.5, -1] } },
      ];
      for (const [index, item] of data.entries()) {
        expect(await journal.append(index, item)).toMatchObject({ status: 'ok', sequence: index + 1 });
      }
      await journal.close();
      const again = await (await reopen()).open('thing', 'a');
      const { snapshot, entries } = await again.load();
      expect(snapshot).toBeUndefined();
      expect(entries.map((entry) => entry.sequence)).toEqual([1, 2, 3]);
      expect(entries.every((entry) => entry.time > 0)).toBe(true);
      expect(entries[0]!.data).toMatchObject({ n: 1, text: 'ä' });
      expect([...(entries[0]!.data as { bytes: Uint8Array }).bytes]).toEqual([1, 2]);
      expect(entries.slice(1).map((entry) => entry.data)).toEqual(data.slice(1));
      await again.close();
    });

    it('answers conflict when the expected sequence is not the last', async () => {
      const { store } = await start();
      const journal = await store.open('thing', 'a');
      expect(await journal.append(0, 'one')).toMatchObject({ status: 'ok' });
      expect(await journal.append(0, 'again')).toEqual({ status: 'conflict', actual: 1 });
      expect(await journal.append(5, 'gap')).toEqual({ status: 'conflict', actual: 1 });
      expect(await journal.append(1, 'two')).toMatchObject({ status: 'ok', sequence: 2 });
      await journal.close();
    });

    it('takes appends that are asked for together', async () => {
      const { store, reopen } = await start();
      const journal = await store.open('thing', 'a');
      const results = await Promise.all(Array.from({ length: 1_000 }, (_, i) => journal.append(i, i)));
      expect(results.every((result, i) => result.status === 'ok' && result.sequence === i + 1)).toBe(true);
      await journal.close();
      const again = await (await reopen()).open('thing', 'a');
      expect((await again.load()).entries.map((entry) => entry.data)).toEqual(
        Array.from({ length: 1_000 }, (_, i) => i),
      );
      await again.close();
    });

    it('fences the first owner when a second opens, in one process and from another', async () => {
      for (const other of ['same', 'another']) {
        const { store, reopen } = await start();
        const first = await store.open('thing', other);
        expect(await first.append(0, 'mine')).toMatchObject({ status: 'ok' });
        const second = await (other === 'same' ? store : await reopen()).open('thing', other);
        const { entries } = await second.load();
        expect(entries.map((entry) => entry.data)).toEqual(['mine']);
        expect((await first.append(1, 'too late')).status).toBe('conflict');
        expect(await second.append(1, 'theirs')).toMatchObject({ status: 'ok', sequence: 2 });
        expect((await first.append(2, 'still too late')).status).toBe('conflict');
        await first.close();
        await second.close();
        const third = await (await reopen()).open('thing', other);
        expect((await third.load()).entries.map((entry) => entry.data)).toEqual(['mine', 'theirs']);
        await third.close();
      }
    });

    it('lets one of two owners append when both opened an empty journal', async () => {
      const { store, reopen } = await start();
      const first = await store.open('thing', 'a');
      const second = await (await reopen()).open('thing', 'a');
      const results = await Promise.all([first.append(0, 'first'), second.append(0, 'second')]);
      expect(results.map((result) => result.status).sort()).toEqual(['conflict', 'ok']);
      await first.close();
      await second.close();
    });

    it('starts from a snapshot and the entries after it', async () => {
      const { store, reopen } = await start();
      const journal = await store.open('thing', 'a');
      for (let i = 0; i < 10; i++) await journal.append(i, i + 1);
      await journal.snapshot(7, { sum: 28 });
      await journal.append(10, 11);
      await journal.close();
      const again = await (await reopen()).open('thing', 'a');
      const { snapshot, entries } = await again.load();
      expect(snapshot).toEqual({ sequence: 7, data: { sum: 28 } });
      expect(entries.map((entry) => entry.data)).toEqual([8, 9, 10, 11]);
      expect(await again.append(11, 12)).toMatchObject({ status: 'ok', sequence: 12 });
      await again.close();
    });

    it('stays whole through many snapshots, restarts and appends at the same time', async () => {
      const { store, reopen } = await start();
      let journal = await store.open('thing', 'a');
      const filler = 'x'.repeat(2_000);
      let sequence = 0;
      for (let round = 0; round < 6; round++) {
        for (let i = 0; i < 50; i++) {
          const append = journal.append(sequence, { n: sequence + 1, filler });
          if (i === 25) await Promise.all([append, journal.snapshot(sequence, { last: sequence })]);
          expect(await append).toMatchObject({ status: 'ok', sequence: ++sequence });
        }
        if (round % 2 === 1) {
          await journal.close();
          journal = await (await reopen()).open('thing', 'a');
          const { snapshot, entries } = await journal.load();
          expect(snapshot!.data).toEqual({ last: snapshot!.sequence });
          expect(entries.map((entry) => entry.sequence)).toEqual(
            Array.from({ length: sequence - snapshot!.sequence }, (_, i) => snapshot!.sequence + i + 1),
          );
        }
      }
      await journal.close();
    });

    it('lists journals of a kind and removes them for ever', async () => {
      const { store, reopen } = await start();
      for (const id of ['b', 'a', 'c']) {
        const journal = await store.open('thing', id);
        await journal.append(0, id);
        if (id !== 'c') await journal.close();
      }
      await (await store.open('other', 'z')).append(0, 'z');
      expect((await store.list('thing')).sort()).toEqual(['a', 'b', 'c']);
      await store.remove('thing', 'c');
      await store.remove('thing', 'never-was');
      expect((await (await reopen()).list('thing')).sort()).toEqual(['a', 'b']);
      const again = await store.open('thing', 'c');
      expect(await again.load()).toEqual({ entries: [] });
      await again.close();
    });

    it('refuses names that could leave its place', async () => {
      const { store } = await start();
      for (const id of ['../x', 'a/b', '', '.', '..', 'a b', 'x'.repeat(300)]) {
        await expect(store.open('thing', id), id).rejects.toMatchObject({ code: 'invalid-argument' });
      }
    });
  });
}
