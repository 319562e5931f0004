/**
 * Objects as long as they are this installation's: before something is written or deleted, the mark beside the objects is
 * looked at, at most once in a few seconds. After a recovery the storage processes of the replaced installation may still
 * run somewhere; from then on they change nothing any more.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import type { ObjectInfo, Objects, PutResult } from '../../runtime/ports/objects.ts';
import { readMark } from './objects-mark.ts';

/** So long a replaced installation may still write. */
export const MARK_TRUST_MS = 3_000;

/** Who writes: what the mark must say. */
export interface MarkOwner {
  installation: string;
  epoch: number;
}

export class FencedObjects implements Objects {
  readonly #objects: Objects;
  readonly #owner: MarkOwner;
  readonly #clock: Clock;
  #trustedUntil = Number.NEGATIVE_INFINITY;
  #looking: Promise<void> | undefined;

  constructor(objects: Objects, owner: MarkOwner, clock: Clock) {
    this.#objects = objects;
    this.#owner = owner;
    this.#clock = clock;
  }

  async put(
    key: string,
    data: Uint8Array,
    options?: { ifAbsent?: boolean; ifMatch?: string },
  ): Promise<PutResult> {
    await this.#check();
    return this.#objects.put(key, data, options);
  }

  async putFile(key: string, path: string): Promise<PutResult> {
    await this.#check();
    return this.#objects.putFile(key, path);
  }

  async delete(key: string): Promise<void> {
    await this.#check();
    return this.#objects.delete(key);
  }

  get(key: string, range?: { offset: number; length: number }): Promise<Uint8Array> {
    return this.#objects.get(key, range);
  }

  getFile(key: string, path: string): Promise<void> {
    return this.#objects.getFile(key, path);
  }

  head(key: string): Promise<ObjectInfo | undefined> {
    return this.#objects.head(key);
  }

  list(prefix: string): AsyncIterable<ObjectInfo> {
    return this.#objects.list(prefix);
  }

  async #check(): Promise<void> {
    if (this.#clock.monotonic() < this.#trustedUntil) return;
    this.#looking ??= this.#look().finally(() => {
      this.#looking = undefined;
    });
    await this.#looking;
  }

  async #look(): Promise<void> {
    // What the mark says is as old as the question.
    const asked = this.#clock.monotonic();
    const mark = await readMark(this.#objects, 'the place of the objects');
    const { installation, epoch } = this.#owner;
    if (mark && (mark.installation !== installation || mark.epoch !== epoch)) {
      throw new PalimpsestError(
        'deposed',
        'the objects belong to another installation now: this one was recovered elsewhere',
        'stop this one and use the other; what this one has is out of date',
      );
    }
    this.#trustedUntil = asked + MARK_TRUST_MS;
  }
}
