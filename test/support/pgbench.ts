/** pgbench and pg_amcheck against a branch or a stock server, and the invariant that pgbench's tables keep. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { PgClient, PgTarget } from './pg-client.ts';
import { runTool } from './programs.ts';
import { clientEnvironment } from './system.ts';

export async function initialise(target: PgTarget, scale: number): Promise<number> {
  const started = performance.now();
  const args = ['-i', '-s', String(scale), '-q', '-n'];
  await runTool('pgbench', args, { env: clientEnvironment(target), timeoutMs: 600_000 });
  await runTool('psql', ['-X', '-q', '-c', 'vacuum analyze'], {
    env: clientEnvironment(target),
    timeoutMs: 300_000,
  });
  return performance.now() - started;
}

export interface BenchRun {
  transactions: number;
  tps: number;
  latencyMs: number;
  failed: number;
}

/** Runs pgbench for `seconds`. A failed transaction or a lost client throws. */
export async function bench(
  target: PgTarget,
  options: { clients: number; seconds: number; args?: string[]; script?: string },
): Promise<BenchRun> {
  const { clients, seconds, args = [], script } = options;
  const all = ['-n', '-c', String(clients), '-j', '1', '-T', String(seconds), '-M', 'prepared', ...args];
  const folder = mkdtempSync(join(tmpdir(), 'pgbench-'));
  if (script !== undefined) {
    writeFileSync(join(folder, 'script.sql'), script);
    all.push('-f', join(folder, 'script.sql'));
  }
  const environment = { env: clientEnvironment(target), timeoutMs: (seconds + 60) * 1000 };
  const result = await runTool('pgbench', all, environment).finally(() =>
    rmSync(folder, { recursive: true }),
  );
  if (/aborted|error:/i.test(result.stderr)) throw new Error(`pgbench complained:\n${result.stderr}`);
  const figure = (pattern: RegExp) => Number(pattern.exec(result.stdout)?.[1] ?? 0);
  return {
    transactions: figure(/transactions actually processed: (\d+)/),
    tps: figure(/tps = ([\d.]+)/),
    latencyMs: figure(/latency average = ([\d.]+) ms/),
    failed: figure(/number of failed transactions: (\d+)/),
  };
}

/** The sums that every transaction of pgbench's built-in script keeps equal. */
export async function balanceSums(client: PgClient): Promise<Record<string, string | null>> {
  const { rows } = await client.query(
    `select (select sum(abalance) from pgbench_accounts) as accounts, (select sum(tbalance) from pgbench_tellers) as tellers,
       (select sum(bbalance) from pgbench_branches) as branches, (select sum(delta) from pgbench_history) as history`,
    { timeoutMs: 120_000 },
  );
  return rows[0]!;
}

/** Throws with pg_amcheck's output unless all heaps and btree indexes of the database are sound. */
export async function checkWithAmcheck(target: PgTarget, timeoutMs = 600_000): Promise<void> {
  const args = ['--install-missing', '--heapallindexed', '--jobs=2', target.database];
  const result = await runTool('pg_amcheck', args, { env: clientEnvironment(target), timeoutMs });
  const complaint = result.stdout.trim();
  if (complaint !== '') throw new Error(`pg_amcheck found:\n${complaint}`);
}
