/** An installation moves: what is exported from one data directory is imported into another, with other objects and all history. */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { signal } from '../support/processes.ts';
import { TestSystem } from '../support/system.ts';

const LIMIT = { timeoutMs: 120_000 };
const SUM = "select count(*) || ' ' || sum(hashtext(n::text)) from numbers";

describe('palimpsest export and import', () => {
  const folder = mkdtempSync(join(tmpdir(), 'palimpsest-export-'));
  const exported = join(folder, 'exported');
  const old = new TestSystem({ dataDir: join(folder, 'old') });
  const moved = new TestSystem({ dataDir: join(folder, 'moved') });
  const objects = join(folder, 'moved-objects');
  afterAll(async () => {
    await old.destroy();
    await moved.destroy();
    rmSync(folder, { recursive: true, force: true });
  });

  let before = '';
  let after = '';
  let lsn = '';

  it('copies an installation up to its last commit, also one that was killed', async () => {
    await old.start();
    await old.with('main', async (client) => {
      await client.query('create table numbers as select n from generate_series(1, 5000) n');
      before = await client.value(SUM);
      lsn = await client.value('select pg_current_wal_lsn()');
    });
    await old.createBranch('dev');
    await old.with('dev', (client) => client.query('delete from numbers where n > 10'));
    const running = await old.run(['export', exported]);
    expect([running.code, running.stderr]).toEqual([5, expect.stringMatching(/in use by process/)]);
    await old.with('main', async (client) => {
      await client.query('insert into numbers select n from generate_series(5001, 6000) n');
      after = await client.value(SUM);
      for (const { pid } of old.processes()) signal(pid, 'SIGKILL');
    });
    await old.stop();
    const done = await old.run(['export', join(folder, 'exported'), '--json'], LIMIT);
    expect(done.code, done.stderr).toBe(0);
    expect(JSON.parse(done.stdout)).toMatchObject({ projects: 1 });
  });

  it('brings everything back with other objects: names, data, branches, the past', async () => {
    const result = await moved.run(['import', exported, '--objects', objects, '--json'], LIMIT);
    expect(result.code, result.stdout + result.stderr).toBe(0);
    const { branches } = JSON.parse(result.stdout) as { branches: Record<string, unknown>[] };
    expect(branches.map(({ branch, outcome, complete }) => [branch, outcome, complete]).sort()).toEqual([
      ['dev', 'recovered', true],
      ['main', 'recovered', true],
    ]);
    // Nothing of the old one is needed.
    rmSync(exported, { recursive: true });
    await moved.start();
    expect(await moved.with('main', (client) => client.value(SUM))).toBe(after);
    expect(await moved.with('dev', (client) => client.value('select count(*) from numbers'))).toBe('10');
    await moved.json(['branch', 'create', 'past', '--at', lsn]);
    expect(await moved.with('past', (client) => client.value(SUM))).toBe(before);
    await moved.with('main', (client) => client.query('insert into numbers values (0)'));
  });

  it('leaves the old installation as it was, which goes on by itself', async () => {
    await moved.stop();
    await old.start();
    expect(await old.with('main', (client) => client.value(SUM))).toBe(after);
    await old.stop();
  });

  it('overwrites nothing, and says what is in the way', async () => {
    const again = await old.run(['export', exported, '--json'], LIMIT);
    expect(again.code, again.stderr).toBe(0);
    const code = async (...args: string[]) => {
      const { code: exit, stderr } = await moved.run(args, LIMIT);
      return [exit, stderr] as const;
    };
    const other = join(folder, 'other');
    expect(await code('import', exported, '--objects', other)).toEqual([
      5,
      expect.stringContaining('holds an installation already'),
    ]);
    expect(existsSync(other)).toBe(false);
    const fresh = new TestSystem({ dataDir: join(folder, 'fresh') });
    const refused = await fresh.run(['import', exported, '--objects', objects], LIMIT);
    expect([refused.code, refused.stderr]).toEqual([5, expect.stringContaining('overwrites nothing')]);
    expect(await code('export', exported)).toEqual([5, expect.stringContaining('is not empty')]);
    expect(await code('import', folder, '--objects', other)).toEqual([
      4,
      expect.stringContaining('no export'),
    ]);
    expect(await code('export', other, '--nats', 'nats://127.0.0.1:1')).toEqual([
      1,
      expect.stringContaining('not with a cluster'),
    ]);
  });
});
