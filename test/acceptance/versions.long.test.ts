/**
 * Each major version from end to end: start, load by pgbench, suspend and resume, pg_amcheck, a branch of the past.
 * Versions that do not come with the packages are installed by `palimpsest start` itself, so this is a long form.
 */
import { describe, expect, it } from 'vitest';
import { bench, initialise } from '../support/pgbench.ts';
import { missingTools, runTool } from '../support/programs.ts';
import { clientEnvironment, withSystem } from '../support/system.ts';

describe('Postgres', () => {
  it.each([15, 16, 17, 18])('%i runs from end to end', { timeout: 400_000 }, async (version) => {
    if (missingTools('pgbench', 'pg_amcheck')) return;
    await withSystem({ args: ['--pg-version', String(version)], startLimitMs: 300_000 }, async (system) => {
      const number = await system.with('main', (client) => client.number('show server_version_num'));
      expect(Math.floor(number / 10_000)).toBe(version);
      const target = await system.target();
      await initialise(target, 2);
      const before = await system.with('main', (client) => client.value('select pg_current_wal_lsn()'));
      const balances = () =>
        system.with('main', (client) => client.value('select sum(abalance) from pgbench_accounts'));
      await bench(target, { clients: 4, seconds: 4 });
      const balance = await balances();
      await system.suspend();
      await system.resume();
      expect(await balances()).toBe(balance);
      await bench(target, { clients: 4, seconds: 2 });
      await system.createBranch('past', { at: before });
      await system.with('past', async (client) => {
        expect(await client.number('select count(*) from pgbench_history')).toBe(0);
        expect(await client.number('select sum(abalance) from pgbench_accounts')).toBe(0);
      });
      const env = clientEnvironment(target);
      await runTool('pg_amcheck', ['--install-missing', '--heapallindexed', '--parent-check', 'postgres'], {
        env,
      });
    });
  });
});
