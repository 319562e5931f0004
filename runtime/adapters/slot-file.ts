/**
 * The local file behind a compute's overlay of pages.
 *
 * Its calls are synchronous on purpose: they serve page requests of the kernel out of the page cache in a few
 * microseconds, several times less than a trip through libuv's threads. The file is unlinked at once, so that it
 * vanishes with the process.
 */
import { closeSync, ftruncateSync, openSync, readSync, unlinkSync, writeSync } from 'node:fs';
import type { SlotStore } from '../../actors/compute/files/slot-pool.ts';

export class SlotFile implements SlotStore {
  readonly #descriptor: number;

  constructor(path: string) {
    this.#descriptor = openSync(path, 'w+', 0o600);
    unlinkSync(path);
  }

  read(into: Uint8Array, offset: number, length: number, position: number): void {
    let done = 0;
    while (done < length) {
      const got = readSync(this.#descriptor, into, offset + done, length - done, position + done);
      if (got <= 0) break;
      done += got;
    }
    if (done < length) into.fill(0, offset + done, offset + length);
  }

  write(from: Uint8Array, offset: number, length: number, position: number): void {
    let done = 0;
    while (done < length) {
      done += writeSync(this.#descriptor, from, offset + done, length - done, position + done);
    }
  }

  truncate(bytes: number): void {
    ftruncateSync(this.#descriptor, bytes);
  }

  close(): void {
    closeSync(this.#descriptor);
  }
}
