/**
 * Disk over a directory of this machine. File descriptors with the callback interface of node:fs: half the cost of
 * FileHandle objects on the path of every WAL append, and nothing that a garbage collection could close.
 */
import {
  constants,
  close as fsClose,
  fdatasync as fsDatasync,
  fstat as fsFstat,
  fsync as fsFsync,
  ftruncate as fsFtruncate,
  open as fsOpen,
  promises as fsPromises,
  read as fsRead,
  writev as fsWritev,
  writevSync as fsWritevSync,
} from 'node:fs';
import { isAbsolute, join, normalize } from 'node:path';
import { performance } from 'node:perf_hooks';
import { promisify } from 'node:util';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Disk, DiskFile, OpenOptions } from '../ports/disk.ts';
import { fileError, systemCode } from './file-errors.ts';
import { InPlaceWrites } from './in-place-writes.ts';

const openFd = promisify(fsOpen) as (path: string, flags: number, mode: number) => Promise<number>;
const closeFd = promisify(fsClose);
const syncFd = promisify(fsFsync);

const ZEROS = Buffer.alloc(1024 * 1024);
/** Vectors of one writev call; the kernel's own limit (IOV_MAX). */
const VECTORS_MAX = 1024;

export class NodeDisk implements Disk {
  readonly root: string;
  readonly #inPlace = new InPlaceWrites(() => performance.now());
  #temporaryFiles = 0;

  /** `root` is created by the first call that needs it. */
  constructor(root: string) {
    this.root = root;
  }

  async open(path: string, options: OpenOptions = {}): Promise<DiskFile> {
    const full = this.#resolve(path);
    let flags = options.readOnly ? constants.O_RDONLY : constants.O_RDWR;
    if (options.create) flags |= constants.O_CREAT;
    if (options.exclusive) flags |= constants.O_CREAT | constants.O_EXCL;
    if (options.durable) flags |= constants.O_DSYNC;
    try {
      const inPlace = options.inPlace ? this.#inPlace : undefined;
      return new NodeDiskFile(await openFd(full, flags, 0o600), full, inPlace);
    } catch (error) {
      throw fileError('open', full, error);
    }
  }

  async readFile(path: string): Promise<Uint8Array> {
    return this.#try('read', path, (full) => fsPromises.readFile(full));
  }

  async writeFileAtomic(path: string, data: Uint8Array): Promise<void> {
    const temporary = `${path}.${process.pid}-${this.#temporaryFiles++}.tmp`;
    try {
      const file = await this.open(temporary, { create: true, exclusive: true });
      try {
        await file.write([data], 0);
        await file.sync();
      } finally {
        await file.close();
      }
      await this.rename(temporary, path);
    } catch (error) {
      await fsPromises.rm(this.#resolve(temporary), { force: true }).catch(() => {});
      throw error;
    }
    await this.syncDirectory(parentOf(path));
  }

  async preallocate(path: string, bytes: number): Promise<void> {
    const file = await this.open(path, { create: true, exclusive: true });
    try {
      for (let written = 0; written < bytes; written += ZEROS.length) {
        const rest = bytes - written;
        await file.write([rest < ZEROS.length ? ZEROS.subarray(0, rest) : ZEROS], written);
      }
      await file.sync();
    } catch (error) {
      await this.remove(path).catch(() => {});
      throw error;
    } finally {
      await file.close();
    }
    await this.syncDirectory(parentOf(path));
  }

  async rename(from: string, to: string): Promise<void> {
    const target = this.#resolve(to);
    await this.#try('rename', from, (full) => fsPromises.rename(full, target));
  }

  async remove(path: string): Promise<void> {
    await this.#try('remove', path, (full) => fsPromises.unlink(full));
  }

  async removeTree(path: string): Promise<void> {
    await this.#try('remove', path, (full) => fsPromises.rm(full, { recursive: true, force: true }));
  }

  async makeDirectory(path: string): Promise<void> {
    await this.#try('create directory', path, (full) =>
      fsPromises.mkdir(full, { recursive: true, mode: 0o700 }),
    );
  }

  async list(path: string): Promise<string[]> {
    const full = this.#resolve(path);
    try {
      return (await fsPromises.readdir(full)).sort();
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return [];
      throw fileError('list', full, error);
    }
  }

  async exists(path: string): Promise<boolean> {
    const full = this.#resolve(path);
    try {
      await fsPromises.access(full);
      return true;
    } catch (error) {
      if (systemCode(error) === 'ENOENT' || systemCode(error) === 'ENOTDIR') return false;
      throw fileError('look for', full, error);
    }
  }

