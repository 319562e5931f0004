/**
 * Every kind of index, and what else redo must reproduce, on the running system: after a suspend and resume every index
 * returns what a sequential scan returns, and pg_amcheck finds nothing.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { PgClient } from '../support/pg-client.ts';
import { missingTools, runTool } from '../support/programs.ts';
import { clientEnvironment, TestSystem } from '../support/system.ts';

const ROWS = 4000;

/** A table with one index of a kind; `queries` are conditions that the index can answer. */
interface IndexCase {
  name: string;
  table: string;
  rows: string;
  index: string;
  queries: string[];
}

const TAGS = 'array[i % 10, i % 500, i]';
const WORDS = "to_tsvector('simple', (i % 50) || ' w' || i || ' common')";
const JSON_VALUE = "jsonb_build_object('k', i % 40, 'list', jsonb_build_array(i, i % 7))";

const CASES: IndexCase[] = [
  {
    name: 'hash',
    table: 'k int, n int',
    rows: 'i % 700, i',
    index: 'hash (k)',
    queries: ['k = 3', 'k = 699'],
  },
  {
    name: 'gin_array',
    table: 'k int[], n int',
    rows: `${TAGS}, i`,
    index: 'gin (k) with (fastupdate = on)',
    queries: ["k @> '{3}'", "k && '{499, 17}'"],
  },
  {
    name: 'gin_array_direct',
    table: 'k int[], n int',
    rows: `${TAGS}, i`,
    index: 'gin (k) with (fastupdate = off)',
    queries: ["k @> '{3}'", "k && '{499, 17}'"],
  },
  {
    name: 'gin_words',
    table: 'k tsvector, n int',
    rows: `${WORDS}, i`,
    index: 'gin (k)',
    queries: ["k @@ 'common & 7'", "k @@ 'w77 | w3999'"],
  },
  {
    name: 'gin_json',
    table: 'k jsonb, n int',
    rows: `${JSON_VALUE}, i`,
    index: 'gin (k) with (fastupdate = off)',
    queries: [`k @> '{"k": 3}'`, `k @> '{"list": [6]}'`],
  },
  {
    name: 'gist',
    table: 'k point, n int',
    rows: 'point(i % 100, i / 100), i',
    index: 'gist (k)',
    queries: ["k <@ box '(10,10),(30,20)'"],
  },
  {
    name: 'spgist_point',
    table: 'k point, n int',
    rows: 'point(i % 100, i / 100), i',
    index: 'spgist (k)',
    queries: ["k <@ box '(10,10),(30,20)'"],
  },
  {
    name: 'spgist_text',
    table: 'k text, n int',
    rows: "repeat('ab', i % 20) || i, i",
    index: 'spgist (k)',
    queries: ["k = 'ababab3'", "k ^@ 'abababab1'"],
  },
  {
    name: 'brin',
    table: 'k int, n int',
    rows: 'i * 3, i',
    index: 'brin (k) with (pages_per_range = 2)',
    queries: ['k between 900 and 1200', 'k = 11997'],
  },
  {
    name: 'bloom',
    table: 'k int, n int',
    rows: 'i % 300, i',
    index: 'bloom (k)',
    queries: ['k = 7'],
  },
  {
    name: 'btree',
    table: 'k text, n int',
    rows: 'md5(i::text), i',
    index: 'btree (k)',
    queries: ["k < '1'"],
  },
];

