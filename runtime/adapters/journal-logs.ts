/**
 * Creating the log files of a journal: exclusively, since a log's creation is the fence between two owners, and durably
 * with the folders that lead to it.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Disk, DiskFile } from '../ports/disk.ts';
import { encodeLogHeader } from './journal-file.ts';
import { logName } from './journal-names.ts';

export interface LogPlace {
  disk: Disk;
  /** `<kind>/<id>` */
  folder: string;
  /** Kinds whose folder this process knows to be durable. */
  durableKinds: Set<string>;
}

/** Creates the log of an epoch, still empty; undefined when somebody else has. */
export async function createLog({ disk, folder }: LogPlace, epoch: number): Promise<DiskFile | undefined> {
  const file = await openNewLog(disk, `${folder}/${logName(epoch)}`);
  if (file) await disk.syncDirectory(folder);
  return file;
}

/**
 * Creates the first log of a journal with its first entries in it; undefined when somebody else has created one. When it
 * throws, nothing was appended, unless it says that the file could not be removed.
 */
export async function createFirstLog(
  { disk, folder, durableKinds }: LogPlace,
  frames: Buffer[],
): Promise<DiskFile | undefined> {
  const kind = folder.slice(0, folder.indexOf('/'));
  const path = `${folder}/${logName(1)}`;
  await disk.makeDirectory(folder);
  const file = await openNewLog(disk, path);
  if (!file) return undefined;
  // At the same time, since the file system commits them together; none outlives a failure.
  const steps = await Promise.allSettled([
    file.write([encodeLogHeader(0), ...frames], 0),
    disk.syncDirectory(folder),
    disk.syncDirectory(kind),
    ...(durableKinds.has(kind) ? [] : [disk.syncDirectory('.')]),
  ]);
  const failure = steps.find((step) => step.status === 'rejected');
  if (failure) {
    await file.close().catch(() => {});
    await removeAgain(disk, path);
    throw failure.reason;
  }
  durableKinds.add(kind);
  return file;
}

async function openNewLog(disk: Disk, path: string): Promise<DiskFile | undefined> {
  try {
    return await disk.open(path, { create: true, exclusive: true, durable: true });
  } catch (error) {
    if (error instanceof PalimpsestError && error.code === 'already-exists') return undefined;
    throw error;
  }
}

/** Its entries must not be found again: where that is not sure, their outcome is not known. */
async function removeAgain(disk: Disk, path: string): Promise<void> {
  try {
    await disk.remove(path);
  } catch (error) {
    throw new PalimpsestError('internal', `the log ${path} cannot be removed again`, undefined, error);
  }
}
