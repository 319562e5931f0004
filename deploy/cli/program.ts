/**
 * The command line of Palimpsest: one file per command, put together here.
 */
import { Command } from 'commander';
import { VERSION } from '../version.ts';
import { addBranchCommands } from './commands/branch.ts';
import { addClusterCommands } from './commands/cluster.ts';
import { addComputeCommands } from './commands/compute.ts';
import { addDoctorCommand } from './commands/doctor.ts';
import { addEventsCommand } from './commands/events.ts';
import { addGcCommand } from './commands/gc.ts';
import { addMountCommand } from './commands/mount.ts';
import { addNodeCommands } from './commands/node.ts';
import { addProjectCommands } from './commands/project.ts';
import { addRecoverCommand } from './commands/recover.ts';
import { addStartCommand } from './commands/start.ts';
import { addStatusCommand } from './commands/status.ts';
import { addLayerCommands, addScrubCommand, addStorageCommand } from './commands/storage.ts';
import { addTransferCommands } from './commands/transfer.ts';
import { addUrlCommands } from './commands/url.ts';
import { addWalCommands } from './commands/wal.ts';
import { addSimCommand } from './sim/command.ts';

const EXIT_CODES = `
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not running, 4 not found, 5 conflict, 6 not available in time`;

/** All commands, which throw a CommanderError for wrong usage. */
export function buildProgram(): Command {
  const program = new Command('palimpsest')
    .description('Serverless Postgres for your own machines, with unmodified Postgres binaries')
    .version(VERSION)
    .addHelpText('after', EXIT_CODES)
    .exitOverride()
    // Options behind a sub-command are the sub-command's.
    .enablePositionalOptions()
    .showHelpAfterError('Use --help to see what is possible.');
  addStartCommand(program);
  addRecoverCommand(program);
  addTransferCommands(program);
  addStatusCommand(program);
  addUrlCommands(program);
  addBranchCommands(program);
  addProjectCommands(program);
  addGcCommand(program);
  addMountCommand(program);
  addComputeCommands(program);
  addEventsCommand(program);
  addNodeCommands(program);
  addClusterCommands(program);
  addDoctorCommand(program);
  addWalCommands(program);
  addStorageCommand(program);
  addLayerCommands(program);
  addScrubCommand(program);
  addSimCommand(program);
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
