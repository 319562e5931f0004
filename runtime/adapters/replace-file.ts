/** Files that others rely on: written anew, never half, and durable. */
import { open, rename } from 'node:fs/promises';
import { fileError } from './file-errors.ts';

const SECRET_MODE = 0o600;

/** Replaces a file that only its owner may read: after a crash there is the old content or the new one. */
export async function replaceFile(path: string, text: string): Promise<void> {
  const temporary = `${path}.new`;
  try {
    const file = await open(temporary, 'w', SECRET_MODE);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    throw fileError('write', path, error);
  }
}
