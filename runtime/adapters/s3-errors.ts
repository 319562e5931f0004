/**
 * What an S3 server, the network or the SDK says, sorted by what can be done about it, and as an error that a person can
 * act on. Codes: "Error responses" of the Amazon S3 API reference; Ceph and other servers use the same ones.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { formatObjectsLocation, type S3Location } from './objects-location.ts';

/** `again`: another attempt may succeed, and this one may have been carried out or not. */
export type S3Failure = 'missing' | 'condition' | 'range' | 'no-upload' | 'again' | 'final';

/** A body that is not what its headers promise. */
export class DamagedBody extends Error {
  override name = 'DamagedBody';
}

interface SdkError {
  name?: string;
  Code?: string;
  code?: string;
  message?: string;
  $metadata?: { httpStatusCode?: number };
  $response?: { statusCode?: number };
}

const MISSING = new Set(['NoSuchKey', 'NotFound']);
const CONDITION = new Set(['PreconditionFailed']);
/** The system's and undici's names of what goes wrong between two machines. */
const NETWORK =
  /^(ECONNREFUSED|ECONNRESET|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|ENETDOWN|EAI_AGAIN|ENOTFOUND|ERR_STREAM_PREMATURE_CLOSE)$/;
const SLOW = new Set([
  'SlowDown',
  'RequestTimeout',
  'InternalError',
  'ServiceUnavailable',
  'OperationAborted',
  'ConditionalRequestConflict',
  'RequestTimeTooSkewed',
  'IncompleteBody',
  'BadDigest',
  'XAmzContentSHA256Mismatch',
  'TimeoutError',
  'AbortError',
  'DamagedBody',
]);

export function sortFailure(error: unknown): S3Failure {
  if (error instanceof PalimpsestError) return 'final';
  const { name, code, status } = factsOf(error);
  if (name === 'NoSuchUpload') return 'no-upload';
  if (name === 'NoSuchBucket') return 'final';
  if (MISSING.has(name) || (status === 404 && name !== 'NoSuchBucket')) return 'missing';
  if (CONDITION.has(name) || status === 412) return 'condition';
  if (name === 'InvalidRange' || status === 416) return 'range';
  if (SLOW.has(name) || NETWORK.test(code)) return 'again';
  if (status !== undefined && (status >= 500 || status === 429 || status === 408)) return 'again';
  if (/socket hang up|aborted|premature/i.test((error as Error | undefined)?.message ?? '')) return 'again';
  return 'final';
}

/** Whether the server cannot have seen the request. */
export function neverArrived(error: unknown): boolean {
  return /^(ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH)$/.test(factsOf(error).code);
}

/** The error for whoever asked. `action` reads like "store object a/b". */
export function s3Error(action: string, location: S3Location, error: unknown): PalimpsestError {
  if (error instanceof PalimpsestError) return error;
  const { name, code, status } = factsOf(error);
  const { bucket, endpoint } = location;
  const at = endpoint === undefined ? '' : ` --endpoint-url ${endpoint}`;
  const fail = (kind: ConstructorParameters<typeof PalimpsestError>[0], what: string, hint?: string) =>
    new PalimpsestError(kind, `cannot ${action}: ${what}`, hint, error);
  switch (name) {
    case 'NoSuchBucket':
      return fail(
        'not-found',
        `there is no bucket ${bucket}`,
        `create it: aws s3api create-bucket --bucket ${bucket}${at}`,
      );
    case 'CredentialsProviderError':
      return fail(
        'permission-denied',
        'no credentials for S3 were found',
        'set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, in the environment of `palimpsest start`',
      );
    case 'InvalidAccessKeyId':
    case 'SignatureDoesNotMatch':
    case 'InvalidToken':
    case 'InvalidClientTokenId':
    case 'ExpiredToken':
    case 'ExpiredTokenException':
    case 'TokenRefreshRequired':
      return fail(
        'permission-denied',
        `the server does not accept the credentials (${name})`,
        'check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or the profile in use',
      );
    case 'RequestTimeTooSkewed':
      return fail('permission-denied', 'the clock of this machine is wrong', 'set the clock (NTP)');
    case 'PermanentRedirect':
    case 'AuthorizationHeaderMalformed':
    case 'IllegalLocationConstraintException':
      return fail(
        'invalid-argument',
        `bucket ${bucket} is in another region`,
        `name its region with --s3-region (aws s3api get-bucket-location --bucket ${bucket}${at})`,
      );
    case 'QuotaExceeded':
      return fail('disk-full', `the quota of bucket ${bucket} is used up`, 'raise the quota of the bucket');
    case 'InvalidObjectState':
      return fail('unavailable', 'the object is archived', 'restore it from the archive tier first');
  }
  if (status === 403) {
    return fail(
      'permission-denied',
      `access to bucket ${bucket} is denied`,
      'allow s3:GetObject, s3:PutObject, s3:DeleteObject, s3:AbortMultipartUpload and s3:ListBucket for these credentials',
    );
  }
  if (/region is missing/i.test((error as Error | undefined)?.message ?? '')) {
    return fail('invalid-argument', 'no region is set', 'name it with --s3-region, or set AWS_REGION');
  }
  if (status === 404) return fail('not-found', 'it does not exist');
  if (NETWORK.test(code) || SLOW.has(name) || (status !== undefined && status >= 500)) {
    return fail(
      'unavailable',
      `${formatObjectsLocation(location)} does not answer (${reasonOf(error)})`,
      endpoint === undefined
        ? 'check the network; --s3-endpoint names another server than Amazon’s'
        : 'check that the server runs, and the address given with --s3-endpoint',
    );
  }
  return fail(
    'unavailable',
    `${formatObjectsLocation(location)} does not answer as an S3 server does (${reasonOf(error)})`,
    endpoint === undefined ? undefined : 'check the address given with --s3-endpoint',
  );
}

function factsOf(error: unknown): { name: string; code: string; status: number | undefined } {
  const facts = (error ?? {}) as SdkError;
  return {
    name: facts.Code ?? facts.name ?? '',
    code: typeof facts.code === 'string' ? facts.code : '',
    status: facts.$metadata?.httpStatusCode ?? facts.$response?.statusCode,
  };
}

/** One short line. */
function reasonOf(error: unknown): string {
  const { name, code, status } = factsOf(error);
  if (code !== '') return code;
  if (status !== undefined && status >= 300)
    return name === '' ? `HTTP ${status}` : `${name}, HTTP ${status}`;
  const message = error instanceof Error ? error.message.split('\n')[0]! : String(error);
  return name === 'AbortError' || name === 'TimeoutError' ? 'timeout' : message.slice(0, 200);
}