describe('after a suspend and resume', () => {
  const system = new TestSystem();
  const main = <T>(work: (client: PgClient) => Promise<T>) => system.with('main', work);

  beforeAll(async () => {
    await system.start();
    await main(async (client) => {
      await client.query('create extension bloom; create extension amcheck');
      await client.query("alter system set wal_level = 'logical'");
      for (const { name, table, rows, index } of CASES) {
        await client.query(`create table t_${name} (${table}) with (autovacuum_enabled = off)`);
        await client.query(`create index i_${name} on t_${name} using ${index}`);
        await client.query(`insert into t_${name} select ${rows} from generate_series(1, ${ROWS}) i`);
      }
    });
    await rest();
    // Everything from here on is written as for logical decoding.
    expect(await main((client) => client.value('show wal_level'))).toBe('logical');
  });
  afterAll(() => system.destroy());

  async function rest(): Promise<void> {
    await system.suspend();
    await system.resume();
  }

  /** What each query returns by the index must be what it returns without. */
  async function expectIndexesToAgree(when: string): Promise<void> {
    await main(async (client) => {
      for (const { name, queries } of CASES) {
        for (const condition of queries) {
          const query = `select count(*) || ':' || coalesce(sum(n), 0) from t_${name} where ${condition}`;
          await client.query(
            'set enable_seqscan = off; set enable_indexscan = on; set enable_bitmapscan = on',
          );
          const plan = await client.query(`explain ${query}`);
          expect(JSON.stringify(plan.rows), `${when}: ${query}`).toContain(`i_${name}`);
          const byIndex = await client.value(query);
          await client.query(
            'set enable_seqscan = on; set enable_indexscan = off; set enable_bitmapscan = off',
          );
          expect(byIndex, `${when}: ${query}`).toBe(await client.value(query));
        }
      }
    });
  }

  it('every index returns what a sequential scan returns', () => expectIndexesToAgree('as built'), 60_000);

  it('and still does after deletes, vacuum and more rows, written by another compute', async () => {
    await main(async (client) => {
      for (const { name, rows } of CASES) {
        await client.query(`delete from t_${name} where n % 3 = 0 or n between 2000 and 3000`);
        await client.query(`vacuum t_${name}`);
        await client.query(
          `insert into t_${name} select ${rows} from generate_series(${ROWS / 2}, ${ROWS * 1.5}) i`,
        );
        await client.query(`update t_${name} set n = n + 1000000 where n % 5 = 0`);
      }
    });
    await rest();
    await expectIndexesToAgree('changed');
  }, 60_000);

  it('multixacts of many sessions, prepared transactions, databases and rewritten tables are there', async () => {
    await main(async (client) => {
      await client.query('create table locked (id int primary key, n int)');
      await client.query('insert into locked select i, 0 from generate_series(1, 200) i');
      await client.query('create table rewritten (id int primary key, body text)');
      await client.query(
        "insert into rewritten select i, repeat('x', i % 90) from generate_series(1, 3000) i",
      );
      await client.query('delete from rewritten where id % 2 = 0');
      await client.query('vacuum full rewritten');
      await client.query('cluster rewritten using rewritten_pkey');
      await client.query('vacuum full pg_class');
      for (const strategy of ['wal_log', 'file_copy']) {
        await client.query(`create database copy_${strategy} template template1 strategy ${strategy}`);
      }
    });
    await lockFromManySessions();
    await main(async (client) => {
      await client.query("begin; update locked set n = 5 where id = 7; prepare transaction 'seven'");
    });
    await rest();
    await main(async (client) => {
      await client.query("commit prepared 'seven'");
      expect(await client.number('select n from locked where id = 7')).toBe(5);
      // Looks every xmax up among the multixacts.
      expect(await client.number('select count(*) from (select * from locked for update) x')).toBe(200);
      expect(await client.number('select count(*) from rewritten')).toBe(1500);
      expect(await client.number('select sum(length(body)) from rewritten')).toBeGreaterThan(0);
    });
  }, 60_000);

  it('pg_amcheck finds nothing', async () => {
    if (missingTools('pg_amcheck')) return;
    const env = clientEnvironment(await system.target());
    // Its checks stand in each database's own extension.
    await runTool('pg_amcheck', ['--all', '--install-missing', '--heapallindexed', '--parent-check'], {
      env,
    });
  }, 60_000);

  /** Eight sessions hold key-share locks on all rows at once, so that their xmax become multixacts of several members. */
  async function lockFromManySessions(): Promise<void> {
    const sessions = await Promise.all(Array.from({ length: 8 }, () => system.connect()));
    for (const session of sessions) {
      await session.query('begin');
      await session.query('select count(*) from (select * from locked for key share) x');
    }
    for (const session of sessions) await session.query('commit');
    await Promise.all(sessions.map((session) => session.close()));
  }
});
