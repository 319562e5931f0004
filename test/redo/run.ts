/**
 * `npm run test:redo`: every workload on every version of Postgres with the oracle on; 0 differences, and the table of record types.
 *
 *   npm run test:redo                      all versions and workloads
 *   npm run test:redo -- 16 18 heap        some
 *   npm run test:redo -- --write           all, and the table is kept in coverage.md
 */
import { findPostgres } from '../../runtime/adapters/postgres-binaries.ts';
import { installedPostgres, installPostgres } from '../../runtime/adapters/postgres-packages.ts';
import { fetchPostgresTools } from '../support/postgres-tools.js';
import { run } from '../support/programs.ts';
import { ROOT } from '../support/source-files.ts';
import {
  addTallies,
  type Coverage,
  complaintsAbout,
  coverageTable,
  VERSIONS,
  writeCoverage,
} from './coverage.ts';
import type { VerifyReport } from './verify.ts';
import { WORKLOADS } from './workloads.ts';

const PACKAGED_VERSION = 17;
const WORKLOAD_TIMEOUT_MS = 900_000;

const words = process.argv.slice(2);
const unknown = words.filter(
  (word) =>
    word !== '--write' && !(word in WORKLOADS) && !VERSIONS.some((version) => String(version) === word),
);
if (unknown.length > 0) {
  console.error(
    `unknown: ${unknown.join(' ')}. Versions: ${VERSIONS.join(' ')}. Workloads: ${Object.keys(WORKLOADS).join(' ')}`,
  );
  process.exit(2);
}
const chosen = VERSIONS.filter((version) => words.includes(String(version)));
const versions = chosen.length > 0 ? chosen : VERSIONS;
const named = Object.keys(WORKLOADS).filter((name) => words.includes(name));
const workloads = named.length > 0 ? named : Object.keys(WORKLOADS);

const missing = fetchPostgresTools();
if (missing !== undefined) {
  console.error(`psql and pgbench are needed: ${missing}. Install them: apt-get install postgresql-contrib`);
  process.exit(1);
}

const coverage: Coverage = new Map();
let wrong = 0;
for (const version of versions) {
  const bin = await programsOf(version);
  for (const workload of workloads) wrong += await runOne(version, bin, workload);
}
console.log(`\n${coverageTable(coverage)}`);
const complaints =
  workloads.length === Object.keys(WORKLOADS).length ? complaintsAbout(coverage, versions) : [];
for (const complaint of complaints) console.log(`coverage: ${complaint}`);
if (words.includes('--write')) writeCoverage(coverage, versions);
console.log(`${wrong} differences, ${complaints.length} complaints about coverage`);
process.exit(wrong + complaints.length > 0 ? 1 : 0);

async function programsOf(version: number): Promise<string> {
  if (version === PACKAGED_VERSION) return findPostgres(version).directory;
  return installedPostgres(version) ?? (await installPostgres(version));
}

/** Runs in a process of its own, which the binaries are given to by the environment. Returns the number of things wrong. */
async function runOne(version: number, bin: string, workload: string): Promise<number> {
  const started = performance.now();
  const result = await run(process.execPath, [`${ROOT}test/redo/verify.ts`, workload, '--json'], {
    env: { PALIMPSEST_TEST_POSTGRES_BIN: bin },
    timeoutMs: WORKLOAD_TIMEOUT_MS,
  });
  const seconds = ((performance.now() - started) / 1000).toFixed(0);
  const line = result.stdout.trim().split('\n').at(-1) ?? '';
  if (!line.startsWith('{')) {
    console.log(`${version} ${workload}: failed after ${seconds} s\n${result.stderr.slice(-2000)}`);
    return 1;
  }
  const report = JSON.parse(line) as VerifyReport;
  addTallies(coverage, version, report.tallies);
  console.log(
    `${report.version} ${workload}: ${report.total.records} records, ${report.total.equal} images and ` +
      `${report.recoveredPages} recovered pages compared, ${report.wrong} differences (${seconds} s)`,
  );
  for (const finding of report.findings) console.log(`   ${finding}`);
  return report.wrong;
}
