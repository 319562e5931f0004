/** `palimpsest node`, `palimpsest node list`, `palimpsest node drain`, `palimpsest placement` */
import { hostname } from 'node:os';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { ROLES, type Role } from '../../../actors/placement/plan.ts';
import { PalimpsestError } from '../../../protocols/errors.ts';
import type { NodeView, PlacementView } from '../../client/index.ts';
import {
  type CommonOptions,
  connectOptions,
  parser,
  runCommand,
  runWithClient,
  withCommonOptions,
} from '../command.ts';
import { type Output, Progress, table } from '../output.ts';
import { stopSignal } from '../stop-signal.ts';
import {
  parseObjects,
  parsePgVersion,
  parsePort,
  parseReplaceAfter,
  parseSuspendAfter,
  parseTokenLife,
} from '../values.ts';
import { DEFAULT_PORT } from './start.ts';

/** Longer than a machine takes to start again. */
const REPLACE_AFTER_SECONDS = 600;
/** Three quarters of it is how long everything that controls may be away and channels still be opened. */
const TOKEN_LIFE_SECONDS = 3_600;

interface NodeOptions extends CommonOptions {
  roles: Role[];
  name: string;
  zone: string;
  host: string;
  insecureNetwork?: boolean;
  port: number;
  suspendAfter: number;
  replaceAfter: number;
  tokenLife: number;
  pgVersion: number;
  pgBin?: string;
  objects?: string;
  s3Endpoint?: string;
  s3Region?: string;
}

export function addNodeCommands(program: Command): void {
  const node = program.command('node').description('run a node of a cluster here; Ctrl-C lets it leave');
  withCommonOptions(node)
    .option('--roles <list>', `roles of this node, of: ${ROLES.join(',')}`, parser(parseRoles), [...ROLES])
    .option('--name <name>', 'name of this node, the only one of the cluster', defaultName())
    .option('--zone <zone>', 'what fails together with this node: a rack, a room', 'default')
    .option('--host <address>', 'address of this machine for the other nodes', '127.0.0.1')
    .option(
      '--insecure-network',
      'allow a --host that others reach without --credentials: nothing is encrypted, and everybody is let in',
    )
    .option('--port <port>', 'port for Postgres clients (role gateway)', parser(parsePort), DEFAULT_PORT)
    .option(
      '--objects <place>',
      'where layers and old WAL are kept: s3://bucket/prefix or a folder that all nodes see ($PALIMPSEST_OBJECTS)',
      process.env.PALIMPSEST_OBJECTS,
    )
    .option(
      '--s3-endpoint <url>',
      'S3 server, if not Amazon’s own ($PALIMPSEST_S3_ENDPOINT)',
      // Set to nothing, it is as good as not set.
      process.env.PALIMPSEST_S3_ENDPOINT || undefined,
    )
    .option('--s3-region <region>', 'region of the bucket, if the environment does not say')
    .option(
      '--suspend-after <time>',
      'suspend idle computes after this time (30s, 5m; 0 = never)',
      parser(parseSuspendAfter),
      300,
    )
    .option(
      '--replace-after <time>',
      'replace safekeepers of a node that is gone for this long (role control)',
      parser(parseReplaceAfter),
      REPLACE_AFTER_SECONDS,
    )
    .option(
      '--token-life <time>',
      'how long the tokens that open channels live; renewed after a quarter of it (role control)',
      parser(parseTokenLife),
      TOKEN_LIFE_SECONDS,
    )
    .option('--pg-version <major>', 'Postgres version of new projects: 15 to 18', parser(parsePgVersion), 17)
    .option('--pg-bin <dir>', 'folder of the Postgres programs, if not those that come with Palimpsest')
    .action((options: NodeOptions) => runCommand(options, (output) => run(options, output)));
  withCommonOptions(node.command('list').description('show the nodes of the cluster')).action(
    (options: CommonOptions) =>
      runWithClient(options, async (client, output) => {
        const nodes = await client.nodes();
        output.result({ nodes }, nodeTable(nodes));
        return 0;
      }),
  );
  withCommonOptions(
    node.command('drain <name>').description('move everything that can move away from a node'),
  )
    .option('--undo', 'let it be used again')
    .action((name: string, options: CommonOptions & { undo?: boolean }) =>
      runWithClient(options, async (client, output) => {
        const nodes = await client.drainNode(name, { undo: options.undo === true });
        output.result({ nodes }, nodeTable(nodes));
        return 0;
      }),
    );
  withCommonOptions(
    program
      .command('safekeeper')
      .description('the nodes that keep the WAL of a cluster')
      .command('replace <node>')
      .description('have another node keep the WAL that this one keeps; commits go on meanwhile'),
  )
    .option('--with <node>', 'that node; chosen by placement without it')
    .action((node: string, options: CommonOptions & { with?: string }) =>
      runWithClient(options, async (client, output) => {
        const steps = await client.replaceSafekeeper(
          node,
          options.with === undefined ? {} : { with: options.with },
        );
        output.result({ steps }, stepText(steps));
        return 0;
      }),
    );
  withCommonOptions(program.command('placement').description('show what runs where in the cluster'))
    .option('--explain', 'also what is going to change, and why')
    .action((options: CommonOptions & { explain?: boolean }) =>
      runWithClient(options, async (client, output) => {
        const placement = await client.placement();
        output.result(placement, placementText(placement, options.explain === true));
        return 0;
      }),
    );
}

