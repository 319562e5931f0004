/** Opens object storage wherever it is. */
import type { Clock } from '../ports/clock.ts';
import type { Objects } from '../ports/objects.ts';
import type { Random } from '../ports/random.ts';
import { LocalObjects } from './local-objects.ts';
import type { ObjectsLocation } from './objects-location.ts';
import type { S3Objects } from './s3-objects.ts';

export interface OpenObjectsOptions {
  clock: Clock;
  random: Random;
  /** Relative paths of `putFile` and `getFile` are below it; default: the working directory. */
  localRoot?: string;
}

/** Opens `location`; each process opens its own. On S3 nothing is asked yet: `claimObjects` finds out whether it works. */
export async function openObjects(location: ObjectsLocation, options: OpenObjectsOptions): Promise<Objects> {
  const { localRoot } = options;
  if (location.kind === 'local') {
    return LocalObjects.open(location.directory, localRoot === undefined ? {} : { localRoot });
  }
  // The SDK is large: only those who use it load it.
  const { S3Objects } = await import('./s3-objects.ts');
  return new S3Objects(location, options);
}

/** An upload that takes longer is taken for one whose process has died. */
const UPLOAD_AGE_MS_MAX = 24 * 60 * 60 * 1000;

/** Removes what uploads that nobody will finish left in a bucket, which no list shows and everybody pays for. */
export async function removeAbandonedUploads(objects: Objects): Promise<number> {
  const { removeAbandonedUploads: remove } = objects as Partial<Pick<S3Objects, 'removeAbandonedUploads'>>;
  return remove ? remove.call(objects, UPLOAD_AGE_MS_MAX) : 0;
}
