/**
 * The workloads of the redo oracle by name, each with the settings it needs.
 */
import { bench, initialise } from '../support/pgbench.ts';
import type { StockPostgres } from '../support/stock-postgres.ts';
import { runIndexWorkload } from './index-workload.ts';
import { RARE_SETTINGS, runRareWorkload } from './rare-workload.ts';
import { runWorkload } from './workload.ts';

export interface Workload {
  settings: Record<string, string>;
  run: (postgres: StockPostgres) => Promise<void>;
}

/** Every record carries the page after it; without images for redo, every change is reproduced. */
const ORACLE = { wal_consistency_checking: 'all', full_page_writes: 'off' };
const PGBENCH_CLIENTS = 4;
const PGBENCH_SECONDS = 5;

export const WORKLOADS: Readonly<Record<string, Workload>> = {
  heap: { settings: ORACLE, run: runWorkload },
  indexes: { settings: ORACLE, run: runIndexWorkload },
  rare: { settings: { wal_consistency_checking: 'all', ...RARE_SETTINGS }, run: runRareWorkload },
  pgbench: { settings: ORACLE, run: runPgbench },
};

export function findWorkload(name: string): Workload {
  const workload = WORKLOADS[name];
  if (workload === undefined) {
    throw new Error(`no workload "${name}": choose ${Object.keys(WORKLOADS).join(', ')}`);
  }
  return workload;
}

async function runPgbench(postgres: StockPostgres): Promise<void> {
  await initialise(postgres.target, 1);
  await bench(postgres.target, { clients: PGBENCH_CLIENTS, seconds: PGBENCH_SECONDS });
}
