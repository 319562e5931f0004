/**
 * The event log's files: segments of bounded size, named by the position that their first event follows, in the format of
 * journal logs (checksum per event, torn tail told from damage). Positions only grow; they are the cursors of readers.
 *
 * 1. A segment is written by one process life only: after a restart the next one is begun, so that nothing is ever overwritten.
 * 2. The oldest segments are dropped when all together exceed their bound.
 * 3. A damaged event costs the rest of its segment and is reported; the log goes on.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import {
  decodeLog,
  decodeLogHeader,
  encodeFrame,
  encodeLogHeader,
  LOG_HEADER_BYTES,
} from '../adapters/journal-file.ts';
import type { Disk, DiskFile } from '../ports/disk.ts';
import type { Log } from '../ports/log.ts';

const SEGMENT_NAME = /^(\d{16})\.events$/;
/** Besides their bytes, their number is bounded: each start begins one. */
const SEGMENTS_MAX = 2_000;
/** Left out after a damaged segment, so that no position is given twice. */
const POSITIONS_AFTER_DAMAGE = 1_000_000;
/** Enough for the first event of a segment, to learn its time. */
const FIRST_EVENT_BYTES = 64 * 1024;

export interface StoredEvent {
  position: number;
  /** When it was stored; never before it was written by its actor, clocks permitting. */
  storedMs: number;
  subject: string;
  /** The envelope as it came, packed. */
  packed: Uint8Array;
}

export interface SegmentOptions {
  disk: Disk;
  log: Log;
  bytesMax: number;
  segmentBytes: number;
}

interface Segment {
  /** Position that its first event follows. */
  after: number;
  bytes: number;
  /** Time of its first event, once somebody asked. */
  firstMs?: number;
}

export class EventSegments {
  readonly #options: SegmentOptions;
  #segments: Segment[] = [];
  #file: DiskFile | undefined;
  #position = 0;

  private constructor(options: SegmentOptions) {
    this.#options = options;
  }

  static async open(options: SegmentOptions): Promise<EventSegments> {
    const segments = new EventSegments(options);
    await options.disk.makeDirectory('.');
    await segments.#find();
    return segments;
  }

  /** Position of the newest event; 0 when there is none. */
  get position(): number {
    return this.#position;
  }

  /** Position that the oldest kept event follows. */
  get oldest(): number {
    return this.#segments[0]?.after ?? this.#position;
  }

  get bytes(): number {
    return this.#segments.reduce((sum, segment) => sum + segment.bytes, 0);
  }

  get count(): number {
    return this.#segments.length;
  }

  /** Writes events durably, in one write. Returns them with their positions. True in `rolled`: a segment was finished before. */
  async append(
    events: { subject: string; packed: Uint8Array }[],
    storedMs: number,
  ): Promise<{ stored: StoredEvent[]; rolled: boolean }> {
    const rolled = await this.#makeRoom();
    const stored: StoredEvent[] = [];
    const frames: Uint8Array[] = [];
    let bytes = 0;
    for (const { subject, packed } of events) {
      const position = this.#position + stored.length + 1;
      const frame = encodeFrame({ sequence: position, time: storedMs, data: [subject, packed] });
      frames.push(frame);
      bytes += frame.length;
      stored.push({ position, storedMs, subject, packed });
    }
    const segment = this.#segments.at(-1)!;
    await this.#file!.write(frames, segment.bytes);
    await this.#file!.sync();
    segment.bytes += bytes;
    this.#position += events.length;
    return { stored, rolled };
  }

