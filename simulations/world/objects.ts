/**
 * The simulated object store, shared by all machines: conditional puts, ranged reads, and the ways in which S3 fails: a 503
 * before anything happened, a time-out after the request was carried out, or one long before.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Disk } from '../../runtime/ports/disk.ts';
import type { ObjectInfo, Objects, PutResult } from '../../runtime/ports/objects.ts';
import type { EventOwner } from './event-queue.ts';
import { hashBytes, type SimRandom } from './random.ts';
import type { World } from './world.ts';

interface StoredObject {
  data: Uint8Array;
  etag: string;
}

export interface ObjectFaults {
  /** Share of requests that fail before they do anything. */
  refuseShare: number;
  /** Share of writes that are carried out although the caller is told of a failure. */
  lostAnswerShare: number;
  extraMs: number;
}

const SLOW_MS_MAX = 3_000;
/** How late a write can come that nobody waits for any more. */
const LATE_MS_MIN = 100;
const LATE_MS_MAX = 5000;

export class SimBucket {
  readonly world: World;
  readonly objects = new Map<string, StoredObject>();
  /** Keys of writes that have not been answered yet; one of a process that died stays. */
  readonly writing = new Set<{ key: string; owner: EventOwner }>();
  readonly faults: ObjectFaults = { refuseShare: 0, lostAnswerShare: 0, extraMs: 0 };
  readonly random: SimRandom;
  readonly lateness: SimRandom;
  /** Called before an object is deleted or replaced: oracles look at what still needs it. */
  onDelete: ((key: string) => void) | undefined;
  /** Whether somebody alive is writing an object whose key holds `part`. */
  isWriting(part: string): boolean {
    for (const { key, owner } of this.writing) if (!owner.isDead && key.includes(part)) return true;
    return false;
  }

  /** Called after an object was stored. */
  onPut: ((key: string) => void) | undefined;
  #versions = 0;

  constructor(world: World) {
    this.world = world;
    this.random = world.random('objects');
    this.lateness = world.random('objects/late');
  }

  put(key: string, data: Uint8Array, options: { ifAbsent?: boolean; ifMatch?: string }): PutResult {
    const known = this.objects.get(key);
    if (options.ifAbsent && known) return { status: 'conflict' };
    if (options.ifMatch !== undefined && known?.etag !== options.ifMatch) return { status: 'conflict' };
    const etag = `${++this.#versions}`;
    this.world.trace.mix(hashBytes(data, this.#versions));
    this.objects.set(key, { data, etag });
    this.onPut?.(key);
    return { status: 'ok', etag };
  }
}

/** The store as one process has it; `disk` is where its local files lie. */
export class SimObjects implements Objects {
  readonly #bucket: SimBucket;
  readonly #owner: EventOwner;
  readonly #disk: Disk;

  constructor(bucket: SimBucket, owner: EventOwner, disk: Disk) {
    this.#bucket = bucket;
    this.#owner = owner;
    this.#disk = disk;
  }

  async put(
    key: string,
    data: Uint8Array,
    options: { ifAbsent?: boolean; ifMatch?: string } = {},
  ): Promise<PutResult> {
    const copy = data.slice();
    const writing = { key, owner: this.#owner };
    this.#bucket.writing.add(writing);
    try {
      await this.#request('put', 2 + copy.length / 100_000);
    } finally {
      this.#bucket.writing.delete(writing);
    }
    if (this.#isLate()) {
      this.#later(() => this.#bucket.put(key, copy, options));
      throw new PalimpsestError('unavailable', `no answer in time to a request for ${key}`);
    }
    const result = this.#bucket.put(key, copy, options);
    this.#maybeLoseAnswer(key);
    return result;
  }

  async putFile(key: string, path: string): Promise<PutResult> {
    return this.put(key, await this.#disk.readFile(path));
  }

  async get(key: string, range?: { offset: number; length: number }): Promise<Uint8Array> {
    await this.#request('get', 2);
    const object = this.#bucket.objects.get(key);
    if (!object) throw new PalimpsestError('not-found', `no object ${key}`);
    return range ? object.data.slice(range.offset, range.offset + range.length) : object.data.slice();
  }

  async getFile(key: string, path: string): Promise<void> {
    await this.#disk.writeFileAtomic(path, await this.get(key));
  }

  async head(key: string): Promise<ObjectInfo | undefined> {
    await this.#request('head', 1);
    const object = this.#bucket.objects.get(key);
    return object && { key, bytes: object.data.length, etag: object.etag };
  }

  async *list(prefix: string): AsyncIterable<ObjectInfo> {
    await this.#request('list', 5);
    const keys = [...this.#bucket.objects.keys()].filter((key) => key.startsWith(prefix)).sort();
    for (const key of keys) {
      const object = this.#bucket.objects.get(key);
      if (object) yield { key, bytes: object.data.length, etag: object.etag };
    }
  }

  async delete(key: string): Promise<void> {
    await this.#request('delete', 1);
    const remove = () => {
      if (this.#bucket.objects.has(key)) this.#bucket.onDelete?.(key);
      this.#bucket.objects.delete(key);
    };
    if (this.#isLate()) {
      this.#later(remove);
      throw new PalimpsestError('unavailable', `no answer in time to a request for ${key}`);
    }
    remove();
    this.#maybeLoseAnswer(key);
  }

  async #request(label: string, meanMs: number): Promise<void> {
    const { world, random, faults } = this.#bucket;
    const slowMs = world.rare.happens('object-request-slow')
      ? SLOW_MS_MAX * world.rare.amount('object-request-slow')
      : 0;
    const ms = meanMs * random.between(0.5, 2) + faults.extraMs * random.float() + slowMs;
    await new Promise<void>((resolve) => world.after(ms, this.#owner, `object ${label}`, resolve));
    if (!random.chance(faults.refuseShare)) return;
    world.mark('objects: a request was refused');
    throw new PalimpsestError('unavailable', 'the object store answered 503');
  }

  /** Whether a write is carried out long after its caller has given it up. */
  #isLate(): boolean {
    const { lateness, faults } = this.#bucket;
    return faults.lostAnswerShare > 0 && lateness.chance(faults.lostAnswerShare);
  }

  #later(write: () => void): void {
    const { world, lateness } = this.#bucket;
    // Whoever asked for it may be dead by then.
    world.after(lateness.between(LATE_MS_MIN, LATE_MS_MAX), undefined, 'object written late', () => {
      world.mark('objects: a write was carried out late');
      write();
    });
  }

  #maybeLoseAnswer(key: string): void {
    const { world, random, faults } = this.#bucket;
    if (!random.chance(faults.lostAnswerShare)) return;
    world.mark('objects: a write was carried out but reported as failed');
    throw new PalimpsestError('unavailable', `no answer to a request for ${key}`);
  }
}
