/**
 * Safekeepers and objects are the system of record: with all local files of computes and of the pageserver gone,
 * nothing is lost, after a clean stop and after a crash.
 */
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TestSystem } from '../support/system.ts';

describe('without any local file of computes and pageserver', () => {
  const system = new TestSystem();

  beforeAll(async () => {
    await system.start();
    await system.with('main', async (client) => {
      await client.query('create table letters (id int primary key, body text)');
      await client.query(
        'insert into letters select i, repeat(md5(i::text), 20) from generate_series(1, 20000) i',
      );
      await client.query('create sequence numbers; select nextval($$numbers$$)');
    });
    await system.createBranch('side', {});
    await system.with('side', (client) => client.query('delete from letters where id % 2 = 0'));
  });
  afterAll(() => system.destroy());

  it('a clean stop loses nothing', async () => {
    const before = await contents();
    expect(await system.stop()).toBe(0);
    wipe();
    await system.start();
    expect(await contents()).toEqual(before);
    expect(before.map(({ count }) => count)).toEqual(['20000', '10000']);
  });

  it('a crash loses nothing that was acknowledged', async () => {
    await system.with('main', (client) => client.query("insert into letters values (0, 'the last')"));
    await system.with('side', (client) => client.query('update letters set body = upper(body)'));
    const before = await contents();
    await system.crash();
    wipe();
    await system.start();
    expect(await contents()).toEqual(before);
    expect(before[0]!.count).toBe('20001');
  });

  async function contents() {
    const sql = "select count(*), md5(string_agg(id || body, '' order by id)) as sum from letters";
    const rows = [];
    for (const branch of ['main', 'side']) {
      rows.push(await system.with(branch, async (client) => (await client.query(sql)).rows[0]!));
    }
    return rows;
  }

  function wipe(): void {
    for (const folder of ['computes', 'pageserver']) {
      const path = join(system.dataDir, folder);
      expect(existsSync(path)).toBe(true);
      rmSync(path, { recursive: true });
    }
  }
});
