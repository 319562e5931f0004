/** `palimpsest project create | list | set | delete` */
import type { Command } from 'commander';
import type { HistoryView } from '../../client/index.ts';
import { type CommonOptions, parser, runWithClient, withCommonOptions } from '../command.ts';
import { table } from '../output.ts';
import { formatBytes, formatDuration, parseBytes, parseHistory, parsePgVersion } from '../values.ts';

interface WindowOptions extends CommonOptions {
  history?: number;
  historyBytes?: number;
}

/** Adds how much of the past is kept. */
function withWindow(command: Command): Command {
  return withCommonOptions(command)
    .option('--history <duration>', 'how long the past stays readable (7d)', parser(parseHistory))
    .option(
      '--history-bytes <bytes>',
      'how many bytes of WAL of each branch stay readable in any case',
      parser(parseBytes),
    );
}

function windowOf({ history, historyBytes }: WindowOptions): Partial<HistoryView> {
  return {
    ...(history === undefined ? {} : { seconds: history }),
    ...(historyBytes === undefined ? {} : { bytes: historyBytes }),
  };
}

/** A history window as people read it: what either of the two keeps. */
function windowText({ seconds, bytes }: HistoryView): string {
  return bytes === 0 ? formatDuration(seconds) : `${formatDuration(seconds)}, ${formatBytes(bytes)}`;
}

export function addProjectCommands(program: Command): void {
  const project = program.command('project').description('create, list, set and delete projects');

  withWindow(project.command('create <name>').description('make an empty project with a branch main'))
    .option('--pg-version <major>', 'major version of Postgres', parser(parsePgVersion))
    .action((name: string, options: WindowOptions & { pgVersion?: number }) =>
      runWithClient(options, async (client, output) => {
        const { pgVersion } = options;
        const history = windowOf(options);
        const created = await client.createProject(name, {
          ...(pgVersion === undefined ? {} : { pgVersion }),
          ...(Object.keys(history).length === 0 ? {} : { history }),
        });
        const url = await client.url('main', { project: name });
        output.result({ ...created, url }, `created project ${name} (Postgres ${created.pgVersion})\n${url}`);
        return 0;
      }),
    );

  withCommonOptions(project.command('list').description('list the projects')).action(
    (options: CommonOptions) =>
      runWithClient(options, async (client, output) => {
        const projects = await client.projects();
        const rows = projects.map((item) => [
          item.name,
          String(item.pgVersion),
          String(item.branches),
          windowText(item.history),
          item.state,
          item.createdAt.replace('T', ' ').slice(0, 19),
        ]);
        output.result(
          { projects },
          table(['PROJECT', 'POSTGRES', 'BRANCHES', 'HISTORY', 'STATE', 'CREATED'], rows, 'no projects'),
        );
        return 0;
      }),
  );

  withWindow(project.command('set <name>').description('change how much of the past a project keeps')).action(
    (name: string, options: WindowOptions) =>
      runWithClient(options, async (client, output) => {
        const changed = await client.setHistory(name, windowOf(options));
        output.result(changed, `project ${name} keeps ${windowText(changed.history)} of history`);
        return 0;
      }),
  );

  withCommonOptions(
    project.command('delete <name>').description('delete a project with all its branches and data'),
  ).action((name: string, options: CommonOptions) =>
    runWithClient(options, async (client, output) => {
      await client.deleteProject(name);
      output.result({ deleted: name }, `deleted project ${name}`);
      return 0;
    }),
  );
}
