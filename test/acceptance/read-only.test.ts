/**
 * Read-only computes of a moment: beside the branch's own, any number of them, without a trace in storage.
 */

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseLsn } from '../../protocols/lsn.ts';
import { PgClient, parsePgUrl } from '../support/pg-client.ts';
import { eventually, pause, signal } from '../support/processes.ts';
import { TestSystem, withSystem } from '../support/system.ts';

interface Event {
  data: Record<string, unknown>;
}

interface Moment {
  branch: string;
  lsn: string;
  compute: string;
}

describe('a branch as it was at a moment', () => {
  const system = new TestSystem();
  let before: string;
  let between: string;

  const at = async (point: string) => PgClient.connect(parsePgUrl(await system.url(`main@${point}`)));
  const moments = async () => (await system.json<{ moments: Moment[] }>(['status'])).moments;

  beforeAll(async () => {
    await system.start();
    await system.with('main', async (client) => {
      await client.query(
        'create table kept as select i as id, md5(i::text) as body from generate_series(1, 3000) i',
      );
      await client.query('create index on kept (id)');
      before = await client.value('select pg_current_wal_lsn()');
      await client.query('delete from kept where id <= 1000');
      between = await client.value('select pg_current_wal_lsn()');
      await client.query('drop table kept');
    });
  });
  afterAll(() => system.destroy());

  it('is read at several moments at once, while the branch goes on', async () => {
    const main = await system.connect();
    const first = await at(before);
    const second = await at(between);
    expect(await first.number('select count(*) from kept')).toBe(3000);
    expect(await second.number('select count(*) from kept')).toBe(2000);
    expect(await first.value('select body from kept where id = 500')).toBe(
      await main.value(`select md5('500')`),
    );
    await main.query('create table later as select 1 as one');
    expect(await main.number('select count(*) from later')).toBe(1);
    await expect(first.query('select * from later')).rejects.toThrow('does not exist');
    const running = (await moments()).filter(({ compute }) => compute === 'running');
    expect(running.map(({ branch, lsn }) => `${branch}@${lsn}`).sort()).toEqual(
      [`main@${before}`, `main@${between}`].sort(),
    );
    for (const client of [main, first, second]) await client.close();
  });

  it("refuses writes with Postgres' own error, also for a superuser who asks for a writable transaction", async () => {
    const client = await at(before);
    for (const statement of [
      'insert into kept values (1)',
      'create table other (id int)',
      'begin read write',
      'vacuum kept',
    ]) {
      await expect(client.query(statement), statement).rejects.toThrow(
        /read-only|during recovery|read-write mode/,
      );
    }
    expect(await client.number('select count(*) from kept')).toBe(3000);
    await client.close();
  });

  it('leaves no trace: the branch goes on where it stopped, in the next term', async () => {
    const newest = async (type: string) => {
      const { stdout } = await system.run(['events', '--since', '1h', '--json', type]);
      const events = stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as Event);
      return events.filter(({ data }) => data.at === undefined).at(-1)!.data;
    };
    await system.with('main', (client) => client.query('select 1'));
    const { term } = await newest('compute.started');
    await system.suspend('main');
    const client = await at(before);
    expect(await client.number('select count(*) from kept')).toBe(3000);
    expect(await system.computeState('main')).toBe('suspended');
    await system.with('main', (other) => other.query('select 1'));
    const started = await newest('compute.started');
    expect(started.startLsn).toBe((await newest('compute.suspended')).lsn);
    expect(started.term).toBe(Number(term) + 1);
    await client.close();
  });

  it('needs no quorum of safekeepers', async () => {
    const stopped = system.processes('safekeeper').slice(1);
    expect(stopped).toHaveLength(2);
    await system.suspend('main');
    await system.run(['suspend', `main@${between}`]);
    for (const { pid } of stopped) signal(pid, 'SIGSTOP');
    try {
      const client = await at(between);
      expect(await client.number('select count(*) from kept')).toBe(2000);
      await client.close();
    } finally {
      for (const { pid } of stopped) signal(pid, 'SIGCONT');
    }
  });

  it('ends when somebody promotes it', async () => {
    const client = await at(between);
    await client.query('select pg_promote(false)').catch(() => {});
    await eventually('the promoted compute to be gone', async () => {
      const answer = await client.value('select 1').catch(() => 'gone');
      return answer === 'gone';
    });
    // A new client gets the moment again, from storage.
    const again = await at(between);
    expect(await again.value('select pg_is_in_recovery()')).toBe('t');
    await again.close();
  });

  it('is suspended by hand, and forgotten', async () => {
    const result = await system.run(['suspend', `main@${before}`]);
    expect(result.stdout).toContain(`branch main at ${before} is suspended`);
    const running = (await moments()).filter(({ compute }) => compute === 'running');
    expect(running.map(({ lsn }) => lsn)).not.toContain(before);
  });

  it('keeps its moment readable beyond the history window, for as long as somebody reads', async () => {
    const client = await at(between);
    // An open transaction is activity; the table is read only after the window has moved on.
    await client.query('begin');
    await system.run(['project', 'set', 'default', '--history', '1s', '--history-bytes', '0']);
    await pause(1_200);
    const fill = (table: string) =>
      system.with('main', (main) => main.query(`create table ${table} as select generate_series(1, 1000)`));
    await fill('one');
    const { historyFrom } = await system.json<{ historyFrom: string }>(['gc', 'main']);
    expect(parseLsn(historyFrom)!).toBeGreaterThan(parseLsn(between)!);
    expect(await client.number('select count(*) from kept')).toBe(2000);
    await expect(at(before)).rejects.toThrow('before the history window');
    await client.close();
    await system.run(['suspend', `main@${between}`]);
    await fill('two');
    await system.json(['gc', 'main']);
    await expect(at(between)).rejects.toThrow('before the history window');
  });

  it('is refused where there is no such moment', async () => {
    await expect(at('FFFF/0')).rejects.toThrow();
    const target = parsePgUrl(await system.url('main'));
    const connect = (endpoint: string) => PgClient.connect({ ...target, options: `endpoint=${endpoint}` });
    await expect(connect('main@FFFF/0')).rejects.toThrow('is in the future');
    await expect(connect('main@yesterday')).rejects.toThrow('neither an LSN nor a time');
    await expect(connect('other@0/1')).rejects.toThrow('branch "other@0/1" does not exist');
  });
});

describe('a read-only compute that nobody uses', () => {
  it('is suspended, and gives its lease back', async () => {
    await withSystem({ suspendAfter: 2 }, async (system) => {
      const lsn = await system.with('main', (client) => client.value('select pg_current_wal_lsn()'));
      await system.with(`main@${lsn}`, (client) => client.query('select 1'));
      await eventually(
        'the idle compute to be suspended',
        async () => {
          const { moments } = await system.json<{ moments: Moment[] }>(['status']);
          return moments.length === 1 && moments[0]!.compute === 'suspended';
        },
        { limitMs: 60_000 },
      );
      const { stdout } = await system.run(['events', '--since', '1h', '--json', 'timeline.>']);
      const leases = (type: string) =>
        stdout
          .split('\n')
          .filter((line) => line.includes(`"${type}"`))
          .map((line) => (JSON.parse(line) as Event).data.lease);
      expect(leases('lease.granted')).toHaveLength(1);
      expect(leases('lease.released')).toEqual(leases('lease.granted'));
    });
  });
});
