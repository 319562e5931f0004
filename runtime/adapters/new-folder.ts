/** Folders that are made to be filled: nothing that is there already is mixed with what comes. */
import { mkdir, readdir } from 'node:fs/promises';
import { PalimpsestError } from '../../protocols/errors.ts';
import { fileError } from './file-errors.ts';

/** Makes a folder, which must not exist or be empty; throws `already-exists` otherwise. */
export async function makeNewFolder(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true }).catch((error) => {
    throw fileError('create', folder, error);
  });
  const [first] = await readdir(folder);
  if (first === undefined) return;
  throw new PalimpsestError('already-exists', `${folder} is not empty (${first})`, 'name a new folder');
}
