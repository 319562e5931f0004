/**
 * Objects in a local directory: one file per object, named by its key.
 *
 * 1. An object appears by a rename (or a link, for `ifAbsent`) of a synced temporary file: whole or not at all, and durable.
 * 2. No key can name a file outside the root; temporary files live in a folder that no key can name.
 * 3. An etag changes with every put. `ifAbsent` holds between processes; `ifMatch` between the users of one
 *    LocalObjects only: one process owns the directory's conditional updates.
 */
import { constants, promises as fs, type Stats } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { ObjectInfo, Objects, PutResult } from '../ports/objects.ts';
import { fileError, systemCode } from './file-errors.ts';
import { badKey, checkObjectKey, checkObjectPrefix } from './object-keys.ts';

const TEMPORARY_FOLDER = '.temporary';
/** Temporary files of a process that died are removed after this time. */
const TEMPORARY_AGE_MS_MAX = 60 * 60 * 1000;
/** A put loses its folder when a delete removes the last object beside it; it then makes the folder again. */
const PLACE_ATTEMPTS_MAX = 10;

export class LocalObjects implements Objects {
  readonly #root: string;
  readonly #localRoot: string;
  /** Tail of the queue of conditional puts per key. */
  readonly #turns = new Map<string, Promise<unknown>>();
  /** Folders that are durable up to the root, each as it was then: it may have been removed and made again since. */
  readonly #durableFolders = new Map<string, string>();
  #temporaryFiles = 0;

  private constructor(root: string, localRoot: string) {
    this.#root = root;
    this.#localRoot = localRoot;
  }

  /**
   * Opens or creates the directory. Relative paths of `putFile` and `getFile` are below `localRoot` (default: the
   * working directory).
   */
  static async open(root: string, options: { localRoot?: string } = {}): Promise<LocalObjects> {
    const temporary = join(root, TEMPORARY_FOLDER);
    try {
      await fs.mkdir(temporary, { recursive: true, mode: 0o700 });
      await removeOldFiles(temporary);
    } catch (error) {
      throw fileError('open object store', root, error);
    }
    return new LocalObjects(resolve(root), resolve(options.localRoot ?? '.'));
  }

