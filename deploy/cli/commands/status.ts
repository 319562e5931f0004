/** `palimpsest status` */
import type { Command } from 'commander';
import type { MomentView, StatusView } from '../../client/index.ts';
import { type CommonOptions, runWithClient, withCommonOptions } from '../command.ts';
import { table } from '../output.ts';
import { branchTable } from './branch.ts';

export function addStatusCommand(program: Command): void {
  withCommonOptions(
    program.command('status').description('show what runs: processes, projects, branches, computes'),
  )
    .option('--metrics', 'print the figures of all processes as OpenMetrics')
    .action((options: CommonOptions & { metrics?: boolean }) =>
      runWithClient(options, async (client, output) => {
        if (options.metrics) {
          const text = await client.metrics();
          output.result({ text }, text);
          return 0;
        }
        const status = await client.status();
        output.result(status, statusText(status));
        return 0;
      }),
    );
}

function statusText(status: StatusView): string {
  const suspend = status.suspendAfterSeconds === 0 ? 'never' : `after ${status.suspendAfterSeconds} s`;
  const parts = [
    `Palimpsest ${status.version}, process ${status.pid}, port ${status.port}, data in ${status.dataDir}`,
    `${status.safekeepers} safekeepers; idle computes are suspended ${suspend}`,
    diskText(status.disk),
    '',
    table(
      ['PROCESS', 'PID', 'RESTARTS'],
      status.processes.map((item) => [item.node, String(item.pid ?? '-'), String(item.restarts)]),
      '',
    ),
  ];
  for (const project of status.projects) {
    const branches = status.branches.filter((branch) => branch.project === project.name);
    parts.push(
      '',
      `project ${project.name} (Postgres ${project.pgVersion}, ${project.state})`,
      branchTable(branches),
    );
    const moments = status.moments.filter((moment) => moment.project === project.name);
    if (moments.length > 0) parts.push('', momentTable(moments));
  }
  return parts.join('\n');
}

function momentTable(moments: MomentView[]): string {
  return table(
    ['READ-ONLY AT', 'COMPUTE', 'CLIENTS'],
    moments.map(({ branch, lsn, compute, connections }) => [
      `${branch}@${lsn}`,
      compute,
      String(connections),
    ]),
    '',
  );
}

function diskText({ freeBytes, totalBytes, isFull }: StatusView['disk']): string {
  const gigabytes = (bytes: number) => (bytes / 1024 ** 3).toFixed(1);
  const text = `disk: ${gigabytes(freeBytes)} of ${gigabytes(totalBytes)} GB free`;
  return isFull ? `${text}: the disk is full, commits wait until there is space` : text;
}
