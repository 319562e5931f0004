/**
 * The whole system once, as a newcomer meets it: start, query, branch, suspend, resume, restart, lose the caches, stop.
 */
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runDirectoryOf } from '../../deploy/node/data-directory.ts';
import { isAlive, mountsWith, processTree } from '../support/processes.ts';
import { TestSystem } from '../support/system.ts';

describe('palimpsest', () => {
  const system = new TestSystem();
  const count = (branch: string) =>
    system.with(branch, (client) => client.number('select count(*) from words'));

  beforeAll(() => system.start());
  afterAll(() => system.destroy());

  it('runs a stock Postgres', async () => {
    const version = await system.with('main', (client) => client.value('select version()'));
    expect(version).toMatch(/^PostgreSQL 17\./);
    await system.with('main', async (client) => {
      await client.query('create table words (id int primary key, word text)');
      await client.query("insert into words select i, 'word ' || i from generate_series(1, 1000) i");
    });
  });

  it('makes a branch that holds what its parent held, each isolated from the other', async () => {
    const branch = await system.createBranch('dev');
    expect(branch).toMatchObject({ name: 'dev', parent: 'main', state: 'ready' });
    await system.with('dev', (client) => client.query('delete from words where id > 10'));
    await system.with('main', (client) => client.query("insert into words values (1001, 'later')"));
    expect(await count('dev')).toBe(10);
    expect(await count('main')).toBe(1001);
  });

  it('refuses to create a branch from the future and frees its name', async () => {
    const refused = await system.run(['branch', 'create', 'soon', '--at', 'FFFF/0']);
    expect(refused.code).toBe(2); // wrong usage
    expect(refused.stderr).toMatch(/in the future/);
    await system.createBranch('soon');
  });

  it('suspends a compute and starts it again for the next client', async () => {
    expect(await system.suspend('main')).toMatchObject({ compute: 'suspended' });
    expect(await count('main')).toBe(1001);
    await system.suspend('main');
    expect(await system.resume('main')).toMatchObject({ compute: 'running' });
  });

  it('closes the clients of a compute that is suspended with a proper error', async () => {
    const client = await system.connect('main');
    await system.suspend('main');
    const failure = await client.query('select 1').catch((error) => error as Error);
    expect(String(failure)).toMatch(/57P01|terminat|closed/i);
  });

  it('finds everything again after a stop and a start', async () => {
    expect(await system.stop()).toBe(0);
    expect(existsSync(join(system.dataDir, 'palimpsest.pid'))).toBe(false);
    await system.start();
    expect(await count('main')).toBe(1001);
    expect(await count('dev')).toBe(10);
  });

  it('needs no local file of computes and pageserver', async () => {
    await system.stop();
    for (const folder of ['computes', 'pageserver']) {
      rmSync(join(system.dataDir, folder), { recursive: true, force: true });
    }
    await system.start();
    expect(await count('main')).toBe(1001);
    expect(await count('dev')).toBe(10);
  });

  it('makes a second project with a password of its own', async () => {
    const created = await system.json<{ url: string }>(['project', 'create', 'shop']);
    expect(new URL(created.url).password).not.toBe(new URL(await system.url('main')).password);
    expect(created.url).toContain('project%3Dshop');
    const { projects } = await system.json<{ projects: { name: string }[] }>(['project', 'list']);
    expect(projects.map(({ name }) => name)).toEqual(['default', 'shop']);
    await system.json(['project', 'delete', 'shop']);
  });

  it('leaves nothing behind when it is stopped', async () => {
    const tree = processTree(system.pid);
    expect(tree.length).toBeGreaterThan(4);
    expect(await system.stop()).toBe(0);
    expect(tree.filter(({ pid }) => isAlive(pid))).toEqual([]);
    const runDirectory = runDirectoryOf(system.dataDir);
    expect(existsSync(runDirectory)).toBe(false);
    expect(mountsWith(runDirectory)).toEqual([]);
  });

  it('says so when nothing runs', async () => {
    const result = await system.run(['status']);
    expect(result.code).toBe(3);
    expect(result.stderr).toMatch(/nothing runs in/);
  });
});
