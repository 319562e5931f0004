/**
 * A branch is there as soon as its beginning is decided: what storage makes of it comes after the answer, also after a crash of
 * everything, and whoever uses the branch waits for that.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { allToEnd, eventually, isAlive, processTree, signal } from '../support/processes.ts';
import { branchArguments, TestSystem } from '../support/system.ts';

describe('a branch that was just created', { timeout: 120_000 }, () => {
  const system = new TestSystem();
  beforeAll(async () => {
    await system.start();
    await system.with('main', (client) =>
      client.query('create table t as select i as id from generate_series(1, 1000) i'),
    );
  }, 120_000);
  afterAll(() => system.destroy());

  const count = (branch: string) => system.with(branch, (client) => client.value('select count(*) from t'));

  /** No pageserver takes part in anything until `work` ends. */
  async function withoutPageserver<T>(work: () => Promise<T>): Promise<T> {
    const [pageserver] = system.processes('pageserver');
    signal(pageserver!.pid, 'SIGSTOP');
    try {
      return await work();
    } finally {
      if (isAlive(pageserver!.pid)) signal(pageserver!.pid, 'SIGCONT');
    }
  }

  async function killAll(): Promise<void> {
    const tree = processTree(system.pid);
    for (const { pid } of tree) signal(pid, 'SIGKILL');
    await allToEnd(tree, 'after they were killed', 30_000);
    await eventually('the end to be noticed', () => system.hasEnded);
  }

  it('is there after everything was killed before storage had it', async () => {
    const refusals = await withoutPageserver(async () => {
      await system.createBranch('dev');
      const words = [
        branchArguments('dev', {}),
        branchArguments('astray', { from: 'nobody' }),
        branchArguments('early', { at: 'FF/0' }),
      ];
      const answers = await Promise.all(words.map((each) => system.run(each)));
      await killAll();
      return answers.map(({ stderr }) => stderr);
    });
    expect(refusals[0]).toContain('"dev" exists already');
    expect(refusals[1]).toContain('"nobody" does not exist');
    expect(refusals[2]).toContain('is in the future');
    await system.start();
    expect(await count('dev')).toBe('1000');
    await system.with('dev', (client) => client.query('delete from t where id > 500'));
    expect(await count('dev')).toBe('500');
    expect(await count('main')).toBe('1000');
  });

  it('waits in a connection until storage has it', async () => {
    const reading = await withoutPageserver(async () => {
      await system.createBranch('slow', { from: 'dev' });
      const counted = count('slow');
      await sleep(500);
      return [counted];
    });
    expect(await reading[0]).toBe('500');
  });

  it('can be restored, branched from and deleted at once', async () => {
    await withoutPageserver(() => system.createBranch('first', { from: 'dev' }));
    await system.createBranch('second', { from: 'first' });
    expect(await count('second')).toBe('500');
    await system.json(['branch', 'delete', 'second']);
    await system.createBranch('third', { from: 'first' });
    await system.json(['branch', 'reset', 'third']);
    expect(await count('third')).toBe('500');
    await system.json(['branch', 'delete', 'third']);
    await system.json(['branch', 'archive', 'first']);
    await system.json(['branch', 'unarchive', 'first']);
    expect(await count('first')).toBe('500');
  });

  it('is deleted for good while storage is just getting it', async () => {
    const deleting = await withoutPageserver(async () => {
      await system.createBranch('brief');
      const answered = system.json(['branch', 'delete', 'brief'], { timeoutMs: 60_000 });
      await sleep(300);
      return [answered];
    });
    expect(await deleting[0]).toMatchObject({ deleted: 'brief', complete: true });
    const { branches } = await system.json<{ branches: { name: string }[] }>(['branch', 'list']);
    expect(branches.map(({ name }) => name)).not.toContain('brief');
    const scrubbed = await system.run(['scrub'], { timeoutMs: 60_000 });
    expect(scrubbed.code, scrubbed.stdout).toBe(0);
  });
});
