/**
 * An object that one writer replaces again and again, and nobody else.
 *
 * A put whose time limit has passed may still come, after a newer one has been made. So each put names the version that it
 * replaces: one that comes late finds another version, and changes nothing.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Objects } from '../../runtime/ports/objects.ts';

/** So many puts that were given up can come one after the other, each just before the next. */
const TRIES_MAX = 5;

export class OwnObject {
  readonly #objects: Objects;
  readonly #key: string;
  /** Of the version that is there, as far as is known; undefined: none. */
  #etag: string | undefined;
  /** What became of the last put is not known. */
  #isUncertain = false;

  /** `etag` is that of the version that is there already, if one is known to be. */
  constructor(objects: Objects, key: string, etag?: string) {
    this.#objects = objects;
    this.#key = key;
    this.#etag = etag;
  }

  get key(): string {
    return this.#key;
  }

  /** Of the version that is there; undefined when there is none, or it is not known which. */
  get etag(): string | undefined {
    return this.#isUncertain ? undefined : this.#etag;
  }

  /** Stores a new version. After an error it is not known which one is there: the next call finds out. */
  async replace(bytes: Uint8Array): Promise<void> {
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      if (this.#isUncertain) this.#etag = (await this.#objects.head(this.#key))?.etag;
      this.#isUncertain = true;
      const condition = this.#etag === undefined ? { ifAbsent: true } : { ifMatch: this.#etag };
      const result = await this.#objects.put(this.#key, bytes, condition);
      if (result.status === 'conflict') continue;
      this.#etag = result.etag;
      this.#isUncertain = false;
      return;
    }
    throw new PalimpsestError('unavailable', `object ${this.#key} is being replaced by somebody else`);
  }
}
