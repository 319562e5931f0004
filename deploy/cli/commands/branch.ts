/** `palimpsest branch create | list | restore | reset | archive | unarchive | detach | rename | delete` */
import type { Command } from 'commander';
import type { BranchStart, BranchView } from '../../client/index.ts';
import { type CommonOptions, parser, runWithClient, withProject } from '../command.ts';
import { table } from '../output.ts';
import { parsePoint } from '../values.ts';

interface BranchOptions extends CommonOptions {
  project: string;
}

interface CreateOptions extends BranchOptions {
  from: string;
  at?: BranchStart;
}

interface RestoreOptions extends BranchOptions {
  at: BranchStart;
  preserveUnder?: string;
}

export function addBranchCommands(program: Command): void {
  const branch = program.command('branch').description('create, list, restore, rename and delete branches');

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

  addRestoreCommands(branch);

  addArchiveCommands(branch);

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
        const isGone = await client.deleteBranch(name, { project: options.project });
        const text = isGone ? `deleted branch ${name}` : `branch ${name} is being deleted, in the background`;
        output.result({ deleted: name, complete: isGone }, text);
        return 0;
      }),
  );
}

function addRestoreCommands(branch: Command): void {
  const preserveUnder = [
    '--preserve-under <name>',
    'keep what the branch holds now as a branch of this name',
  ] as const;

  withProject(
    branch
      .command('restore <name>')
      .description('take a branch back to a moment of its past; takes milliseconds at any size'),
  )
    .requiredOption(
      '--at <point>',
      'LSN, time, or how long ago (5m)',
      parser((text) => parsePoint(text, Date.now())),
    )
    .option(...preserveUnder)
    .action((name: string, { project, at, preserveUnder: kept, ...options }: RestoreOptions) =>
      runWithClient(options, async (client, output) => {
        const restored = await client.restoreBranch(name, at, { project, ...preserved(kept) });
        output.result(restored, `restored branch ${name} to ${restored.startLsn}${keptAs(kept)}`);
        return 0;
      }),
    );

  withProject(
    branch
      .command('reset <name>')
      .description('give a branch the newest state of its parent, and drop what it held'),
  )
    .option(...preserveUnder)
    .action((name: string, { project, preserveUnder: kept, ...options }: Omit<RestoreOptions, 'at'>) =>
      runWithClient(options, async (client, output) => {
        const reset = await client.resetBranch(name, { project, ...preserved(kept) });
        const text = `reset branch ${name} to ${reset.parent ?? 'its parent'} at ${reset.startLsn}`;
        output.result(reset, text + keptAs(kept));
        return 0;
      }),
    );
}

function addArchiveCommands(branch: Command): void {
  withProject(
    branch
      .command('archive <name>')
      .description('put a branch away: no compute, nothing on local disks, until it is brought back'),
  ).action((name: string, options: BranchOptions) =>
    runWithClient(options, async (client, output) => {
      const archived = await client.archiveBranch(name, { project: options.project });
      output.result(archived, `branch ${name} is archived`);
      return 0;
    }),
  );

  withProject(branch.command('unarchive <name>').description('bring an archived branch back')).action(
    (name: string, options: BranchOptions) =>
      runWithClient(options, async (client, output) => {
        const back = await client.unarchiveBranch(name, { project: options.project });
        output.result(back, `branch ${name} is back`);
        return 0;
      }),
  );

  withProject(
    branch
      .command('detach <name>')
      .description('make a branch independent of its parent, by a copy of what it has of it'),
  ).action((name: string, options: BranchOptions) =>
    runWithClient(options, async (client, output) => {
      const detached = await client.detachBranch(name, { project: options.project });
      output.result(detached, `branch ${name} is independent; its history begins at ${detached.startLsn}`);
      return 0;
    }),
  );
}

function preserved(name: string | undefined): { preserveUnder?: string } {
  return name === undefined ? {} : { preserveUnder: name };
}

function keptAs(name: string | undefined): string {
  return name === undefined ? '' : `; what it held is branch ${name}`;
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
