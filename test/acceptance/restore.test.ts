/**
 * Restore and reset: a branch goes back to a moment of its past, or to the state of its parent, under the same name; what grew from
 * its old state goes on; a crash in the middle leaves one of the two states.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { BranchView } from '../../deploy/client/index.ts';
import type { PgClient } from '../support/pg-client.ts';
import { pause } from '../support/processes.ts';
import { TestSystem } from '../support/system.ts';

describe('restore and reset', () => {
  const system = new TestSystem();

  beforeAll(() => system.start());
  afterAll(() => system.destroy());

  const count = (branch: string, table: string) =>
    system.with(branch, (client) => client.number(`select count(*) from ${table}`));
  const branches = async () => (await system.json<{ branches: BranchView[] }>(['branch', 'list'])).branches;
  const names = async () => (await branches()).map(({ name }) => name);

  it('takes a branch back in place: clients are disconnected, the next one sees the past, children go on', async () => {
    const lsn = await system.with('main', async (client) => {
      await client.query('create table t as select generate_series(1, 1000) as id');
      return currentLsn(client);
    });
    await system.with('main', (client) => client.query('delete from t where id > 10'));
    await system.createBranch('child');
    await system.with('child', (client) => client.query('insert into t values (5000)'));

    const old = await system.connect();
    const restored = await system.json<BranchView>(['branch', 'restore', 'main', '--at', lsn]);
    expect(restored).toMatchObject({ name: 'main', state: 'ready' });
    await expect(old.query('select 1')).rejects.toThrow();
    await old.close().catch(() => {});
    expect(await count('main', 't')).toBe(1000);
    await system.with('main', (client) => client.query('insert into t values (7000)'));
    expect(await count('main', 't')).toBe(1001);
    expect(await count('child', 't')).toBe(11);
    expect((await branches()).find(({ name }) => name === 'child')!.parent).toBe('main');
    expect(await names()).toEqual(expect.arrayContaining(['main', 'child']));
  });

  it('keeps what a branch held under another name, and both go on', async () => {
    await system.createBranch('dev');
    const lsn = await system.with('dev', async (client) => {
      await client.query('create table u as select generate_series(1, 5) as id');
      const position = await currentLsn(client);
      await client.query('insert into u values (6)');
      return position;
    });
    const args = ['branch', 'restore', 'dev', '--at', lsn, '--preserve-under', 'dev-before'];
    const { stdout } = await system.run(args);
    expect(stdout).toMatch(/^restored branch dev to .*; what it held is branch dev-before/);
    expect(await count('dev', 'u')).toBe(5);
    expect(await count('dev-before', 'u')).toBe(6);
    await system.with('dev-before', (client) => client.query('insert into u values (7)'));
    expect(await count('dev', 'u')).toBe(5);
  });

  it('resets a branch to the newest state of its parent, and drops what it held', async () => {
    await system.createBranch('work');
    await system.with('work', (client) => client.query('drop table t'));
    await system.with('main', (client) => client.query('create table new_in_main (id int)'));
    await system.json(['branch', 'reset', 'work']);
    expect(await count('work', 'new_in_main')).toBe(0);
    expect(await count('work', 't')).toBe(1001);
    expect((await system.run(['branch', 'reset', 'main'])).stderr).toMatch(/no parent to be reset to/);
    await system.json(['branch', 'delete', 'work']);
  });

  it('refuses a moment that is not in the past, and leaves the branch as it is', async () => {
    const future = await system.run(['branch', 'restore', 'main', '--at', 'FFFF/0']);
    expect(future.code).toBe(2);
    expect(future.stderr).toMatch(/in the future/);
    const missing = await system.run(['branch', 'restore', 'nobody', '--at', '0/1']);
    expect(missing.code).toBe(4);
    const taken = await system.run(['branch', 'restore', 'main', '--at', '1s', '--preserve-under', 'child']);
    expect(taken.code).toBe(5);
    expect(await count('main', 't')).toBe(1001);
  });

  it('puts a branch away and brings it back, with nothing of it on local disks meanwhile', async () => {
    await system.createBranch('away');
    await system.with('away', (client) => client.query('insert into t values (9000)'));
    const { timeline } = (await branches()).find(({ name }) => name === 'away')!;
    const before = await count('away', 't');
    const local = () =>
      readdirSync(join(system.dataDir, 'pageserver'), { recursive: true, encoding: 'utf8' }).filter((path) =>
        path.includes(timeline),
      );
    expect(local().length).toBeGreaterThan(0);
    expect((await system.run(['branch', 'archive', 'away'])).stdout).toMatch(/branch away is archived/);
    expect(local()).toEqual([]);
    await expect(system.connect('away')).rejects.toThrow(/branch "away" is archived/);
    expect((await system.run(['branch', 'create', 'x', '--from', 'away'])).stderr).toMatch(/unarchive away/);
    expect((await system.run(['branch', 'archive', 'main'])).code).toBe(5);
    await system.json(['branch', 'unarchive', 'away']);
    expect(await count('away', 't')).toBe(before);
  });

  it('makes a branch independent of its parent, which may then be deleted', async () => {
    await system.createBranch('above', { from: 'child' });
    await system.with('above', (client) => client.query('insert into t values (1), (2), (3)'));
    await system.createBranch('below', { from: 'above' });
    await system.with('below', (client) => client.query('delete from t where id = 2'));
    const rows = await count('below', 't');
    const detached = await system.json<BranchView>(['branch', 'detach', 'below']);
    expect(detached.parent).toBeUndefined();
    expect(await count('below', 't')).toBe(rows);
    await system.json(['branch', 'delete', 'above']);
    await system.with('below', (client) => client.query('insert into t values (4)'));
    await system.suspend('below');
    expect(await count('below', 't')).toBe(rows + 1);
    expect((await system.run(['branch', 'reset', 'below'])).stderr).toMatch(/no parent/);
  });

  it('leaves one of the two states when everything is killed in the middle', async () => {
    await system.createBranch('fragile');
    const lsn = await system.with('fragile', async (client) => {
      await client.query('create table f as select 1 as id');
      const position = await currentLsn(client);
      await client.query('insert into f values (2)');
      return position;
    });
    for (const delayMs of [20, 120]) {
      const asked = system.withClient((client) => client.restoreBranch('fragile', { lsn })).catch(() => {});
      await pause(delayMs);
      await system.crash();
      await asked;
      await system.start();
      const rows = await count('fragile', 'f');
      expect([1, 2]).toContain(rows);
      const fragile = (await branches()).find(({ name }) => name === 'fragile')!;
      expect(fragile.state).toBe('ready');
    }
    await system.json(['branch', 'restore', 'fragile', '--at', lsn]);
    expect(await count('fragile', 'f')).toBe(1);
    expect(await count('child', 't')).toBe(11);
    expect(await count('below', 't')).toBeGreaterThan(3);
  });
});

function currentLsn(client: PgClient): Promise<string> {
  return client.value('select pg_current_wal_insert_lsn()');
}
