/** `palimpsest suspend | resume` */
import type { Command } from 'commander';
import { type CommonOptions, runWithClient, withProject } from '../command.ts';

interface ComputeOptions extends CommonOptions {
  project: string;
}

export function addComputeCommands(program: Command): void {
  withProject(
    program
      .command('suspend [branch]')
      .description("stop a branch's compute; the next client starts it again"),
  ).action((branch: string | undefined, options: ComputeOptions) =>
    runWithClient(options, async (client, output) => {
      const name = branch ?? 'main';
      const view = await client.suspend(name, { project: options.project });
      output.result(view, `branch ${name} is ${view.compute}`);
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
