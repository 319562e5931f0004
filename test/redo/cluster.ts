/**
 * One run of stock Postgres for the redo oracle: a base directory, a workload, the WAL of it, and a copy of the base
 * directory that stock Postgres recovered with that WAL.
 */
import { chownSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { STATE_IN_PRODUCTION, setControlState } from '../../protocols/postgres/control-file.ts';
import { postgresUser, run } from '../support/programs.ts';
import { StockPostgres } from '../support/stock-postgres.ts';

/** So that WAL of the whole run stays in pg_wal, and a transaction that was not committed is still gone. */
const KEEP_ALL_WAL = {
  wal_keep_size: '8GB',
  max_wal_size: '8GB',
  checkpoint_timeout: '1h',
  fsync: 'off',
  autovacuum: 'off',
  max_prepared_transactions: '10',
};

const RECOVERY_TIMEOUT_MS = 900_000;

export interface OracleRun {
  base: string;
  wal: string;
  destroy(): void;
}

/**
 * Makes a cluster, lets `prepare` fill it, keeps a copy of it, runs `workload`, and ends Postgres as a crash would.
 */
export async function recordRun(
  settings: Record<string, string>,
  workload: (postgres: StockPostgres) => Promise<void>,
  prepare?: (postgres: StockPostgres) => Promise<void>,
): Promise<OracleRun> {
  const postgres = await StockPostgres.create({ ...KEEP_ALL_WAL, ...settings });
  const base = join(postgres.folder, 'base-copy');
  try {
    if (prepare) {
      await postgres.start();
      await prepare(postgres);
      await postgres.stop();
    }
    await copyFolder(join(postgres.folder, 'data'), base);
    await postgres.start();
    await workload(postgres);
    await postgres.crash();
  } catch (error) {
    await postgres.destroy();
    throw error;
  }
  return {
    base,
    wal: join(postgres.folder, 'data/pg_wal'),
    destroy: () => rmSync(postgres.folder, { recursive: true, force: true }),
  };
}

/**
 * Lets stock Postgres recover the base directory with the run's WAL; `use` gets the data directory, shut down, and what
 * Postgres logged.
 */
export async function recoverWithStock<T>(
  recorded: OracleRun,
  settings: Record<string, string>,
  use: (dataDirectory: string, log: string) => T,
): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'recovered-'));
  const { uid, gid } = postgresUser();
  if (uid !== undefined && gid !== undefined) chownSync(folder, uid, gid);
  const data = join(folder, 'data');
  await copyFolder(recorded.base, data);
  for (const name of readdirSync(recorded.wal)) {
    if (/^[0-9A-F]{24}$/.test(name)) await copyFolder(join(recorded.wal, name), join(data, 'pg_wal', name));
  }
  const controlFile = join(data, 'global/pg_control');
  writeFileSync(controlFile, setControlState(readFileSync(controlFile), STATE_IN_PRODUCTION));
  const postgres = StockPostgres.fromFolder(folder, { ...KEEP_ALL_WAL, ...settings });
  try {
    await postgres.start(RECOVERY_TIMEOUT_MS);
    const { log } = postgres;
    await postgres.stop();
    return use(data, log);
  } finally {
    await postgres.destroy();
  }
}

async function copyFolder(from: string, to: string): Promise<void> {
  const copied = await run('cp', ['-a', '--no-target-directory', from, to]);
  if (copied.code !== 0) throw new Error(copied.stderr);
}
