/**
 * The command line of Palimpsest: one file per command, put together here.
 *
 * A file is loaded when its command is run, or for all commands' help: loading everything takes several times as long as most commands do.
 */
import { Command } from 'commander';
import { VERSION } from '../version.ts';

const EXIT_CODES = `
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not running, 4 not found, 5 conflict, 6 not available in time`;

/** Of commander, for which no command is needed. */
const VERSION_OPTIONS = ['-V', '--version'];

interface CommandGroup {
  /** First words of what it adds. */
  names: string[];
  load(): Promise<((program: Command) => void)[]>;
}

/** In the order of the help. */
export const GROUPS: CommandGroup[] = [
  { names: ['start'], load: async () => [(await import('./commands/start.ts')).addStartCommand] },
  { names: ['recover'], load: async () => [(await import('./commands/recover.ts')).addRecoverCommand] },
  {
    names: ['export', 'import'],
    load: async () => [(await import('./commands/transfer.ts')).addTransferCommands],
  },
  { names: ['status'], load: async () => [(await import('./commands/status.ts')).addStatusCommand] },
  { names: ['url', 'psql'], load: async () => [(await import('./commands/url.ts')).addUrlCommands] },
  { names: ['branch'], load: async () => [(await import('./commands/branch.ts')).addBranchCommands] },
  { names: ['project'], load: async () => [(await import('./commands/project.ts')).addProjectCommands] },
  { names: ['gc'], load: async () => [(await import('./commands/gc.ts')).addGcCommand] },
  { names: ['mount'], load: async () => [(await import('./commands/mount.ts')).addMountCommand] },
  {
    names: ['suspend', 'resume'],
    load: async () => [(await import('./commands/compute.ts')).addComputeCommands],
  },
  { names: ['events'], load: async () => [(await import('./commands/events.ts')).addEventsCommand] },
  {
    names: ['node', 'safekeeper', 'placement'],
    load: async () => [(await import('./commands/node.ts')).addNodeCommands],
  },
  { names: ['cluster'], load: async () => [(await import('./commands/cluster.ts')).addClusterCommands] },
  { names: ['doctor'], load: async () => [(await import('./commands/doctor.ts')).addDoctorCommand] },
  { names: ['wal'], load: async () => [(await import('./commands/wal.ts')).addWalCommands] },
  {
    names: ['storage', 'layer', 'scrub'],
    load: async () => {
      const { addLayerCommands, addScrubCommand, addStorageCommand } = await import('./commands/storage.ts');
      return [addStorageCommand, addLayerCommands, addScrubCommand];
    },
  },
  { names: ['sim'], load: async () => [(await import('./sim/command.ts')).addSimCommand] },
];

/** The program with the command of this name; with all where there is none of this name. It throws a CommanderError for wrong usage. */
export async function buildProgram(name?: string): Promise<Command> {
  const program = new Command('palimpsest')
    .description('Serverless Postgres for your own machines, with unmodified Postgres binaries')
    .version(VERSION)
    .addHelpText('after', EXIT_CODES)
    .exitOverride()
    // Options behind a sub-command are the sub-command's.
    .enablePositionalOptions()
    .showHelpAfterError('Use --help to see what is possible.');
  const named = GROUPS.filter(({ names }) => name !== undefined && names.includes(name));
  const groups = named.length > 0 || VERSION_OPTIONS.includes(name ?? '') ? named : GROUPS;
  const added = await Promise.all(groups.map(({ load }) => load()));
  for (const add of added.flat()) add(program);
  inheritExit(program);
  return program;
}

/** Sub-commands exit by themselves unless they are told otherwise, too. */
function inheritExit(command: Command): void {
  for (const child of command.commands) {
    child.exitOverride();
    inheritExit(child);
  }
}
