/**
 * What a DBA expects of Postgres works, and what is not in the WAL as pages survives where stock Postgres lets it
 * survive: each table below is looked at after a clean suspend and resume, when nothing local is left.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { PgClient } from '../support/pg-client.ts';
import { eventually } from '../support/processes.ts';
import { TestSystem } from '../support/system.ts';

const MULTIXACTS = 60;

describe('after a suspend and resume', () => {
  const system = new TestSystem({ args: [] });

  beforeAll(() => system.start());
  afterAll(() => system.destroy());

  async function rest(branch = 'main'): Promise<void> {
    await system.suspend(branch);
    await system.resume(branch);
  }

  const main = <T>(work: (client: PgClient) => Promise<T>) => system.with('main', work);

  it('an unlogged table is there and keeps no rows that the log does not have', async () => {
    await main(async (client) => {
      await client.query('create unlogged table scratch (id int primary key, body text)');
      await client.query("insert into scratch select i, 'x' from generate_series(1, 1000) i");
      expect(await client.number('select count(*) from scratch')).toBe(1000);
    });
    await rest();
    await main(async (client) => {
      expect(await client.number('select count(*) from scratch')).toBe(0);
      await client.query("insert into scratch values (1, 'again')");
      expect(await client.value('select body from scratch where id = 1')).toBe('again');
    });
  });

  it('temporary tables work and leave nothing', async () => {
    await main(async (client) => {
      await client.query('create temp table passing as select i from generate_series(1, 20000) i');
      await client.query('create index on passing (i)');
      expect(await client.number('select count(*) from passing where i > 19000')).toBe(1000);
    });
    await rest();
    await main(async (client) => {
      expect(await client.number("select count(*) from pg_class where relname = 'passing'")).toBe(0);
    });
  });

  it('a prepared transaction can be committed, and another rolled back', async () => {
    await main(async (client) => {
      expect(await client.number('show max_prepared_transactions')).toBeGreaterThan(0);
      await client.query('create table promises (word text)');
      await client.query("begin; insert into promises values ('kept'); prepare transaction 'one'");
      await client.query("begin; insert into promises values ('broken'); prepare transaction 'two'");
    });
    await rest();
    await main(async (client) => {
      expect(await client.number('select count(*) from pg_prepared_xacts')).toBe(2);
      await client.query("commit prepared 'one'");
      await client.query("rollback prepared 'two'");
      expect(await client.value("select string_agg(word, ',') from promises")).toBe('kept');
    });
  });

  it('large objects are whole', async () => {
    const oid = await main(async (client) => {
      const made = await client.value(
        "select lo_from_bytea(0, convert_to(repeat('palimpsest ', 40000), 'UTF8'))",
      );
      return made;
    });
    await rest();
    expect(await main((client) => client.value(`select md5(lo_get(${oid}))`))).toBe(
      await main((client) => client.value("select md5(convert_to(repeat('palimpsest ', 40000), 'UTF8'))")),
    );
  });

  it('multixacts tell who locked a row', async () => {
    await main(async (client) => {
      await client.query(
        'create table parents (id int primary key); create table children (parent int references parents)',
      );
      await client.query('insert into parents select generate_series(1, 300)');
    });
    const [one, two] = await Promise.all([system.connect(), system.connect()]);
    // Key-share locks of two transactions on the same row make a multixact, a new one for each pair.
    for (let id = 1; id <= MULTIXACTS; id++) {
      await one.query(`begin; insert into children values (${id})`);
      await two.query(`begin; insert into children values (${id})`);
      await one.query('commit');
      await two.query('commit');
    }
    await one.close();
    await two.close();
    const next = () =>
      main((client) => client.number('select next_multixact_id::text::bigint from pg_control_checkpoint()'));
    await rest();
    const after = await next();
    expect(after).toBeGreaterThan(MULTIXACTS);
    await main(async (client) => {
      // Each row's xmax is looked up in the multixact files.
      expect(await client.number('select count(*) from (select * from parents for update) locked')).toBe(300);
      await client.query('vacuum (freeze) parents');
      expect(await client.number('select count(*) from children')).toBe(2 * MULTIXACTS);
    });
  });

  it.each(['wal_log', 'file_copy'])('a database made by strategy %s is there', async (strategy) => {
    const name = `copy_by_${strategy}`;
    await main(async (client) => {
      await client.query('create table if not exists original as select generate_series(1, 3000) as id');
      await client.query(`create database ${name} template template1 strategy ${strategy}`);
    });
    const inside = await system.connect('main', { database: name });
    await inside.query('create table own as select generate_series(1, 2000) as id; create index on own (id)');
    await inside.close();
    await rest();
    const again = await system.connect('main', { database: name });
    expect(await again.number('select count(*) from own where id > 0')).toBe(2000);
    await again.close();
    await main((client) => client.query(`drop database ${name}`));
    await rest();
    const gone = await system
      .connect('main', { database: name })
      .catch((error: { code?: string }) => error.code);
    expect(gone).toBe('3D000');
  });

  it('sequences never give a number twice', async () => {
    await main((client) => client.query('create sequence tickets'));
    let last = 0;
    for (let round = 0; round < 3; round++) {
      const next = await main(async (client) => {
        await client.query("select nextval('tickets') from generate_series(1, 50)");
        return client.number("select nextval('tickets')");
      });
      expect(next).toBeGreaterThan(last);
      last = next;
      await rest();
    }
  });

  it('tables do not bloat: free space is found again', async () => {
    await main(async (client) => {
      await client.query('create table sponge (id int, body text) with (autovacuum_enabled = off)');
      await client.query("insert into sponge select i, repeat('a', 400) from generate_series(1, 20000) i");
      await client.query('delete from sponge where id % 2 = 0');
      // A snapshot of somebody else (statistics, autovacuum) may keep dead rows for a moment.
      await client.query('create extension pgstattuple');
      await eventually('all dead rows to be removed', async () => {
        await client.query('vacuum sponge');
        return (await client.number("select dead_tuple_count from pgstattuple('sponge')")) === 0;
      });
    });
    const size = () => main((client) => client.number("select pg_relation_size('sponge')"));
    const before = await size();
    await rest();
    await main((client) =>
      client.query("insert into sponge select i, repeat('b', 400) from generate_series(1, 9000) i"),
    );
    expect(await size()).toBeLessThanOrEqual(before * 1.01);
  });

  it('cumulative statistics are remembered, so autovacuum does not forget', async () => {
    await main(async (client) => {
      await client.query('create table counted (id int) with (autovacuum_enabled = off)');
      await client.query('insert into counted select generate_series(1, 1234)');
      await client.query('delete from counted where id <= 234');
      await client.query('select pg_stat_force_next_flush()');
    });
    const figures = () =>
      main((client) =>
        client.query("select n_tup_ins, n_tup_del from pg_stat_user_tables where relname = 'counted'"),
      );
    await rest();
    expect((await figures()).rows[0]).toEqual({ n_tup_ins: '1234', n_tup_del: '234' });
  });

  it('settings made with ALTER SYSTEM and for databases and roles are kept', async () => {
    await main(async (client) => {
      await client.query("alter system set work_mem = '7MB'");
      await client.query("alter database postgres set statement_timeout = '123s'");
    });
    await rest();
    await main(async (client) => {
      expect(await client.value('show work_mem')).toBe('7MB');
      expect(await client.value('show statement_timeout')).toBe('123s');
      await client.query('alter database postgres reset statement_timeout');
    });
  });

  it('extensions of the binaries work', async () => {
    await main(async (client) => {
      await client.query('create extension pg_trgm; create extension hstore; create extension pageinspect');
      await client.query("create table tagged as select 'a=>1'::hstore as tags");
    });
    await rest();
    expect(await main((client) => client.value("select tags -> 'a' from tagged"))).toBe('1');
    expect(
      await main((client) => client.number("select similarity('palimpsest', 'palimpsests')")),
    ).toBeGreaterThan(0.5);
  });

  it('a user tablespace is refused with a clear error', async () => {
    const error = await main((client) =>
      client.query("create tablespace elsewhere location '/tmp'").then(
        () => undefined,
        (failure: Error) => failure,
      ),
    );
    expect(error).toBeDefined();
  });
});
