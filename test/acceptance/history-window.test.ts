/**
 * The history window: what is older is refused with an error that says where the window begins; what branches and readers hold stays
 * readable, and the newest state is never touched.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { GcView, ProjectView } from '../../deploy/client/index.ts';
import { pause } from '../support/processes.ts';
import { TestSystem } from '../support/system.ts';

describe('the history window', () => {
  const system = new TestSystem({ args: ['--gc-interval', '0'] });

  beforeAll(() => system.start());
  afterAll(() => system.destroy());

  const count = (branch: string) =>
    system.with(branch, (client) => client.number('select count(*) from kept'));
  const insert = (branch: string, rows: number) =>
    system.with(branch, async (client) => {
      await client.query(`insert into kept select generate_series(1, ${rows})`);
      return client.value('select pg_current_wal_insert_lsn()');
    });

  it('is a week at first, and what is set is shown', async () => {
    const { projects } = await system.json<{ projects: ProjectView[] }>(['project', 'list']);
    expect(projects[0]!.history).toEqual({ seconds: 7 * 86_400, bytes: 0 });
    const set = await system.run(['project', 'set', 'default', '--history', '1s', '--history-bytes', '0']);
    expect(set.stdout).toMatch(/project default keeps 1s of history/);
    expect((await system.run(['project', 'list'])).stdout).toMatch(/HISTORY.*\n.* 1s /);
    expect((await system.run(['project', 'set', 'default', '--history', 'soon'])).code).toBe(2);
  });

  it('refuses branches, restores and readers of what is before it, and says where it begins', async () => {
    await system.with('main', (client) => client.query('create table kept (id int)'));
    const early = await insert('main', 100);
    const held = await insert('main', 100);
    await system.createBranch('holder', { at: held });
    await insert('main', 100);
    await pause(1_200);
    await insert('main', 100);
    const done = await system.json<GcView>(['gc', 'main']);
    expect(done.historyFrom).toBeDefined();
    expect(done.retained).toHaveLength(1);
    const begins = new RegExp(
      `history window, which begins at ${done.historyFrom!.replace('/', '\\/')} \\(20`,
    );
    for (const words of [
      ['branch', 'create', 'late', '--at', early],
      ['branch', 'restore', 'main', '--at', early],
      ['branch', 'create', 'late', '--at', '1h'],
      ['url', `main@${early}`],
    ]) {
      const refused = await system.run(words);
      expect([words, refused.code]).not.toEqual([words, 0]);
      expect(refused.stderr).toMatch(begins);
    }
    expect(await count('main')).toBe(400);
    await system.createBranch('within', { at: done.historyFrom! });
    expect(await count('within')).toBeGreaterThanOrEqual(300);
  });

  it('keeps what a branch grew from, also after everything restarted', async () => {
    expect(await count('holder')).toBe(200);
    await system.stop();
    await system.start();
    expect(await count('holder')).toBe(200);
    expect(await count('main')).toBe(400);
    // Where a branch starts somebody may start another one: the point is there.
    const { branches } = await system.json<{ branches: { name: string; startLsn: string }[] }>([
      'branch',
      'list',
    ]);
    const { startLsn } = branches.find(({ name }) => name === 'holder')!;
    await system.createBranch('second', { at: startLsn });
    expect(await count('second')).toBe(200);
  });
});
