/** `palimpsest export` and `palimpsest import` */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { PalimpsestError } from '../../../protocols/errors.ts';
import { type CommonOptions, runCommand, withCommonOptions } from '../command.ts';
import { EXIT_FAILURE, EXIT_OK } from '../exit-codes.ts';
import { type Output, Progress } from '../output.ts';
import { formatBytes, parseObjects } from '../values.ts';
import { outcomeText } from './recover.ts';

interface ImportOptions extends CommonOptions {
  objects?: string;
  s3Endpoint?: string;
  s3Region?: string;
  pgBin?: string;
}

export function addTransferCommands(program: Command): void {
  withCommonOptions(
    program
      .command('export <dir>')
      .description('copy all projects with their history into a folder; nothing may run in --data meanwhile'),
  ).action((dir: string, options: CommonOptions) =>
    runCommand(options, (output) => exportTo(dir, options, output)),
  );
  withCommonOptions(
    program
      .command('import <dir>')
      .description(
        'make a new installation of what was exported: in a new --data folder, with objects in --objects',
      ),
  )
    .option(
      '--objects <place>',
      'where it keeps its objects: s3://bucket/prefix or a folder; nothing may be there',
    )
    .option('--s3-endpoint <url>', 'S3 server, if not Amazon’s own')
    .option('--s3-region <region>', 'region of the bucket, if the environment does not say')
    .option('--pg-bin <dir>', 'folder of the Postgres programs, if not those that come with Palimpsest')
    .action((dir: string, options: ImportOptions) =>
      runCommand(options, (output) => importFrom(dir, options, output)),
    );
}

async function exportTo(dir: string, { data, nats }: CommonOptions, output: Output): Promise<number> {
  refuseCluster(nats, 'export');
  const progress = new Progress(output);
  const { exportSystem } = await import('../../node/move.ts');
  const report = await exportSystem({
    dataDir: resolve(data),
    folder: dir,
    onStep: (text) => progress.step(text),
  });
  progress.done();
  const { projects, objects, bytes, folder } = report;
  output.result(
    report,
    `Exported ${projects} ${projects === 1 ? 'project' : 'projects'} (${objects} objects, ${formatBytes(bytes)}) to ${folder}\n` +
      `Make an installation of it with: palimpsest import ${dir} --objects PLACE --data DIR`,
  );
  return EXIT_OK;
}

async function importFrom(dir: string, options: ImportOptions, output: Output): Promise<number> {
  refuseCluster(options.nats, 'import');
  const objects = parseObjects(options);
  if (!objects) {
    throw new PalimpsestError(
      'invalid-argument',
      '--objects is missing',
      'name where the new installation keeps its objects: s3://bucket/prefix or a folder',
    );
  }
  const progress = new Progress(output);
  // Nothing else keeps this process alive while it waits.
  const awake = setInterval(() => {}, 60_000);
  try {
    const { importSystem } = await import('../../node/move.ts');
    const report = await importSystem({
      folder: dir,
      dataDir: resolve(options.data),
      objects,
      ...(options.pgBin === undefined ? {} : { pgBin: options.pgBin }),
      onStep: (text) => progress.step(text),
    });
    progress.done();
    const lines = report.branches.map(
      (branch) => `  ${branch.project}/${branch.branch}: ${outcomeText(branch)}`,
    );
    output.result(
      report,
      [
        `Imported into ${report.dataDir}:`,
        '',
        ...lines,
        '',
        `Start it with: palimpsest start --data ${options.data}`,
      ].join('\n'),
    );
    return report.branches.some(({ outcome }) => outcome === 'lost') ? EXIT_FAILURE : EXIT_OK;
  } finally {
    clearInterval(awake);
  }
}

function refuseCluster(nats: string | undefined, what: string): void {
  if (nats === undefined) return;
  throw new PalimpsestError(
    'unsupported',
    `palimpsest ${what} works with data directories, not with a cluster`,
    `leave --nats out (and $PALIMPSEST_NATS), and name a data directory with --data`,
  );
}