  async syncDirectory(path: string): Promise<void> {
    await this.#try('sync directory', path, async (full) => {
      const fd = await openFd(full, constants.O_RDONLY | constants.O_DIRECTORY, 0);
      try {
        await syncFd(fd);
      } finally {
        await closeFd(fd);
      }
    });
  }

  async #try<T>(action: string, path: string, run: (full: string) => Promise<T>): Promise<T> {
    const full = this.#resolve(path);
    try {
      return await run(full);
    } catch (error) {
      throw fileError(action, full, error);
    }
  }

  #resolve(path: string): string {
    const inside = normalize(path);
    if (isAbsolute(path) || inside === '..' || inside.startsWith('../') || path.includes('\0')) {
      throw new PalimpsestError(
        'invalid-argument',
        `path leaves the root of the disk: ${JSON.stringify(path)}`,
      );
    }
    return join(this.root, inside);
  }
}

function parentOf(path: string): string {
  const slash = path.lastIndexOf('/');
  return slash < 0 ? '.' : path.slice(0, slash);
}

class NodeDiskFile implements DiskFile {
  #fd: number;
  readonly #path: string;
  readonly #inPlace: InPlaceWrites | undefined;

  constructor(fd: number, path: string, inPlace: InPlaceWrites | undefined) {
    this.#fd = fd;
    this.#path = path;
    this.#inPlace = inPlace;
  }

  async read(into: Uint8Array, position: number): Promise<number> {
    let done = 0;
    while (done < into.length) {
      const count = await new Promise<number>((resolve, reject) => {
        fsRead(this.#fd, into, done, into.length - done, position + done, (error, bytes) => {
          if (error) reject(fileError('read', this.#path, error));
          else resolve(bytes);
        });
      });
      if (count === 0) break;
      done += count;
    }
    return done;
  }

  async write(parts: Uint8Array[], position: number): Promise<void> {
    let pending = parts;
    let at = position;
    while (pending.length > 0) {
      const batch = pending.length > VECTORS_MAX ? pending.slice(0, VECTORS_MAX) : pending;
      const inPlace = this.#inPlace?.allows(this, bytesOf(batch));
      const written = inPlace ? this.#writeInPlace(batch, at) : await this.#writeOnce(batch, at);
      at += written;
      pending = dropBytes(pending, written);
    }
  }

  sync(): Promise<void> {
    return this.#call('sync', (done) => fsDatasync(this.#fd, done));
  }

  truncate(bytes: number): Promise<void> {
    return this.#call('truncate', (done) => fsFtruncate(this.#fd, bytes, done));
  }

  size(): Promise<number> {
    return new Promise((resolve, reject) => {
      fsFstat(this.#fd, (error, stats) => {
        if (error) reject(fileError('look at', this.#path, error));
        else resolve(stats.size);
      });
    });
  }

  async close(): Promise<void> {
    if (this.#fd < 0) return;
    const fd = this.#fd;
    // A second close must never hit a descriptor that somebody else got in the meantime.
    this.#fd = -1;
    await this.#call('close', (done) => fsClose(fd, done));
  }

  #writeInPlace(parts: Uint8Array[], position: number): number {
    const beganMs = performance.now();
    try {
      return fsWritevSync(this.#fd, parts, position);
    } catch (error) {
      throw fileError('write', this.#path, error);
    } finally {
      this.#inPlace!.ended(beganMs);
    }
  }

  #writeOnce(parts: Uint8Array[], position: number): Promise<number> {
    return new Promise((resolve, reject) => {
      fsWritev(this.#fd, parts, position, (error, bytes) => {
        if (error) reject(fileError('write', this.#path, error));
        else resolve(bytes);
      });
    });
  }

  #call(action: string, run: (done: (error: NodeJS.ErrnoException | null) => void) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      run((error) => {
        if (error) reject(fileError(action, this.#path, error));
        else resolve();
      });
    });
  }
}

function bytesOf(parts: Uint8Array[]): number {
  let bytes = 0;
  for (const part of parts) bytes += part.length;
  return bytes;
}

/** What is left of `parts` after its first `count` bytes; also drops empty parts, which could never finish. */
function dropBytes(parts: Uint8Array[], count: number): Uint8Array[] {
  let index = 0;
  let rest = count;
  while (index < parts.length && rest >= parts[index]!.length) {
    rest -= parts[index]!.length;
    index++;
  }
  if (index === parts.length) return [];
  const left = parts.slice(index);
  if (rest > 0) left[0] = left[0]!.subarray(rest);
  return left;
}
