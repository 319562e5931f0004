/** `palimpsest url` and `palimpsest psql` */
import { spawn } from 'node:child_process';
import type { Command } from 'commander';
import { PalimpsestError } from '../../../protocols/errors.ts';
import { type CommonOptions, runWithClient, withProject } from '../command.ts';

interface UrlOptions extends CommonOptions {
  project: string;
}

export function addUrlCommands(program: Command): void {
  withProject(
    program
      .command('url [branch]')
      .description('print the connection string of a branch (main), password included'),
  ).action((branch: string | undefined, options: UrlOptions) =>
    runWithClient(options, async (client, output) => {
      const url = await client.url(branch ?? 'main', { project: options.project });
      output.result({ url }, url);
      return 0;
    }),
  );

  withProject(
    program
      .command('psql [branch] [args...]')
      .description('open psql on a branch (main); what follows -- goes to psql')
      .allowExcessArguments(),
  ).action((branch: string | undefined, args: string[], options: UrlOptions) =>
    runWithClient(options, async (client) => {
      // After `--` come psql's own words, also when no branch is named before.
      const named = branch !== undefined && !branch.startsWith('-');
      const url = await client.url(named ? branch : 'main', { project: options.project });
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
