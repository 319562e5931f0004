/**
 * `palimpsest wal dump` of a branch of a running system: what was just committed is there, read from a safekeeper.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TestSystem } from '../support/system.ts';

interface Dumped {
  lsn: string;
  record: string;
  xid: number;
}

describe('wal dump of a branch', () => {
  const system = new TestSystem();
  const lsnNow = () => system.with('main', (client) => client.value('select pg_current_wal_lsn()::text'));

  beforeAll(() => system.start());
  afterAll(() => system.destroy());

  async function dump(...args: string[]): Promise<Dumped[]> {
    const result = await system.run(['wal', 'dump', ...args, '--json']);
    expect(result.stderr).toBe('');
    const lines = result.stdout.trim().split('\n').filter(Boolean);
    return lines.map((line) => JSON.parse(line) as Dumped);
  }

  it('shows the records of a transaction between two LSNs', async () => {
    await system.with('main', (client) => client.query('create table seen (id int)'));
    const from = (await lsnNow())!;
    const xid = await system.with('main', async (client) => {
      await client.query('begin; insert into seen select generate_series(1, 10)');
      const id = await client.number('select pg_current_xact_id()::text');
      await client.query('commit');
      return id;
    });
    const to = (await lsnNow())!;
    const own = (await dump('main', '--from', from, '--to', to)).filter((record) => record.xid === xid);
    expect(own.filter(({ record }) => record.startsWith('Heap/INSERT'))).toHaveLength(10);
    expect(own.at(-1)?.record).toBe('Transaction/COMMIT');
    const limited = await dump('main', '--from', from, '--record', 'heap/insert', '--limit', '3');
    expect(limited).toHaveLength(3);
  });

  it('shows the newest without a range, of a suspended branch too', async () => {
    await system.suspend();
    const records = await dump('main');
    expect(records.length).toBeGreaterThan(10);
    expect(records.some(({ record }) => record === 'XLOG/CHECKPOINT_SHUTDOWN')).toBe(true);
  });

  it('shows only what a branch has written itself', async () => {
    await system.createBranch('twig');
    const early = await system.run(['wal', 'dump', 'twig', '--from', '0/1000000']);
    expect(early.code).toBe(2);
    expect(early.stderr).toContain("is not in this branch's own WAL");
  });

  it('names a branch that is not there', async () => {
    const result = await system.run(['wal', 'dump', 'nowhere']);
    expect(result.code).toBe(4);
    expect(result.stderr).toContain('there is no branch "nowhere"');
  });
});
