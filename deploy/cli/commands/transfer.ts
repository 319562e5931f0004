/** `palimpsest export` and `palimpsest import` */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { PalimpsestError } from '../../../protocols/errors.ts';
import { connect } from '../../client/index.ts';
import {
  type CommonOptions,
  connectOptions,
  runCommand,
  withCommonOptions,
  withObjects,
} from '../command.ts';
import { EXIT_FAILURE, EXIT_OK } from '../exit-codes.ts';
import { type Output, Progress } from '../output.ts';
import { formatBytes, parseObjects } from '../values.ts';
import { type BringBackOptions, branchLines, bringBack, withBinaries } from './recover.ts';

export function addTransferCommands(program: Command): void {
  withCommonOptions(
    program
      .command('export <dir>')
      .description('copy all projects with their history into a folder; nothing may run in --data meanwhile'),
  ).action((dir: string, options: CommonOptions) =>
    runCommand(options, (output) => exportTo(dir, options, output)),
  );
  const command = withCommonOptions(
    program
      .command('import <dir>')
      .description(
        'make a new installation of what was exported, in a new --data folder with objects in --objects; or with --nats, bring it into a cluster',
      ),
  );
  const place =
    'where it keeps its objects: s3://bucket/prefix or a folder; nothing may be there, unless it is a cluster’s';
  withBinaries(withObjects(command, place)).action((dir: string, options: BringBackOptions) =>
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

async function importFrom(dir: string, options: BringBackOptions, output: Output): Promise<number> {
  if (options.nats !== undefined) return importToCluster(dir, options, output);
  return bringBack(options, output, {
    objectsHint: 'name where the new installation keeps its objects: s3://bucket/prefix or a folder',
    run: async (common) => {
      const { importSystem } = await import('../../node/move.ts');
      return importSystem({ ...common, folder: dir });
    },
    done: 'Imported',
  });
}

async function importToCluster(dir: string, options: BringBackOptions, output: Output): Promise<number> {
  const objects = parseObjects(options);
  if (!objects) {
    const hint = 'name the place with --objects that the nodes of the cluster were started with';
    throw new PalimpsestError('invalid-argument', '--objects is missing', hint);
  }
  const client = await connect(connectOptions(options));
  const progress = new Progress(output);
  // Nothing else keeps this process alive while it waits.
  const awake = setInterval(() => {}, 60_000);
  try {
    const { importIntoCluster } = await import('../../node/import-into-cluster.ts');
    const branches = await importIntoCluster({
      folder: dir,
      objects,
      ...(options.pgBin === undefined ? {} : { pgBin: options.pgBin }),
      onStep: (text) => progress.step(text),
      projects: async () => (await client.projects()).map(({ name }) => name),
      takeOver: (id) => client.importProjects(id),
    });
    progress.done();
    const text = ['Imported into the cluster:', '', ...branchLines(branches)].join('\n');
    output.result({ branches }, text);
    return branches.some(({ outcome }) => outcome === 'lost') ? EXIT_FAILURE : EXIT_OK;
  } finally {
    clearInterval(awake);
    await client.close();
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
