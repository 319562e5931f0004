/** Makes the SDK's client for a location. Retries, time limits and the number of requests are not left to the SDK. */
import { S3Client } from '@aws-sdk/client-s3';
import type { S3Location } from './objects-location.ts';

const CONNECT_TIMEOUT_MS = 5_000;
/** Where the SDK finds none; servers other than Amazon's take any. */
const REGION_OF_OTHER_SERVERS = 'us-east-1';

/** Nothing is sent yet. Credentials come from the SDK's usual chain: environment, profile, the machine's role. */
export function makeS3Client(location: S3Location, requestsMax: number): S3Client {
  const { endpoint, region } = location;
  const isOther = endpoint !== undefined;
  const fallback = isOther && !process.env.AWS_REGION ? REGION_OF_OTHER_SERVERS : undefined;
  const chosen = region ?? fallback;
  const sockets = { keepAlive: true, maxSockets: requestsMax };
  return new S3Client({
    ...(isOther ? { endpoint, forcePathStyle: true } : {}),
    ...(chosen === undefined ? {} : { region: chosen }),
    maxAttempts: 1,
    // Bodies are signed with their SHA-256 already; other servers than Amazon's store the SDK's own checksums wrongly.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    requestHandler: {
      connectionTimeout: CONNECT_TIMEOUT_MS,
      httpAgent: sockets,
      httpsAgent: sockets,
    },
  });
}
