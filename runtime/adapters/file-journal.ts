/**
 * Journals in local files: `<kind>/<id>/<epoch>.log` and `<kind>/<id>/<sequence>.snapshot`, below the root of a Disk.
 *
 * 1. An append is acknowledged when its bytes are durable and no newer owner has been seen after that.
 * 2. Every open starts a log of the next epoch, created exclusively: that creation is the fence. An older owner sees it after
 *    its write and answers `conflict`; whatever it wrote after the new owner had read is outside the chain of logs.
 * 3. Entries behind a torn write are impossible, because one write is durable before the next begins; so a damaged
 *    entry that was once whole is told from a torn one, and is an error instead of a silent loss.
 * 4. Appends that wait together are written together: one durable write for all.
 * 5. The newest two snapshots are kept, and the logs from the older one on: a damaged snapshot loses nothing.
 * 6. A journal that was never appended to leaves no trace.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Clock } from '../ports/clock.ts';
import type { Disk, DiskFile } from '../ports/disk.ts';
import type { AppendResult, Journal, JournalEntry, JournalStore } from '../ports/journal.ts';
import type { Log } from '../ports/log.ts';
import {
  decodeLog,
  decodeLogHeader,
  decodeSnapshot,
  encodeFrame,
  encodeLogHeader,
  encodeSnapshot,
  LOG_HEADER_BYTES,
} from './journal-file.ts';
import { createFirstLog, createLog, type LogPlace } from './journal-logs.ts';
import { epochsOf, logName, snapshotName, snapshotsOf } from './journal-names.ts';

const ID = /^[a-z0-9][a-z0-9._-]{0,199}$/i;
const SNAPSHOTS_KEPT = 2;
/** Appends that wait at once; a caller with more does not wait for answers. */
const WAITING_MAX = 10_000;
/** Upper bound of one write, except for a single larger entry. */
const WRITE_BYTES_MAX = 4 * 1024 * 1024;
/** After a snapshot a log above this is closed, so that it can be dropped whole one day. */
const LOG_BYTES_TO_ROLL = 64 * 1024;

export interface FileJournalOptions {
  disk: Disk;
  clock: Clock;
  log: Log;
}

export class FileJournalStore implements JournalStore {
  readonly #options: FileJournalOptions;
  /** The owner of each journal in this process. */
  readonly #owners = new Map<string, FileJournal>();
  /** Kinds whose folder this process knows to be durable. */
  readonly #durableKinds = new Set<string>();

  constructor(options: FileJournalOptions) {
    this.#options = options;
  }

