/**
 * `palimpsest scrub` on a real installation, stopped and at work: clean as it is, and each damage found.
 */
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Finding } from '../../deploy/storage/findings.ts';
import { TestSystem } from '../support/system.ts';

interface StorageFigures {
  templateBytes: number;
  projects: {
    branches: {
      branch: string;
      parent?: string;
      logicalBytes: number;
      layerBytes: number;
      sharedBytes: number;
      layers: { key: string; kind: string; level: number }[];
    }[];
  }[];
}

interface Report {
  clean: boolean;
  layers: number;
  findings: Finding[];
}

describe('scrub', () => {
  const system = new TestSystem();
  const objects = () => join(system.dataDir, 'objects');
  const layers = () =>
    (readdirSync(objects(), { recursive: true }) as string[])
      .filter((name) => name.startsWith('tenants/') && name.endsWith('.layer'))
      .sort((a, b) => sizeOf(b) - sizeOf(a));
  const sizeOf = (key: string) => statSync(join(objects(), key)).size;

  async function scrub(...args: string[]): Promise<Report & { code: number }> {
    const { stdout, code } = await system.run(['scrub', '--json', ...args]);
    return { ...(JSON.parse(stdout) as Report), code: code ?? -1 };
  }
  const problems = ({ findings }: Report) =>
    findings.filter(({ severity }) => severity === 'problem').map(({ kind, key }) => [kind, key]);

  /** Enough WAL for a layer that is written and uploaded when the pageserver stops. */
  async function load(table: string): Promise<void> {
    await system.with('main', (client) =>
      client.query(
        `create table ${table} as select i as id, md5(i::text) || md5((i + 1)::text) as body from generate_series(1, 100000) i`,
      ),
    );
  }

  beforeAll(async () => {
    await system.start();
    await load('first');
    await system.createBranch('dev');
    await system.stop();
    await system.start();
    await load('second');
    await system.stop();
  });
  afterAll(() => system.destroy());

  it('finds a stopped installation clean, looking at every block', async () => {
    const report = await scrub('--deep');
    expect([report.code, report.clean, problems(report)]).toEqual([0, true, []]);
    // One layer for each table, and the template.
    expect(report.layers).toBeGreaterThanOrEqual(3);
    const { stdout } = await system.run(['scrub']);
    expect(stdout).toMatch(/\nclean\n/);
  });

  it('finds a flipped byte and a missing object, and puts healthy copies back', async () => {
    const [damaged, missing] = layers();
    const path = join(objects(), damaged!);
    const bytes = readFileSync(path);
    bytes[Math.floor(bytes.length / 3)]! ^= 4;
    writeFileSync(path, bytes);
    rmSync(join(objects(), missing!));
    const shallow = await scrub();
    expect([shallow.code, problems(shallow)]).toEqual([1, [['missing', missing]]]);
    const deep = await scrub('--deep');
    expect(new Set(problems(deep).map(String))).toEqual(
      new Set([`corrupt,${damaged}`, `missing,${missing}`]),
    );
    const dump = await system.run(['layer', 'dump', damaged!]);
    expect([dump.code, dump.stdout]).toEqual([1, expect.stringContaining('DAMAGED: 1 of')]);
    const repaired = await system.run(['scrub', '--deep', '--repair']);
    expect([repaired.code, repaired.stdout]).toEqual([0, expect.stringContaining('clean (2 repaired)')]);
    expect((await scrub('--deep')).clean).toBe(true);
    expect((await system.run(['layer', 'dump', damaged!.split('/').at(-1)!])).code).toBe(0);
  });

  it('tells what cannot be repaired: without a local copy a missing object stays missing', async () => {
    const [missing] = layers();
    const kept = readFileSync(join(objects(), missing!));
    const copy = join(system.dataDir, 'pageserver', 'layers', missing!);
    const local = readFileSync(copy);
    rmSync(join(objects(), missing!));
    rmSync(copy);
    const report = await system.run(['scrub', '--repair']);
    expect([report.code, report.stdout]).toEqual([1, expect.stringContaining(missing!)]);
    writeFileSync(join(objects(), missing!), kept);
    writeFileSync(copy, local);
  });

  it('tells a gap in the WAL that neither objects nor a safekeeper can close', async () => {
    // WAL objects go away, and on every safekeeper the newest segment is called by the number after the next.
    const moved: [string, string][] = [];
    for (const name of readdirSync(objects(), { recursive: true }) as string[]) {
      if (name.endsWith('/wal'))
        moved.push([join(objects(), name), join(system.dataDir, `moved-${moved.length}`)]);
    }
    for (const node of ['sk1', 'sk2', 'sk3']) {
      const folder = join(system.dataDir, 'safekeepers', node, 'timelines');
      for (const timeline of readdirSync(folder)) {
        const wal = join(folder, timeline, 'wal');
        const newest = readdirSync(wal)
          .sort()
          .findLast((name) => statSync(join(wal, name)).size > 0);
        if (newest) moved.push([join(wal, newest), join(wal, secondNext(newest))]);
      }
    }
    expect(moved.length).toBeGreaterThanOrEqual(3);
    try {
      for (const [from, to] of moved) renameSync(from, to);
      expect(problems(await scrub()).map(([kind]) => kind)).toContain('gap');
    } finally {
      for (const [from, to] of moved) renameSync(to, from);
    }
    expect((await scrub()).clean).toBe(true);
  });

  it('is clean while the system is at work, and everything is readable after the repairs', async () => {
    await system.start();
    const loading = load('third');
    const report = await scrub('--deep');
    await loading;
    expect([report.code, problems(report)]).toEqual([0, []]);
    for (const table of ['first', 'second', 'third']) {
      expect(await system.with('main', (client) => client.number(`select count(*) from ${table}`))).toBe(
        100_000,
      );
    }
    expect(await system.with('dev', (client) => client.number('select count(*) from first'))).toBe(100_000);
  });

  it('has figures beside it: what each branch takes, as Postgres and the objects say', async () => {
    const report = await system.json<StorageFigures>(['storage']);
    const [main, dev] = report.projects[0]!.branches;
    const databases = await system.with('main', (client) =>
      client.number('select sum(pg_database_size(oid)) from pg_database'),
    );
    expect(main!.logicalBytes / databases).toBeGreaterThan(0.98);
    expect(main!.logicalBytes / databases).toBeLessThan(1.03);
    const listed = main!.layers.map(({ key }) => sizeOf(key));
    expect(listed.length).toBeGreaterThan(0);
    expect(main!.layerBytes).toBe(listed.reduce((sum, bytes) => sum + bytes, 0));
    expect([dev!.branch, dev!.parent, dev!.layers]).toEqual(['dev', 'main', []]);
    expect(dev!.sharedBytes).toBeGreaterThan(main!.sharedBytes);
    const picture = join(system.dataDir, '..', 'storage.html');
    const { stdout } = await system.run(['storage', '--html', picture]);
    expect(stdout).toMatch(/main +[\d.]+ [kM]B +[\d.]+ [kM]B in \d+/);
    expect(readFileSync(picture, 'utf8').match(/class="layer \w+"/g)).toHaveLength(listed.length);
  });

  it('has figures of what lost its name in a restore and is still needed', async () => {
    const lsn = await system.with('main', (client) => client.value('select pg_current_wal_lsn()'));
    const restored = await system.run(['branch', 'restore', 'main', '--at', lsn], { timeoutMs: 60_000 });
    expect(restored.code, restored.stderr).toBe(0);
    const { projects } = await system.json<StorageFigures>(['storage']);
    const branches = projects[0]!.branches;
    const former = branches.find(({ branch }) => branch.startsWith('(former '))!;
    const main = branches.find(({ branch }) => branch === 'main')!;
    expect(branches).toHaveLength(3);
    expect(former.layerBytes).toBeGreaterThan(0);
    expect(main.sharedBytes).toBeGreaterThanOrEqual(former.layerBytes);
    expect((await scrub()).clean).toBe(true);
  });

  it('says so where there is nothing to scrub', async () => {
    const empty = join(system.dataDir, '..', 'none');
    const nowhere = await system.run(['scrub', '--objects', empty]);
    expect([nowhere.code, nowhere.stderr]).toEqual([4, expect.stringContaining('there is no folder')]);
    expect(existsSync(empty)).toBe(false);
  });
});

/** The name of the segment two after this one. */
function secondNext(name: string): string {
  const number = Number.parseInt(name.slice(16), 16) + 2;
  return name.slice(0, 16) + number.toString(16).toUpperCase().padStart(8, '0');
}
