/**
 * `node test/redo/verify.ts [heap|indexes|rare|pgbench] [setting=value …] [--json]`: runs one workload with the redo oracle and
 * prints, for each record type, how many images redo reproduced. KEEP=1 keeps the base directory and the WAL.
 */
import { type RecordTally, replayAndCompare, total } from '../../deploy/wal/replay.ts';
import { formatLsn } from '../../protocols/lsn.ts';
import { POSTGRES_BIN, run } from '../support/programs.ts';
import type { StockPostgres } from '../support/stock-postgres.ts';
import { type OracleRun, recordRun, recoverWithStock } from './cluster.ts';
import { compareWithRecovered } from './compare-recovered.ts';
import { findWorkload } from './workloads.ts';

const FINDINGS_SHOWN = 40;

/** What `--json` prints. */
export interface VerifyReport {
  version: string;
  tallies: Record<string, RecordTally>;
  total: RecordTally;
  walBytes: number;
  endLsn: string;
  recoveredPages: number;
  wrong: number;
  findings: string[];
}

if (import.meta.main) await main(process.argv.slice(2));

async function main(args: string[]): Promise<void> {
  const words = args.filter((argument) => !argument.includes('=') && !argument.startsWith('--'));
  const workload = findWorkload(words[0] ?? 'heap');
  const more = args.filter((argument) => argument.includes('='));
  const settings = {
    ...workload.settings,
    ...Object.fromEntries(more.map((argument) => argument.split('=') as [string, string])),
  };
  await recordAndExamine(settings, workload.run, args.includes('--json'));
}

/** Records a run of `workload`, examines it and prints what was found; the exit code is 1 when anything is wrong. */
export async function recordAndExamine(
  settings: Record<string, string>,
  workload: (postgres: StockPostgres) => Promise<void>,
  asJson: boolean,
): Promise<void> {
  const recorded = await recordRun(settings, workload);
  try {
    const report = await examine(recorded, settings);
    if (asJson) console.log(JSON.stringify(report));
    else print(report);
    if (report.wrong > 0) process.exitCode = 1;
  } finally {
    if (process.env.KEEP === '1') console.error(`kept: --base ${recorded.base} --wal ${recorded.wal}`);
    else recorded.destroy();
  }
}

async function examine(recorded: OracleRun, settings: Record<string, string>): Promise<VerifyReport> {
  const { stdout } = await run(`${POSTGRES_BIN}/postgres`, ['--version']);
  const result = replayAndCompare(recorded.base, recorded.wal);
  const recovered = await recoverWithStock(recorded, settings, (data) =>
    compareWithRecovered(result.store, result.fold, data),
  );
  const sum = total(result.tallies);
  return {
    version: stdout.trim().replace(/^postgres \(PostgreSQL\) /, ''),
    tallies: Object.fromEntries([...result.tallies].sort(([a], [b]) => (a < b ? -1 : 1))),
    total: sum,
    walBytes: result.walBytes,
    endLsn: formatLsn(result.endLsn),
    recoveredPages: recovered.pages + recovered.vmPages + recovered.slruPages,
    wrong: sum.different + sum.failed + sum.unsupported + recovered.findings.length,
    findings: [...result.findings, ...recovered.findings].slice(0, FINDINGS_SHOWN),
  };
}

function print(report: VerifyReport): void {
  for (const [name, t] of Object.entries(report.tallies)) {
    const numbers = [t.records, t.equal, t.different, t.applied, t.unsupported, t.failed];
    console.log(name.padEnd(36), ...numbers.map((n) => String(n).padStart(9)));
  }
  console.log('record type / records, images equal, different, applied, unsupported, failed');
  console.log(JSON.stringify(report.total));
  console.log(
    `Postgres ${report.version}: ${(report.walBytes / 1e6).toFixed(1)} MB of WAL up to ${report.endLsn}`,
  );
  console.log(`${report.recoveredPages} pages compared with a stock recovery; ${report.wrong} differences`);
  for (const finding of report.findings) console.log('  ', finding);
}
