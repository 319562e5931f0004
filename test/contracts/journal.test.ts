import { appendFile, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { PalimpsestError } from '../../protocols/errors.ts';
import { FileJournalStore } from '../../runtime/adapters/file-journal.ts';
import { NodeDisk } from '../../runtime/adapters/node-disk.ts';
import { createLog } from '../../runtime/adapters/pino-log.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import type { DiskFile, OpenOptions } from '../../runtime/ports/disk.ts';
import type { Log } from '../../runtime/ports/log.ts';
import { journalContract } from './journal.contract.ts';

const clock = new SystemClock();
const silent = createLog({ level: 'silent' });
const folders: string[] = [];

async function newFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'pal-journal-'));
  folders.push(folder);
  return folder;
}

function storeIn(folder: string, log: Log = silent): FileJournalStore {
  return new FileJournalStore({ disk: new NodeDisk(folder), clock, log });
}

journalContract('files', async () => {
  const folder = await newFolder();
  return {
    store: storeIn(folder),
    reopen: async () => storeIn(folder),
    cleanUp: () => rm(folder, { recursive: true }),
  };
});

/** A directory whose disk can be made full. */
class FillableDisk extends NodeDisk {
  full = false;
  fullAfterSnapshot = false;

  override async open(path: string, options: OpenOptions = {}): Promise<DiskFile> {
    const file = await super.open(path, options);
    const write = file.write.bind(file);
    file.write = async (parts, position) => {
      if (this.full) throw new PalimpsestError('disk-full', `cannot write ${path}: ENOSPC`);
      await write(parts, position);
      if (this.fullAfterSnapshot && path.includes('.snapshot')) this.full = true;
    };
    return file;
  }
}

