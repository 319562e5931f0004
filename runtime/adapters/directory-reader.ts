/** Reading access to a local directory, for the import of a cluster. */
import { promises as fs } from 'node:fs';
import { join } from 'node:path';
import { fileError, systemCode } from './file-errors.ts';

export class LocalDirectoryReader {
  readonly #root: string;

  constructor(root: string) {
    this.#root = root;
  }

  /** Names of a folder's entries, sorted; empty when it is missing. */
  async list(path: string): Promise<string[]> {
    const full = join(this.#root, path);
    try {
      return (await fs.readdir(full)).sort();
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return [];
      throw fileError('list', full, error);
    }
  }

  async read(path: string): Promise<Uint8Array> {
    const full = join(this.#root, path);
    try {
      return await fs.readFile(full);
    } catch (error) {
      throw fileError('read', full, error);
    }
  }
}
