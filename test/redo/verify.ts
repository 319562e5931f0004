/**
 * `node test/redo/verify.ts [heap|indexes|rare|pgbench] [setting=value …]`: runs the redo oracle and prints, for each record type, how many images redo reproduced.
 */

import { replayAndCompare, total } from '../../deploy/wal/replay.ts';
import { formatLsn } from '../../protocols/lsn.ts';
import { recordRun, recoverWithStock } from './cluster.ts';
import { compareWithRecovered } from './compare-recovered.ts';
import { findWorkload } from './workloads.ts';

const args = process.argv.slice(2);
const workload = findWorkload(args.find((argument) => !argument.includes('=')) ?? 'heap');
const settings = {
  ...workload.settings,
  ...Object.fromEntries(
    args
      .filter((argument) => argument.includes('='))
      .map((argument) => argument.split('=') as [string, string]),
  ),
};

const recorded = await recordRun(settings, workload.run);
try {
  const started = performance.now();
  const result = replayAndCompare(recorded.base, recorded.wal);
  const seconds = (performance.now() - started) / 1000;
  for (const name of [...result.tallies.keys()].sort()) {
    const t = result.tallies.get(name)!;
    const numbers = [t.records, t.equal, t.different, t.applied, t.unsupported, t.failed];
    console.log(name.padEnd(36), ...numbers.map((n) => String(n).padStart(9)));
  }
  console.log(
    'record type / records, images equal, different, applied, unsupported, failed\n',
    JSON.stringify(total(result.tallies)),
  );
  const megabytes = result.walBytes / 1e6;
  console.log(
    `${megabytes.toFixed(1)} MB of WAL up to ${formatLsn(result.endLsn)} in ${seconds.toFixed(1)} s`,
  );
  for (const finding of result.findings) console.log('  ', finding);
  const recovered = await recoverWithStock(recorded, settings, (data) =>
    compareWithRecovered(result.store, result.fold, data),
  );
  console.log('recovered by stock Postgres:', { ...recovered, findings: recovered.findings.length });
  for (const finding of recovered.findings.slice(0, 40)) console.log('  ', finding);
  const sum = total(result.tallies);
  const bad = sum.different + sum.failed + sum.unsupported + recovered.findings.length;
  if (bad > 0) process.exitCode = 1;
} finally {
  if (process.env.KEEP === '1') console.log('kept', recorded.base);
  else recorded.destroy();
}
