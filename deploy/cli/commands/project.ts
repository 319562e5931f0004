/** `palimpsest project create | list | delete` */
import type { Command } from 'commander';
import { type CommonOptions, parser, runWithClient, withCommonOptions } from '../command.ts';
import { table } from '../output.ts';
import { parsePgVersion } from '../values.ts';

export function addProjectCommands(program: Command): void {
  const project = program.command('project').description('create, list and delete projects');

  withCommonOptions(project.command('create <name>').description('make an empty project with a branch main'))
    .option('--pg-version <major>', 'major version of Postgres', parser(parsePgVersion))
    .action((name: string, options: CommonOptions & { pgVersion?: number }) =>
      runWithClient(options, async (client, output) => {
        const { pgVersion } = options;
        const created = await client.createProject(name, pgVersion === undefined ? {} : { pgVersion });
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
          item.state,
          item.createdAt.replace('T', ' ').slice(0, 19),
        ]);
        output.result(
          { projects },
          table(['PROJECT', 'POSTGRES', 'BRANCHES', 'STATE', 'CREATED'], rows, 'no projects'),
        );
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