async function run(options: NodeOptions, output: Output): Promise<number> {
  const objects = parseObjects(options);
  const { nats } = connectOptions(options);
  if (nats === undefined) throw missing('--nats', 'a node needs the NATS servers of its cluster');
  if (!objects) throw missing('--objects', 'a node needs the place of the cluster’s objects');
  const progress = new Progress(output);
  const stop = stopSignal();
  const { startNode } = await import('../../cluster/node.ts');
  const { checkNodeName } = await import('../../cluster/registry.ts');
  const { roles, port, pgVersion, pgBin, suspendAfter, replaceAfter, tokenLife } = options;
  const { natsCreds, natsCa, credentials } = options;
  const host = checkHost(options.host, credentials !== undefined || options.insecureNetwork === true);
  const running = await startNode({
    name: checkNodeName(options.name),
    zone: checkNodeName(options.zone, 'zone'),
    roles,
    nats: {
      servers: nats,
      ...(natsCreds === undefined ? {} : { credentialsFile: resolve(natsCreds) }),
      ...(natsCa === undefined ? {} : { caFile: resolve(natsCa) }),
      ...(credentials === undefined ? {} : { credentials: resolve(credentials) }),
    },
    objects,
    dataDir: resolve(options.data),
    host,
    port,
    pgVersion,
    ...(pgBin === undefined ? {} : { pgBin }),
    suspendAfterSeconds: suspendAfter,
    replaceAfterSeconds: replaceAfter,
    tokenLifeSeconds: tokenLife,
    onStep: (text) => progress.step(text),
  });
  progress.done();
  const { cluster, dataDir } = running;
  const text = `Node ${options.name} runs: ${roles.join(', ')}; data in ${dataDir}\nStop with Ctrl-C.`;
  output.result({ name: options.name, roles, cluster, dataDir, port: running.port, pid: process.pid }, text);
  const reason = await Promise.race([stop.received, running.failed]);
  progress.step('stopping: computes are suspended, the node leaves');
  await running.stop();
  progress.done();
  if (reason instanceof Error) throw reason;
  return 0;
}

/** Whoever reaches a channel may read and write WAL and pages: nobody opens one to a network without having said so. */
export function checkHost(host: string, isAllowed: boolean): string {
  const isLoopback = host === 'localhost' || host === '::1' || /^127\.\d+\.\d+\.\d+$/.test(host);
  if (isLoopback || isAllowed) return host;
  throw new PalimpsestError(
    'invalid-argument',
    `${host} is not a loopback address, and without credentials nothing between nodes is encrypted and everybody is let in`,
    'make credentials with `palimpsest cluster init` and name them with --credentials; or add --insecure-network if only the nodes of this cluster reach that network',
  );
}

function parseRoles(text: string): Role[] {
  const roles = text.split(',').map((role) => role.trim());
  const unknown = roles.find((role) => !(ROLES as readonly string[]).includes(role));
  if (unknown === undefined) return roles as Role[];
  throw new PalimpsestError('invalid-argument', `"${unknown}" is no role`, `roles: ${ROLES.join(', ')}`);
}

function missing(option: string, message: string): PalimpsestError {
  return new PalimpsestError('invalid-argument', message, `name it with ${option}`);
}

function defaultName(): string {
  const name = hostname()
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '-');
  return name.replaceAll(/^-|-$/g, '').slice(0, 32) || 'node';
}

function nodeTable(nodes: NodeView[]): string {
  return table(
    ['NODE', 'ZONE', 'STATE', 'ROLES', 'COMPUTES', 'ADDRESS', 'LAST SEEN'],
    nodes.map(({ name, zone, state, roles, computes, host, seenAt, control }) => [
      control ? `${name} *` : name,
      zone,
      state,
      roles.join(','),
      String(computes),
      host,
      seenAt,
    ]),
    'no nodes',
  );
}

function placementText({ control, projects, computes, steps }: PlacementView, explain: boolean): string {
  const parts = [
    `controlled by node ${control.node} (epoch ${control.epoch})`,
    '',
    table(
      ['PROJECT', 'PAGES', 'SECONDARY', 'SAFEKEEPERS'],
      projects.map(({ name, pageserver, shards, secondary, safekeepers }) => [
        name,
        shards ? shards.map(({ shard, node }) => `${shard}:${node}`).join(',') : pageserver,
        shards
          ? shards.map((place) => `${place.shard}:${place.secondary ?? '-'}`).join(',')
          : (secondary ?? '-'),
        safekeepers.join(','),
      ]),
      'no projects',
    ),
    '',
    table(
      ['COMPUTE', 'NODE'],
      computes.map(({ host, node }) => [host, node]),
      'no computes',
    ),
  ];
  if (explain) parts.push('', stepText(steps));
  return parts.join('\n');
}

function stepText(steps: Record<string, string>[]): string {
  if (steps.length === 0) return 'everything is where it should be';
  return steps
    .map(({ type, why, ...what }) => {
      const about = Object.entries(what).map(([name, value]) => `${name} ${value}`);
      return `${type}: ${about.join(', ')}\n  because ${why}`;
    })
    .join('\n');
}
