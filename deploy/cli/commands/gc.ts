/** `palimpsest gc` */
import type { Command } from 'commander';
import type { GcView } from '../../client/index.ts';
import { type CommonOptions, runWithClient, withProject } from '../command.ts';
import { formatBytes } from '../values.ts';

export function addGcCommand(program: Command): void {
  withProject(
    program
      .command('gc [branch]')
      .description('remove history that is older than the window now; otherwise it happens by itself'),
  ).action((branch: string | undefined, options: CommonOptions & { project: string }) =>
    runWithClient(options, async (client, output) => {
      const name = branch ?? 'main';
      const done = await client.collectGarbage(name, { project: options.project });
      output.result(done, gcText(name, done));
      return 0;
    }),
  );
}

function gcText(name: string, done: GcView): string {
  if (done.historyFrom === undefined) return `branch ${name}: all of its history is within the window`;
  const time = done.historyFromTime === undefined ? '' : ` (${done.historyFromTime})`;
  const lines = [
    `branch ${name}: history begins at ${done.historyFrom}${time}`,
    `removed ${done.removedLayers} layers with ${formatBytes(done.removedBytes)}, made ${done.images} image layers`,
  ];
  if (done.retained.length > 0) lines.push(`kept for branches and readers: ${done.retained.join(', ')}`);
  return lines.join('\n');
}
