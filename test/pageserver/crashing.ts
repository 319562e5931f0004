/**
 * Disk and objects of a process that is killed at its n-th step that changes something: that step is done or not, and nothing after it.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Disk, DiskFile, OpenOptions } from '../../runtime/ports/disk.ts';
import type { Objects } from '../../runtime/ports/objects.ts';

export class Life {
  /** Steps so far. */
  steps = 0;
  isOver = false;
  readonly #end: number;
  readonly #isLastDone: boolean;
  /** What the last step was. */
  last = '';

  constructor(end: number, isLastDone: boolean) {
    this.#end = end;
    this.#isLastDone = isLastDone;
  }

  async step<T>(what: string, run: () => Promise<T>): Promise<T> {
    this.check();
    const isLast = ++this.steps === this.#end;
    if (!isLast) return run();
    this.last = what;
    this.isOver = true;
    if (this.#isLastDone) await run();
    throw killed();
  }

  /** Throws when the process does not live any more. */
  check(): void {
    if (this.isOver) throw killed();
  }
}

function killed(): PalimpsestError {
  return new PalimpsestError('unavailable', 'the process was killed');
}

export class CrashingDisk implements Disk {
  readonly #disk: Disk;
  readonly #life: Life;

  constructor(disk: Disk, life: Life) {
    this.#disk = disk;
    this.#life = life;
  }

  async open(path: string, options?: OpenOptions): Promise<DiskFile> {
    this.#life.check();
    return new CrashingFile(await this.#disk.open(path, options), path, this.#life);
  }

  async readFile(path: string): Promise<Uint8Array> {
    this.#life.check();
    return this.#disk.readFile(path);
  }

  writeFileAtomic(path: string, data: Uint8Array): Promise<void> {
    return this.#life.step(`write ${path}`, () => this.#disk.writeFileAtomic(path, data));
  }

  preallocate(path: string, bytes: number): Promise<void> {
    return this.#life.step(`preallocate ${path}`, () => this.#disk.preallocate(path, bytes));
  }

  rename(from: string, to: string): Promise<void> {
    return this.#life.step(`rename to ${to}`, () => this.#disk.rename(from, to));
  }

  remove(path: string): Promise<void> {
    return this.#life.step(`remove ${path}`, () => this.#disk.remove(path));
  }

  removeTree(path: string): Promise<void> {
    return this.#life.step(`remove ${path}`, () => this.#disk.removeTree(path));
  }

  async makeDirectory(path: string): Promise<void> {
    this.#life.check();
    return this.#disk.makeDirectory(path);
  }

  list(path: string): Promise<string[]> {
    return this.#disk.list(path);
  }

  exists(path: string): Promise<boolean> {
    return this.#disk.exists(path);
  }

  async syncDirectory(path: string): Promise<void> {
    this.#life.check();
    return this.#disk.syncDirectory(path);
  }
}

class CrashingFile implements DiskFile {
  readonly #file: DiskFile;
  readonly #path: string;
  readonly #life: Life;

  constructor(file: DiskFile, path: string, life: Life) {
    this.#file = file;
    this.#path = path;
    this.#life = life;
  }

  async read(into: Uint8Array, position: number): Promise<number> {
    this.#life.check();
    return this.#file.read(into, position);
  }

  write(parts: Uint8Array[], position: number): Promise<void> {
    return this.#life.step(`write to ${this.#path}`, () => this.#file.write(parts, position));
  }

  async sync(): Promise<void> {
    this.#life.check();
    return this.#file.sync();
  }

  async truncate(bytes: number): Promise<void> {
    this.#life.check();
    return this.#file.truncate(bytes);
  }

  size(): Promise<number> {
    return this.#file.size();
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}

/** Objects whose changes are steps of a life; counts what was deleted. */
export function crashingObjects(objects: Objects, life: Life, onDelete?: (key: string) => void): Objects {
  return {
    put: (key, data, options) => life.step(`put ${key}`, () => objects.put(key, data, options)),
    putFile: (key, path) => life.step(`put ${key}`, () => objects.putFile(key, path)),
    get: async (key, range) => {
      life.check();
      return objects.get(key, range);
    },
    getFile: async (key, path) => {
      life.check();
      return objects.getFile(key, path);
    },
    head: (key) => objects.head(key),
    list: (prefix) => objects.list(prefix),
    delete: (key) =>
      life.step(`delete ${key}`, async () => {
        onDelete?.(key);
        await objects.delete(key);
      }),
  };
}
