/** `palimpsest suspend | resume` */
import type { Command } from 'commander';
import {
  type CommonOptions,
  type MomentOptions,
  runWithClient,
  withMoment,
  withProject,
} from '../command.ts';
import { parseBranch } from '../values.ts';

interface ComputeOptions extends CommonOptions {
  project: string;
}

export function addComputeCommands(program: Command): void {
  withMoment(
    program
      .command('suspend [branch]')
      .description("stop a branch's compute; the next client starts it again"),
  ).action((branch: string | undefined, options: MomentOptions) =>
    runWithClient(options, async (client, output) => {
      const { name, at } = parseBranch(branch, options.at, Date.now());
      const { project } = options;
      if (at === undefined) {
        const view = await client.suspend(name, { project });
        output.result(view, `branch ${name} is ${view.compute}`);
      } else {
        const view = await client.suspendMoment(name, at, { project });
        output.result(view, `branch ${name} at ${view.lsn} is ${view.compute}`);
      }
      return 0;
    }),
  );

  withProject(program.command('resume [branch]').description("start a branch's compute")).action(
    (branch: string | undefined, options: ComputeOptions) =>
      runWithClient(options, async (client, output) => {
        const name = branch ?? 'main';
        const view = await client.resume(name, { project: options.project });
        output.result(view, `branch ${name} is ${view.compute}`);
        return 0;
      }),
  );
}
