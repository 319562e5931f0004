/**
 * The command line of Palimpsest: one file per command, put together here.
 */
import { Socket } from 'node:net';
import { Command, CommanderError } from 'commander';
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
import { addUrlCommands } from './commands/url.ts';
import { addWalCommands } from './commands/wal.ts';
import { EXIT_OK, EXIT_USAGE } from './exit-codes.ts';
import { addSimCommand } from './sim/command.ts';

const EXIT_CODES = `
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not running, 4 not found, 5 conflict, 6 not available in time`;

/** The launcher (palimpsest.js) holds the other end of this pipe: when it is killed, so is this process. */
function endWithLauncher(): void {
  const descriptor = process.env.PALIMPSEST_LAUNCHER_PIPE;
  if (descriptor === undefined) return;
  delete process.env.PALIMPSEST_LAUNCHER_PIPE;
  const pipe = new Socket({ fd: Number(descriptor), readable: true, writable: false });
  pipe.on('error', () => {});
  pipe.on('close', () => process.exit(1));
  pipe.resume();
  pipe.unref();
}

function buildProgram(): Command {
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

endWithLauncher();
// Whoever reads the output may stop early (`| head`): that is no failure. A running system goes on without its terminal.
process.stdout.on('error', () => {
  if (process.argv[2] !== 'start') process.exit(EXIT_OK);
});
process.stderr.on('error', () => {});
try {
  await buildProgram().parseAsync(process.argv);
} catch (error) {
  if (!(error instanceof CommanderError)) throw error;
  process.exitCode = error.exitCode === 0 ? EXIT_OK : EXIT_USAGE;
}
// Nothing that is left (a pipe to the launcher, a timer) may keep a finished command alive. Output is flushed first.
await new Promise((done) => process.stdout.write('', done));
process.exit();
