/**
 * The simulated disk: the port over a machine's storage, with latencies and faults.
 *
 * Faults last until they are taken back: full (writes that need space fail), slow, failing syncs. A write takes effect when
 * its time is over; one that a crash interrupts is torn. The bytes of a write under way must not change: they are compared.
 */
import { type ErrorCode, PalimpsestError } from '../../protocols/errors.ts';
import type { Disk, DiskFile, OpenOptions } from '../../runtime/ports/disk.ts';
import type { Content } from './content.ts';
import type { EventOwner } from './event-queue.ts';
import { hashBytes, type SimRandom } from './random.ts';
import { NameTable, StoredFile } from './storage.ts';
import type { World } from './world.ts';

export interface DiskFaults {
  isFull: boolean;
  /** Added to every operation. */
  extraMs: number;
  /** Share of syncs and durable writes that fail with an I/O error. */
  failShare: number;
}

export interface DiskLatency {
  readMs: number;
  writeMs: number;
  syncMs: number;
}

const SLOW_SYNC_MS = 500;

interface WriteUnderWay {
  file: StoredFile;
  position: number;
  bytes: Uint8Array;
}

/** A machine's disk: it outlives the machine's processes. */
export class SimStorage {
  names = new NameTable();
  readonly faults: DiskFaults = { isFull: false, extraMs: 0, failShare: 0 };
  readonly latency: DiskLatency = { readMs: 0.02, writeMs: 0.02, syncMs: 0.2 };
  readonly world: World;
  readonly label: string;
  readonly random: SimRandom;
  readonly underWay = new Set<WriteUnderWay>();
  /** What disks held here that are lost; for oracles. */
  readonly lost: NameTable[] = [];
  /** A known bug: files whose syncs do nothing. */
  lies: ((path: string) => boolean) | undefined;
  /** Called when a write begins; a fault may crash the machine right there. */
  onWrite: (() => void) | undefined;

  constructor(world: World, label: string) {
    this.world = world;
    this.label = label;
    this.random = world.random(`disk/${label}`);
  }

  crash(): void {
    const { random, world } = this;
    let torn = 0;
    const files = new Set([...this.names.current.values()].filter((entry) => entry !== 'directory'));
    for (const write of this.underWay) {
      if (write.file.tear(write.position, write.bytes, random)) torn++;
    }
    this.underWay.clear();
    for (const file of files) if (file.crash(random)) torn++;
    this.names.crash(random);
    if (torn > 0) world.mark('disk: a write was torn by a crash', torn);
  }

  /** What a file surely holds after a power failure; for oracles, takes no time. */
  durableContent(path: string, names = this.names): Content | undefined {
    const file = names.current.get(resolve(path));
    return file && file !== 'directory' ? file.durable : undefined;
  }

  /** All is gone: a new, empty disk. */
  wipe(): void {
    this.lost.push(this.names);
    this.names = new NameTable();
    this.underWay.clear();
  }
}

export class SimDisk implements Disk {
  readonly #storage: SimStorage;
  readonly #owner: EventOwner;
  #temporaryFiles = 0;

  constructor(storage: SimStorage, owner: EventOwner) {
    this.#storage = storage;
    this.#owner = owner;
  }

