/**
 * The durable log of lifecycle events: subscribes to all of them, stores each once, and lets anyone read from any point.
 *
 * Commands on `pal.cmd.event-log.main`:
 *   query  {after?, sinceMs?, pattern?, limit?} -> {events, next, more}   events behind the cursor `after`, or from a time on,
 *                                                   whose subject matches; read on with `after: next` while `more` is true
 *   last   {kind, id} -> {sequence}                 newest entry of an actor's journal of which an event is here
 *   status {} -> positions, bytes, bounds
 *
 * 1. Events are written in groups: one durable write for all that came within some milliseconds.
 * 2. What waits to be written is bounded; an event that must be left out is counted and reported.
 * 3. An answer holds only what is durable, and what came before the question is in it.
 */

import { PalimpsestError } from '../../protocols/errors.ts';
import type { EventEnvelope } from '../../protocols/events.ts';
import { subjectMatches } from '../../protocols/subjects.ts';
import { decodeSnapshot, encodeSnapshot } from '../adapters/journal-file.ts';
import { serveCommands, unpackMessage } from '../bus/command.ts';
import { checkPattern } from '../bus/subscriptions.ts';
import type { Bus, BusMessage, Subscription } from '../ports/bus.ts';
import type { Clock } from '../ports/clock.ts';
import type { Disk } from '../ports/disk.ts';
import type { Log } from '../ports/log.ts';
import { EventMemory } from './event-memory.ts';
import { EventSegments, type StoredEvent } from './event-segments.ts';

export const EVENT_LOG_KIND = 'event-log';
export const EVENT_LOG_ID = 'main';

const MEMORY_FILE = 'actors.snapshot';
/** Events that come within this time are written together; a durable write competes with the safekeepers' own. */
const LINGER_MS = 20;
const WAITING_MAX = 50_000;
const RETRY_MS = 1_000;
/** Newest events kept in memory: those who follow read from here. */
const TAIL_MAX = 4_096;
const ANSWER_BYTES_MAX = 640 * 1024;
const LIMIT_DEFAULT = 500;
const LIMIT_MAX = 5_000;
/** Segments that one query reads; a longer search goes on with the cursor. */
const SEGMENTS_PER_QUERY = 8;

export interface EventLogOptions {
  /** Its own directory. */
  disk: Disk;
  bus: Bus;
  clock: Clock;
  log: Log;
  /** What is kept at most. Default 256 MiB. */
  bytesMax?: number;
  segmentBytes?: number;
}

export type EventLogCommand =
  | { type: 'query'; after?: number; sinceMs?: number; pattern?: string; limit?: number }
  | { type: 'last'; kind: string; id: string }
  | { type: 'status' };

export interface EventPage {
  events: EventEnvelope[];
  /** Cursor of the last event that was looked at. */
  next: number;
  /** Whether there is more to look at. */
  more: boolean;
}

export interface EventLogStatus {
  newest: number;
  /** Cursor that the oldest kept event follows. */
  oldest: number;
  segments: number;
  bytes: number;
  bytesMax: number;
  /** Events that could not be kept since the start. */
  lost: number;
}

export class EventLog {
  readonly #options: EventLogOptions;
  readonly #segments: EventSegments;
  readonly #memory = new EventMemory();
  readonly #bytesMax: number;
  #subscriptions: Subscription[] = [];
  #waiting: { subject: string; packed: Uint8Array }[] = [];
  #tail: StoredEvent[] = [];
  #writing: Promise<void> | undefined;
  #lost = 0;
  #closed = false;

  private constructor(options: EventLogOptions, segments: EventSegments, bytesMax: number) {
    this.#options = options;
    this.#segments = segments;
    this.#bytesMax = bytesMax;
  }

