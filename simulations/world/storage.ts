/**
 * What a simulated machine's disk holds, and what a crash leaves of it.
 *
 * A file has its content as programs see it and its content as it is on the platter. A write lives only in the first until
 * the file is synced. A crash keeps, of every write that was not synced, all, none, or some of its 512-byte sectors; and of
 * the changes to directories (create, rename, remove) that were not synced a part that begins with the oldest.
 */
import { Content } from './content.ts';
import type { SimRandom } from './random.ts';

export const SECTOR_BYTES = 512;

interface PendingWrite {
  position: number;
  bytes: Uint8Array;
  /** A change of the file's size instead of a write. */
  truncateTo?: number;
  /** Its sync failed: the kernel forgot that it has to write it. */
  isLost?: boolean;
}

export class StoredFile {
  readonly current = new Content();
  readonly #durable = new Content();
  #pending: PendingWrite[] = [];

  get size(): number {
    return this.current.size;
  }

  /** What a power failure would leave for certain. */
  get durable(): Content {
    return this.#durable;
  }

  write(position: number, bytes: Uint8Array): void {
    this.current.write(position, bytes);
    this.#pending.push({ position, bytes });
  }

  truncate(size: number): void {
    this.current.truncate(size);
    this.#pending.push({ position: 0, bytes: new Uint8Array(0), truncateTo: size });
  }

  sync(): void {
    for (const write of this.#pending) {
      if (!write.isLost) apply(this.#durable, write);
    }
    this.#pending = [];
  }

  /** A sync failed: what it should have written is on the platter only if it is written again. */
  loseUnsynced(): void {
    for (const write of this.#pending) write.isLost = true;
  }

  /** Content after a crash: what was not synced is there as the dice say. Returns whether a write was torn. */
  crash(random: SimRandom): boolean {
    let isTorn = false;
    for (const write of this.#pending) {
      if (write.isLost) continue;
      if (write.truncateTo !== undefined) {
        if (random.chance(0.5)) apply(this.#durable, write);
        continue;
      }
      isTorn = tear(this.#durable, write, random) || isTorn;
    }
    this.#pending = [];
    this.current.copyFrom(this.#durable);
    return isTorn;
  }

  /** A write that was under way at a crash. Returns whether it was torn. */
  tear(position: number, bytes: Uint8Array, random: SimRandom): boolean {
    return tear(this.#durable, { position, bytes }, random);
  }

  /** Turns one bit on the platter, as a failing disk does. */
  flipBit(offset: number, bit: number): void {
    this.current.flipBit(offset, bit);
    this.#durable.flipBit(offset, bit);
  }
}

function apply(content: Content, write: PendingWrite): void {
  if (write.truncateTo !== undefined) content.truncate(write.truncateTo);
  else content.write(write.position, write.bytes);
}

/** Keeps all, none, a first part, or any of the write's sectors. */
function tear(content: Content, write: PendingWrite, random: SimRandom): boolean {
  const kind = random.int(4);
  if (kind === 0 || write.bytes.length === 0) return false;
  if (kind === 1) {
    content.write(write.position, write.bytes);
    return false;
  }
  const { position, bytes } = write;
  const end = position + bytes.length;
  const firstSector = Math.floor(position / SECTOR_BYTES);
  const sectors = Math.ceil(end / SECTOR_BYTES) - firstSector;
  const kept = random.int(sectors + 1);
  for (let n = 0; n < sectors; n++) {
    if (kind === 2 ? n >= kept : random.chance(0.5)) continue;
    const from = Math.max(position, (firstSector + n) * SECTOR_BYTES);
    const to = Math.min(end, (firstSector + n + 1) * SECTOR_BYTES);
    content.write(from, bytes.subarray(from - position, to - position));
  }
  return true;
}

/** Names to files, and the changes that no directory sync has made durable yet. */
export class NameTable {
  current = new Map<string, StoredFile | 'directory'>([['.', 'directory']]);
  #durable = new Map<string, StoredFile | 'directory'>([['.', 'directory']]);
  #pending: { folder: string; change: (names: Map<string, StoredFile | 'directory'>) => void }[] = [];

  change(folder: string, change: (names: Map<string, StoredFile | 'directory'>) => void): void {
    change(this.current);
    this.#pending.push({ folder, change });
  }

  /** Makes the changes in `folder` durable; with a journaling file system that takes all older ones along. */
  sync(folder: string): void {
    let last = -1;
    this.#pending.forEach((item, index) => {
      if (item.folder === folder) last = index;
    });
    for (const { change } of this.#pending.splice(0, last + 1)) change(this.#durable);
  }

  crash(random: SimRandom): void {
    const kept = random.int(this.#pending.length + 1);
    for (const { change } of this.#pending.slice(0, kept)) change(this.#durable);
    this.#pending = [];
    this.current = new Map(this.#durable);
  }
}
