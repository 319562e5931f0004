/**
 * The segment files of one replica: 16 MiB each, named as Postgres names them, with the bytes that Postgres wrote.
 *
 * Files grow in steps of 64 KiB: the write that reaches the end of its file carries zeros up to the next step, so that
 * the small writes after it change no metadata. Measured on ext4, that commits as fast as a file filled with zeros
 * beforehand, and a bulk load does not pay for writing every segment twice. What lies before a log that begins in the
 * middle of a segment is a hole. The next segment's file is created while
 * the current one is being filled. Every write is durable when it resolves (O_DSYNC: one trip instead of two).
 */
import {
  type Lsn,
  parseSegmentFileName,
  segmentFileName,
  segmentNumber,
  WAL_SEGMENT_BYTES,
} from '../../protocols/lsn.ts';
import type { Disk, DiskFile } from '../../runtime/ports/disk.ts';

const PAD_BYTES = 64 * 1024;
const ZEROS = new Uint8Array(PAD_BYTES);
const OPEN_FILES_MAX = 4;

interface OpenSegment {
  file: DiskFile;
  /** Operations under way: a file is closed only when there are none. */
  users: number;
  retired: boolean;
  /** Bytes that the file has, zeros ahead of the log included. */
  bytes: number;
}

export class WalSegments {
  readonly #disk: Disk;
  readonly #directory: string;
  /** Most recently used last. Holds promises, so that two callers never open one file twice. */
  readonly #open = new Map<number, Promise<OpenSegment>>();

  constructor(disk: Disk, directory: string) {
    this.#disk = disk;
    this.#directory = directory;
  }

  /** Creates the directory when it is missing. */
  async prepare(): Promise<void> {
    await this.#disk.makeDirectory(this.#directory);
  }

  /** Numbers of the segments that exist, ascending. */
  async numbers(): Promise<number[]> {
    const numbers: number[] = [];
    for (const name of await this.#disk.list(this.#directory)) {
      const number = parseSegmentFileName(name);
      if (number !== undefined) numbers.push(number);
    }
    return numbers.sort((a, b) => a - b);
  }

