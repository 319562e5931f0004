/** `palimpsest url` and `palimpsest psql` */
import { spawn } from 'node:child_process';
import type { Command } from 'commander';
import { PalimpsestError } from '../../../protocols/errors.ts';
import { type MomentOptions, runWithClient, withMoment } from '../command.ts';
import { parseBranch } from '../values.ts';

export function addUrlCommands(program: Command): void {
  withMoment(
    program
      .command('url [branch]')
      .description('print the connection string of a branch (main), password included'),
  ).action((branch: string | undefined, options: MomentOptions) =>
    runWithClient(options, async (client, output) => {
      const { name, ...moment } = parseBranch(branch, options.at, Date.now());
      const url = await client.url(name, { project: options.project, ...moment });
      output.result({ url }, url);
      return 0;
    }),
  );

  withMoment(
    program
      .command('psql [branch] [args...]')
      .description('open psql on a branch (main); what follows -- goes to psql')
      .allowExcessArguments(),
  ).action((branch: string | undefined, args: string[], options: MomentOptions) =>
    runWithClient(options, async (client) => {
      // After `--` come psql's own words, also when no branch is named before.
      const named = branch !== undefined && !branch.startsWith('-');
      const { name, ...moment } = parseBranch(named ? branch : undefined, options.at, Date.now());
      const url = await client.url(name, { project: options.project, ...moment });
      return runPsql(url, named || branch === undefined ? args : [branch, ...args]);
    }),
  );
}

function runPsql(url: string, args: string[]): Promise<number> {
  // Ctrl-C cancels the query in psql; it must not end this process around it.
  const ignore = () => {};
  process.on('SIGINT', ignore);
  const child = spawn('psql', [url, ...args], { stdio: 'inherit' });
  return new Promise<number>((resolve, reject) => {
    child.on('error', (error: NodeJS.ErrnoException) => {
      const missing = error.code === 'ENOENT';
      reject(
        new PalimpsestError(
          missing ? 'unsupported' : 'internal',
          missing ? 'psql is not installed on this machine' : `psql could not be started: ${error.message}`,
          'install it (Debian: apt-get install postgresql-client), or use the connection string of "palimpsest url"',
        ),
      );
    });
    child.on('exit', (code) => resolve(code ?? 1));
  }).finally(() => process.off('SIGINT', ignore));
}
