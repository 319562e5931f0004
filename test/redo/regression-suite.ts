/**
 * `node test/redo/regression-suite.ts [15|16|17|18] [--suite=N]`: Postgres' own regression suite (parallel_schedule) against the stock
 * server of that version with the redo oracle on, then the same as after any workload: every after-image, and a recovery by stock
 * Postgres.
 *
 * For developers, not for CI: it fetches Debian's source package, builds what pg_regress needs, writes some 4 GB of WAL below TMPDIR
 * and takes a quarter of an hour. KEEP=1 keeps base directory and WAL, for `palimpsest wal verify`; --json prints the report as JSON.
 * With --suite another version's suite is run, where the own source package cannot be had: more of its tests fail, since its C
 * functions cannot be loaded, but nearly all of the SQL runs.
 */
import { chownSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findPostgres } from '../../runtime/adapters/postgres-binaries.ts';
import { installedPostgres, installPostgres } from '../../runtime/adapters/postgres-packages.ts';
import { fetchRegressionSuite, type RegressionSuite } from '../support/postgres-source.ts';
import { POSTGRES_BIN, postgresUser, run } from '../support/programs.ts';
import type { StockPostgres } from '../support/stock-postgres.ts';
import { VERSIONS } from './coverage.ts';
import { recordAndExamine } from './verify.ts';

const PACKAGED_VERSION = 17;
const SUITE_TIMEOUT_MS = 3_600_000;
const PARALLEL_TESTS = '20';
/** `All 217 tests passed.`, `3 of 217 tests failed.` */
const SUM = /\d+ tests (passed|failed)/;

const SETTINGS = {
  wal_consistency_checking: 'all',
  full_page_writes: 'off',
  // Images are most of the log by far, and nearly all of them look like the one before.
  wal_compression: 'on',
  wal_keep_size: '200GB',
  max_wal_size: '200GB',
  // Should a test bring the server down, it is soon back for the next ones.
  checkpoint_timeout: '1min',
  autovacuum: 'on',
  max_prepared_transactions: '10',
};

const say = (text: string) => console.error(text);
const [word = '15'] = process.argv.slice(2).filter((argument) => !argument.startsWith('--'));
const version = VERSIONS.find((known) => String(known) === word);
if (version === undefined) {
  console.error(`"${word}" is not a version: choose ${VERSIONS.join(', ')}`);
  process.exit(2);
}
const other = process.argv.find((argument) => argument.startsWith('--suite='))?.slice('--suite='.length);
const suiteVersion = other === undefined ? version : Number(other);
if (process.env.PALIMPSEST_TEST_POSTGRES_BIN === undefined) await again(version);
else {
  const suite = await fetchRegressionSuite(suiteVersion, say);
  await recordAndExamine(SETTINGS, (postgres) => runSuite(postgres, suite), process.argv.includes('--json'));
}

/** The binaries are given to tests by the environment, so the run itself is a process of its own. */
async function again(wanted: number): Promise<void> {
  const bin =
    wanted === PACKAGED_VERSION
      ? findPostgres(wanted).directory
      : (installedPostgres(wanted) ?? (await installPostgres(wanted)));
  const { spawnSync } = await import('node:child_process');
  const result = spawnSync(process.execPath, process.argv.slice(1), {
    env: { ...process.env, PALIMPSEST_TEST_POSTGRES_BIN: bin },
    stdio: 'inherit',
  });
  process.exitCode = result.status ?? 1;
}

async function runSuite(
  postgres: StockPostgres,
  { folder, psqlFolder, env }: RegressionSuite,
): Promise<void> {
  // The server writes files there, too.
  const output = mkdtempSync(join(tmpdir(), 'regress-'));
  const { uid, gid } = postgresUser();
  if (uid !== undefined && gid !== undefined) chownSync(output, uid, gid);
  say(`running pg_regress against ${POSTGRES_BIN}`);
  const args = [
    `--inputdir=${folder}`,
    `--outputdir=${output}`,
    `--dlpath=${folder}`,
    `--bindir=${psqlFolder}`,
    `--schedule=${join(folder, 'parallel_schedule')}`,
    `--max-concurrent-tests=${PARALLEL_TESTS}`,
    `--host=${postgres.target.host}`,
    `--port=${postgres.target.port}`,
    `--user=${postgres.target.user}`,
  ];
  try {
    const result = await run(join(folder, 'pg_regress'), args, {
      ...postgresUser(),
      cwd: output,
      env,
      timeoutMs: SUITE_TIMEOUT_MS,
    });
    // What another minor release of the server prints may differ: what counts is the WAL. The sum is on stderr since version 16.
    const failed = result.stdout.split('\n').filter((line) => /FAILED|^not ok/.test(line));
    const sum = `${result.stdout}\n${result.stderr}`.split('\n').filter((line) => SUM.test(line));
    if (sum.length === 0) throw new Error(`pg_regress did not run: ${result.stderr.slice(-2000)}`);
    say([...failed, ...sum].join('\n'));
  } finally {
    rmSync(output, { recursive: true, force: true });
  }
}
