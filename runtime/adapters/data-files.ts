/**
 * A compute's data directory on the local disk. Synchronous, since it is written once, while nothing else is served.
 */
import {
  chmodSync,
  chownSync,
  closeSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import type { DataFiles } from '../../actors/compute/start/ports.ts';
import { CLOSED_DIRECTORY, DATA_DIRECTORIES, skeletonFiles } from '../../actors/compute/start/skeleton.ts';
import type { PostgresUser } from './postgres-binaries.ts';

export class LocalDataFiles implements DataFiles {
  readonly #root: string;
  readonly #user: PostgresUser;

  constructor(root: string, user: PostgresUser) {
    this.#root = root;
    this.#user = user;
  }

  /** Makes the part that is the same for every database. */
  writeSkeleton(pgVersion: number): void {
    mkdirSync(this.#root, { recursive: true });
    chmodSync(this.#root, 0o700);
    this.#own(this.#root);
    for (const directory of DATA_DIRECTORIES) this.makeDirectory(directory);
    this.makeDirectory(CLOSED_DIRECTORY, 0o500);
    for (const [path, text] of Object.entries(skeletonFiles(pgVersion))) this.write(path, text);
  }

  /** Makes `path` a link to a directory elsewhere. */
  link(path: string, target: string): void {
    symlinkSync(target, join(this.#root, path));
  }

  makeDirectory(path: string, mode = 0o700): void {
    const directory = join(this.#root, path);
    mkdirSync(directory, { recursive: true });
    chmodSync(directory, mode);
    this.#own(directory);
  }

  write(path: string, data: Uint8Array | string): void {
    const file = join(this.#root, path);
    try {
      writeFileSync(file, data, { mode: 0o600 });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      this.makeDirectory(dirname(path));
      writeFileSync(file, data, { mode: 0o600 });
    }
    this.#own(file);
  }

  writeAt(path: string, position: number, data: Uint8Array): void {
    const descriptor = openSync(join(this.#root, path), 'r+');
    try {
      for (let done = 0; done < data.length; ) {
        done += writeSync(descriptor, data, done, data.length - done, position + done);
      }
    } finally {
      closeSync(descriptor);
    }
  }

  writeSparse(path: string, bytes: number, pieces: { offset: number; bytes: Uint8Array }[]): void {
    const file = join(this.#root, path);
    const descriptor = openSync(file, 'w', 0o600);
    try {
      ftruncateSync(descriptor, bytes);
      for (const piece of pieces) writeSync(descriptor, piece.bytes, 0, piece.bytes.length, piece.offset);
    } finally {
      closeSync(descriptor);
    }
    this.#own(file);
  }

  read(path: string): Uint8Array | undefined {
    try {
      return readFileSync(join(this.#root, path));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
  }

  #own(path: string): void {
    if (this.#user.uid !== undefined) chownSync(path, this.#user.uid, this.#user.gid!);
  }
}
