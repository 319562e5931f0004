/** `palimpsest cluster init | issue | rotate`: keys, configurations and credentials of a secured cluster. */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { ROLES } from '../../../actors/placement/plan.ts';
import { PalimpsestError } from '../../../protocols/errors.ts';
import type { NatsServerPlace } from '../../cluster/security/nats-config.ts';
import type { CredentialRole } from '../../cluster/security/permissions.ts';
import { parser, runCommand } from '../command.ts';

const DAYS = 365;
const DAYS_MAX = 3_650;

interface InitOptions {
  servers: string;
  configDir?: string;
  storeDir: string;
  days: number;
  json?: boolean;
}

interface IssueOptions {
  roles: CredentialRole[];
  node?: string;
  days: number;
  json?: boolean;
}

export function addClusterCommands(program: Command): void {
  const cluster = program.command('cluster').description('keys, certificates and permissions of a cluster');
  cluster
    .command('init <dir>')
    .description(
      'make the keys of a new cluster, the files of its NATS servers, and credentials for each role',
    )
    .requiredOption('--servers <list>', 'NATS servers: n1=host,n2=host,n3=host (host:port:routes:monitor)')
    .option(
      '--config-dir <dir>',
      'where a server’s files will be on its machine (default: where they are made)',
    )
    .option('--store-dir <dir>', 'where a server keeps its streams; {name} is its name', '/var/lib/nats')
    .option('--days <days>', 'how long credentials and certificates live', parser(parseDays), DAYS)
    .option('--json', 'print JSON instead of text')
    .action((dir: string, options: InitOptions) =>
      runCommand({ data: '', ...options }, async (output) => {
        const { initCluster } = await import('../../cluster/security/operator.ts');
        const directory = resolve(dir);
        const result = await initCluster({
          directory,
          servers: await parseServers(options.servers),
          ...(options.configDir === undefined ? {} : { configDirectory: options.configDir }),
          storeDirectory: options.storeDir,
          days: options.days,
          nowMs: Date.now(),
        });
        output.result(
          result,
          [
            `made the keys of cluster ${result.cluster} in ${directory}`,
            `  operator/keys.json: keep it away from the nodes; whoever has it is the cluster`,
            `  nats/<server>/: copy each to its machine; nats-server -c nats.conf`,
            `  credentials/<role>.json: copy to the nodes; client.json is for the command line`,
            `palimpsest node --nats ${result.nats} --credentials node.json …`,
          ].join('\n'),
        );
        return 0;
      }),
    );
  cluster
    .command('rotate <dir>')
    .description(
      'change the keys of a cluster, and make all its files anew: what was issued before is refused',
    )
    .option('--days <days>', 'how long credentials and certificates live', parser(parseDays), DAYS)
    .option('--json', 'print JSON instead of text')
    .action((dir: string, { days, json }: { days: number; json?: boolean }) =>
      runCommand(json === undefined ? { data: '' } : { data: '', json }, async (output) => {
        const { rotateKeys } = await import('../../cluster/security/operator.ts');
        const result = await rotateKeys({ directory: resolve(dir), days, nowMs: Date.now() });
        output.result(
          result,
          `made ${result.files.length} files anew; copy them, then restart the NATS servers and all nodes`,
        );
        return 0;
      }),
    );
  cluster
    .command('issue <dir> <name>')
    .description('make credentials with the keys of a cluster; those of the same name are replaced')
    .requiredOption('--roles <list>', `what they are for: ${ROLES.join(',')}, or client`, parser(parseRoles))
    .option('--node <name>', 'only the node of this name may use them')
    .option('--days <days>', 'how long they live', parser(parseDays), DAYS)
    .option('--json', 'print JSON instead of text')
    .action((dir: string, name: string, options: IssueOptions) =>
      runCommand({ data: '', ...options }, async (output) => {
        const { issueCredentials } = await import('../../cluster/security/operator.ts');
        const { checkNodeName } = await import('../../cluster/registry.ts');
        const { roles, node, days } = options;
        const file = await issueCredentials({
          directory: resolve(dir),
          name: checkNodeName(name, 'file of credentials'),
          roles,
          ...(node === undefined ? {} : { node: checkNodeName(node) }),
          days,
          nowMs: Date.now(),
        });
        output.result({ file, roles }, `made ${file} for ${roles.join(', ')}`);
        return 0;
      }),
    );
}

async function parseServers(text: string): Promise<NatsServerPlace[]> {
  const { parseNatsServers } = await import('../../cluster/security/nats-config.ts');
  return parseNatsServers(text);
}

function parseRoles(text: string): CredentialRole[] {
  const roles = text.split(',').map((role) => role.trim());
  const known: readonly string[] = [...ROLES, 'client'];
  const unknown = roles.find((role) => !known.includes(role));
  if (unknown === undefined) return roles as CredentialRole[];
  throw new PalimpsestError('invalid-argument', `"${unknown}" is no role`, `roles: ${known.join(', ')}`);
}

function parseDays(text: string): number {
  const days = Number(text);
  if (days > 0 && days <= DAYS_MAX) return days;
  throw new PalimpsestError('invalid-argument', `"${text}" is no number of days up to ${DAYS_MAX}`);
}
