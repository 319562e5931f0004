/** An installation is lost with its machine, and comes back from its objects on another one. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { afterAll, describe, expect, it } from 'vitest';
import { parseLsn } from '../../protocols/lsn.ts';
import { parseWalObjectKey } from '../../protocols/object-keys.ts';
import { signal } from '../support/processes.ts';
import { StartFailed, TestSystem } from '../support/system.ts';

interface Report {
  epoch: number;
  branches: { project: string; branch: string; outcome: string; lsn: string; time?: string }[];
}

const RECOVER = { timeoutMs: 120_000 };

/** Resolves when objects have the end of a timeline's WAL up to `lsn`. */
async function storedUpTo(objects: string, lsn: number): Promise<void> {
  for (let waitedMs = 0; waitedMs < 20_000; waitedMs += 50) {
    const names = readdirSync(objects, { recursive: true, encoding: 'utf8' }).map(parseWalObjectKey);
    if (names.some((name) => name?.kind === 'partial' && name.commitLsn >= lsn)) return;
    await setTimeout(50);
  }
  throw new Error('the WAL of a new branch does not come to objects');
}

describe('palimpsest recover', () => {
  const folder = mkdtempSync(join(tmpdir(), 'palimpsest-recover-'));
  const objects = join(folder, 'objects');
  const lost = new TestSystem({ dataDir: join(folder, 'lost') });
  const found = new TestSystem({ dataDir: join(folder, 'found') });
  afterAll(async () => {
    await lost.destroy();
    await found.destroy();
    rmSync(folder, { recursive: true, force: true });
  });

  it('brings everything back up to what it says, and keeps the lost installation from coming back', async () => {
    await lost.start({ args: ['--objects', objects] });
    const early = await lost.with('main', async (client) => {
      await client.query('create table letters (id int primary key, body text)');
      await client.query("insert into letters select i, repeat('x', 300) from generate_series(1, 9000) i");
      const lsn = await client.value('select pg_current_wal_flush_lsn()');
      await client.query('delete from letters where id > 5000');
      return lsn;
    });
    await lost.createBranch('dev');
    await lost.with('dev', (client) => client.query("update letters set body = 'dev' where id <= 10"));
    await lost.run(['branch', 'rename', 'dev', 'side']);
    await lost.run(['project', 'create', 'second']);
    const url = await lost.url();
    // What a clean stop brings to objects.
    expect(await lost.stop()).toBe(0);
    await lost.start();
    const late: { id: number; lsn: number }[] = [];
    await lost.with('main', async (client) => {
      for (let id = 100_001; id <= 100_005; id++) {
        await client.query(`insert into letters values (${id}, 'late')`);
        late.push({ id, lsn: parseLsn(await client.value('select pg_current_wal_flush_lsn()'))! });
      }
    });
    // Nothing is made of a new branch but its beginning; the WAL up to there is in objects soon, although its parent goes on.
    for (const { pid } of lost.processes('pageserver')) signal(pid, 'SIGSTOP');
    const young = await lost.createBranch('young');
    await storedUpTo(objects, parseLsn(young.startLsn as string)!);
    // All at once, as when the power goes: a safekeeper that outlives its parent would still store what it has.
    for (const { pid } of lost.processes()) signal(pid, 'SIGKILL');
    await lost.stop();

    const recovered = await found.run(['recover', '--objects', objects, '--json'], RECOVER);
    expect(recovered.code, recovered.stdout + recovered.stderr).toBe(0);
    const report = JSON.parse(recovered.stdout) as Report;
    const outcomes = report.branches.map(({ project, branch, outcome }) => `${project}/${branch} ${outcome}`);
    expect(outcomes.sort()).toEqual([
      'default/main recovered',
      'default/side recovered',
      'default/young recovered',
      'second/main recovered',
    ]);
    const main = report.branches.find(({ project, branch }) => project === 'default' && branch === 'main')!;
    expect(Math.abs(Date.parse(main.time!) - Date.now())).toBeLessThan(120_000);

    await found.start();
    const end = parseLsn(main.lsn)!;
    const expected = late.filter(({ lsn }) => lsn <= end).map(({ id }) => id);
    expect(new URL(await found.url()).password).toBe(new URL(url).password);
    const rows = await found.with('main', (client) =>
      client.query('select id from letters where id > 100000 order by id'),
    );
    expect(rows.rows.map(({ id }) => Number(id))).toEqual(expected);
    const count = 'select count(*) from letters where id <= 100000';
    expect(await found.with('main', (client) => client.value(count))).toBe('5000');
    expect(await found.with('young', (client) => client.value(count))).toBe('5000');
    const dev = "select count(*) from letters where body = 'dev'";
    expect(await found.with('side', (client) => client.value(dev))).toBe('10');
    // History before the loss is there, and new history is written.
    await found.createBranch('past', { at: early });
    expect(await found.with('past', (client) => client.value('select count(*) from letters'))).toBe('9000');
    await found.with('main', (client) => client.query("insert into letters values (200000, 'new')"));

    await expect(lost.start()).rejects.toThrow(StartFailed);
    expect(lost.output()).toMatch(/recovered into another data directory/);

    expect(await found.stop()).toBe(0);
    expect(await found.json(['scrub'], RECOVER)).toMatchObject({ clean: true });
    rmSync(join(found.dataDir, 'pageserver'), { recursive: true });
    await found.start();
    const newest = 'select count(*) from letters where id = 200000';
    expect(await found.with('main', (client) => client.value(newest))).toBe('1');
  });

  it('refuses a place without an installation, and a data directory in use', async () => {
    const nothing = await found.run(['recover', '--objects', join(folder, 'nothing')]);
    expect(nothing.code).toBe(4);
    expect(nothing.stderr).toMatch(/holds no installation of Palimpsest[\s\S]*--objects/);
    const inUse = await found.run(['recover', '--objects', objects]);
    expect(inUse.code).toBe(5);
    expect(inUse.stderr).toMatch(/holds an installation already/);
  });
});