  async open(kind: string, id: string): Promise<Journal> {
    const folder = folderOf(kind, id);
    this.#owners.get(folder)?.fence();
    const place = { disk: this.#options.disk, folder, durableKinds: this.#durableKinds };
    const journal = new FileJournal(place, this.#options, () => {
      if (this.#owners.get(folder) === journal) this.#owners.delete(folder);
    });
    this.#owners.set(folder, journal);
    try {
      await journal.take();
    } catch (error) {
      await journal.close();
      throw error;
    }
    return journal;
  }

  async list(kind: string): Promise<string[]> {
    if (!ID.test(kind)) throw badName(kind);
    return (await this.#options.disk.list(kind)).filter((name) => ID.test(name));
  }

  async remove(kind: string, id: string): Promise<void> {
    const folder = folderOf(kind, id);
    const owner = this.#owners.get(folder);
    owner?.fence();
    await owner?.close();
    await this.#options.disk.removeTree(folder);
    if (await this.#options.disk.exists(kind)) await this.#options.disk.syncDirectory(kind);
  }
}

function conflict(batch: Waiting[], actual: number): void {
  for (const item of batch) item.resolve({ status: 'conflict', actual });
}

function folderOf(kind: string, id: string): string {
  if (!ID.test(kind)) throw badName(kind);
  if (!ID.test(id)) throw badName(id);
  return `${kind}/${id}`;
}

function badName(name: string): PalimpsestError {
  return new PalimpsestError('invalid-argument', `not the name of a journal: ${JSON.stringify(name)}`);
}

interface Loaded {
  snapshot?: { sequence: number; data: unknown };
  entries: JournalEntry[];
}

interface LogFile {
  epoch: number;
  /** Undefined: its header was never written whole, so it holds nothing. */
  after: number | undefined;
  bytes: Buffer;
}

interface Waiting {
  expected: number;
  data: unknown;
  resolve(result: AppendResult): void;
  reject(error: unknown): void;
}

class FileJournal implements Journal {
  readonly #folder: string;
  readonly #place: LogPlace;
  readonly #options: FileJournalOptions;
  readonly #onClose: () => void;
  /** What `take` read, until the first `load` hands it out. */
  #loaded: Loaded | undefined;
  #sequence = 0;
  #epoch = 0;
  #file: DiskFile | undefined;
  #position = 0;
  #waiting: Waiting[] = [];
  #writing = false;
  /** Writes and compactions, one after the other. */
  #tail: Promise<void> = Promise.resolve();
  #fenced = false;
  /** Set after a failed write whose outcome is not known: only a fresh open can go on. */
  #broken: string | undefined;
  #closed = false;

  constructor(place: LogPlace, options: FileJournalOptions, onClose: () => void) {
    this.#place = place;
    this.#folder = place.folder;
    this.#options = options;
    this.#onClose = onClose;
  }

  /** Another owner of this process has taken over. */
  fence(): void {
    this.#fenced = true;
  }

  /** Becomes the owner: fences others, then reads what they have acknowledged. */
  async take(): Promise<void> {
    const names = await this.#options.disk.list(this.#folder);
    const newest = Math.max(0, ...epochsOf(names));
    if (newest === 0) {
      this.#loaded = { entries: [] };
      return;
    }
    // The fence comes first: an older owner's write that is acknowledged is on disk before it, and read below.
    this.#epoch = newest + 1;
    const file = await createLog(this.#place, this.#epoch);
    if (!file) throw takenOver(this.#folder);
    this.#file = file;
    try {
      this.#loaded = await this.#read(newest);
      await this.#secure(newest);
      this.#sequence = this.#loaded.entries.at(-1)?.sequence ?? this.#loaded.snapshot?.sequence ?? 0;
      await this.#writeHeader(file, this.#sequence);
    } catch (error) {
      // Nothing was acknowledged under this epoch; its file would only be one more at the next try.
      await this.#options.disk.remove(`${this.#folder}/${logName(this.#epoch)}`).catch(() => {});
      throw error;
    }
    await this.#dropEmptyLogs(newest);
  }

  async load(): Promise<Loaded> {
    const loaded = this.#loaded ?? (await this.#read(this.#epoch));
    this.#loaded = undefined;
    return loaded;
  }

  append(expectedSequence: number, data: unknown): Promise<AppendResult> {
    if (this.#waiting.length >= WAITING_MAX) {
      return Promise.reject(
        new PalimpsestError('unavailable', `${WAITING_MAX} appends wait for the journal ${this.#folder}`),
      );
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ expected: expectedSequence, data, resolve, reject });
      this.#work();
    });
  }

  async snapshot(sequence: number, data: unknown): Promise<void> {
    await this.#inTurn(async () => {
      if (this.#fenced || this.#closed || this.#broken) return;
      const bytes = encodeSnapshot(sequence, data);
      await this.#options.disk.makeDirectory(this.#folder);
      await this.#options.disk.writeFileAtomic(`${this.#folder}/${snapshotName(sequence)}`, bytes);
      await this.#compact();
    });
  }

  async close(): Promise<void> {
    await this.#inTurn(async () => {
      if (this.#closed) return;
      this.#closed = true;
      this.#onClose();
      await this.#file?.close();
      this.#file = undefined;
    });
  }

