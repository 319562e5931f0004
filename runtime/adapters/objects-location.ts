/**
 * Where objects are: a folder of this machine, or a prefix of an S3 bucket. It is plain data, without credentials, so that
 * it can be kept in a file and handed to another process.
 */
import { resolve } from 'node:path';
import { PalimpsestError } from '../../protocols/errors.ts';

export interface LocalLocation {
  kind: 'local';
  /** Absolute. */
  directory: string;
}

export interface S3Location {
  kind: 's3';
  bucket: string;
  /** Without a slash at either end; empty for the whole bucket. */
  prefix: string;
  /** URL of the server; Amazon's own when absent. */
  endpoint?: string;
  /** The SDK's usual choice (environment, profile) when absent. */
  region?: string;
}

export type ObjectsLocation = LocalLocation | S3Location;

const S3_SCHEME = 's3://';
/** Amazon's rules for names of buckets, as far as they matter to an URL. */
const BUCKET = /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/;
const PREFIX_PART = /^[A-Za-z0-9._=+@-]+$/;
const PREFIX_BYTES_MAX = 512;

/** Reads `s3://bucket/prefix` or a folder's path. Throws `invalid-argument`. */
export function parseObjectsLocation(
  text: string,
  s3: { endpoint?: string | undefined; region?: string | undefined } = {},
): ObjectsLocation {
  if (text.startsWith(S3_SCHEME)) return parseS3(text, s3);
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(text)?.[1];
  if (scheme !== undefined || text === '') {
    throw new PalimpsestError(
      'invalid-argument',
      `"${text}" is no place for objects`,
      'write s3://bucket/prefix, or the path of a folder',
    );
  }
  const needless = s3.endpoint === undefined ? s3.region && '--s3-region' : '--s3-endpoint';
  if (needless) {
    throw new PalimpsestError(
      'invalid-argument',
      `${needless} is for objects on S3, and ${text} is a folder`,
      'write --objects s3://bucket/prefix, or leave the option out',
    );
  }
  return { kind: 'local', directory: resolve(text) };
}

/** As a person writes it. */
export function formatObjectsLocation(location: ObjectsLocation): string {
  if (location.kind === 'local') return location.directory;
  const { bucket, prefix, endpoint } = location;
  const path = prefix === '' ? bucket : `${bucket}/${prefix}`;
  return endpoint === undefined ? `${S3_SCHEME}${path}` : `${S3_SCHEME}${path} at ${endpoint}`;
}

/**
 * Whether both are the same place. A server may get another address, so endpoint and region do not count: the mark that
 * an installation leaves beside its objects tells whether they are really its own.
 */
export function isSameLocation(one: ObjectsLocation, other: ObjectsLocation): boolean {
  if (one.kind === 'local') return other.kind === 'local' && one.directory === other.directory;
  return other.kind === 's3' && one.bucket === other.bucket && one.prefix === other.prefix;
}

function parseS3(
  text: string,
  { endpoint, region }: { endpoint?: string | undefined; region?: string | undefined },
): S3Location {
  const [bucket = '', ...parts] = text.slice(S3_SCHEME.length).replace(/\/+$/, '').split('/');
  const prefix = parts.join('/');
  const isPrefix = parts.every((part) => PREFIX_PART.test(part) && part !== '.' && part !== '..');
  if (!BUCKET.test(bucket) || !isPrefix || prefix.length > PREFIX_BYTES_MAX) {
    throw new PalimpsestError(
      'invalid-argument',
      `"${text}" is not a bucket and prefix`,
      'write s3://bucket/prefix: a bucket has small letters, digits, dots and dashes; parts of the prefix are letters, digits and . _ = + @ -',
    );
  }
  return {
    kind: 's3',
    bucket,
    prefix,
    ...(endpoint === undefined ? {} : { endpoint: checkEndpoint(endpoint) }),
    ...(region === undefined ? {} : { region }),
  };
}

function checkEndpoint(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url && /^https?:$/.test(url.protocol) && url.username === '' && url.search === '') return url.origin;
  throw new PalimpsestError(
    'invalid-argument',
    `"${text}" is not the address of an S3 server`,
    'write it like https://s3.example.net or http://127.0.0.1:9000, without credentials',
  );
}
