/** The S3 server of this test run, and buckets in it. */
import { spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import type { S3Location } from '../../runtime/adapters/objects-location.ts';
import { eventually } from './processes.ts';
import { FOLDER_VARIABLE, OWNER_VARIABLE } from './shared-servers.ts';
import { ROOT } from './source-files.ts';

/** Fetching 66 MB of packages is a part of the first start. */
const START_TIMEOUT_MS = 170_000;

export interface S3Server {
  endpoint: string;
  accessKey: string;
  secretKey: string;
}

let buckets = 0;

/** Starts the server when no test of this run has yet. Its credentials are then in this process' environment. */
export async function radosgw(): Promise<S3Server> {
  const folder = join(process.env[FOLDER_VARIABLE]!, 'radosgw');
  if (isFirst(folder)) launch(folder);
  const ready = join(folder, 'ready.json');
  const failed = join(folder, 'failed.txt');
  await eventually('radosgw to be ready', () => existsSync(ready) || existsSync(failed), {
    limitMs: START_TIMEOUT_MS,
    everyMs: 20,
  });
  if (existsSync(failed)) throw new Error(`no radosgw: ${readFileSync(failed, 'utf8')}`);
  const server = JSON.parse(readFileSync(ready, 'utf8')) as S3Server;
  Object.assign(process.env, credentials(server));
  return server;
}

/** What a process needs in its environment to use the server. */
export function credentials({ accessKey, secretKey }: S3Server): Record<string, string> {
  return {
    AWS_ACCESS_KEY_ID: accessKey,
    AWS_SECRET_ACCESS_KEY: secretKey,
    AWS_EC2_METADATA_DISABLED: 'true',
  };
}

/** A bucket of its own, with a prefix. */
export async function newBucket(server: S3Server, prefix = 'one/installation'): Promise<S3Location> {
  const bucket = `test-${process.pid}-${buckets++}`;
  const client = adminClient(server);
  await client.send(new CreateBucketCommand({ Bucket: bucket }));
  client.destroy();
  return { kind: 's3', bucket, prefix, endpoint: server.endpoint };
}

/** The SDK's client itself, to look at what is really there. */
export function adminClient({ endpoint, accessKey, secretKey }: S3Server): S3Client {
  return new S3Client({
    endpoint,
    region: 'us-east-1',
    forcePathStyle: true,
    credentials: { accessKeyId: accessKey, secretAccessKey: secretKey },
    requestChecksumCalculation: 'WHEN_REQUIRED',
  });
}

function isFirst(folder: string): boolean {
  try {
    mkdirSync(folder);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

function launch(folder: string): void {
  const argument = { folder, ownerPid: Number(process.env[OWNER_VARIABLE]) };
  const log = openSync(join(folder, 'server.log'), 'a');
  const script = join(ROOT, 'test/support/radosgw-server.ts');
  const child = spawn(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', script, JSON.stringify(argument)],
    {
      stdio: ['ignore', log, log],
      detached: true,
    },
  );
  closeSync(log);
  writeFileSync(join(folder, 'server.pid'), String(child.pid));
  child.unref();
}