  async put(
    key: string,
    data: Uint8Array,
    options: { ifAbsent?: boolean; ifMatch?: string } = {},
  ): Promise<PutResult> {
    const target = this.#pathOf(key);
    const write = (temporary: string) => writeSynced(temporary, data);
    if (options.ifMatch === undefined) return this.#store(target, options.ifAbsent ?? false, write);
    return this.#inTurn(key, async () => {
      const current = await this.head(key);
      if (current?.etag !== options.ifMatch) return { status: 'conflict' };
      return this.#store(target, false, write);
    });
  }

  async putFile(key: string, path: string): Promise<PutResult> {
    const source = resolve(this.#localRoot, path);
    // A clone shares blocks where the file system can; elsewhere the kernel copies without passing through here.
    return this.#store(this.#pathOf(key), false, async (temporary) => {
      await fs.copyFile(source, temporary, constants.COPYFILE_FICLONE | constants.COPYFILE_EXCL);
      return syncFile(temporary);
    });
  }

  async get(key: string, range?: { offset: number; length: number }): Promise<Uint8Array> {
    const path = this.#pathOf(key);
    try {
      if (!range) return await fs.readFile(path);
      return await readRange(path, range.offset, range.length);
    } catch (error) {
      throw objectError('read', key, error);
    }
  }

  async getFile(key: string, path: string): Promise<void> {
    const target = resolve(this.#localRoot, path);
    const temporary = `${target}.${process.pid}-${this.#temporaryFiles++}.tmp`;
    try {
      await fs.copyFile(this.#pathOf(key), temporary, constants.COPYFILE_FICLONE | constants.COPYFILE_EXCL);
      await fs.rename(temporary, target);
    } catch (error) {
      await fs.rm(temporary, { force: true }).catch(() => {});
      throw objectError('download', key, error);
    }
  }

  async head(key: string): Promise<ObjectInfo | undefined> {
    try {
      const stats = await fs.stat(this.#pathOf(key), { bigint: true });
      if (!stats.isFile()) return undefined;
      return { key, bytes: Number(stats.size), etag: etagOf(stats.mtimeNs, stats.size, stats.ino) };
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw objectError('look at', key, error);
    }
  }

  async *list(prefix: string): AsyncIterable<ObjectInfo> {
    checkObjectPrefix(prefix);
    // Only the prefix's own folder is walked, not the whole store.
    const folder = prefix.slice(0, prefix.lastIndexOf('/') + 1);
    if (folder !== '') this.#pathOf(folder.slice(0, -1));
    yield* this.#walk(folder, prefix);
  }

  async delete(key: string): Promise<void> {
    const path = this.#pathOf(key);
    try {
      await fs.unlink(path);
    } catch (error) {
      if (isMissing(error)) return;
      throw objectError('delete', key, error);
    }
    await this.#removeEmptyFolders(dirname(path));
  }

  async *#walk(folder: string, prefix: string): AsyncIterable<ObjectInfo> {
    const entries = await fs.readdir(join(this.#root, folder), { withFileTypes: true }).catch((error) => {
      if (isMissing(error)) return [];
      throw objectError('list', folder, error);
    });
    // Key order: a folder sorts by its name with the slash that follows it in every key.
    const names = entries
      .filter((entry) => folder !== '' || entry.name !== TEMPORARY_FOLDER)
      .map((entry) => (entry.isDirectory() ? `${entry.name}/` : entry.name))
      .sort();
    for (const name of names) {
      const key = folder + name;
      if (!key.startsWith(prefix) && !prefix.startsWith(key)) continue;
      if (name.endsWith('/')) yield* this.#walk(key, prefix);
      else if (key.startsWith(prefix)) {
        const info = await this.head(key);
        if (info) yield info;
      }
    }
  }

  /** Has a temporary file written durably by `write`, and puts it in its place. */
  async #store(
    target: string,
    ifAbsent: boolean,
    write: (temporary: string) => Promise<FileIdentity>,
  ): Promise<PutResult> {
    const temporary = join(
      this.#root,
      TEMPORARY_FOLDER,
      `${process.pid}-${this.#temporaryFiles++}-${Date.now()}`,
    );
    let isMoved = false;
    try {
      const written = await write(temporary);
      const placed = await this.#place(temporary, target, ifAbsent);
      if (!placed) return { status: 'conflict' };
      isMoved = !ifAbsent;
      await this.#syncFolders(dirname(target));
      return { status: 'ok', etag: etagOf(written.mtimeNs, written.size, written.ino) };
    } catch (error) {
      throw this.#storeError(target, error);
    } finally {
      if (!isMoved) await fs.rm(temporary, { force: true }).catch(() => {});
    }
  }

  async #place(temporary: string, target: string, ifAbsent: boolean): Promise<boolean> {
    for (let attempt = 1; ; attempt++) {
      try {
        if (ifAbsent) await fs.link(temporary, target);
        else await fs.rename(temporary, target);
        return true;
      } catch (error) {
        if (ifAbsent && systemCode(error) === 'EEXIST' && (await isFile(target))) return false;
        if (systemCode(error) !== 'ENOENT' || attempt === PLACE_ATTEMPTS_MAX) throw error;
        await fs.mkdir(dirname(target), { recursive: true, mode: 0o700 });
      }
    }
  }

  /** The folders of a new object are durable up to the root, which was there before. */
  async #syncFolders(folder: string): Promise<void> {
    const synced: [path: string, identity: string][] = [];
    for (let path = folder; path.length >= this.#root.length; path = dirname(path)) {
      const identity = await syncFolder(path);
      // Those above it are durable already.
      if (this.#durableFolders.get(path) === identity) break;
      synced.push([path, identity]);
    }
    for (const [path, identity] of synced) this.#durableFolders.set(path, identity);
  }

  async #removeEmptyFolders(folder: string): Promise<void> {
    for (let path = folder; path.length > this.#root.length; path = dirname(path)) {
      try {
        await fs.rmdir(path);
        this.#durableFolders.delete(path);
      } catch {
        return; // not empty, or somebody else was first
      }
    }
  }

  async #inTurn<T>(key: string, run: () => Promise<T>): Promise<T> {
    const before = this.#turns.get(key) ?? Promise.resolve();
    const mine = before.then(run, run);
    const tail = mine.catch(() => {});
    this.#turns.set(key, tail);
    try {
      return await mine;
    } finally {
      if (this.#turns.get(key) === tail) this.#turns.delete(key);
    }
  }

  #pathOf(key: string): string {
    checkObjectKey(key);
    if (key === TEMPORARY_FOLDER || key.startsWith(`${TEMPORARY_FOLDER}/`)) throw badKey(key);
    return join(this.#root, key);
  }

  #storeError(target: string, error: unknown): PalimpsestError {
    const key = target.slice(this.#root.length + 1);
    const code = systemCode(error);
    if (code === 'EISDIR' || code === 'ENOTDIR' || code === 'EEXIST') {
      return new PalimpsestError(
        'unsupported',
        `cannot store object ${key}: a key may not be a folder of another key`,
        'choose another key',
        error,
      );
    }
    return objectError('store', key, error);
  }
}

