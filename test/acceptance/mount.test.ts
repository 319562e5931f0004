/**
 * The data directory of a past moment as a mount: a stock Postgres reads it, and no end of the command leaves it behind.
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { HistoryMountProcess, isMountedOn } from '../support/history-mount.ts';
import { eventually, processTree, signal } from '../support/processes.ts';
import { StockPostgres } from '../support/stock-postgres.ts';
import { TestSystem } from '../support/system.ts';

const canMount = process.getuid?.() === 0 && existsSync('/dev/fuse');

describe.runIf(canMount)('a mount of a past moment', () => {
  const system = new TestSystem();
  const folder = mkdtempSync(join(tmpdir(), 'mounts-'));
  let before: string;

  const args = (directory: string, more: string[] = []) => [
    `main@${before}`,
    directory,
    '--data',
    system.dataDir,
    ...more,
  ];
  const mountIn = (name: string, more: string[] = []) =>
    HistoryMountProcess.start(args(join(folder, name), more));
  const gone = (directory: string) =>
    eventually('the mount to be gone', () => !isMountedOn(directory), { limitMs: 5_000, everyMs: 5 });

  beforeAll(async () => {
    await system.start();
    await system.with('main', async (client) => {
      await client.query(
        'create table kept as select i as id, md5(i::text) as body from generate_series(1, 5000) i',
      );
      await client.query('create index on kept (id)');
      before = await client.value('select pg_current_wal_lsn()');
      await client.query('delete from kept');
      await client.query('vacuum kept');
    });
  });
  afterAll(async () => {
    await system.destroy();
    rmSync(folder, { recursive: true, force: true });
  });

  it('is a data directory on which a stock Postgres starts, twice, and finds the rows of then', async () => {
    const stock = await StockPostgres.create();
    const data = join(stock.folder, 'data');
    rmSync(data, { recursive: true });
    const mount = await HistoryMountProcess.start(args(data));
    try {
      const listed = readdirSync(data);
      expect(listed).toEqual(expect.arrayContaining(['PG_VERSION', 'base', 'global', 'pg_wal', 'pg_xact']));
      for (let round = 0; round < 2; round++) {
        await stock.start();
        const client = await stock.connect();
        expect(await client.number('select count(*) from kept')).toBe(5000);
        expect(await client.value('select body from kept where id = 77')).toBe(
          await client.value(`select md5('77')`),
        );
        await expect(client.query('delete from kept')).rejects.toThrow('read-only transaction');
        await client.close();
        await stock.stop();
      }
    } finally {
      await stock.destroy().catch(() => {});
      expect(await mount.stop()).toBe(0);
    }
    expect(isMountedOn(data)).toBe(false);
    rmSync(stock.folder, { recursive: true, force: true });
    expect(await system.with('main', (client) => client.number('select count(*) from kept'))).toBe(0);
  });

  it('keeps what is written as long as it lasts, or refuses writes', async () => {
    const directory = join(folder, 'written');
    const mount = await mountIn('written');
    writeFileSync(join(directory, 'note'), 'mine');
    expect(readFileSync(join(directory, 'note'), 'utf8')).toBe('mine');
    await mount.stop();
    expect(existsSync(directory)).toBe(false);
    const again = await mountIn('written', ['--read-only']);
    expect(readdirSync(directory)).not.toContain('note');
    expect(() => writeFileSync(join(directory, 'note'), 'mine')).toThrow('EROFS');
    expect(readFileSync(join(directory, 'PG_VERSION'), 'utf8').trim()).toBe('17');
    await again.stop();
  });

  it('is gone when the command is killed, and its folder can be used again', async () => {
    const directory = join(folder, 'killed');
    const mount = await mountIn('killed');
    expect(isMountedOn(directory)).toBe(true);
    signal(mount.pid, 'SIGKILL');
    await gone(directory);
    expect(readdirSync(directory)).toEqual([]);
    const again = await mountIn('killed');
    expect(readdirSync(directory)).toContain('PG_VERSION');
    expect(await again.stop()).toBe(0);
  });

  it('is gone when the process that watches over it is killed, and the command says so', async () => {
    const directory = join(folder, 'unwatched');
    const mount = await mountIn('unwatched');
    const watch = processTree(mount.pid).find(({ pid }) => pid !== mount.pid)!;
    signal(watch.pid, 'SIGKILL');
    expect(await mount.exited).toBe(6);
    expect(mount.output).toContain('watches over the mount was killed');
    expect(isMountedOn(directory)).toBe(false);
  });

  it('is dead at once when both are killed, and the next mount takes its place', async () => {
    const directory = join(folder, 'both');
    const mount = await mountIn('both');
    for (const { pid } of processTree(mount.pid).reverse()) signal(pid, 'SIGSTOP');
    for (const { pid } of processTree(mount.pid).reverse()) signal(pid, 'SIGKILL');
    await mount.exited;
    expect(() => readdirSync(directory)).toThrow(/ENOTCONN/);
    const again = await mountIn('both');
    expect(await again.stop()).toBe(0);
    expect(isMountedOn(directory)).toBe(false);
  });

  it('is gone when the parent of the command dies', async () => {
    const directory = join(folder, 'orphan');
    const mount = await HistoryMountProcess.start(args(directory), { parent: true });
    mount.child.kill('SIGKILL');
    await gone(directory);
  });

  it('needs an empty folder and a moment that there is', async () => {
    const refused = await system.run(['mount', 'main', folder]);
    expect([refused.code, refused.stderr]).toEqual([5, expect.stringContaining('is not empty')]);
    const unknown = await system.run(['mount', 'other', join(folder, 'x')]);
    expect([unknown.code, unknown.stderr]).toEqual([
      4,
      expect.stringContaining('branch "other" does not exist'),
    ]);
    const future = await system.run(['mount', 'main', join(folder, 'x'), '--at', 'FFFF/0']);
    expect([future.code, future.stderr]).toEqual([2, expect.stringContaining('is in the future')]);
  });

  it('is gone when Palimpsest stops', async () => {
    const directory = join(folder, 'stopped');
    const mount = await mountIn('stopped');
    await system.stop();
    expect(await mount.exited).toBe(6);
    expect(mount.output).toContain('Palimpsest has stopped');
    expect(isMountedOn(directory)).toBe(false);
  });
});
