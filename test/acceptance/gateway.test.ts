/**
 * The gateway in front of real computes: cancelled commits, cancelled queries, large results, crowds of clients.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PgClient } from '../support/pg-client.ts';
import { eventually, pause, signal } from '../support/processes.ts';
import { TestSystem } from '../support/system.ts';

type Failure = Error & { code?: string; severity?: string };
const failureOf = (work: Promise<unknown>): Promise<Failure | undefined> =>
  work.then(
    () => undefined,
    (error: Failure) => error,
  );

describe('the gateway', () => {
  const system = new TestSystem();

  beforeAll(async () => {
    await system.start();
    await system.with('main', (client) => client.query('create table t (id serial primary key, word text)'));
  });
  afterAll(() => system.destroy());

  /** Runs `work` while no commit can reach a quorum. */
  async function withoutQuorum(work: () => Promise<void>): Promise<void> {
    const stopped = system.processes('safekeeper').slice(0, 2);
    for (const { pid } of stopped) signal(pid, 'SIGSTOP');
    try {
      await work();
    } finally {
      for (const { pid } of stopped) signal(pid, 'SIGCONT');
    }
  }

  it('never calls a commit safe whose wait for the quorum was cancelled', async () => {
    const client = await system.connect();
    await withoutQuorum(async () => {
      const commit = failureOf(
        client.query("insert into t (word) values ('cancelled')", { timeoutMs: 20_000 }),
      );
      await pause(500);
      await client.cancel();
      const failure = await commit;
      expect(failure).toMatchObject({ severity: 'FATAL', code: '08007' });
    });
    await expect(client.query('select 1')).rejects.toThrow();
    // The transaction was not lost here; the client looks and finds it.
    const found = await eventually('a compute that answers', () =>
      system.with('main', (again) => again.value("select count(*) from t where word = 'cancelled'")),
    );
    expect(found).toBe('1');
  });

  it('never calls a commit safe that another session has cancelled', async () => {
    const [client, other] = await Promise.all([system.connect(), system.connect()]);
    const pid = await client.number('select pg_backend_pid()');
    await withoutQuorum(async () => {
      const commit = failureOf(client.query("insert into t (word) values ('other')", { timeoutMs: 20_000 }));
      await pause(500);
      expect(await other.value(`select pg_cancel_backend(${pid})`)).toBe('t');
      expect((await commit)?.code).toBe('08007');
    });
    await other.close();
  });

  it('cancels the query of the connection that asks, and no other', async () => {
    const [one, two] = await Promise.all([system.connect(), system.connect()]);
    const slow = failureOf(one.query('select pg_sleep(20)'));
    const other = two.value('select pg_sleep(1.5), 7 as x');
    await pause(300);
    await one.cancel();
    expect((await slow)?.code).toBe('57014');
    expect(await one.value('select 1')).toBe('1');
    await other;
    await Promise.all([one.close(), two.close()]);
  });

  it('passes large results and large queries unchanged', async () => {
    await system.with('main', async (client) => {
      const sum =
        "select md5(string_agg(repeat(md5(i::text), 20), '' order by i)) from generate_series(1, 20000) i";
      const rows = await client.query(
        'select repeat(md5(i::text), 20) as line from generate_series(1, 20000) i order by i',
      );
      const { createHash } = await import('node:crypto');
      const digest = createHash('md5');
      for (const { line } of rows.rows) digest.update(line!);
      expect(digest.digest('hex')).toBe(await client.value(sum));
      const text = 'x'.repeat(8_000_000);
      expect(await client.number(`select length('${text}')`)).toBe(text.length);
    });
  });

  it('serves many clients at once, and counts them', async () => {
    const clients = await Promise.all(Array.from({ length: 60 }, () => system.connect()));
    const answers = await Promise.all(clients.map((client, i) => client.number(`select ${i} + 1`)));
    expect(answers).toEqual(clients.map((_, i) => i + 1));
    const status = await system.json<{ branches: { name: string; connections: number }[] }>(['status']);
    expect(status.branches.find(({ name }) => name === 'main')!.connections).toBe(60);
    await Promise.all(clients.map((client) => client.close()));
    await eventually('all clients to be gone', async () => {
      const { branches } = await system.json<{ branches: { connections: number }[] }>(['branch', 'list']);
      return branches.every(({ connections }) => connections === 0);
    });
  });

  it('holds many clients while one compute starts', async () => {
    await system.suspend();
    const clients = await Promise.all(Array.from({ length: 20 }, () => system.connect()));
    const sockets = await Promise.all(clients.map((client) => client.value('show unix_socket_directories')));
    expect(new Set(sockets).size).toBe(1);
    await Promise.all(clients.map((client) => client.close()));
  });

  it('lets a client in that names its branch in any of the ways', async () => {
    for (const options of [
      'endpoint=main',
      '-c endpoint=main',
      '--endpoint=main -c geqo=off',
      '',
      undefined,
    ]) {
      const client = await PgClient.connect({ ...(await system.target()), options });
      expect(await client.value('select current_user')).toBe('postgres');
      await client.close();
    }
  });

  it('lets nobody in as the internal role', async () => {
    const failure = await failureOf(system.connect('main', { user: 'palimpsest_internal', password: '' }));
    expect(failure?.code).toBe('28000');
  });
});
