/**
 * Branches: of the head of a busy parent, of an LSN, of a time, several levels deep, isolated both ways, and made in
 * the same short time whatever the size and number.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseLsn } from '../../protocols/lsn.ts';
import type { PgClient } from '../support/pg-client.ts';
import { bench, initialise } from '../support/pgbench.ts';
import { pause } from '../support/processes.ts';
import { LONG, missingTools } from '../support/programs.ts';
import { TestSystem } from '../support/system.ts';

const LIMIT_MS = LONG ? 900_000 : 240_000;

describe('branches', () => {
  const system = new TestSystem();

  beforeAll(() => system.start());
  afterAll(() => system.destroy());

  const count = (branch: string, table: string) =>
    system.with(branch, (client) => client.number(`select count(*) from ${table}`));

  it('of a busy parent hold what was committed before, and nothing later', {
    timeout: LIMIT_MS,
  }, async () => {
    const writer = await system.connect();
    await writer.query('create table busy (id int primary key)');
    let committed = 0;
    let writing = true;
    const load = (async () => {
      while (writing) {
        await writer.query(`insert into busy values (${committed + 1})`);
        committed++;
      }
    })();
    await pause(300);
    const before = committed;
    await system.createBranch('of-busy');
    const after = committed + 1;
    await pause(200);
    writing = false;
    await load;
    await writer.close();
    const inBranch = await count('of-busy', 'busy');
    expect(inBranch).toBeGreaterThanOrEqual(before);
    expect(inBranch).toBeLessThanOrEqual(after);
    expect(await system.with('of-busy', (client) => client.number('select max(id) from busy'))).toBe(
      inBranch,
    );
    expect(await count('main', 'busy')).toBe(committed);
  });

  it('at an LSN before a DELETE hold the deleted rows', async () => {
    const lsn = await system.with('main', async (client) => {
      await client.query(
        'create table kept as select generate_series(1, 5000) as id; create index on kept (id)',
      );
      const position = await currentLsn(client);
      await client.query('delete from kept');
      await client.query('vacuum kept');
      return position;
    });
    await system.createBranch('before-delete', { at: lsn });
    expect(await count('before-delete', 'kept')).toBe(5000);
    expect(await count('main', 'kept')).toBe(0);
  });

  it('at an LSN in the middle of a record start at the end of the record before', async () => {
    const lsn = await system.with('main', async (client) => {
      await client.query('create table middle (id int)');
      await client.query('insert into middle values (1)');
      const end = parseLsn(await currentLsn(client))!;
      await client.query('insert into middle values (2)');
      return `${Math.floor(end / 2 ** 32).toString(16)}/${((end % 2 ** 32) + 13).toString(16)}`;
    });
    await system.createBranch('middle', { at: lsn });
    expect(await count('middle', 'middle')).toBe(1);
  });

  it('at a time hold what was committed by then', async () => {
    const client = await system.connect();
    await client.query('create table clock (id int)');
    await client.query('insert into clock values (1)');
    await pause(150);
    const time = new Date().toISOString();
    await pause(150);
    await client.query('insert into clock values (2)');
    await client.close();
    await system.createBranch('at-time', { at: time });
    expect(await count('at-time', 'clock')).toBe(1);
    expect(await count('main', 'clock')).toBe(2);
  });

  it('three levels deep are isolated both ways, also after everything restarted', {
    timeout: LIMIT_MS,
  }, async () => {
    await system.with('main', (client) => client.query('create table levels as select 0 as level'));
    const names = ['main', 'level-1', 'level-2', 'level-3'];
    for (let i = 1; i < names.length; i++) {
      await system.createBranch(names[i]!, { from: names[i - 1]! });
      await system.with(names[i]!, (client) => client.query(`insert into levels values (${i})`));
    }
    // Later writes to each level are seen by no other.
    for (const [i, name] of names.entries()) {
      await system.with(name, (client) => client.query(`insert into levels values (${(i + 1) * 10})`));
    }
    const levels = (name: string) =>
      system.with(name, (client) =>
        client.value("select string_agg(level::text, ',' order by level) from levels"),
      );
    const expected = ['0,10', '0,1,20', '0,1,2,30', '0,1,2,3,40'];
    for (const [i, name] of names.entries()) expect(await levels(name)).toBe(expected[i]);
    await system.stop();
    await system.start();
    for (const [i, name] of names.entries()) expect(await levels(name)).toBe(expected[i]);
  });

  it('are renamed and deleted, but not while they have children', async () => {
    await system.createBranch('parent');
    await system.createBranch('child', { from: 'parent' });
    const refused = await system.run(['branch', 'delete', 'parent']);
    expect(refused.code).not.toBe(0);
    expect(refused.stderr).toMatch(/child/);
    await system.json(['branch', 'rename', 'child', 'grown']);
    expect(await count('grown', 'levels')).toBeGreaterThan(0);
    await system.json(['branch', 'delete', 'grown']);
    await system.json(['branch', 'delete', 'parent']);
    const { branches } = await system.json<{ branches: { name: string }[] }>(['branch', 'list']);
    const names = branches.map(({ name }) => name);
    expect(names.filter((name) => ['parent', 'child', 'grown'].includes(name))).toEqual([]);
    expect(names).toContain('level-3');
  });

  it.skipIf(missingTools('pgbench', 'psql'))(
    'are made in a time that does not grow with the data or their number',
    { timeout: LIMIT_MS },
    async () => {
      const target = await system.target();
      await initialise(target, LONG ? 20 : 2);
      await bench(target, { clients: 4, seconds: 2 });
      const times: number[] = [];
      const branches = LONG ? 50 : 10;
      for (let i = 0; i < branches; i++) {
        const started = performance.now();
        await system.createBranch(`many-${i}`, { from: i % 3 === 2 ? `many-${i - 1}` : 'main' });
        times.push(performance.now() - started);
      }
      // The times hold the start of a command line; what counts is that the last are like the first.
      const middle = (list: number[]) => list.toSorted((a, b) => a - b)[Math.floor(list.length / 2)]!;
      const [first, last] = [middle(times.slice(0, 5)), middle(times.slice(-5))];
      expect(last).toBeLessThan(first * 2 + 100);
      console.log(`branch create by CLI: first five ${first.toFixed(0)} ms, last five ${last.toFixed(0)} ms`);
      const rows = await count('main', 'pgbench_accounts');
      for (const i of [0, branches - 1]) expect(await count(`many-${i}`, 'pgbench_accounts')).toBe(rows);
    },
  );
});

function currentLsn(client: PgClient): Promise<string> {
  return client.value('select pg_current_wal_insert_lsn()');
}
