/**
 * Runs the command line: its exit code says how a command ended, and nothing of it is left behind.
 */
import { Socket } from 'node:net';
import { CommanderError } from 'commander';
import { EXIT_OK, EXIT_USAGE } from './exit-codes.ts';
import { buildProgram } from './program.ts';

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

endWithLauncher();
// Whoever reads the output may stop early (`| head`): that is no failure. A running system goes on without its terminal.
process.stdout.on('error', () => {
  if (process.argv[2] !== 'start') process.exit(EXIT_OK);
});
process.stderr.on('error', () => {});
try {
  await (await buildProgram(process.argv[2])).parseAsync(process.argv);
} catch (error) {
  if (!(error instanceof CommanderError)) throw error;
  process.exitCode = error.exitCode === 0 ? EXIT_OK : EXIT_USAGE;
}
// Nothing that is left (a pipe to the launcher, a timer) may keep a finished command alive. Output is flushed first.
await new Promise((done) => process.stdout.write('', done));
process.exit();
