/** `palimpsest branch create | list | rename | delete` */
import type { Command } from 'commander';
import type { BranchView } from '../../client/index.ts';
import { type CommonOptions, parser, runWithClient, withProject } from '../command.ts';
import { table } from '../output.ts';
import { parsePoint } from '../values.ts';

interface BranchOptions extends CommonOptions {
  project: string;
}

interface CreateOptions extends BranchOptions {
  from: string;
  at?: ReturnType<typeof parsePoint>;
}

export function addBranchCommands(program: Command): void {
  const branch = program.command('branch').description('create, list, rename and delete branches');

  withProject(
    branch
      .command('create <name>')
      .description('make a branch of another one; takes milliseconds at any size'),
  )
    .option('--from <branch>', 'branch to start from', 'main')
    .option(
      '--at <point>',
      'LSN, time, or how long ago (5m); the newest state when absent',
      parser((text) => parsePoint(text, Date.now())),
    )
    .action((name: string, options: CreateOptions) =>
      runWithClient(options, async (client, output) => {
        const { project, from, at } = options;
        const created = await client.createBranch(name, { project, from, ...(at ? { at } : {}) });
        const url = await client.url(name, { project });
        output.result(
          { ...created, url },
          `created branch ${name} of ${created.parent ?? from} at ${created.startLsn}\n${url}`,
        );
        return 0;
      }),
    );

  withProject(branch.command('list').description('list the branches of a project')).action(
    (options: BranchOptions) =>
      runWithClient(options, async (client, output) => {
        const branches = await client.branches({ project: options.project });
        output.result({ branches }, branchTable(branches));
        return 0;
      }),
  );

  withProject(branch.command('rename <name> <to>').description('give a branch another name')).action(
    (name: string, to: string, options: BranchOptions) =>
      runWithClient(options, async (client, output) => {
        const renamed = await client.renameBranch(name, to, { project: options.project });
        output.result(renamed, `renamed branch ${name} to ${to}`);
        return 0;
      }),
  );

  withProject(branch.command('delete <name>').description('delete a branch that has no children')).action(
    (name: string, options: BranchOptions) =>
      runWithClient(options, async (client, output) => {
        await client.deleteBranch(name, { project: options.project });
        output.result({ deleted: name }, `deleted branch ${name}`);
        return 0;
      }),
  );
}

/** The list as people read it. */
export function branchTable(branches: BranchView[]): string {
  return table(
    ['BRANCH', 'PARENT', 'STARTS AT', 'COMPUTE', 'CLIENTS', 'CREATED'],
    branches.map((branch) => [
      branch.name,
      branch.parent ?? '-',
      branch.startLsn,
      branch.state === 'ready' ? branch.compute : branch.state,
      String(branch.connections),
      branch.createdAt.replace('T', ' ').slice(0, 19),
    ]),
    'no branches',
  );
}