  async open(path: string, options: OpenOptions = {}): Promise<DiskFile> {
    const at = resolve(path);
    await this.#take('open', this.#storage.latency.readMs);
    const known = this.#storage.names.current.get(at);
    if (known === 'directory') throw fault('internal', `${path} is a directory`);
    if (known && options.exclusive) throw fault('already-exists', `${path} exists`);
    if (known) return new SimFile(this.#storage, this.#owner, known, { ...options, path });
    if (!options.create && !options.exclusive) throw fault('not-found', `no file ${path}`);
    if (!this.#storage.names.current.has(parentOf(at))) throw fault('not-found', `no directory for ${path}`);
    if (this.#storage.faults.isFull) throw diskFull(this.#storage);
    const file = new StoredFile();
    this.#storage.names.change(parentOf(at), (names) => names.set(at, file));
    return new SimFile(this.#storage, this.#owner, file, { ...options, path });
  }

  async readFile(path: string): Promise<Uint8Array> {
    await this.#take('read file', this.#storage.latency.readMs);
    const file = this.#storage.names.current.get(resolve(path));
    if (!file || file === 'directory') throw fault('not-found', `no file ${path}`);
    const bytes = new Uint8Array(file.size);
    file.current.read(bytes, 0);
    return bytes;
  }

  async writeFileAtomic(path: string, data: Uint8Array): Promise<void> {
    const temporary = `${path}.${this.#temporaryFiles++}.tmp`;
    await this.remove(temporary).catch(() => {});
    const file = await this.open(temporary, { create: true, exclusive: true });
    await file.write([data], 0);
    await file.sync();
    await file.close();
    await this.rename(temporary, path);
    await this.syncDirectory(parentOf(resolve(path)));
  }

  async preallocate(path: string, bytes: number): Promise<void> {
    const file = await this.open(path, { create: true, exclusive: true });
    await file.write([new Uint8Array(bytes)], 0);
    await file.sync();
    await file.close();
    await this.syncDirectory(parentOf(resolve(path)));
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#take('rename', this.#storage.latency.writeMs);
    const source = resolve(from);
    const target = resolve(to);
    const file = this.#storage.names.current.get(source);
    if (!file) throw fault('not-found', `no file ${from}`);
    this.#storage.names.change(parentOf(target), (names) => {
      names.delete(source);
      names.set(target, file);
    });
  }

  async remove(path: string): Promise<void> {
    await this.#take('remove', this.#storage.latency.writeMs);
    const at = resolve(path);
    if (!this.#storage.names.current.has(at)) throw fault('not-found', `no file ${path}`);
    this.#storage.names.change(parentOf(at), (names) => names.delete(at));
  }

  async removeTree(path: string): Promise<void> {
    await this.#take('remove tree', this.#storage.latency.writeMs);
    const at = resolve(path);
    this.#storage.names.change(parentOf(at), (names) => {
      for (const name of [...names.keys()]) if (name === at || name.startsWith(`${at}/`)) names.delete(name);
    });
  }

  async makeDirectory(path: string): Promise<void> {
    await this.#take('make directory', this.#storage.latency.writeMs);
    const parts = resolve(path).split('/');
    for (let count = 1; count <= parts.length; count++) {
      const at = parts.slice(0, count).join('/');
      if (this.#storage.names.current.has(at)) continue;
      this.#storage.names.change(parentOf(at), (names) => names.set(at, 'directory'));
    }
  }

  async list(path: string): Promise<string[]> {
    await this.#take('list', this.#storage.latency.readMs);
    const prefix = `${resolve(path)}/`;
    const names: string[] = [];
    for (const name of this.#storage.names.current.keys()) {
      if (name.startsWith(prefix) && !name.includes('/', prefix.length))
        names.push(name.slice(prefix.length));
    }
    return names.sort();
  }

  async exists(path: string): Promise<boolean> {
    await this.#take('exists', this.#storage.latency.readMs);
    return this.#storage.names.current.has(resolve(path));
  }

  async syncDirectory(path: string): Promise<void> {
    await this.#take('sync directory', this.#storage.latency.syncMs);
    this.#storage.names.sync(resolve(path));
  }

  #take(label: string, meanMs: number): Promise<void> {
    return takeTime(this.#storage, this.#owner, label, meanMs);
  }
}

class SimFile implements DiskFile {
  readonly #storage: SimStorage;
  readonly #owner: EventOwner;
  readonly #file: StoredFile;
  readonly #isDurable: boolean;
  readonly #path: string;

  constructor(
    storage: SimStorage,
    owner: EventOwner,
    file: StoredFile,
    options: OpenOptions & { path: string },
  ) {
    this.#path = options.path;
    this.#storage = storage;
    this.#owner = owner;
    this.#file = file;
    this.#isDurable = options.durable ?? false;
  }

  async read(into: Uint8Array, position: number): Promise<number> {
    await this.#take('read', this.#storage.latency.readMs);
    return this.#file.current.read(into, position);
  }

  async write(parts: Uint8Array[], position: number): Promise<void> {
    const { latency, faults, world } = this.#storage;
    const bytes = joined(parts);
    world.trace.mix(hashBytes(bytes, position));
    const underWay: WriteUnderWay = { file: this.#file, position, bytes };
    this.#storage.underWay.add(underWay);
    this.#storage.onWrite?.();
    await this.#take('write', this.#isDurable ? latency.syncMs : latency.writeMs);
    this.#storage.underWay.delete(underWay);
    if (!isJoinOf(bytes, parts)) {
      world.fail('written bytes do not change', `${this.#owner.label} changed bytes of a write under way`);
    }
    if (faults.isFull && position + bytes.length > this.#file.size) throw diskFull(this.#storage);
    this.#file.write(position, bytes);
    if (this.#isDurable) this.#syncNow();
  }

  async sync(): Promise<void> {
    await this.#take('sync', this.#storage.latency.syncMs);
    this.#syncNow();
  }

  async truncate(bytes: number): Promise<void> {
    await this.#take('truncate', this.#storage.latency.writeMs);
    this.#file.truncate(bytes);
    if (this.#isDurable) this.#syncNow();
  }

  async size(): Promise<number> {
    await this.#take('size', this.#storage.latency.readMs / 4);
    return this.#file.size;
  }

  async close(): Promise<void> {
    await this.#take('close', 0);
  }

  #syncNow(): void {
    const { faults, random, world } = this.#storage;
    if (faults.failShare > 0 && random.chance(faults.failShare)) {
      this.#file.loseUnsynced();
      world.mark('disk: a sync failed');
      throw fault('internal', 'input/output error');
    }
    if (!this.#storage.lies?.(this.#path)) this.#file.sync();
  }

  #take(label: string, meanMs: number): Promise<void> {
    return takeTime(this.#storage, this.#owner, label, meanMs);
  }
}

function takeTime(storage: SimStorage, owner: EventOwner, label: string, meanMs: number): Promise<void> {
  const { random, faults, world } = storage;
  const slowMs = label === 'sync' && world.rare.happens('sync-slow') ? SLOW_SYNC_MS : 0;
  const ms = meanMs * random.between(0.5, 1.5) + faults.extraMs * random.float() + slowMs;
  return new Promise((resolve) => world.after(ms, owner, `disk ${label}`, resolve));
}

/** An empty, `.` or `..` part. */
const ODD_PART = /(^|\/)\.{0,2}(\/|$)/;

function resolve(path: string): string {
  if (!ODD_PART.test(path)) return `./${path}`;
  if (path.startsWith('/') || path.split('/').includes('..')) {
    throw fault('invalid-argument', `path leaves the root of the disk: ${path}`);
  }
  const parts = path.split('/').filter((part) => part !== '' && part !== '.');
  return parts.length === 0 ? '.' : `./${parts.join('/')}`;
}

function parentOf(path: string): string {
  const slash = path.lastIndexOf('/');
  return slash < 0 ? '.' : path.slice(0, slash);
}

function fault(code: ErrorCode, message: string): PalimpsestError {
  return new PalimpsestError(code, message);
}

function diskFull(storage: SimStorage): PalimpsestError {
  storage.world.mark('disk: a write met a full disk');
  return fault('disk-full', 'no space left on device');
}

function joined(parts: Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** Whether the parts are still what they were when they were joined. */
function isJoinOf(bytes: Uint8Array, parts: Uint8Array[]): boolean {
  let at = 0;
  for (const part of parts) {
    if (Buffer.compare(part, bytes.subarray(at, at + part.length)) !== 0) return false;
    at += part.length;
  }
  return at === bytes.length;
}