describe('journal files after damage', () => {
  afterEach(async () => {
    for (const folder of folders.splice(0)) await rm(folder, { recursive: true, force: true });
  });

  /** A journal of four entries, closed; with the path of its only log. */
  async function written(): Promise<{ folder: string; file: string; bytes: Buffer; lastAt: number }> {
    const folder = await newFolder();
    const journal = await storeIn(folder).open('thing', 'a');
    let lastAt = 0;
    const file = join(folder, 'thing/a/00000001.log');
    for (let i = 0; i < 4; i++) {
      if (i === 3) lastAt = (await readFile(file)).length;
      await journal.append(i, { n: i + 1, text: 'some text of a decision' });
    }
    await journal.close();
    return { folder, file, bytes: await readFile(file), lastAt };
  }

  async function loadSequences(folder: string, log: Log = silent): Promise<number[]> {
    const journal = await storeIn(folder, log).open('thing', 'a');
    const { entries } = await journal.load();
    await journal.close();
    return entries.map((entry) => entry.sequence);
  }

  function counting(): Log & { warnings: number } {
    const log = {
      warnings: 0,
      debug() {},
      info() {},
      warn() {
        log.warnings++;
      },
      error() {},
      child: () => log,
    };
    return log;
  }

  it('drops an entry that was cut off at any byte, with a warning, and goes on', async () => {
    const { folder, file, bytes, lastAt } = await written();
    for (let cut = lastAt; cut < bytes.length; cut++) {
      for (const name of await readdir(join(folder, 'thing/a'))) await rm(join(folder, 'thing/a', name));
      await writeFile(file, bytes.subarray(0, cut));
      const log = counting();
      const journal = await storeIn(folder, log).open('thing', 'a');
      expect(
        (await journal.load()).entries.map((entry) => entry.sequence),
        `cut at ${cut}`,
      ).toEqual([1, 2, 3]);
      expect(log.warnings).toBe(cut === lastAt ? 0 : 1);
      expect(await journal.append(3, 'new')).toMatchObject({ status: 'ok', sequence: 4 });
      await journal.close();
      expect(await loadSequences(folder)).toEqual([1, 2, 3, 4]);
    }
  });

  it('drops an entry whose later sectors were never written', async () => {
    const { folder, file, bytes } = await written();
    const journal = await storeIn(folder).open('thing', 'a');
    await journal.append(4, 'y'.repeat(3_000));
    await journal.close();
    const second = join(folder, 'thing/a/00000002.log');
    const torn = Buffer.from(await readFile(second));
    torn.fill(0, 1_024, 1_536);
    await writeFile(second, torn);
    expect((await readFile(file)).equals(bytes)).toBe(true);
    expect(await loadSequences(folder)).toEqual([1, 2, 3, 4]);
  });

  it('finds every flipped byte of every entry, also of the last, and names file and offset', async () => {
    const { folder, file, bytes } = await written();
    for (let at = 32; at < bytes.length; at++) {
      for (const name of await readdir(join(folder, 'thing/a'))) await rm(join(folder, 'thing/a', name));
      const damaged = Buffer.from(bytes);
      damaged[at]! ^= 0x10;
      await writeFile(file, damaged);
      const opened = storeIn(folder).open('thing', 'a');
      await expect(opened, `byte ${at}`).rejects.toMatchObject({ code: 'corrupt' });
      await expect(opened).rejects.toThrow(/00000001\.log is corrupt at byte \d+/);
    }
  });

  it('finds a damaged header and a journal of another version', async () => {
    const { folder, file, bytes } = await written();
    const damaged = Buffer.from(bytes);
    damaged[17]! ^= 1;
    await writeFile(file, damaged);
    await expect(storeIn(folder).open('thing', 'a')).rejects.toMatchObject({ code: 'corrupt' });
  });

  it('says that a log in the middle of the chain is missing', async () => {
    const { folder } = await written();
    for (let round = 0; round < 2; round++) {
      const journal = await storeIn(folder).open('thing', 'a');
      await journal.append(4 + round, 'more');
      await journal.close();
    }
    await rm(join(folder, 'thing/a/00000002.log'));
    await expect(storeIn(folder).open('thing', 'a')).rejects.toMatchObject({ code: 'corrupt' });
  });

  it('uses the snapshot before a damaged one', async () => {
    const folder = await newFolder();
    const journal = await storeIn(folder).open('thing', 'a');
    for (let i = 0; i < 9; i++) {
      await journal.append(i, { n: i + 1, filler: 'z'.repeat(30_000) });
      if (i % 3 === 2) await journal.snapshot(i + 1, { upTo: i + 1 });
    }
    await journal.close();
    const names = (await readdir(join(folder, 'thing/a'))).filter((name) => name.endsWith('.snapshot'));
    expect(names.map((name) => Number(name.slice(0, 16)))).toEqual([6, 9]);
    await appendFile(join(folder, 'thing/a', names[1]!), 'x');
    const again = await storeIn(folder).open('thing', 'a');
    const { snapshot, entries } = await again.load();
    expect(snapshot).toEqual({ sequence: 6, data: { upTo: 6 } });
    expect(entries.map((entry) => entry.sequence)).toEqual([7, 8, 9]);
    await again.close();
  });

  it('changes nothing when the disk is full at the first append, or at the start of a new log', async () => {
    const folder = await newFolder();
    const disk = new FillableDisk(folder);
    const store = new FileJournalStore({ disk, clock, log: silent });
    const journal = await store.open('thing', 'a');
    disk.full = true;
    await expect(journal.append(0, 'one')).rejects.toMatchObject({ code: 'disk-full' });
    disk.full = false;
    expect(await journal.append(0, 'one')).toMatchObject({ status: 'ok', sequence: 1 });
    expect(await journal.append(1, 'x'.repeat(100_000))).toMatchObject({ status: 'ok' });
    disk.fullAfterSnapshot = true;
    await expect(journal.snapshot(2, 'state')).rejects.toMatchObject({ code: 'disk-full' });
    await expect(journal.append(2, 'three')).rejects.toMatchObject({ code: 'disk-full' });
    disk.full = disk.fullAfterSnapshot = false;
    expect(await journal.append(2, 'three')).toMatchObject({ status: 'ok', sequence: 3 });
    await journal.snapshot(3, 'state');
    expect(await journal.append(3, 'four')).toMatchObject({ status: 'ok', sequence: 4 });
    await journal.close();
    const again = await storeIn(folder).open('thing', 'a');
    const { snapshot, entries } = await again.load();
    expect([snapshot?.sequence, entries.map((entry) => entry.data)]).toEqual([3, ['four']]);
    await again.close();
  });

  it('does not keep a file per restart', async () => {
    const { folder } = await written();
    for (let i = 0; i < 10; i++) await loadSequences(folder);
    expect((await readdir(join(folder, 'thing/a'))).length).toBe(2);
  });

  it('leaves out what a fenced owner wrote after its successor had read', async () => {
    const { folder, file } = await written();
    const journal = await storeIn(folder).open('thing', 'a');
    const zombie = await readFile(file);
    // The old owner's write lands late: a whole, valid entry 5 behind the fence.
    const other = await newFolder();
    const source = await storeIn(other).open('thing', 'a');
    for (let i = 0; i < 5; i++) await source.append(i, { n: i + 1, text: 'some text of a decision' });
    await source.close();
    await writeFile(
      file,
      Buffer.concat([zombie, (await readFile(join(other, 'thing/a/00000001.log'))).subarray(zombie.length)]),
    );
    await journal.append(4, 'the real fifth');
    await journal.close();
    const again = await storeIn(folder).open('thing', 'a');
    expect((await again.load()).entries.map((entry) => entry.data).at(-1)).toBe('the real fifth');
    await again.close();
  });
});