  /** Opens the log and begins to listen. Start it before the actors, so that it misses nothing. */
  static async open(options: EventLogOptions): Promise<EventLog> {
    const bytesMax = options.bytesMax ?? 256 * 1024 * 1024;
    const segmentBytes = options.segmentBytes ?? Math.min(1024 * 1024, Math.ceil(bytesMax / 4));
    const segments = await EventSegments.open({
      disk: options.disk,
      log: options.log,
      bytesMax,
      segmentBytes,
    });
    const eventLog = new EventLog(options, segments, bytesMax);
    await eventLog.#remember();
    eventLog.#listen();
    return eventLog;
  }

  /** Sequence of the newest entry of an actor's journal of which an event is here: for the actor host. */
  lastSequence(kind: string, id: string): number {
    return this.#memory.lastSequence(kind, id);
  }

  status(): EventLogStatus {
    return {
      newest: this.#segments.position,
      oldest: this.#segments.oldest,
      segments: this.#segments.count,
      bytes: this.#segments.bytes,
      bytesMax: this.#bytesMax,
      lost: this.#lost,
    };
  }

  /** Reads one page; see the head of this file. */
  async query(command: Extract<EventLogCommand, { type: 'query' }>): Promise<EventPage> {
    const pattern = command.pattern ?? '>';
    try {
      checkPattern(pattern);
    } catch {
      const hint = 'tokens are separated by dots; `*` stands for one, a last `>` for all that follow';
      throw new PalimpsestError('invalid-argument', `not a pattern of events: ${pattern}`, hint);
    }
    await this.#untilWritten();
    const limit = Math.min(Math.max(1, command.limit ?? LIMIT_DEFAULT), LIMIT_MAX);
    const since = command.after === undefined ? (command.sinceMs ?? 0) : 0;
    const start = command.after ?? (since > 0 ? await this.#segments.positionAt(since) : 0);
    const page = new PageBuilder(start, limit, pattern, since);
    for (let segment = 0; segment < SEGMENTS_PER_QUERY && !page.full; segment++) {
      if (page.next >= this.#segments.position) break;
      await this.#fill(page);
    }
    const next = Math.min(page.next, this.#segments.position);
    return { events: page.events, next, more: next < this.#segments.position };
  }

  async close(): Promise<void> {
    // What was published before the close still counts.
    await this.#options.bus.flush();
    for (const subscription of this.#subscriptions) subscription.unsubscribe();
    this.#closed = true;
    await this.#writing;
    if (this.#waiting.length > 0) await this.#write().catch(() => {});
    // What could not be stored must not be remembered as stored.
    if (this.#waiting.length === 0) await this.#keepMemory();
    await this.#segments.close();
  }

  /** What was seen before: the kept memory, and the events stored after it was kept. */
  async #remember(): Promise<void> {
    let from = this.#segments.oldest;
    try {
      if (await this.#options.disk.exists(MEMORY_FILE)) {
        const bytes = Buffer.from(await this.#options.disk.readFile(MEMORY_FILE));
        const kept = decodeSnapshot(MEMORY_FILE, bytes);
        this.#memory.restore(kept.data as [string, number, number, number][]);
        from = kept.sequence;
      }
    } catch (error) {
      this.#options.log.warn({ error }, "the event log's memory is damaged; it is read from the events");
    }
    while (from < this.#segments.position) {
      const { events, next } = await this.#segments.read(from);
      for (const event of events) this.#memory.note(unpackMessage<EventEnvelope>(event.packed));
      if (next <= from) break;
      from = next;
    }
  }

  async #keepMemory(): Promise<void> {
    try {
      const bytes = encodeSnapshot(this.#segments.position, this.#memory.keep());
      await this.#options.disk.writeFileAtomic(MEMORY_FILE, bytes);
    } catch (error) {
      this.#options.log.warn({ error }, "the event log's memory could not be kept");
    }
  }

  #listen(): void {
    const { bus } = this.#options;
    this.#subscriptions = [
      bus.subscribe('pal.evt.>', (message) => this.#take(message)),
      serveCommands<EventLogCommand>(bus, EVENT_LOG_KIND, EVENT_LOG_ID, (command) => this.#serve(command)),
    ];
  }

  async #serve(command: EventLogCommand): Promise<unknown> {
    if (command.type === 'query') return this.query(command);
    if (command.type === 'last') return { sequence: this.lastSequence(command.kind, command.id) };
    if (command.type === 'status') return this.status();
    throw new PalimpsestError(
      'unsupported',
      `the event log knows no command "${(command as { type: string }).type}"`,
    );
  }

  #take(message: BusMessage): void {
    let envelope: EventEnvelope;
    try {
      envelope = unpackMessage<EventEnvelope>(message.data);
      if (typeof envelope.id !== 'string' || typeof envelope.actor?.kind !== 'string')
        throw new TypeError('no envelope');
    } catch (error) {
      this.#options.log.warn({ error, subject: message.subject }, 'a lifecycle event cannot be read');
      return;
    }
    if (this.#waiting.length >= WAITING_MAX) {
      if (this.#lost++ === 0)
        this.#options.log.error(
          { subject: message.subject },
          'the event log cannot keep up; events are lost',
        );
      return;
    }
    if (!this.#memory.note(envelope)) return;
    this.#waiting.push({ subject: message.subject, packed: message.data });
    this.#writing ??= this.#writeAll();
  }

  async #writeAll(): Promise<void> {
    while (this.#waiting.length > 0) {
      if (!this.#closed) await this.#options.clock.sleep(LINGER_MS);
      try {
        await this.#write();
      } catch (error) {
        this.#options.log.error(
          { error, waiting: this.#waiting.length },
          'events cannot be stored; they wait',
        );
        if (this.#closed) break;
        await this.#options.clock.sleep(RETRY_MS);
      }
    }
    this.#writing = undefined;
  }

  async #write(): Promise<void> {
    const batch = this.#waiting.slice(0, 1_000);
    const { stored, rolled } = await this.#segments.append(batch, this.#options.clock.now());
    this.#waiting.splice(0, batch.length);
    for (const event of stored) this.#tail.push(event);
    if (this.#tail.length > TAIL_MAX) this.#tail.splice(0, this.#tail.length - TAIL_MAX);
    // A start reads what is behind the kept memory: no more than about one segment.
    if (rolled && this.#waiting.length === 0) await this.#keepMemory();
  }

  async #untilWritten(): Promise<void> {
    if (!this.#writing) return;
    const limit = new AbortController();
    const timeout = this.#options.clock.sleep(RETRY_MS, limit.signal).catch(() => {});
    await Promise.race([this.#writing, timeout]);
    limit.abort();
  }

  async #fill(page: PageBuilder): Promise<void> {
    const firstInMemory = this.#tail[0]?.position;
    if (firstInMemory !== undefined && page.next >= firstInMemory - 1) {
      page.take(this.#tail.slice(page.next - firstInMemory + 1), this.#segments.position);
      return;
    }
    const { events, next } = await this.#segments.read(page.next);
    page.take(events, next);
  }
}

/** Collects the events of one answer up to its bounds. */
class PageBuilder {
  readonly events: EventEnvelope[] = [];
  next: number;
  full = false;
  readonly #limit: number;
  readonly #pattern: string;
  readonly #sinceMs: number;
  #bytes = 0;

  constructor(start: number, limit: number, pattern: string, sinceMs: number) {
    this.next = start;
    this.#limit = limit;
    this.#pattern = pattern;
    this.#sinceMs = sinceMs;
  }

  take(events: StoredEvent[], next: number): void {
    for (const { position, subject, packed } of events) {
      if (subjectMatches(this.#pattern, subject) && !this.#add(packed)) return;
      this.next = position;
    }
    this.next = Math.max(this.next, next);
  }

  /** False when the answer is full; the event is then the first of the next page. */
  #add(packed: Uint8Array): boolean {
    if (
      this.events.length >= this.#limit ||
      (this.events.length > 0 && this.#bytes + packed.length > ANSWER_BYTES_MAX)
    ) {
      this.full = true;
      return false;
    }
    const envelope = unpackMessage<EventEnvelope>(packed);
    if (envelope.time < this.#sinceMs) return true;
    this.events.push(envelope);
    this.#bytes += packed.length;
    return true;
  }
}
