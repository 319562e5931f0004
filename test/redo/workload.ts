/**
 * SQL that reaches the record types redo has to know, thin ones above all: page deletion in btrees, deduplication, posting
 * list splits, multixacts, freezing, subtransactions, prepared transactions, truncation, databases, relation maps.
 */
import type { PgClient } from '../support/pg-client.ts';
import type { StockPostgres } from '../support/stock-postgres.ts';

const BTREE = [
  'create table bt(a int, b text) with (autovacuum_enabled=off)',
  'insert into bt select i, md5(i::text) from generate_series(1,16000) i',
  'create index bt_a on bt(a)',
  'create index bt_b on bt(b)',
  'create table dup(a int, f int) with (autovacuum_enabled=off, fillfactor=70)',
  'create index dup_a on dup(a)',
  'insert into dup select (random()*50)::int, i from generate_series(1,12000) i',
  'delete from dup where f % 3 = 0',
  'vacuum dup',
  'insert into dup select (random()*50)::int, i from generate_series(1,6000) i',
  'update dup set f = f + 1 where a < 10',
  'vacuum dup',
  'update dup set a = a + 1 where a between 10 and 20',
  'vacuum dup',
  'delete from bt where a between 1000 and 15500',
  'vacuum bt',
  'vacuum bt',
  'select txid_current()',
  'vacuum bt',
  'insert into bt select i, md5(i::text) from generate_series(1,8000) i',
  'delete from bt',
  'vacuum bt',
  'vacuum bt',
  'insert into bt select i, md5(i::text) from generate_series(1,12000) i',
  'reindex table dup',
];

const HEAP = [
  'create table fz(a int primary key, b int)',
  'insert into fz select i, i from generate_series(1,5000) i',
  'vacuum freeze fz',
  'update fz set b = b + 1',
  'vacuum (freeze) fz',
  'delete from fz where a % 2 = 0',
  'vacuum fz',
  'vacuum fz',
  'update fz set b = b + 1 where a < 3000',
  'create table wide(a int, t text, n int)',
  "insert into wide select i, case when i % 3 = 0 then null else repeat('x', i % 700) end, i from generate_series(1,6000) i",
  'update wide set n = n + 1 where a % 5 = 0',
  "update wide set t = t || 'y' where a % 7 = 0",
  'delete from wide where a > 3000',
  'vacuum (truncate) wide',
  'insert into wide select i, null, i from generate_series(1,2000) i',
  'create table toasty(a int, t text)',
  'alter table toasty alter t set storage external',
  'insert into toasty select i, repeat(md5(i::text), 300) from generate_series(1,200) i',
  "update toasty set t = t || 'x' where a % 3 = 0",
  'delete from toasty where a % 5 = 0',
  'vacuum toasty',
  'create table part(a int, b int) partition by list (a)',
  'create table part1 partition of part for values in (1)',
  'create table part2 partition of part for values in (2)',
  'insert into part select 1, i from generate_series(1,500) i',
  'update part set a = 2 where b % 2 = 0',
  'insert into fz values (1,1), (3,3), (1000003,2) on conflict (a) do update set b = excluded.b',
  'vacuum full bt',
  'cluster fz using fz_pkey',
  'vacuum full pg_class',
  'reindex database postgres',
  'create materialized view mv as select a from dup',
  'refresh materialized view mv',
  'alter table dup alter f type bigint using a',
];

const STATE = [
  'create sequence sq',
  "select count(nextval('sq')) from generate_series(1,500)",
  'alter sequence sq restart',
  "select pg_logical_emit_message(true, 'p', 'hello')",
  "select pg_logical_emit_message(false, 'p', 'hello')",
  "select pg_replication_origin_create('o1')",
  "select pg_replication_origin_advance('o1', '0/1')",
  'create unlogged table ul(a int primary key)',
  'insert into ul select generate_series(1,1000)',
  'create unlogged table ul2(a int primary key)',
  'alter table ul2 set logged',
  'alter table ul2 set unlogged',
  'create temp table tt(a int)',
  'insert into tt values (1)',
  'create database dbx',
  'create database dby strategy file_copy',
  'create database dbz strategy file_copy template dbx',
  'drop database dbx',
  'create table gone(a int primary key)',
  'insert into gone select generate_series(1,1000)',
  'drop table gone',
  'create table cut(a int primary key)',
  'insert into cut select generate_series(1,30000)',
  'vacuum cut',
  'delete from cut where a > 12000',
  'vacuum cut',
  'truncate dup',
  "select lo_from_bytea(0, decode(repeat('00ff', 5000), 'hex'))",
];

/** Runs everything; connections do the concurrent parts. */
export async function runWorkload(postgres: StockPostgres): Promise<void> {
  const client = await postgres.connect();
  for (const statement of BTREE) await client.query(statement);
  for (const statement of HEAP) await client.query(statement);
  await locksAndMultixacts(postgres, client);
  await client.query('checkpoint');
  await subtransactions(client);
  for (const statement of STATE) await client.query(statement);
  await preparedTransactions(client);
  await frozenCopy(client);
  await smallUpdates(postgres);
  await client.query('vacuum (freeze)');
  await client.query('insert into fz values (2000001, 1)');
  await client.close();
}

