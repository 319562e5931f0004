/**
 * The oracle sees what it should: with one line of redo made wrong, in each resource manager, a replay finds a difference. It takes
 * minutes, so it is a long form (PALIMPSEST_LONG=1).
 */
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { run } from '../support/programs.ts';
import { ROOT } from '../support/source-files.ts';
import { type OracleRun, recordRun, recoverWithStock } from './cluster.ts';
import { FAULTS, type FaultyReplay, plant } from './planted-faults.ts';
import { findWorkload } from './workloads.ts';

const MORE_SETTINGS = { track_commit_timestamp: 'on' };

const runs = new Map<string, OracleRun & { recovered: string }>();
let folder: string | undefined;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'faults-'));
  for (const name of ['heap', 'indexes']) {
    const workload = findWorkload(name);
    const settings = { ...workload.settings, ...MORE_SETTINGS };
    const recorded = await recordRun(settings, workload.run);
    const recovered = join(folder, name);
    runs.set(name, { ...recorded, recovered });
    await recoverWithStock(recorded, settings, (data) => cpSync(data, recovered, { recursive: true }));
  }
}, 400_000);

afterAll(() => {
  for (const recorded of runs.values()) recorded.destroy();
  if (folder) rmSync(folder, { recursive: true, force: true });
});

async function replayWith(fault: number, workload: string): Promise<string[]> {
  const { base, wal, recovered } = runs.get(workload)!;
  const args = [join(ROOT, 'test/redo/planted-faults.ts'), String(fault), base, wal, recovered];
  const result = await run(process.execPath, args, { timeoutMs: 120_000 });
  // A fault may also make redo contradict itself so badly that the replay ends.
  if (result.code !== 0) return [result.stderr];
  return (JSON.parse(result.stdout) as FaultyReplay).found;
}

test.each(['heap', 'indexes'])('without a fault nothing is found in the workload %s', async (workload) => {
  expect(await replayWith(-1, workload)).toEqual([]);
});

test.each(FAULTS.map((fault, index) => ({ ...fault, index })))('$what', async (fault) => {
  expect(plant(fault).isUnique, 'the line to be changed is there once').toBe(true);
  const found = await replayWith(fault.index, fault.workload);
  expect(found.length).toBeGreaterThan(0);
  expect(found[0]).not.toMatch(/SyntaxError|ReferenceError|ERR_MODULE/);
});
