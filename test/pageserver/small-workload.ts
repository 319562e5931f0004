/**
 * A few megabytes of WAL in which relations grow, shrink, vanish and come again, pages are hot and cold, and a database is copied:
 * what layers, merges and images have to get right; for tests that replay it many times.
 */

import type { StockPostgres } from '../support/stock-postgres.ts';
import type { RecordedWorlds } from './recorded-worlds.ts';
import type { Moment } from './reference.ts';

const STATEMENTS = [
  'create table accounts(id int primary key, balance int, filler char(84)) with (autovacuum_enabled=off)',
  "insert into accounts select i, 0, '' from generate_series(1, 6000) i",
  'update accounts set balance = balance + 1 where id % 3 = 0',
  'create table log(id int, t text) with (autovacuum_enabled=off)',
  'insert into log select i, md5(i::text) from generate_series(1, 4000) i',
  'update accounts set balance = balance + 1 where id < 200',
  'update accounts set balance = balance + 1 where id < 200',
  'delete from log where id > 500',
  'vacuum (truncate) log',
  'insert into log select i, md5(i::text) from generate_series(1, 2000) i',
  'create index log_t on log(t)',
  'truncate log',
  'insert into log select i, md5(i::text) from generate_series(1, 1500) i',
  'vacuum accounts',
  'update accounts set balance = balance + 1 where id % 7 = 0',
  'create table gone as select i from generate_series(1, 3000) i',
  'drop table gone',
  'checkpoint',
  'create database copied strategy file_copy',
  'update accounts set balance = balance - 1 where id < 1500',
  'update accounts set balance = balance - 1 where id < 100',
  'vacuum full log',
  'drop database copied',
  'update accounts set balance = balance + 2 where id % 5 = 1',
  'insert into log select i, md5(i::text) from generate_series(1, 1500) i',
];

/** Runs the statements, a few rounds of them over other tables. */
export async function runSmallWorkload(postgres: StockPostgres): Promise<void> {
  const client = await postgres.connect();
  for (const statement of STATEMENTS) await client.query(statement);
  for (let i = 0; i < 4; i++) {
    await client.query(`update accounts set balance = balance + ${i} where id % 4 = ${i}`);
    await client.query('vacuum accounts');
  }
  await client.close();
}

/** Records the work load; its first four moments. */
export async function recordSmallWorkload(worlds: RecordedWorlds): Promise<Moment[]> {
  await worlds.record({}, runSmallWorkload, 5_000);
  return worlds.reference.moments.slice(0, 4);
}
