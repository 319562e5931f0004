/** `palimpsest project create | list | set | split | delete` */
import type { Command } from 'commander';
import { PalimpsestError } from '../../../protocols/errors.ts';
import type { HistoryView, PalimpsestClient, ProjectView } from '../../client/index.ts';
import { type CommonOptions, parser, runWithClient, withCommonOptions } from '../command.ts';
import { Progress, table } from '../output.ts';
import {
  formatBytes,
  formatDuration,
  parseBytes,
  parseHistory,
  parsePgVersion,
  parseShards,
} from '../values.ts';

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

function shardsText({ shards, splitting }: ProjectView): string {
  if (!splitting) return String(shards);
  if (splitting.isCancelled) return `${shards}, cancelling ${splitting.to}`;
  return splitting.isSwitching ? `${shards}, switching` : `${shards}, to be ${splitting.to}`;
}

/** How often it is looked how far a split is. */
const LOOK_MS = 500;

export function addProjectCommands(program: Command): void {
  const project = program.command('project').description('create, list, set, split and delete projects');

  withWindow(project.command('create <name>').description('make an empty project with a branch main'))
    .option('--pg-version <major>', 'major version of Postgres', parser(parsePgVersion))
    .option('--shards <number>', 'spread its pages over so many shards, in a cluster', parser(parseShards))
    .action((name: string, options: WindowOptions & { pgVersion?: number; shards?: number }) =>
      runWithClient(options, async (client, output) => {
        const { pgVersion, shards } = options;
        const history = windowOf(options);
        const created = await client.createProject(name, {
          ...(pgVersion === undefined ? {} : { pgVersion }),
          ...(shards === undefined ? {} : { shards }),
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
          shardsText(item),
          item.state,
          item.createdAt.replace('T', ' ').slice(0, 19),
        ]);
        output.result(
          { projects },
          table(
            ['PROJECT', 'POSTGRES', 'BRANCHES', 'HISTORY', 'SHARDS', 'STATE', 'CREATED'],
            rows,
            'no projects',
          ),
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
    project
      .command('split <name>')
      .description('spread the pages of a project over more shards, while it is used (in a cluster)')
      .option('--shards <number>', 'twice, four or eight times as many as there are', parser(parseShards))
      .option('--cancel', 'give up a split that is under way: everything stays as it was')
      .option('--no-wait', 'do not wait until it is done'),
  ).action((name: string, options: SplitOptions) =>
    runWithClient(options, async (client, output) => {
      const begun = await beginSplit(client, name, options);
      const now = options.wait ? await untilSplit(client, begun, new Progress(output)) : begun;
      if (options.shards !== undefined) checkSplit(now, options.shards);
      output.result(now, splitText(now));
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

interface SplitOptions extends CommonOptions {
  shards?: number;
  cancel?: boolean;
  wait: boolean;
}

function beginSplit(
  client: PalimpsestClient,
  name: string,
  { shards, cancel }: SplitOptions,
): Promise<ProjectView> {
  if ((shards === undefined) !== (cancel === true)) {
    throw new PalimpsestError('invalid-argument', 'name the number of shards with --shards, or --cancel');
  }
  return shards === undefined ? client.cancelSplit(name) : client.splitProject(name, shards);
}

/** Throws what became of a split that is over, when the project does not have the shards that it was to have. */
function checkSplit({ shards, splitting, splitError }: ProjectView, wanted: number): void {
  if (splitting || shards === wanted) return;
  if (splitError === undefined) {
    throw new PalimpsestError('conflict', 'the split was cancelled: the pages stay where they were');
  }
  throw new PalimpsestError(
    'unavailable',
    `the pages stay where they were: ${splitError}`,
    'look at `palimpsest scrub`, and try again',
  );
}

/** Resolves when no split of the project is under way. */
async function untilSplit(
  client: PalimpsestClient,
  begun: ProjectView,
  progress: Progress,
): Promise<ProjectView> {
  let now = begun;
  for (let told = ''; now.splitting; ) {
    const text = stepText(now.splitting);
    if (text !== told) progress.step(text);
    told = text;
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    const found = (await client.projects()).find((one) => one.name === now.name);
    if (!found) throw new PalimpsestError('not-found', `project "${now.name}" was deleted meanwhile`);
    now = found;
  }
  progress.done();
  return now;
}

function stepText({ to, isSwitching, isCancelled }: NonNullable<ProjectView['splitting']>): string {
  if (isCancelled) return `removing ${to} shards`;
  return isSwitching ? `${to} shards take over` : `making ${to} shards`;
}

function splitText({ name, shards, splitting }: ProjectView): string {
  if (!splitting) return `project ${name} has ${shards} ${shards === 1 ? 'shard' : 'shards'}`;
  if (splitting.isCancelled) return `the split of project ${name} is being cancelled`;
  return `project ${name} is being split into ${splitting.to} shards`;
}
