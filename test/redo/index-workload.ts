/**
 * SQL that reaches the record types of the other index methods: hash, GIN, GiST, SP-GiST, BRIN, and generic WAL by bloom.
 */
import type { StockPostgres } from '../support/stock-postgres.ts';

const HASH = [
  'create table h(a int, b text) with (autovacuum_enabled=off)',
  'create index h_a on h using hash(a)',
  'create index h_b on h using hash(b)',
  'insert into h select i, (i % 100)::text from generate_series(1,5000) i',
  'delete from h where a % 2 = 0',
  'vacuum h',
  'insert into h select i, (i % 1000)::text from generate_series(1,5000) i',
  'delete from h where a % 3 = 0',
  'vacuum h',
  'delete from h where a > 100',
  'vacuum h',
  'insert into h select 7, i::text from generate_series(1,3000) i',
  // Scans mark dead items, which the next insert into a full page removes: VACUUM_ONE_PAGE.
  'create table hd(a int) with (autovacuum_enabled=off)',
  'create index hd_a on hd using hash(a)',
  'insert into hd select 1 from generate_series(1,400)',
  'delete from hd',
  'set enable_seqscan = off',
  'set enable_bitmapscan = off',
  'select count(*) from hd where a = 1',
  'insert into hd select 1 from generate_series(1,400)',
  'select count(*) from hd where a = 1',
  'insert into hd select 1 from generate_series(1,800)',
  'reset enable_seqscan',
  'reset enable_bitmapscan',
];

const GIN = [
  'create table g(a int[], t tsvector) with (autovacuum_enabled=off)',
  'create index g_a on g using gin(a)',
  'create index g_t on g using gin(t) with (fastupdate=off)',
  "insert into g select array[i % 10, i % 500, i, (i * 7) % 5000], to_tsvector('simple', md5(i::text) || ' ' || (i % 50)::text || ' common') from generate_series(1,4000) i",
  'delete from g where a[3] % 2 = 0',
  'vacuum g',
  "insert into g select array[i % 10, i % 500, i], to_tsvector('simple', (i % 50)::text || ' common') from generate_series(1,4000) i",
  'delete from g',
  'vacuum g',
  'vacuum g',
  "insert into g select array[i % 10, i % 500, i], to_tsvector('simple', (i % 50)::text || ' common') from generate_series(1,3000) i",
  "select gin_clean_pending_list('g_a')",
  // One key with very many rows: a posting tree of several levels, whose pages vacuum then deletes.
  'create table gp(a int[]) with (autovacuum_enabled=off)',
  'create index gp_a on gp using gin(a) with (fastupdate=off)',
  'insert into gp select array[1] from generate_series(1,60000) i',
  "delete from gp where ctid < '(150,1)'",
  'vacuum gp',
  'insert into gp select array[1, 2] from generate_series(1,4000) i',
];

const GIST = [
  'create table gi(p point, b box) with (autovacuum_enabled=off)',
  'create index gi_p on gi using gist(p)',
  'create index gi_b on gi using gist(b)',
  'insert into gi select point(random()*1000, random()*1000), box(point(i % 100, i % 77), point(i % 100 + 1, i % 77 + 2)) from generate_series(1,5000) i',
  'delete from gi where p[0] < 900',
  'vacuum gi',
  'vacuum gi',
  'select txid_current()',
  'vacuum gi',
  'insert into gi select point(random()*1000, random()*1000), box(point(i % 100, i % 77), point(i % 100 + 1, i % 77 + 2)) from generate_series(1,3000) i',
  'delete from gi',
  'vacuum gi',
  'insert into gi select point(random(), random()), box(point(0,0), point(1,1)) from generate_series(1,3000) i',
  // Postgres' own redo of DELETE sets a flag that the original page lacks, which its consistency check takes for an error:
  // these pages are compared with recovered ones only.
  "set wal_consistency_checking = ''",
  'create table gd(p point) with (autovacuum_enabled=off)',
  'create index gd_p on gd using gist(p)',
  'insert into gd select point(i, i) from generate_series(1,300) i',
  'delete from gd where p[0] < 250',
  'set enable_seqscan = off',
  'set enable_bitmapscan = off',
  'select count(*) from gd where p <@ box(point(0,0), point(1000,1000))',
  'insert into gd select point(i, i) from generate_series(1,1500) i',
  'reset wal_consistency_checking',
  'reset enable_seqscan',
  'reset enable_bitmapscan',
];

const SPGIST = [
  'create table sp(p point, t text) with (autovacuum_enabled=off)',
  'create index sp_p on sp using spgist(p)',
  'create index sp_t on sp using spgist(t)',
  'create index sp_k on sp using spgist(p kd_point_ops)',
  "insert into sp select point(random()*1000, random()*1000), repeat('ab', (i % 20)) || md5(i::text) from generate_series(1,4000) i",
  'insert into sp select null, null from generate_series(1,500) i',
  'delete from sp where p[0] < 500',
  'vacuum sp',
  'insert into sp select point(random()*1000, random()*1000), md5(i::text) from generate_series(1,4000) i',
  'delete from sp',
  'vacuum sp',
  'insert into sp select point(random()*10, random()*1000), md5(i::text) from generate_series(1,3000) i',
  'create table spr(t text) with (autovacuum_enabled=off)',
  'create index spr_t on spr using spgist(t)',
  "insert into spr select 'x' || i from generate_series(1,20) i",
  'delete from spr',
  'vacuum spr',
  'insert into spr select repeat(chr(33 + i % 90), 1 + i % 60) || i from generate_series(1,5000) i',
  'delete from spr where length(t) % 2 = 0',
  'vacuum spr',
  'vacuum spr',
];

const BRIN = [
  'create table br(a int, x text) with (autovacuum_enabled=off, fillfactor=50)',
  'create index br_a on br using brin(a) with (pages_per_range=2)',
  'create index br_x on br using brin(x) with (pages_per_range=1)',
  "insert into br select i, repeat('x', i % 300) from generate_series(1,5000) i",
  'vacuum br',
  "update br set a = a * 2, x = x || 'yyyyyyyyyyyyyyyy' where a % 5 = 0",
  "select brin_desummarize_range('br_a', 0)",
  "select brin_summarize_new_values('br_a')",
  "insert into br select i, repeat('z', i % 1800) from generate_series(1,4000) i",
  'vacuum br',
];

const BLOOM = [
  'create extension bloom',
  'create table bl(a int, b int)',
  'create index bl_i on bl using bloom(a, b)',
  'insert into bl select i, i % 10 from generate_series(1,3000) i',
  'delete from bl where b = 3',
  'vacuum bl',
];

export async function runIndexWorkload(postgres: StockPostgres): Promise<void> {
  const client = await postgres.connect();
  for (const statement of [...HASH, ...GIN, ...GIST, ...SPGIST, ...BRIN, ...BLOOM]) {
    await client.query(statement);
  }
  await client.close();
}
