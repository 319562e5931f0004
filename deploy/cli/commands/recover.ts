/** `palimpsest recover` */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { PalimpsestError } from '../../../protocols/errors.ts';
import type { RecoveredBranch } from '../../node/recovered-branches.ts';
import type { RecoveryReport } from '../../node/recovery.ts';
import { type CommonOptions, runCommand, withCommonOptions } from '../command.ts';
import { EXIT_FAILURE, EXIT_OK } from '../exit-codes.ts';
import { type Output, Progress } from '../output.ts';
import { parseObjects } from '../values.ts';

interface RecoverOptions extends CommonOptions {
  objects?: string;
  s3Endpoint?: string;
  s3Region?: string;
  pgBin?: string;
  safekeepers?: string[];
}

export function addRecoverCommand(program: Command): void {
  withCommonOptions(
    program
      .command('recover')
      .description(
        'bring all projects and branches back into a new data directory, from objects alone or with surviving safekeepers',
      ),
  )
    .option('--objects <place>', 's3://bucket/prefix or a folder')
    .option('--s3-endpoint <url>', 'S3 server, if not Amazon’s own')
    .option('--s3-region <region>', 'region of the bucket, if the environment does not say')
    .option(
      '--safekeepers <dir...>',
      'data directories of safekeepers that survived, for what had not reached objects',
    )
    .option('--pg-bin <dir>', 'folder of the Postgres programs, if not those that come with Palimpsest')
    .action((options: RecoverOptions) => runCommand(options, (output) => recover(options, output)));
}

async function recover(options: RecoverOptions, output: Output): Promise<number> {
  const objects = parseObjects(options);
  if (!objects) {
    throw new PalimpsestError(
      'invalid-argument',
      '--objects is missing',
      'name the place that was given to `palimpsest start --objects`, or the folder objects/ of the lost data directory',
    );
  }
  const progress = new Progress(output);
  // Nothing else keeps this process alive while it waits.
  const awake = setInterval(() => {}, 60_000);
  try {
    const { recoverSystem } = await import('../../node/recovery.ts');
    const report = await recoverSystem({
      objects,
      dataDir: resolve(options.data),
      safekeepers: (options.safekeepers ?? []).map((path) => resolve(path)),
      ...(options.pgBin === undefined ? {} : { pgBin: options.pgBin }),
      onStep: (text) => progress.step(text),
    });
    progress.done();
    output.result(report, reportText(report, options.data));
    return report.branches.some(({ outcome }) => outcome === 'lost') ? EXIT_FAILURE : EXIT_OK;
  } finally {
    clearInterval(awake);
  }
}

function reportText({ branches, dataDir }: RecoveryReport, data: string): string {
  const lines = branches.map((branch) => `  ${branch.project}/${branch.branch}: ${outcomeText(branch)}`);
  return [
    `Recovered into ${dataDir}:`,
    '',
    ...lines,
    '',
    `Start it with: palimpsest start --data ${data}`,
    'The installation that it replaces must not be used any more; it is refused by the objects.',
  ].join('\n');
}

/** What became of a branch, for a person. */
export function outcomeText(branch: RecoveredBranch): string {
  const { outcome, lsn, time, reason } = branch;
  switch (outcome) {
    case 'recovered':
      return [`up to ${lsn}`, time && `last commit at ${time}`, certaintyText(branch)]
        .filter(Boolean)
        .join(', ');
    case 'restarted':
      return `had no data of its own and starts at ${lsn} now, because ${reason}`;
    case 'lost':
      return `LOST: ${reason}`;
  }
}

function certaintyText({ complete, certainLsn, reason }: RecoveredBranch): string | undefined {
  if (complete === undefined) return undefined;
  if (complete) return 'with everything that was acknowledged';
  return `certain up to ${certainLsn}: commits acknowledged after that may be missing, because ${reason}`;
}
