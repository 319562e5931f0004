/** `palimpsest start` */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { RunningSystem } from '../../node/parent.ts';
import { type CommonOptions, DEFAULT_DATA_DIR, parser, runCommand, withCommonOptions } from '../command.ts';
import { type Output, Progress } from '../output.ts';
import { stopSignal } from '../stop-signal.ts';
import {
  parseDiskBudget,
  parseGcInterval,
  parseObjects,
  parsePageCache,
  parsePgVersion,
  parsePort,
  parseSafekeepers,
  parseSuspendAfter,
} from '../values.ts';

export const DEFAULT_PORT = 54320;
const DEFAULT_PG_VERSION = 17;

interface StartOptions extends CommonOptions {
  port: number;
  suspendAfter: number;
  gcInterval: number;
  pgVersion: number;
  safekeepers?: number;
  pageserverDisk?: number;
  pageserverCache?: number;
  pgBin?: string;
  objects?: string;
  s3Endpoint?: string;
  s3Region?: string;
}

export function addStartCommand(program: Command): void {
  withCommonOptions(program.command('start').description('start Palimpsest here; Ctrl-C stops it'))
    .option('--port <port>', 'port for Postgres clients, on 127.0.0.1', parser(parsePort), DEFAULT_PORT)
    .option(
      '--suspend-after <time>',
      'suspend idle computes after this time (30s, 5m; 0 = never)',
      parser(parseSuspendAfter),
      300,
    )
    .option(
      '--pg-version <major>',
      'Postgres version of new projects: 15 to 18',
      parser(parsePgVersion),
      DEFAULT_PG_VERSION,
    )
    .option(
      '--gc-interval <time>',
      'how often history that is older than the window is removed (0 = only by hand)',
      parser(parseGcInterval),
      60,
    )
    .option('--pg-bin <dir>', 'folder of the Postgres programs, if not those that come with Palimpsest')
    .option(
      '--safekeepers <count>',
      'safekeepers of a new data directory: 1, 3 or 5 (3)',
      parser(parseSafekeepers),
    )
    .option(
      '--objects <place>',
      'where layers and old WAL are kept: s3://bucket/prefix or a folder (in the data directory)',
    )
    .option('--s3-endpoint <url>', 'S3 server, if not Amazon’s own')
    .option('--s3-region <region>', 'region of the bucket, if the environment does not say')
    .option(
      '--pageserver-disk <size>',
      'local layer files up to this size; others are read from objects',
      parser(parseDiskBudget),
    )
    .option('--pageserver-cache <size>', 'memory for pages, for example 256MB (40MB)', parser(parsePageCache))
    .action((options: StartOptions) => runCommand(options, (output) => start(options, output)));
}

async function start(options: StartOptions, output: Output): Promise<number> {
  const objects = parseObjects(options);
  const progress = new Progress(output);
  const stop = stopSignal();
  const { startSystem } = await import('../../node/parent.ts');
  const system = await startSystem({
    dataDir: resolve(options.data),
    port: options.port,
    suspendAfterSeconds: options.suspendAfter,
    gcIntervalSeconds: options.gcInterval,
    pgVersion: options.pgVersion,
    pgBin: options.pgBin,
    safekeepers: options.safekeepers,
    pageserver: { diskBytesMax: options.pageserverDisk, pageCacheBytes: options.pageserverCache },
    ...(objects ? { objects } : {}),
    signal: stop.signal,
    onStep: (text) => progress.step(text),
  });
  progress.done();
  announce(system, options, output);
  const reason = await Promise.race([stop.received, system.failed]);
  if (reason instanceof Error) {
    await system.stop();
    throw reason;
  }
  progress.step('stopping: computes are suspended, everything is flushed');
  await system.stop();
  progress.done();
  return 0;
}

function announce(system: RunningSystem, options: StartOptions, output: Output): void {
  // What is copied from here must reach this system, not the one of the working folder.
  const where = options.data === DEFAULT_DATA_DIR ? '' : ` --data ${options.data}`;
  const { url, port, dataDir, pgVersion } = system;
  const text = [
    '',
    `Palimpsest is ready: Postgres ${pgVersion} on port ${port}, data in ${dataDir}`,
    '',
    `  ${url}`,
    '',
    'In another terminal:',
    `  npx palimpsest psql${where}`,
    `  npx palimpsest branch create dev${where}`,
    '',
    'Stop with Ctrl-C.',
    '',
  ].join('\n');
  output.result({ url, port, dataDir, pgVersion, pid: process.pid }, text);
}