  /** Writes `parts` (`length` bytes) at `at`, durably. They must lie in one segment. */
  async write(at: Lsn, parts: Uint8Array[], length: number): Promise<void> {
    const offset = at % WAL_SEGMENT_BYTES;
    const end = offset + length;
    await this.#use(segmentNumber(at), async (segment) => {
      if (end <= segment.bytes) return segment.file.write(parts, offset);
      const padded = Math.min(WAL_SEGMENT_BYTES, Math.ceil(end / PAD_BYTES) * PAD_BYTES);
      const pad = padded > end ? [ZEROS.subarray(0, padded - end)] : [];
      await segment.file.write([...parts, ...pad], offset);
      segment.bytes = padded;
    });
  }

  /** Creates the file of the segment after the one that holds `at`, so that nobody has to wait for it later. */
  async prepareNext(at: Lsn): Promise<void> {
    await this.#use(segmentNumber(at) + 1, async () => {});
  }

  /** Reads into `into` from `from` on; bytes that no file has are zeros. Returns how many bytes files have. */
  async read(from: Lsn, into: Uint8Array): Promise<number> {
    let done = 0;
    let found = 0;
    while (done < into.length) {
      const at = from + done;
      const offset = at % WAL_SEGMENT_BYTES;
      const part = into.subarray(done, done + Math.min(into.length - done, WAL_SEGMENT_BYTES - offset));
      const count = await this.#readPart(segmentNumber(at), offset, part);
      if (count < part.length) part.fill(0, count);
      done += part.length;
      found += count;
    }
    return found;
  }

  async #readPart(number: number, offset: number, part: Uint8Array): Promise<number> {
    if (!(await this.#has(number))) return 0;
    return this.#use(number, (segment) => segment.file.read(part, offset));
  }

  /** Bytes that the file of segment `number` has; 0 when there is none. */
  async bytesOf(number: number): Promise<number> {
    return (await this.#has(number)) ? this.#use(number, async (segment) => segment.bytes) : 0;
  }

  /**
   * Removes all bytes from `from` on, durably: a stale record must never be found again after a crash. Later segments
   * go first, from the last one down, so that a crash in between leaves a log that merely ends later.
   */
  async zeroFrom(from: Lsn): Promise<void> {
    const number = segmentNumber(from);
    const later = (await this.numbers()).filter((n) => n > number);
    for (const n of later.reverse()) await this.#removeSegment(n);
    if (later.length > 0) await this.#disk.syncDirectory(this.#directory);
    if (await this.#has(number)) {
      await this.#use(number, (segment) => zeroWithin(segment, from % WAL_SEGMENT_BYTES));
    }
  }

  /** Removes the files of all segments below `number`, oldest first. They may come back after a power failure. */
  async removeBelow(number: number): Promise<void> {
    for (const old of await this.numbers()) if (old < number) await this.#removeSegment(old);
  }

  /** Removes all files, newest first, so that what a crash leaves has no gap. */
  async removeAll(): Promise<void> {
    for (const number of (await this.numbers()).reverse()) await this.#removeSegment(number);
  }

  /** Closes all files, as soon as nobody uses them any more. */
  async close(): Promise<void> {
    for (const number of [...this.#open.keys()]) await this.#retire(number);
  }

  async #has(number: number): Promise<boolean> {
    return this.#open.has(number) || (await this.#disk.exists(this.#path(number)));
  }

  /** Runs `work` on segment `number`, which is created when it is missing. */
  async #use<T>(number: number, work: (segment: OpenSegment) => Promise<T>): Promise<T> {
    const segment = await this.#segment(number);
    segment.users++;
    try {
      return await work(segment);
    } finally {
      segment.users--;
      if (segment.retired && segment.users === 0) await segment.file.close();
    }
  }

  #segment(number: number): Promise<OpenSegment> {
    const known = this.#open.get(number);
    const segment = known ?? this.#openSegment(number);
    this.#open.delete(number);
    this.#open.set(number, segment);
    if (!known) {
      segment.catch(() => this.#open.delete(number));
      if (this.#open.size > OPEN_FILES_MAX)
        void this.#retire(this.#open.keys().next().value!).catch(() => {});
    }
    return segment;
  }

  async #openSegment(number: number): Promise<OpenSegment> {
    const path = this.#path(number);
    const isNew = !(await this.#disk.exists(path));
    const file = await this.#disk.open(path, { create: true, durable: true, inPlace: true });
    if (isNew) await this.#disk.syncDirectory(this.#directory);
    return { file, bytes: await file.size(), users: 0, retired: false };
  }

  async #retire(number: number): Promise<void> {
    const opening = this.#open.get(number);
    this.#open.delete(number);
    const segment = await opening;
    if (!segment) return;
    segment.retired = true;
    if (segment.users === 0) await segment.file.close();
  }

  async #removeSegment(number: number): Promise<void> {
    await this.#retire(number);
    await this.#disk.remove(this.#path(number));
  }

  #path(number: number): string {
    return `${this.#directory}/${segmentFileName(number)}`;
  }
}

/** Overwrites from `offset` to the file's end, only where something else than zeros is there. */
async function zeroWithin(segment: OpenSegment, offset: number): Promise<void> {
  const buffer = new Uint8Array(PAD_BYTES);
  for (let at = offset; at < segment.bytes; ) {
    const length = Math.min(PAD_BYTES - (at % PAD_BYTES), segment.bytes - at);
    const part = buffer.subarray(0, length);
    const count = await segment.file.read(part, at);
    if (part.subarray(0, count).some((byte) => byte !== 0)) {
      await segment.file.write([ZEROS.subarray(0, length)], at);
    }
    at += length;
  }
}