  #inTurn(run: () => Promise<void>): Promise<void> {
    const mine = this.#tail.then(run);
    this.#tail = mine.catch(() => {});
    return mine;
  }

  #work(): void {
    if (this.#writing) return;
    this.#writing = true;
    // Appends asked for before the turn comes, at least those of this turn of the event loop, go together.
    void this.#inTurn(async () => {
      while (this.#waiting.length > 0) {
        const batch = this.#nextBatch();
        if (batch.accepted.length > 0) await this.#write(batch.accepted, batch.frames, batch.time);
      }
      this.#writing = false;
    });
  }

  /** Takes what can be written together from the queue; answers what cannot be written at all. */
  #nextBatch(): { accepted: Waiting[]; frames: Buffer[]; time: number } {
    const accepted: Waiting[] = [];
    const frames: Buffer[] = [];
    const time = this.#options.clock.now();
    let sequence = this.#sequence;
    let bytes = 0;
    while (this.#waiting.length > 0 && bytes < WRITE_BYTES_MAX) {
      const next = this.#waiting.shift()!;
      if (this.#closed || this.#broken) {
        next.resolve({ status: 'unknown', reason: this.#broken ?? 'the journal is closed' });
      } else if (this.#fenced || next.expected !== sequence) {
        next.resolve({ status: 'conflict', actual: sequence });
      } else {
        try {
          const frame = encodeFrame({ sequence: sequence + 1, time, data: next.data });
          frames.push(frame);
          accepted.push(next);
          bytes += frame.length;
          sequence++;
        } catch (error) {
          next.reject(error);
        }
      }
    }
    return { accepted, frames, time };
  }

  async #write(batch: Waiting[], frames: Buffer[], time: number): Promise<void> {
    try {
      if (this.#file) await this.#file.write(frames, this.#position);
      else await this.#begin(frames);
      if (this.#fenced) return conflict(batch, this.#sequence);
      await this.#lookForNewOwner();
    } catch (error) {
      await this.#undo(batch, error);
      return;
    }
    if (this.#fenced) return conflict(batch, this.#sequence);
    for (const frame of frames) this.#position += frame.length;
    for (const item of batch) {
      this.#sequence++;
      item.resolve({ status: 'ok', sequence: this.#sequence, time });
    }
  }

  async #begin(frames: Buffer[]): Promise<void> {
    const file = await createFirstLog(this.#place, frames);
    if (!file) {
      this.#fenced = true;
      return;
    }
    this.#file = file;
    this.#epoch = 1;
    this.#position = LOG_HEADER_BYTES;
  }

  /** After a failed write: takes its bytes back, so that nothing was appended, or gives up this file. */
  async #undo(batch: Waiting[], error: unknown): Promise<void> {
    const full = error instanceof PalimpsestError && error.code === 'disk-full';
    if (full && (await this.#takeBack())) {
      for (const item of batch) item.reject(error);
      return;
    }
    this.#broken = `a write to the journal ${this.#folder} failed: ${error instanceof Error ? error.message : String(error)}`;
    this.#options.log.error(
      { error, journal: this.#folder },
      'a journal write failed; its outcome is not known',
    );
    for (const item of batch) item.resolve({ status: 'unknown', reason: this.#broken });
  }

  async #takeBack(): Promise<boolean> {
    if (!this.#file) return true;
    try {
      await this.#file.truncate(this.#position);
      await this.#file.sync();
      return true;
    } catch {
      return false;
    }
  }

  /** Rule 2: sets the fence when a newer log exists, or when this one was dropped by a newer owner. */
  async #lookForNewOwner(): Promise<void> {
    const epochs = epochsOf(await this.#options.disk.list(this.#folder));
    if (Math.max(0, ...epochs) !== this.#epoch) this.#fenced = true;
  }

  async #writeHeader(file: DiskFile, after: number): Promise<void> {
    await file.write([encodeLogHeader(after)], 0);
    this.#position = LOG_HEADER_BYTES;
  }

  /** Reads snapshot and chain of logs up to epoch `newest`. */
  async #read(newest: number): Promise<Loaded> {
    const names = await this.#options.disk.list(this.#folder);
    const snapshot = await this.#readSnapshot(names);
    const logs: LogFile[] = [];
    for (const epoch of epochsOf(names).filter((epoch) => epoch <= newest)) {
      const path = `${this.#folder}/${logName(epoch)}`;
      const bytes = asBuffer(await this.#options.disk.readFile(path));
      logs.push({ epoch, after: decodeLogHeader(path, bytes), bytes });
    }
    const entries = this.#chain(
      logs.filter((log) => log.after !== undefined),
      snapshot?.sequence ?? 0,
    );
    return { ...(snapshot && { snapshot }), entries };
  }

  /** Entries after `from`, cut from logs of which each says how far the ones before it count. */
  #chain(logs: LogFile[], from: number): JournalEntry[] {
    const entries: JournalEntry[] = [];
    let sequence = from;
    logs.forEach((log, index) => {
      const path = `${this.#folder}/${logName(log.epoch)}`;
      const last = Math.min(...logs.slice(index + 1).map((later) => later.after!), Number.MAX_SAFE_INTEGER);
      if (log.after! > sequence) throw missing(path, sequence + 1, log.after!);
      const decoded = decodeLog(path, log.bytes, log.after!, last);
      if (decoded.tornAt !== undefined) {
        const tornBytes = log.bytes.length - decoded.tornAt;
        this.#options.log.warn(
          { file: path, offset: decoded.tornAt, tornBytes },
          'dropped the torn tail of a journal',
        );
      }
      for (const entry of decoded.entries) {
        if (entry.sequence <= sequence) continue;
        entries.push(entry);
        sequence = entry.sequence;
      }
    });
    return entries;
  }

  async #readSnapshot(names: string[]): Promise<{ sequence: number; data: unknown } | undefined> {
    const sequences = snapshotsOf(names).reverse();
    for (const [index, sequence] of sequences.entries()) {
      const path = `${this.#folder}/${snapshotName(sequence)}`;
      try {
        return decodeSnapshot(path, asBuffer(await this.#options.disk.readFile(path)));
      } catch (error) {
        if (index === sequences.length - 1) throw error;
        this.#options.log.error({ error, file: path }, 'a snapshot is damaged; the one before it is used');
      }
    }
    return undefined;
  }

  /**
   * Writes the newest entries once more. When a sync has failed, the kernel shows what was written but will never write it to
   * the disk: going on from such an entry would leave a gap after a power failure.
   */
  async #secure(newest: number): Promise<void> {
    for (let epoch = newest; epoch > 0; epoch--) {
      const path = `${this.#folder}/${logName(epoch)}`;
      if (!(await this.#options.disk.exists(path))) return;
      const bytes = await this.#options.disk.readFile(path);
      if (bytes.length <= LOG_HEADER_BYTES) continue;
      const file = await this.#options.disk.open(path, { durable: true });
      try {
        await file.write([bytes], 0);
      } finally {
        await file.close();
      }
      return;
    }
  }

  /** Logs of dead owners that hold nothing would otherwise pile up with every restart. */
  async #dropEmptyLogs(newest: number): Promise<void> {
    for (let epoch = newest; epoch > 0; epoch--) {
      const path = `${this.#folder}/${logName(epoch)}`;
      if (!(await this.#options.disk.exists(path))) return;
      const bytes = await this.#options.disk.readFile(path);
      if (bytes.length > LOG_HEADER_BYTES) return;
      await this.#options.disk.remove(path);
    }
  }

  /** Drops snapshots and logs that no load can need, oldest first. */
  async #compact(): Promise<void> {
    if (this.#position > LOG_BYTES_TO_ROLL) await this.#roll();
    const disk = this.#options.disk;
    const names = await disk.list(this.#folder);
    const snapshots = snapshotsOf(names);
    const dropped = snapshots.slice(0, -SNAPSHOTS_KEPT);
    for (const sequence of dropped) await disk.remove(`${this.#folder}/${snapshotName(sequence)}`);
    // With a single snapshot, nothing stands in for it: all logs stay.
    const needed = snapshots.length >= SNAPSHOTS_KEPT ? snapshots.at(-SNAPSHOTS_KEPT)! : 0;
    const epochs = epochsOf(names);
    for (const [index, epoch] of epochs.entries()) {
      const next = epochs[index + 1];
      if (next === undefined || (await this.#afterOf(next)) > needed) return;
      await disk.remove(`${this.#folder}/${logName(epoch)}`);
    }
  }

  async #afterOf(epoch: number): Promise<number> {
    const path = `${this.#folder}/${logName(epoch)}`;
    const file = await this.#options.disk.open(path, { readOnly: true });
    try {
      const header = Buffer.alloc(LOG_HEADER_BYTES);
      const count = await file.read(header, 0);
      return decodeLogHeader(path, header.subarray(0, count)) ?? Number.MAX_SAFE_INTEGER;
    } finally {
      await file.close();
    }
  }

  /** Goes on in a new log; appends wait, because the caller has the turn. */
  async #roll(): Promise<void> {
    const old = this.#file;
    const next = await this.#startLog(this.#epoch + 1, this.#sequence);
    if (!next) {
      this.#fenced = true;
      return;
    }
    this.#file = next;
    await old?.close();
  }

  /** Creates a log with its header; undefined when somebody else has. When it fails, nothing has changed. */
  async #startLog(epoch: number, after: number): Promise<DiskFile | undefined> {
    const file = await createLog(this.#place, epoch);
    if (!file) return undefined;
    try {
      await this.#writeHeader(file, after);
    } catch (error) {
      await file.close().catch(() => {});
      await this.#options.disk.remove(`${this.#folder}/${logName(epoch)}`).catch(() => {});
      throw error;
    }
    this.#epoch = epoch;
    return file;
  }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function takenOver(journal: string): PalimpsestError {
  return new PalimpsestError('conflict', `another process opened the journal ${journal} at the same time`);
}

function missing(path: string, from: number, to: number): PalimpsestError {
  return new PalimpsestError(
    'corrupt',
    `journal file ${path} is corrupt at byte 0: entries ${from} to ${to} before it are missing`,
    'restore the missing files from a backup',
  );
}