/** Two sessions share row locks, so that rows get multixacts; then updates and freezing of such rows. */
async function locksAndMultixacts(postgres: StockPostgres, client: PgClient): Promise<void> {
  const other = await postgres.connect();
  for (let round = 0; round < 3; round++) {
    await client.query('begin');
    await other.query('begin');
    await client.query('select count(*) from (select * from fz where a < 900 for key share) x');
    await other.query('select count(*) from (select * from fz where a < 900 for share) x');
    await client.query('savepoint s');
    await client.query('select count(*) from (select * from fz where a between 1000 and 1400 for update) x');
    await client.query('update fz set b = b + 1 where a between 1000 and 1400');
    await other.query('commit');
    await client.query('update fz set b = b + 5 where a < 500');
    await client.query('commit');
  }
  // A row locked in its old version while a newer one exists: LOCK_UPDATED.
  await client.query('begin');
  await client.query('update fz set b = b + 1 where a < 100');
  await other.query('begin');
  await other.query('select count(*) from (select * from fz where a < 100 for key share) x');
  await client.query('commit');
  await other.query('commit');
  await client.query('vacuum (freeze) fz');
  await manyMultixacts(client, other);
  await other.close();
}

/** Each subtransaction's lock makes another multixact: enough for several pages of offsets and members. */
async function manyMultixacts(client: PgClient, other: PgClient): Promise<void> {
  await client.query('create table locked(a int primary key)');
  await client.query('insert into locked select generate_series(1, 2500)');
  await client.query('begin; select count(*) from (select * from locked for key share) x');
  await other.query(`do $$ begin for i in 1..2500 loop begin perform 1 from locked where a = i for share;
    exception when others then null; end; end loop; end $$`);
  await client.query('commit');
}

/** More subtransactions than fit one commit record's cache, some rolled back. */
async function subtransactions(client: PgClient): Promise<void> {
  await client.query('create table sub(a int)');
  await client.query(`do $$ begin for i in 1..300 loop begin insert into sub values (i);
    if i % 3 = 0 then raise exception 'x'; end if; exception when others then null; end; end loop; end $$`);
  // One transaction whose subtransactions fill more than a page of pg_xact; images of all these inserts would only cost time.
  await client.query("set wal_consistency_checking = ''");
  await client.query(`do $$ begin for i in 1..33000 loop begin insert into sub values (i);
    exception when others then null; end; end loop; end $$`);
  await client.query('reset wal_consistency_checking');
  await client.query('begin');
  for (let i = 0; i < 80; i++) await client.query(`savepoint s${i}; insert into sub values (${i})`);
  await client.query('rollback');
}

async function preparedTransactions(client: PgClient): Promise<void> {
  await client.query(
    "begin; insert into fz values (1000001, 1); savepoint a; insert into fz values (1000005, 1); prepare transaction 'x1'",
  );
  await client.query("commit prepared 'x1'");
  await client.query(
    "begin; create table never(a int); insert into fz values (1000002, 1); prepare transaction 'x2'",
  );
  await client.query("rollback prepared 'x2'");
  await client.query("begin; insert into fz values (1000009, 1); prepare transaction 'stays'");
}

async function frozenCopy(client: PgClient): Promise<void> {
  await client.query('begin; create table copied(a int, b int)');
  const lines = Array.from({ length: 4000 }, (_, i) => `${i}\t${i * 2}\n`);
  await client.copyIn('copy copied from stdin with (freeze)', lines);
  await client.query('commit');
  await client.copyIn('copy copied from stdin', lines);
  await client.query('delete from copied where a % 3 = 0');
  await client.query('vacuum copied');
  await client.copyIn('copy copied from stdin', lines);
}

/** Many small transactions from several connections at once, in the manner of pgbench. */
async function smallUpdates(postgres: StockPostgres): Promise<void> {
  const setup = await postgres.connect();
  await setup.query(
    'create table acc(id int primary key, balance int, filler char(84)) with (fillfactor=90)',
  );
  await setup.query("insert into acc select i, 0, '' from generate_series(1, 20000) i");
  await setup.query('create table hist(id int, delta int, at timestamp default now())');
  await setup.close();
  const sessions = await Promise.all([0, 1, 2, 3].map(() => postgres.connect()));
  await Promise.all(
    sessions.map(async (session, seed) => {
      for (let i = 0; i < 400; i++) {
        const id = 1 + ((seed * 7919 + i * 104729) % 20000);
        await session.query(
          `begin; update acc set balance = balance + ${i} where id = ${id}; select * from acc where id = ${id}; ` +
            `update acc set balance = balance - 1 where id = 1; insert into hist values (${id}, ${i}); ` +
            `${i % 20 === 0 ? 'rollback' : 'commit'}`,
        );
      }
      await session.close();
    }),
  );
}
