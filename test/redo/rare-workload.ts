/**
 * SQL for record types that neither tables nor indexes reach by themselves: logical decoding, commit timestamps, truncation of
 * the transaction status logs, backups, hints logged as images. Runs with RARE_SETTINGS.
 */
import type { PgClient } from '../support/pg-client.ts';
import type { StockPostgres } from '../support/stock-postgres.ts';

export const RARE_SETTINGS = {
  wal_level: 'logical',
  track_commit_timestamp: 'on',
  wal_log_hints: 'on',
  autovacuum_freeze_max_age: '100000',
};

/** Until every process has read the changed settings. */
const RELOAD_MS = 500;
/** One segment of pg_xact covers this many transactions; only whole segments are removed. */
const XACTS_PER_CLOG_SEGMENT = 32 * 32768;

/** Not among the settings, which are given on the command line: so that changes of it are logged. */
const WITHOUT_IMAGES = ['alter system set full_page_writes = off', 'select pg_reload_conf()'];

const LOGICAL = [
  'create table cat(a int primary key, b text) with (user_catalog_table = true)',
  "select count(*) from pg_create_logical_replication_slot('s', 'pgoutput')",
  "insert into cat select i, 'x' from generate_series(1, 600) i",
  "update cat set b = 'y' where a % 3 = 0",
  'delete from cat where a % 7 = 0',
  // With a slot these rewrites log where each catalog row went.
  'vacuum full cat',
  'create table other(a int)',
  'drop table other',
  'vacuum full pg_class',
  "select pg_drop_replication_slot('s')",
  'truncate cat',
  "select pg_replication_origin_create('gone')",
  "select pg_replication_origin_advance('gone', '0/10')",
  "select pg_replication_origin_drop('gone')",
  'begin; create table in_one(a int); alter table in_one add b int; insert into in_one values (1, 1); commit',
];

const BACKUP = [
  "select pg_create_restore_point('here')",
  'select pg_switch_wal()',
  "select count(*) from pg_backup_start('label', true)",
  'insert into cat values (1000, 1)',
  'select count(*) from pg_backup_stop(false)',
  'alter system set full_page_writes = on',
  'select pg_reload_conf()',
];

const HINTS = [
  'create table hinted(a int)',
  'insert into hinted select generate_series(1, 2000)',
  'checkpoint',
  // The first look after the checkpoint sets hint bits, which are logged as images.
  'select count(*) from hinted',
];

/** Deleted pages are taken again only when no transaction can still see them. */
const REUSE = [
  'create table ru(a int, p point) with (autovacuum_enabled = off)',
  'create index ru_a on ru(a)',
  'create index ru_p on ru using gist(p)',
  'insert into ru select i, point(i, i) from generate_series(1, 8000) i',
  'delete from ru where a between 500 and 7900',
  'vacuum ru',
  'select txid_current()',
  'vacuum ru',
  'select txid_current()',
  'vacuum ru',
  'insert into ru select i, point(i, i) from generate_series(10000, 16000) i',
];

export async function runRareWorkload(postgres: StockPostgres): Promise<void> {
  const client = await postgres.connect();
  for (const statement of WITHOUT_IMAGES) await client.query(statement);
  await delay(RELOAD_MS);
  for (const statement of [...REUSE, ...LOGICAL, ...BACKUP]) await client.query(statement);
  await delay(RELOAD_MS);
  for (const statement of HINTS) await client.query(statement);
  for (const statement of WITHOUT_IMAGES) await client.query(statement);
  await delay(RELOAD_MS);
  await lockTogether(postgres, client);
  await useUpTransactions(client);
  await freezeEverything(postgres, client);
  await client.query('insert into hinted values (0)');
  await client.close();
}

/** Makes a page full of multixacts, which freezing then lets go. */
async function lockTogether(postgres: StockPostgres, client: PgClient): Promise<void> {
  const other = await postgres.connect();
  await client.query('create table shared(a int primary key)');
  await client.query('insert into shared select generate_series(1, 3000)');
  await client.query('begin; select count(*) from (select * from shared for key share) x');
  await other.query(`do $$ begin for i in 1..3000 loop begin perform 1 from shared where a = i for share;
    exception when others then null; end; end loop; end $$`);
  await client.query('commit');
  await other.close();
}

async function useUpTransactions(client: PgClient): Promise<void> {
  await client.query('set synchronous_commit = off');
  await client.query(
    `do $$ begin for i in 1..${XACTS_PER_CLOG_SEGMENT + 40_000} loop perform pg_current_xact_id(); commit; end loop; end $$`,
    { timeoutMs: 300_000 },
  );
}

/** Every database counts, the one that nobody connects to as well. */
async function freezeEverything(postgres: StockPostgres, client: PgClient): Promise<void> {
  await client.query("update pg_database set datallowconn = true where datname = 'template0'");
  await client.query("set wal_consistency_checking = ''");
  for (const database of ['template0', 'template1', 'postgres']) {
    const inside = await postgres.connect(database);
    await inside.query("set wal_consistency_checking = ''");
    await inside.query('vacuum freeze', { timeoutMs: 120_000 });
    await inside.close();
  }
  await client.query('reset wal_consistency_checking');
  await client.query('checkpoint');
}

function delay(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
