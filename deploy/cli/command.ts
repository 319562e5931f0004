/**
 * The frame of every command: common options, a connection to the running system, errors and exit codes.
 */
import { type Command, InvalidArgumentError } from 'commander';
import { PalimpsestError } from '../../protocols/errors.ts';
import { type BranchStart, type ConnectOptions, connect, type PalimpsestClient } from '../client/index.ts';
import { exitCodeOf } from './exit-codes.ts';
import { Output } from './output.ts';
import { parsePoint } from './values.ts';

export const DEFAULT_DATA_DIR = '.palimpsest';

export interface CommonOptions {
  data: string;
  nats?: string;
  natsCreds?: string;
  natsCa?: string;
  credentials?: string;
  json?: boolean;
}

/** Options of `withMoment`. */
export interface MomentOptions extends CommonOptions {
  project: string;
  at?: BranchStart;
}

/** Adds what every command takes. */
export function withCommonOptions(command: Command): Command {
  return command
    .option('--data <dir>', 'data directory', DEFAULT_DATA_DIR)
    .option(
      '--nats <servers>',
      'NATS servers of a cluster, instead of --data ($PALIMPSEST_NATS)',
      process.env.PALIMPSEST_NATS,
    )
    .option('--nats-creds <file>', 'credentials for the NATS servers')
    .option('--nats-ca <file>', 'certificate authority of the NATS servers')
    .option(
      '--credentials <file>',
      'credentials of a secured cluster: a file of `palimpsest cluster init` ($PALIMPSEST_CREDENTIALS)',
      process.env.PALIMPSEST_CREDENTIALS,
    )
    .option('--json', 'print JSON instead of text');
}

/** Adds `--objects`, which means what `description` says, and how its S3 server is reached. */
export function withObjects(command: Command, description: string): Command {
  return command
    .option('--objects <place>', description)
    .option('--s3-endpoint <url>', 'S3 server, if not Amazon’s own')
    .option('--s3-region <region>', 'region of the bucket, if the environment does not say');
}

/** Adds `--project`. */
export function withProject(command: Command): Command {
  return withCommonOptions(command).option('--project <name>', 'project', 'default');
}

/** Adds `--project` and `--at`, for what can be done with a branch as it was at a moment. */
export function withMoment(command: Command): Command {
  return withProject(command).option(
    '--at <point>',
    'as it was then, read-only: LSN, time, or how long ago (5m); or write BRANCH@POINT',
    parser((text) => parsePoint(text, Date.now())),
  );
}

/** Makes an argument parser of commander out of one that throws PalimpsestErrors. */
export function parser<T>(parse: (text: string) => T): (text: string) => T {
  return (text) => {
    try {
      return parse(text);
    } catch (error) {
      if (!(error instanceof PalimpsestError)) throw error;
      throw new InvalidArgumentError(error.hint ? `${error.message}; ${error.hint}.` : error.message);
    }
  };
}

/** Runs a command's work; prints its error and sets the exit code. */
export async function runCommand(
  options: CommonOptions,
  work: (output: Output) => Promise<number | undefined>,
): Promise<void> {
  const output = new Output(options.json === true);
  try {
    process.exitCode = (await work(output)) ?? 0;
  } catch (error) {
    output.error(error);
    process.exitCode = exitCodeOf(error);
  }
}

/** Which system a command is about. */
export function connectOptions({
  data,
  nats,
  natsCreds,
  natsCa,
  credentials,
}: CommonOptions): ConnectOptions {
  if (nats === undefined) return { dataDir: data };
  return {
    nats,
    ...(natsCreds === undefined ? {} : { credentialsFile: natsCreds }),
    ...(natsCa === undefined ? {} : { caFile: natsCa }),
    ...(credentials === undefined ? {} : { credentials }),
  };
}

/** Runs a command's work with a connection to the running system. */
export async function runWithClient(
  options: CommonOptions,
  work: (client: PalimpsestClient, output: Output) => Promise<number | undefined>,
): Promise<void> {
  await runCommand(options, async (output) => {
    const client = await connect(connectOptions(options));
    try {
      return await work(client, output);
    } finally {
      await client.close();
    }
  });
}