  /** Where a reader that wants events stored at `sinceMs` or later may begin. */
  async positionAt(sinceMs: number): Promise<number> {
    let low = 0;
    let high = this.#segments.length - 1;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if ((await this.#firstMs(this.#segments[middle]!)) <= sinceMs) low = middle;
      else high = middle - 1;
    }
    return this.#segments[low]?.after ?? this.#position;
  }

  /** The events of the segment that holds the one after `after`, from that one on; and where the next segment begins. */
  async read(after: number): Promise<{ events: StoredEvent[]; next: number }> {
    const from = Math.max(after, this.oldest);
    const index = this.#segments.findLastIndex((segment) => segment.after <= from);
    const segment = this.#segments[index];
    if (!segment) return { events: [], next: from };
    const events = (await this.#decode(segment)).filter((event) => event.position > from);
    const next = this.#segments[index + 1]?.after ?? this.#position;
    return { events, next: Math.max(next, from) };
  }

  async close(): Promise<void> {
    await this.#file?.close();
    this.#file = undefined;
  }

  async #find(): Promise<void> {
    const { disk } = this.#options;
    for (const name of await disk.list('.')) {
      const match = SEGMENT_NAME.exec(name);
      if (!match) continue;
      const file = await disk.open(name, { readOnly: true });
      const bytes = await file.size();
      await file.close();
      if (bytes <= LOG_HEADER_BYTES) await disk.remove(name);
      else this.#segments.push({ after: Number(match[1]), bytes });
    }
    const last = this.#segments.at(-1);
    if (!last) return;
    let damaged = false;
    const events = await this.#decode(last, () => {
      damaged = true;
    });
    this.#position = (events.at(-1)?.position ?? last.after) + (damaged ? POSITIONS_AFTER_DAMAGE : 0);
  }

  async #decode(segment: Segment, onDamage?: () => void): Promise<StoredEvent[]> {
    const name = nameOf(segment.after);
    try {
      const bytes = asBuffer(await this.#options.disk.readFile(name));
      return this.#decodeBytes(name, bytes, segment);
    } catch (error) {
      // Dropped as the oldest while it was being read.
      if (error instanceof PalimpsestError && error.code === 'not-found') return [];
      this.#options.log.error(
        { error, file: name },
        'a segment of the event log is damaged; its events are left out',
      );
      onDamage?.();
      return [];
    }
  }

  #decodeBytes(name: string, bytes: Buffer, segment: Segment): StoredEvent[] {
    const after = decodeLogHeader(name, bytes);
    if (after === undefined) return [];
    // A write that is under way belongs to nobody yet.
    const { entries } = decodeLog(name, bytes.subarray(0, segment.bytes), after, Number.MAX_SAFE_INTEGER);
    return entries.map(({ sequence, time, data }) => {
      const [subject, packed] = data as [string, Uint8Array];
      return { position: sequence, storedMs: time, subject, packed };
    });
  }

  async #firstMs(segment: Segment): Promise<number> {
    if (segment.firstMs !== undefined) return segment.firstMs;
    const name = nameOf(segment.after);
    const file = await this.#options.disk.open(name, { readOnly: true });
    try {
      const bytes = Buffer.alloc(Math.min(segment.bytes, FIRST_EVENT_BYTES));
      await file.read(bytes, 0);
      const { entries } = decodeLog(name, bytes, segment.after, segment.after + 1);
      segment.firstMs = entries[0]?.time ?? 0;
    } catch (error) {
      this.#options.log.warn({ error, file: name }, 'the time of an event log segment cannot be read');
      segment.firstMs = 0;
    } finally {
      await file.close();
    }
    return segment.firstMs;
  }

  /** Begins a new segment when there is none or it is full, and drops the oldest beyond the bound. */
  async #makeRoom(): Promise<boolean> {
    const current = this.#segments.at(-1);
    if (this.#file && current && current.bytes < this.#options.segmentBytes) return false;
    const { disk } = this.#options;
    const name = nameOf(this.#position);
    const file = await disk.open(name, { create: true });
    await file.truncate(0);
    await file.write([encodeLogHeader(this.#position)], 0);
    await disk.syncDirectory('.');
    await this.#file?.close();
    this.#file = file;
    this.#segments.push({ after: this.#position, bytes: LOG_HEADER_BYTES });
    await this.#dropOldest();
    return true;
  }

  async #dropOldest(): Promise<void> {
    while (
      this.#segments.length > 1 &&
      (this.bytes > this.#options.bytesMax || this.#segments.length > SEGMENTS_MAX)
    ) {
      await this.#options.disk.remove(nameOf(this.#segments[0]!.after));
      this.#segments.shift();
    }
  }
}

function nameOf(after: number): string {
  return `${String(after).padStart(16, '0')}.events`;
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
