/** `palimpsest recover` */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { PalimpsestError } from '../../../protocols/errors.ts';
import type { ObjectsLocation } from '../../../runtime/adapters/objects-location.ts';
import type { RecoveredBranch } from '../../node/recovered-branches.ts';
import type { RecoveryReport } from '../../node/recovery.ts';
import { type CommonOptions, runCommand, withCommonOptions, withObjects } from '../command.ts';
import { EXIT_FAILURE, EXIT_OK } from '../exit-codes.ts';
import { type Output, Progress } from '../output.ts';
import { type ObjectsOptions, parseObjects } from '../values.ts';

/** Options of `bringBack`. */
export interface BringBackOptions extends CommonOptions, ObjectsOptions {
  pgBin?: string;
}

interface RecoverOptions extends BringBackOptions {
  safekeepers?: string[];
}

/** What a command makes an installation of, and how it says so. */
export interface BringBack {
  /** What `--objects` is for, when it is missing. */
  objectsHint: string;
  run(common: {
    objects: ObjectsLocation;
    dataDir: string;
    pgBin?: string;
    onStep(text: string): void;
  }): Promise<RecoveryReport>;
  done: string;
  /** Said at the end. */
  warning?: string;
}

export function addRecoverCommand(program: Command): void {
  const command = withCommonOptions(
    program
      .command('recover')
      .description(
        'bring all projects and branches back into a new data directory, from objects alone or with surviving safekeepers',
      ),
  );
  withBinaries(
    withObjects(command, 's3://bucket/prefix or a folder').option(
      '--safekeepers <dir...>',
      'data directories of safekeepers that survived, for what had not reached objects',
    ),
  ).action((options: RecoverOptions) => runCommand(options, (output) => recover(options, output)));
}

/** Adds `--pg-bin`. */
export function withBinaries(command: Command): Command {
  return command.option(
    '--pg-bin <dir>',
    'folder of the Postgres programs, if not those that come with Palimpsest',
  );
}

function recover(options: RecoverOptions, output: Output): Promise<number> {
  return bringBack(options, output, {
    objectsHint:
      'name the place that was given to `palimpsest start --objects`, or the folder objects/ of the lost data directory',
    run: async (common) => {
      const { recoverSystem } = await import('../../node/recovery.ts');
      const safekeepers = (options.safekeepers ?? []).map((path) => resolve(path));
      return recoverSystem({ ...common, safekeepers });
    },
    done: 'Recovered',
    warning: 'The installation that it replaces must not be used any more; it is refused by the objects.',
  });
}

/** Makes an installation in `--data`, with progress, and tells what became of its branches; fails when one is lost. */
export async function bringBack(
  options: BringBackOptions,
  output: Output,
  { objectsHint, run, done, warning }: BringBack,
): Promise<number> {
  const objects = parseObjects(options);
  if (!objects) throw new PalimpsestError('invalid-argument', '--objects is missing', objectsHint);
  const progress = new Progress(output);
  // Nothing else keeps this process alive while it waits.
  const awake = setInterval(() => {}, 60_000);
  try {
    const report = await run({
      objects,
      dataDir: resolve(options.data),
      ...(options.pgBin === undefined ? {} : { pgBin: options.pgBin }),
      onStep: (text) => progress.step(text),
    });
    progress.done();
    const { branches, dataDir } = report;
    const lines = branchLines(branches);
    const start = `Start it with: palimpsest start --data ${options.data}`;
    const text = [`${done} into ${dataDir}:`, '', ...lines, '', start, ...(warning ? [warning] : [])];
    output.result(report, text.join('\n'));
    return branches.some(({ outcome }) => outcome === 'lost') ? EXIT_FAILURE : EXIT_OK;
  } finally {
    clearInterval(awake);
  }
}

/** What became of branches, a line each. */
export function branchLines(branches: readonly RecoveredBranch[]): string[] {
  return branches.map((branch) => `  ${branch.project}/${branch.branch}: ${outcomeText(branch)}`);
}

/** What became of a branch, for a person. */
function outcomeText(branch: RecoveredBranch): string {
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
