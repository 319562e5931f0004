/**
 * Where the commands about storage look: the objects of a data directory, or a place of objects alone.
 */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { PalimpsestError } from '../../protocols/errors.ts';
import { formatObjectsLocation, type ObjectsLocation } from '../../runtime/adapters/objects-location.ts';
import { openObjects } from '../../runtime/adapters/open-objects.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { SystemRandom } from '../../runtime/adapters/system-random.ts';
import type { Objects } from '../../runtime/ports/objects.ts';
import { describeDataDirectory } from '../node/data-directory.ts';
import { readMark } from '../node/objects-mark.ts';
import { LocalCopies } from './local-copies.ts';

export interface StoragePlace {
  objects: Objects;
  /** As a person writes it. */
  name: string;
  /** What the data directory has beside; absent when there is none, or when its objects are others. */
  local?: LocalCopies;
}

export interface PlaceOptions {
  data: string;
  /** As given with `--objects`; absent: those of the data directory. */
  objects?: ObjectsLocation;
}

/** Throws `not-found` when there is neither. Makes nothing. */
export async function openPlace(options: PlaceOptions): Promise<StoragePlace> {
  const root = resolve(options.data);
  const described = await describeDataDirectory(root);
  const location = options.objects ?? described?.objects;
  if (location === undefined) {
    throw new PalimpsestError(
      'not-found',
      `${root} is no data directory of Palimpsest`,
      'name one with --data, or the place of the objects with --objects',
    );
  }
  const name = formatObjectsLocation(location);
  if (location.kind === 'local' && !existsSync(location.directory)) {
    const hint = 'name the place of the objects with --objects';
    throw new PalimpsestError('not-found', `there is no folder ${location.directory}`, hint);
  }
  const objects = await openObjects(location, { clock: new SystemClock(), random: new SystemRandom() });
  const mark = await readMark(objects, name);
  // Another installation's local copies say nothing about these objects.
  const isOwn = described && (mark === undefined || mark.installation === described.installation);
  return isOwn ? { objects, name, local: new LocalCopies(root) } : { objects, name };
}
