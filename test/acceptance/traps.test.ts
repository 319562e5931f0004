/**
 * The traps of composing stock Postgres with separated storage. Each was fallen into once; each has a test, here or
 * where the list says.
 *
 *  1 commit positions end whole records       here; actors/walproposer
 *  2 positions are aligned                    branches.test.ts (a branch in the middle of a record)
 *  3 a checkpoint's link to the record before here
 *  4 visibility map bits                      here; test/redo
 *  5 chains of hot pages                      here
 *  6 free space map                           postgres-features.test.ts
 *  7 cumulative statistics                    postgres-features.test.ts
 *  8 sizes, empty and unlogged relations      here; postgres-features.test.ts
 *  9 multixacts and prepared transactions     postgres-features.test.ts
 * 10 the commit position of an idle timeline  here
 * 11 a pageserver that does not answer        here
 * 12 a clean stop                             here
 * 13 many relations                           here
 * 14 the first commit of a start              here
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseLsn, segmentFileName, segmentNumber, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import { WalStreamDecoder } from '../../protocols/postgres/wal/stream-decoder.ts';
import type { PgClient } from '../support/pg-client.ts';
import { checkWithAmcheck } from '../support/pgbench.ts';
import { eventually, pause, signal } from '../support/processes.ts';
import { missingTools } from '../support/programs.ts';
import { TestSystem } from '../support/system.ts';

describe('traps', () => {
  const system = new TestSystem();

  beforeAll(() => system.start());
  afterAll(() => system.destroy());

  const main = <T>(work: (client: PgClient) => Promise<T>) => system.with('main', work);
  const rest = async () => {
    await system.suspend();
    await system.resume();
  };

  it('1: a crash in the middle of a bulk load leaves whole records only', { timeout: 240_000 }, async () => {
    await main((client) => client.query('create table bulk (round int, id int, body text)'));
    for (let round = 1; round <= 2; round++) {
      await main((client) => client.query(`insert into bulk values (${round}, 0, 'acknowledged')`));
      const client = await system.connect();
      const load = client
        .query(
          `insert into bulk select ${round}, i, repeat(md5(i::text), 60) from generate_series(1, 400000) i`,
          {
            timeoutMs: 120_000,
          },
        )
        .then(
          () => 'ended before the crash',
          () => 'interrupted',
        );
      await pause(700 + round * 333);
      await system.crash();
      expect(await load).toBe('interrupted');
      await system.start();
      const counts = await main(
        async (again) => (await again.query('select round, count(*) from bulk group by 1 order by 1')).rows,
      );
      expect(counts).toEqual(Array.from({ length: round }, (_, i) => ({ round: String(i + 1), count: '1' })));
    }
    await main((client) => client.query('vacuum bulk'));
    if (!missingTools('pg_amcheck')) await checkWithAmcheck(await system.target());
  });

  it('3, 12: all lives of a compute are one chain of records, the same on every safekeeper', async () => {
    // Older segments may be in objects only by now.
    const start = parseLsn(await main((client) => client.value('select pg_current_wal_flush_lsn()')))!;
    await main((client) => client.query('create table chain (id int)'));
    for (let round = 0; round < 3; round++) {
      await rest();
      await main((client) => client.query(`insert into chain values (${round})`));
    }
    const end = parseLsn(await main((client) => client.value('select pg_current_wal_flush_lsn()')))!;
    await system.suspend();
    const { timeline } = (await system.withClient((client) => client.branches()))[0]!;
    const copies = ['sk1', 'sk2', 'sk3'].map((node) =>
      readWal(join(system.dataDir, 'safekeepers', node, 'timelines', timeline, 'wal'), start, end),
    );
    expect(copies[1]!.equals(copies[0]!)).toBe(true);
    expect(copies[2]!.equals(copies[0]!)).toBe(true);
    // The decoder throws unless each record's checksum is right and it names the record before it.
    const decoder = new WalStreamDecoder(start, { pgVersion: 17 });
    decoder.feed(start, copies[0]!);
    let records = 0;
    while (decoder.next()) records++;
    expect(records).toBeGreaterThan(50);
    expect(decoder.position).toBe(end);
  });

  it('4: the visibility map tells the truth', async () => {
    await main(async (client) => {
      await client.query('create extension if not exists pg_visibility');
      await client.query('create table seen (id int, body text)');
      await client.query("insert into seen select i, repeat('s', 100) from generate_series(1, 30000) i");
      await client.query('vacuum (freeze) seen');
      await client.query('update seen set id = id + 1 where id % 97 = 0');
      await client.query('delete from seen where id % 101 = 0');
      await client.query('begin; select * from seen where id % 89 = 0 for update; commit');
      await client.query("insert into seen select i, 'new' from generate_series(1, 500) i");
    });
    await rest();
    await main(async (client) => {
      expect(await client.number("select count(*) from pg_check_visible('seen')")).toBe(0);
      expect(await client.number("select count(*) from pg_check_frozen('seen')")).toBe(0);
      expect(
        await client.number("select all_visible from pg_visibility_map_summary('seen')"),
      ).toBeGreaterThan(10);
    });
  });

  it('5: a page that was changed very often is read quickly', { timeout: 240_000 }, async () => {
    await main(async (client) => {
      await client.query('create table hot (id int primary key, n int); insert into hot values (1, 0)');
      await client.query(
        `do $$ begin
        for i in 1..30000 loop update hot set n = n + 1 where id = 1; if i % 100 = 0 then commit; end if; end loop;
      end $$`,
        { timeoutMs: 120_000 },
      );
    });
    await rest();
    await main(async (client) => {
      const started = performance.now();
      expect(await client.number('select n from hot where id = 1')).toBe(30_000);
      expect(performance.now() - started).toBeLessThan(3000);
    });
  });

  it('8: empty, dropped, truncated and rolled back relations have the right size', async () => {
    await main(async (client) => {
      await client.query(
        'create table hollow (id int); create table cut (id int); create table gone (id int)',
      );
      await client.query(
        'insert into cut select generate_series(1, 50000); insert into gone select generate_series(1, 1000)',
      );
      await client.query('delete from cut where id > 5000');
      await client.query('vacuum cut');
      await client.query('drop table gone');
      await client.query('begin; create table never (id int); insert into never values (1); rollback');
      await client.query('create table emptied as select generate_series(1, 1000) as id; truncate emptied');
    });
    const sizes = () =>
      main(async (client) => {
        const { rows } =
          await client.query(`select relname, pg_relation_size(oid) as main, pg_relation_size(oid, 'vm') as vm
          from pg_class where relname in ('hollow', 'cut', 'gone', 'never', 'emptied') order by relname`);
        return rows;
      });
    const before = await sizes();
    expect(before.map(({ relname }) => relname)).toEqual(['cut', 'emptied', 'hollow']);
    await rest();
    expect(await sizes()).toEqual(before);
    await main(async (client) => {
      await client.query('insert into emptied values (1); insert into hollow values (1)');
      expect(await client.number('select count(*) from cut')).toBe(5000);
    });
  });

  it('10: the last commit before silence can be branched from', async () => {
    await main((client) => client.query('create table silent (id int)'));
    for (let round = 1; round <= 3; round++) {
      await main((client) => client.query(`insert into silent values (${round})`));
      await system.createBranch(`silent-${round}`);
      const seen = await system.with(`silent-${round}`, (client) =>
        client.number('select count(*) from silent'),
      );
      expect(seen).toBe(round);
    }
  });

  it('11: a pageserver that does not answer makes queries fail, not hang', { timeout: 240_000 }, async () => {
    await main(async (client) => {
      await client.query(
        'create table cold as select i, repeat(md5(i::text), 30) as body from generate_series(1, 40000) i',
      );
      await client.query('create table warm as select 1 as id');
    });
    await rest();
    const client = await system.connect();
    await client.query('select * from warm');
    const [pageserver] = system.processes('pageserver');
    signal(pageserver!.pid, 'SIGSTOP');
    try {
      expect(await client.number('select id from warm')).toBe(1);
      await client.query('insert into warm values (2)');
      const outcome = await client.query('select sum(length(body)) from cold', { timeoutMs: 150_000 }).then(
        () => 'answered',
        (error: { code?: string; message: string }) => error.code ?? error.message,
      );
      // An I/O error of the query (58030), or of the connection when Postgres had to be restarted.
      expect(outcome).not.toBe('answered');
      expect(outcome).not.toMatch(/no answer within/);
    } finally {
      signal(pageserver!.pid, 'SIGCONT');
    }
    client.destroy();
    const sum = await eventually('answers again', () =>
      main((again) => again.number('select count(*) from cold where length(body) = 960')),
    );
    expect(sum).toBe(40_000);
    expect(await main((again) => again.number('select count(*) from warm'))).toBe(2);
  });

  it('11: a safekeeper that goes away and comes back is not noticed by clients', async () => {
    const client = await system.connect();
    await client.query('create table steady (id int)');
    for (const { pid } of system.processes('safekeeper')) {
      signal(pid, 'SIGKILL');
      for (let i = 0; i < 20; i++) await client.query(`insert into steady values (${i})`);
      await eventually('all safekeepers', () => system.processes('safekeeper').length === 3);
      await pause(1500);
    }
    expect(await client.number('select count(*) from steady')).toBe(60);
    await client.close();
  });

  it('13: a thousand relations do not slow a start down', { timeout: 240_000 }, async () => {
    await main(async (client) => {
      await client.query(
        `do $$ begin for i in 1..700 loop
        execute format('create table many_%s (id int primary key)', i);
        if i % 50 = 0 then commit; end if;
      end loop; end $$`,
        { timeoutMs: 120_000 },
      );
    });
    await system.suspend();
    const started = performance.now();
    expect(
      await main((client) => client.number("select count(*) from pg_class where relname like 'many_%'")),
    ).toBe(1400);
    expect(performance.now() - started).toBeLessThan(5000);
  });

  it('14: the first commit after a start is on the safekeepers when it is acknowledged', async () => {
    await main((client) => client.query('create table first (id int)'));
    for (let round = 1; round <= 3; round++) {
      await system.suspend();
      const client = await system.connect();
      await client.query(`insert into first values (${round})`);
      await system.crash();
      await system.start();
      expect(await main((again) => again.number('select count(*) from first'))).toBe(round);
    }
  });
});

/** The WAL between two positions, from a folder of segments. */
function readWal(folder: string, from: number, to: number): Buffer {
  const parts: Buffer[] = [];
  for (let number = segmentNumber(from); number <= segmentNumber(to - 1); number++) {
    const begin = number * WAL_SEGMENT_BYTES;
    const bytes = readFileSync(join(folder, segmentFileName(number)));
    parts.push(bytes.subarray(Math.max(0, from - begin), Math.min(WAL_SEGMENT_BYTES, to - begin)));
  }
  return Buffer.concat(parts);
}
