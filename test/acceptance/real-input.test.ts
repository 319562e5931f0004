/**
 * Real data and load, then a suspend and resume, after which every page comes from the pageserver: Debian's package
 * index with btree indexes, and pgbench. Everything must be as it was, and pg_amcheck must find nothing.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { copyRow, type DebianPackage, readDebianIndex } from '../support/debian-index.ts';
import type { PgClient } from '../support/pg-client.ts';
import { balanceSums, bench, checkWithAmcheck, initialise } from '../support/pgbench.ts';
import { LONG, missingTools } from '../support/programs.ts';
import { TestSystem } from '../support/system.ts';

const PACKAGES = LONG ? 1_000_000 : 12_000;
const SCALE = LONG ? 20 : 3;
const SECONDS = LONG ? 30 : 8;
const LIMIT_MS = LONG ? 900_000 : 240_000;

describe('real input', () => {
  const system = new TestSystem();
  let packages: DebianPackage[];

  beforeAll(async () => {
    packages = (await readDebianIndex(PACKAGES)) ?? madeUpPackages(PACKAGES);
    await system.start();
  }, LIMIT_MS);
  afterAll(() => system.destroy(), LIMIT_MS);

  it('is a stock Postgres', { timeout: LIMIT_MS }, async () => {
    const version = await system.with('main', (client) => client.value('select version()'));
    expect(version).toMatch(/^PostgreSQL 1[5-8]/);
  });

  it('keeps the package index over a suspend and resume', { timeout: LIMIT_MS }, async () => {
    await system.with('main', (client) => loadPackages(client, packages));
    const before = await system.with('main', summary);
    await system.suspend();
    await system.resume();
    const after = await system.with('main', summary);
    expect(after).toEqual(before);
    expect(Number(after.packages)).toBe(packages.length);
    const found = await system.with('main', (client) => queries(client, packages[17]!.name));
    expect(found).toBe(packages[17]!.description);
  });

  it.skipIf(missingTools('pgbench', 'psql', 'pg_amcheck'))(
    'keeps what pgbench did, with sound heaps and indexes',
    { timeout: LIMIT_MS },
    async () => {
      const target = await system.target();
      await initialise(target, SCALE);
      const result = await bench(target, { clients: 8, seconds: SECONDS });
      expect(result.transactions).toBeGreaterThan(100);
      expect(result.failed).toBe(0);
      const before = await system.with('main', balanceSums);
      await system.suspend();
      await system.resume();
      const after = await system.with('main', balanceSums);
      expect(after).toEqual(before);
      expect(new Set(Object.values(after)).size).toBe(1);
      const history = await system.with('main', (client) =>
        client.number('select count(*) from pgbench_history'),
      );
      expect(history).toBe(result.transactions);
      await checkWithAmcheck(target);
    },
  );
});

async function loadPackages(client: PgClient, packages: DebianPackage[]): Promise<void> {
  await client.query(`
    create table packages (id int primary key, name text not null, version text not null, section text,
      size_kb bigint, maintainer text, description text);
    create table dependencies (package int not null, name text not null);
    create index on packages (section, size_kb)`);
  const rows = packages.map((p, id) =>
    copyRow([id, p.name, p.version, p.section, p.sizeKb, p.maintainer, p.description]),
  );
  const edges = packages.flatMap((p, id) => p.depends.map((name) => copyRow([id, name])));
  await client.copyIn('copy packages from stdin', chunks(rows), { timeoutMs: 300_000 });
  await client.copyIn('copy dependencies from stdin', chunks(edges), { timeoutMs: 300_000 });
  // Indexes made after the load, beside the two that were filled row by row.
  await client.query('create index on packages (name text_pattern_ops); create index on dependencies (name)');
  await client.query("delete from packages where section like 'oldlibs%'");
  await client.query('update packages set size_kb = size_kb + 1 where id % 3 = 0');
  const missing = packages.filter((p) => p.section.startsWith('oldlibs'));
  const ids = new Map(packages.map((p, id) => [p, id]));
  for (const p of missing) {
    await client.query(
      `insert into packages values (${ids.get(p)}, ${quote(p.name)}, ${quote(p.version)}, ${quote(p.section)}, 0, '', '')`,
    );
  }
  await client.query('vacuum analyze');
}

async function summary(client: PgClient): Promise<Record<string, string | null>> {
  const { rows } = await client.query(
    `select count(*) as packages, sum(size_kb) as size, md5(string_agg(name || version || description, '' order by id)) as text,
       (select count(*) from dependencies) as dependencies,
       (select md5(string_agg(name, '' order by package, name)) from dependencies) as edges
     from packages`,
    { timeoutMs: 120_000 },
  );
  return rows[0]!;
}

/** Looks a package up through an index alone. */
async function queries(client: PgClient, name: string): Promise<string> {
  await client.query('set enable_seqscan = off');
  return client.value(`select description from packages where name = ${quote(name)} order by id limit 1`);
}

const quote = (text: string) => `'${text.replaceAll("'", "''")}'`;

function* chunks(rows: string[]): Generator<string> {
  for (let i = 0; i < rows.length; i += 500) yield rows.slice(i, i + 500).join('');
}

/** Stands in where the machine has no package index. */
function madeUpPackages(count: number): DebianPackage[] {
  return Array.from({ length: Math.min(count, 20_000) }, (_, i) => ({
    name: `package-${i}`,
    version: `1.${i % 100}-${i % 7}`,
    section: ['libs', 'devel', 'oldlibs', 'net', 'doc'][i % 5]!,
    sizeKb: (i * 7919) % 100_000,
    maintainer: `Maintainer ${i % 300} <m${i % 300}@example.org>`,
    description: `the ${i}th package, which does ${'something '.repeat(1 + (i % 9))}`,
    depends: Array.from({ length: i % 6 }, (_, k) => `package-${(i * 31 + k) % count}`),
  }));
}
