/**
 * When a durable write may hold up the thread that wants it, instead of going through the thread pool.
 *
 * The pool costs two switches of threads for each write, half of a small commit's processor time. It pays when there is other work
 * meanwhile. A safekeeper of one busy timeline has none: what comes next rests on this very write, and frames that arrive during it
 * wait in their socket, to be taken as one group. So a write is made in place as long as
 *
 * 1. it is small,
 * 2. no other such file was written lately: two logs must be able to wait for the disk at the same time,
 * 3. such writes were quick lately: a disk that stalls holds up this thread once, and then not for a while.
 */
const BYTES_MAX = 64 * 1024;
const ALONE_MS = 50;
const SLOW_MS = 10;
const SLOW_PAUSE_MS = 2_000;

export class InPlaceWrites {
  readonly #nowMs: () => number;
  #last: object | undefined;
  #notBeforeMs = 0;

  /** `nowMs` is a clock that never goes back. */
  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  /** Whether `file` is to write `bytes` in place; asked before each of its writes. */
  allows(file: object, bytes: number): boolean {
    const now = this.#nowMs();
    if (file !== this.#last) {
      this.#last = file;
      this.#notBeforeMs = Math.max(this.#notBeforeMs, now + ALONE_MS);
    }
    return bytes <= BYTES_MAX && now >= this.#notBeforeMs;
  }

  /** A write in place that began at `beganMs` has ended. */
  ended(beganMs: number): void {
    const now = this.#nowMs();
    if (now - beganMs > SLOW_MS) this.#notBeforeMs = now + SLOW_PAUSE_MS;
  }
}
