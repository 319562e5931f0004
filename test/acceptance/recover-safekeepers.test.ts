/** An installation is lost but for its objects and safekeepers: it comes back up to the last commit that was acknowledged. */
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { parseLsn } from '../../protocols/lsn.ts';
import { signal } from '../support/processes.ts';
import { TestSystem } from '../support/system.ts';

interface Branch {
  branch: string;
  outcome: string;
  lsn: string;
  complete?: boolean;
  certainLsn?: string;
  reason?: string;
}

const RECOVER = { timeoutMs: 120_000 };
const WRITE_MS = 1_000;
const IDS = 'select id from numbers order by id';

describe('palimpsest recover --safekeepers', () => {
  const folder = mkdtempSync(join(tmpdir(), 'palimpsest-recover-safekeepers-'));
  const objects = join(folder, 'objects');
  const objectsCopy = join(folder, 'objects-copy');
  const lost = new TestSystem({ dataDir: join(folder, 'lost') });
  const few = new TestSystem({ dataDir: join(folder, 'few') });
  const found = new TestSystem({ dataDir: join(folder, 'found') });
  const safekeepers = join(lost.dataDir, 'safekeepers');
  afterAll(async () => {
    await lost.destroy();
    await found.destroy();
    rmSync(folder, { recursive: true, force: true });
  });

  async function recover(system: TestSystem, from: string, given: string): Promise<Branch[]> {
    const result = await system.run(
      ['recover', '--objects', from, '--safekeepers', given, '--json'],
      RECOVER,
    );
    expect(result.code, result.stdout + result.stderr).toBe(0);
    return (JSON.parse(result.stdout) as { branches: Branch[] }).branches;
  }

  it('loses no commit that was acknowledged when a majority survived, and says what is certain when not', async () => {
    await lost.start({ args: ['--objects', objects] });
    const refused = await found.run(['recover', '--objects', objects, '--safekeepers', safekeepers]);
    expect([refused.code, refused.stderr]).toEqual([5, expect.stringMatching(/in use by process/)]);
    await lost.with('main', (client) => client.query('create table numbers (id int primary key)'));
    await lost.createBranch('dev');
    await lost.with('dev', (client) => client.query('insert into numbers values (-1)'));
    const acknowledged = await lost.with('main', async (client) => {
      let id = 0;
      const until = performance.now() + WRITE_MS;
      while (performance.now() < until) await client.query(`insert into numbers values (${++id})`);
      // All at once, as when the power goes.
      for (const { pid } of lost.processes()) signal(pid, 'SIGKILL');
      return id;
    });
    expect(acknowledged).toBeGreaterThan(10);
    await lost.stop();
    for (const name of readdirSync(lost.dataDir)) {
      if (name !== 'safekeepers') rmSync(join(lost.dataDir, name), { recursive: true });
    }
    rmSync(join(safekeepers, 'sk3'), { recursive: true });
    cpSync(objects, objectsCopy, { recursive: true });

    const uncertain = await recover(few, objectsCopy, join(safekeepers, 'sk2'));
    expect(uncertain.find(({ branch }) => branch === 'main')).toMatchObject({
      outcome: 'recovered',
      complete: false,
      reason: 'sk2 of sk1, sk2, sk3 is there, which is no majority',
    });

    const branches = await recover(found, objects, safekeepers);
    expect(branches.map(({ branch, outcome, complete }) => [branch, outcome, complete]).sort()).toEqual([
      ['dev', 'recovered', true],
      ['main', 'recovered', true],
    ]);
    const main = branches.find(({ branch }) => branch === 'main')!;
    const certain = uncertain.find(({ branch }) => branch === 'main')!.certainLsn!;
    expect(parseLsn(certain)).toBeLessThanOrEqual(parseLsn(main.lsn)!);

    await found.start();
    const { rows } = await found.with('main', (client) => client.query(IDS));
    const ids = rows.map(({ id }) => Number(id));
    expect(ids.slice(0, acknowledged)).toEqual(Array.from({ length: acknowledged }, (_, i) => i + 1));
    expect((await found.with('dev', (client) => client.query(IDS))).rows).toEqual([{ id: '-1' }]);
    await found.with('main', (client) => client.query('insert into numbers values (1000000)'));
    expect(await found.stop()).toBe(0);
    expect(await found.json(['scrub'], RECOVER)).toMatchObject({ clean: true });

    // What the old safekeepers have is behind now: objects know better.
    rmSync(few.dataDir, { recursive: true });
    const behind = await recover(few, objects, safekeepers);
    expect(behind.find(({ branch }) => branch === 'main')).toMatchObject({
      outcome: 'recovered',
      complete: false,
      reason: 'what was given of sk1, sk2 is older than what objects hold',
    });
  });

  it('refuses folders without a safekeeper', async () => {
    const empty = join(folder, 'empty');
    mkdirSync(empty);
    const result = await few.run(['recover', '--objects', objects, '--safekeepers', empty]);
    expect(result.code).not.toBe(0);
    expect(result.stderr).toMatch(/no data directory of a safekeeper[\s\S]*safekeepers\//);
  });
});
