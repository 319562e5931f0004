/**
 * A disk that outlives its process: files in sparse chunks, operations that take time, and at a crash the writes under
 * way reach it in part, in any order of their sectors.
 */
import { PalimpsestError } from '../../../protocols/errors.ts';
import type { Disk, DiskFile } from '../../../runtime/ports/disk.ts';
import type { Scheduler, Seeded, WorldClock } from './scheduler.ts';

const CHUNK_BYTES = 64 * 1024;
const SECTOR_BYTES = 512;

class StoredFile {
  readonly chunks = new Map<number, Uint8Array>();
  size = 0;

  read(into: Uint8Array, position: number): number {
    const count = Math.max(0, Math.min(into.length, this.size - position));
    for (let done = 0; done < count; ) {
      const at = position + done;
      const offset = at % CHUNK_BYTES;
      const length = Math.min(count - done, CHUNK_BYTES - offset);
      const chunk = this.chunks.get(Math.floor(at / CHUNK_BYTES));
      if (chunk) into.set(chunk.subarray(offset, offset + length), done);
      else into.fill(0, done, done + length);
      done += length;
    }
    return count;
  }

  write(bytes: Uint8Array, position: number): void {
    for (let done = 0; done < bytes.length; ) {
      const at = position + done;
      const offset = at % CHUNK_BYTES;
      const length = Math.min(bytes.length - done, CHUNK_BYTES - offset);
      const number = Math.floor(at / CHUNK_BYTES);
      let chunk = this.chunks.get(number);
      if (!chunk) {
        chunk = new Uint8Array(CHUNK_BYTES);
        this.chunks.set(number, chunk);
      }
      chunk.set(bytes.subarray(done, done + length), offset);
      done += length;
    }
    this.size = Math.max(this.size, position + bytes.length);
  }
}

interface WriteUnderWay {
  file: StoredFile;
  bytes: Uint8Array;
  position: number;
}

/** What lies on the platters of one node. */
export class Platters {
  readonly files = new Map<string, StoredFile>();
  /** No space for new bytes while true. */
  full = false;
  /** Every write fails while true. */
  broken = false;
}

/** The disk as one incarnation of the node's process sees it. */
export class WorldDisk implements Disk {
  readonly #platters: Platters;
  readonly #scheduler: Scheduler;
  readonly #random: Seeded;
  readonly #clock: WorldClock;
  readonly #underWay = new Set<WriteUnderWay>();

  constructor(platters: Platters, scheduler: Scheduler, random: Seeded, clock: WorldClock) {
    this.#platters = platters;
    this.#scheduler = scheduler;
    this.#random = random;
    this.#clock = clock;
  }

  /** The process dies: each sector of a write under way may be there or not. */
  crash(): void {
    for (const { file, bytes, position } of this.#underWay) {
      for (let at = 0; at < bytes.length; ) {
        const length = Math.min(SECTOR_BYTES - ((position + at) % SECTOR_BYTES), bytes.length - at);
        if (this.#random.chance(0.5)) file.write(bytes.subarray(at, at + length), position + at);
        at += length;
      }
    }
    this.#underWay.clear();
  }

  async open(path: string, options: { create?: boolean } = {}): Promise<DiskFile> {
    await this.#delay();
    let file = this.#platters.files.get(path);
    if (!file) {
      if (!options.create) throw new PalimpsestError('not-found', path);
      file = new StoredFile();
      this.#platters.files.set(path, file);
    }
    return this.#handle(file);
  }

  async list(path: string): Promise<string[]> {
    await this.#delay();
    const prefix = `${path}/`;
    return [...this.#platters.files.keys()]
      .filter((name) => name.startsWith(prefix))
      .map((name) => name.slice(prefix.length))
      .sort();
  }

  async exists(path: string): Promise<boolean> {
    await this.#delay();
    return this.#platters.files.has(path);
  }

  async remove(path: string): Promise<void> {
    await this.#delay();
    if (!this.#platters.files.delete(path)) throw new PalimpsestError('not-found', path);
  }

  async makeDirectory(): Promise<void> {
    await this.#delay();
  }

  async syncDirectory(): Promise<void> {
    await this.#delay();
  }

  readFile(): Promise<Uint8Array> {
    throw new RangeError('not needed here');
  }
  writeFileAtomic(): Promise<void> {
    throw new RangeError('not needed here');
  }
  preallocate(): Promise<void> {
    throw new RangeError('not needed here');
  }
  rename(): Promise<void> {
    throw new RangeError('not needed here');
  }
  removeTree(): Promise<void> {
    throw new RangeError('not needed here');
  }

  #handle(file: StoredFile): DiskFile {
    return {
      read: async (into, position) => {
        await this.#delay();
        return file.read(into, position);
      },
      write: async (parts, position) => {
        const bytes = new Uint8Array(Buffer.concat(parts));
        const write = { file, bytes, position };
        this.#underWay.add(write);
        await this.#delay();
        this.#underWay.delete(write);
        if (this.#platters.full && position + bytes.length > file.size)
          throw new PalimpsestError('disk-full', 'no space');
        if (this.#platters.broken) throw new PalimpsestError('internal', 'input/output error');
        file.write(bytes, position);
      },
      sync: () => this.#delay(),
      truncate: async (bytes) => {
        await this.#delay();
        file.size = bytes;
      },
      size: async () => file.size,
      close: async () => {},
    };
  }

  /** Takes a while; for a dead process, for ever. */
  #delay(): Promise<void> {
    return new Promise((resolve) => {
      this.#scheduler.at(this.#random.between(0.02, 0.6), () => {
        if (!this.#clock.isDead) resolve();
      });
    });
  }
}
