/**
 * Which manifests object storage has already, so that a control process that starts does not write all of them again: of thousands of
 * timelines few have changed since.
 *
 *   projects/written.json   { "format": 1, "content": { key: [etag, fingerprint] } }
 *
 * It is only a hint, and may be missing, old or damaged. An entry counts when the manifest still has the etag that it had when its
 * fingerprint was noted: then its content is the one that the fingerprint is of.
 */
import { createHash } from 'node:crypto';
import type { Clock } from '../../runtime/ports/clock.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { Objects } from '../../runtime/ports/objects.ts';

export const WRITTEN_KEY = 'projects/written.json';
const FORMAT = 1;
/** What is written within this time is noted together; what is not noted yet at a crash is written once more. */
export const NOTE_MS = 60_000;

export interface WrittenManifestsOptions {
  objects: Objects;
  clock: Clock;
  log: Log;
}

export class WrittenManifests {
  readonly #options: WrittenManifestsOptions;
  /** What was noted before this process began. */
  #before = new Map<string, [etag: string, fingerprint: string]>();
  readonly #now = new Map<string, [etag: string, fingerprint: string]>();
  #isNoting = false;

  constructor(options: WrittenManifestsOptions) {
    this.#options = options;
  }

  /** Reads what was noted; nothing when that cannot be read. */
  async load(): Promise<void> {
    try {
      const bytes = await this.#options.objects.get(WRITTEN_KEY);
      const { format, content } = JSON.parse(new TextDecoder().decode(bytes));
      if (format === FORMAT) this.#before = new Map(Object.entries(content));
    } catch {
      // The first start, or a hint that is of no use.
    }
  }

  /** Whether the manifest that has this etag now says what the fingerprint is of. */
  isCurrent(key: string, etag: string | undefined, fingerprint: string): boolean {
    const noted = this.#before.get(key);
    if (!noted || etag === undefined || noted[0] !== etag || noted[1] !== digest(fingerprint)) return false;
    this.#now.set(key, noted);
    return true;
  }

  /** A manifest was written. */
  wrote(key: string, etag: string | undefined, fingerprint: string): void {
    if (etag === undefined) this.#now.delete(key);
    else this.#now.set(key, [etag, digest(fingerprint)]);
    this.#noteLater();
  }

  /** A manifest was removed. */
  removed(key: string): void {
    this.#now.delete(key);
    this.#noteLater();
  }

  #noteLater(): void {
    if (this.#isNoting) return;
    this.#isNoting = true;
    this.#options.clock.setTimer(NOTE_MS, () => {
      this.#isNoting = false;
      void this.#note();
    });
  }

  async #note(): Promise<void> {
    const content = Object.fromEntries(this.#now);
    const bytes = new TextEncoder().encode(JSON.stringify({ format: FORMAT, content }));
    try {
      await this.#options.objects.put(WRITTEN_KEY, bytes);
    } catch (error) {
      this.#options.log.debug({ error: String(error) }, 'it could not be noted which manifests are written');
    }
  }
}

function digest(fingerprint: string): string {
  return createHash('sha256').update(fingerprint).digest('hex').slice(0, 32);
}