function objectError(action: string, key: string, error: unknown): PalimpsestError {
  if (systemCode(error) === 'EISDIR') return new PalimpsestError('not-found', `no object ${key}`);
  return fileError(action, `object ${key}`, error);
}

function isMissing(error: unknown): boolean {
  return systemCode(error) === 'ENOENT' || systemCode(error) === 'ENOTDIR';
}

async function isFile(path: string): Promise<boolean> {
  const stats: Stats | undefined = await fs.lstat(path).catch(() => undefined);
  return stats?.isFile() ?? false;
}

function etagOf(modifiedNs: bigint, bytes: bigint, inode: bigint): string {
  return `${modifiedNs.toString(16)}-${bytes.toString(16)}-${inode.toString(16)}`;
}

interface FileIdentity {
  mtimeNs: bigint;
  size: bigint;
  ino: bigint;
}

async function writeSynced(path: string, data: Uint8Array): Promise<FileIdentity> {
  const handle = await fs.open(path, 'wx', 0o600);
  try {
    await handle.writeFile(data);
    return await syncHandle(handle);
  } finally {
    await handle.close();
  }
}

async function syncFile(path: string): Promise<FileIdentity> {
  const handle = await fs.open(path, 'r+');
  try {
    return await syncHandle(handle);
  } finally {
    await handle.close();
  }
}

async function syncHandle(handle: fs.FileHandle): Promise<FileIdentity> {
  const [stats] = await Promise.all([handle.stat({ bigint: true }), handle.sync()]);
  return stats;
}

/** Returns what tells this folder from a later one of the same name. */
async function syncFolder(path: string): Promise<string> {
  const handle = await fs.open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    const [stats] = await Promise.all([handle.stat({ bigint: true }), handle.sync()]);
    return `${stats.ino}-${stats.birthtimeNs}`;
  } finally {
    await handle.close();
  }
}

async function readRange(path: string, offset: number, length: number): Promise<Uint8Array> {
  const handle = await fs.open(path, 'r');
  try {
    const { size } = await handle.stat();
    const into = Buffer.allocUnsafe(Math.max(0, Math.min(length, size - offset)));
    let done = 0;
    while (done < into.length) {
      const { bytesRead } = await handle.read(into, done, into.length - done, offset + done);
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    return into.subarray(0, done);
  } finally {
    await handle.close();
  }
}

async function removeOldFiles(folder: string): Promise<void> {
  for (const name of await fs.readdir(folder)) {
    const path = join(folder, name);
    const stats = await fs.stat(path).catch(() => undefined);
    if (stats && Date.now() - stats.mtimeMs > TEMPORARY_AGE_MS_MAX) await fs.rm(path, { force: true });
  }
}
