/**
 * Journals on JetStream: one decision is one message on `pal.journal.<shard>.<kind>.<id>`, in a few sharded streams.
 *
 * 1. Every append expects the stream's sequence of the subject's last message, so of two writers one is refused. An open of a
 *    journal that is not empty appends a message of its own (`take`) with the next epoch: that is the fence.
 * 2. Refused is not fenced: servers refuse spuriously. The last message is read again before anything is concluded.
 * 3. No answer is no outcome. The same message is sent again with the same expectation, so at most one copy is ever stored,
 *    and the last message tells whether it is. When that cannot be learnt in time, the outcome is `unknown` and this
 *    journal is over; only a fresh open can go on.
 * 4. Reads may come from a replica that lags behind. The `take` after them expects what was read, which proves it; an empty
 *    journal is confirmed by the leader.
 * 5. The body of an entry is one frame with its checksums, as in a journal's file.
 */
import { createHash } from 'node:crypto';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Clock } from '../ports/clock.ts';
import type { AppendResult, Journal, JournalEntry, JournalStore } from '../ports/journal.ts';
import type { Log } from '../ports/log.ts';
import type { Random } from '../ports/random.ts';
import { decodeEntry, encodeFrame } from './journal-file.ts';
import { type JetStream, JetStreamCode, type StoredMessage } from './nats-jetstream.ts';
import { NatsSnapshots } from './nats-snapshots.ts';
import { JOURNAL_SHARDS, journalStream } from './nats-streams.ts';

const ID = /^[a-z0-9][a-z0-9._-]{0,199}$/i;
const PUBLISH_TIMEOUT_MS = 3_000;
/** Longer than the election of a new leader, which pauses all appends. */
const OUTCOME_TIMEOUT_MS = 15_000;
const RETRY_MS = 100;
const WAITING_MAX = 10_000;
/** The servers' limit of a message, less the room for headers. */
const MESSAGE_BYTES_MAX = 1024 * 1024 - 4096;
/** Attempts to take a journal that others take at the same time. */
const TAKES_MAX = 8;
/** Openings of which nothing came are removed when there are more of them. */
const IDLE_TAKES_MAX = 8;

const EPOCH = 'Pal-Epoch';
const EVENT = 'Pal-Event';
const SEQUENCE = 'Pal-Sequence';
const TAKE = 'take';

export interface NatsJournalOptions {
  jetstream: JetStream;
  clock: Clock;
  random: Random;
  log: Log;
  /** How long an outcome is looked for. For tests. */
  outcomeTimeoutMs?: number;
  /** How long one acknowledgement is waited for. For tests. */
  publishTimeoutMs?: number;
}

export class NatsJournalStore implements JournalStore {
  readonly #options: NatsJournalOptions;
  readonly #snapshots: NatsSnapshots;

  constructor(options: NatsJournalOptions) {
    this.#options = options;
    this.#snapshots = new NatsSnapshots(options);
  }

  async open(kind: string, id: string): Promise<Journal> {
    const journal = new NatsJournal(placeOf(kind, id), this.#options, this.#snapshots);
    await journal.take();
    return journal;
  }

  async list(kind: string): Promise<string[]> {
    if (!ID.test(kind)) throw badName(kind);
    const token = tokenOf(kind);
    const shards = Array.from({ length: JOURNAL_SHARDS }, (_, shard) => shard);
    const found = await Promise.all(
      shards.map((shard) =>
        this.#options.jetstream.subjects(journalStream(shard), `pal.journal.${shard}.${token}.*`),
      ),
    );
    return found.flat().map((subject) => idOf(subject.slice(subject.lastIndexOf('.') + 1)));
  }

  async remove(kind: string, id: string): Promise<void> {
    const { stream, subject, name } = placeOf(kind, id);
    // The snapshot first: without its journal it would make a new one of the same name begin in the middle.
    await this.#snapshots.remove(name);
    await this.#options.jetstream.purge(stream, subject);
  }
}

interface Place {
  stream: string;
  subject: string;
  /** `<kind>.<id>` as tokens. */
  name: string;
}

function placeOf(kind: string, id: string): Place {
  if (!ID.test(kind)) throw badName(kind);
  if (!ID.test(id)) throw badName(id);
  const name = `${tokenOf(kind)}.${tokenOf(id)}`;
  const shard = createHash('sha256').update(name).digest().readUInt32LE(0) % JOURNAL_SHARDS;
  return { stream: journalStream(shard), subject: `pal.journal.${shard}.${name}`, name };
}

/** Dots separate tokens; `~` stands in no id. */
function tokenOf(id: string): string {
  return id.replaceAll('.', '~');
}

function idOf(token: string): string {
  return token.replaceAll('~', '.');
}

function badName(name: string): PalimpsestError {
  return new PalimpsestError('invalid-argument', `not the name of a journal: ${JSON.stringify(name)}`);
}

interface Loaded {
  snapshot?: { sequence: number; data: unknown };
  entries: JournalEntry[];
}

interface Waiting {
  expected: number;
  data: unknown;
  resolve(result: AppendResult): void;
  reject(error: unknown): void;
}

type Stored = { status: 'ok'; at: number } | { status: 'conflict' } | { status: 'unknown'; reason: string };

class NatsJournal implements Journal {
  readonly #place: Place;
  readonly #options: NatsJournalOptions;
  readonly #snapshots: NatsSnapshots;
  #loaded: Loaded | undefined;
  #epoch = 1;
  #sequence = 0;
  /** Where the subject's last message stands in its stream; 0 for none. */
  #lastAt = 0;
  /** Where the entries behind the newest two snapshots stand, for dropping what is before them. */
  #positions: { sequence: number; at: number }[] = [];
  #snapshotAt: number | undefined;
  #waiting: Waiting[] = [];
  #working: Promise<void> | undefined;
  #fenced = false;
  #broken: string | undefined;
  #closed = false;

  constructor(place: Place, options: NatsJournalOptions, snapshots: NatsSnapshots) {
    this.#place = place;
    this.#options = options;
    this.#snapshots = snapshots;
  }

  /** Reads the journal and becomes its owner. */
  async take(): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      const read = await this.#read();
      // A replica that lagged behind gave a read whose fence failed: that says nothing about this attempt.
      this.#fenced = false;
      this.#loaded = read.loaded;
      this.#sequence = read.loaded.entries.at(-1)?.sequence ?? read.loaded.snapshot?.sequence ?? 0;
      this.#lastAt = read.lastAt;
      this.#positions = read.positions;
      this.#snapshotAt = read.snapshotAt;
      this.#epoch = read.epoch + 1;
      if (read.lastAt === 0 && (await this.#isEmpty())) return;
      const taken =
        read.lastAt === 0 ? ({ status: 'conflict' } as const) : await this.#store(TAKE, new Uint8Array(0));
      if (taken.status === 'ok') {
        this.#dropIdleTakes(read.idleTakes);
        return;
      }
      if (taken.status === 'unknown')
        throw new PalimpsestError(
          'unavailable',
          `the journal ${this.#place.name} cannot be taken: ${taken.reason}`,
        );
      if (attempt === TAKES_MAX) {
        throw new PalimpsestError(
          'conflict',
          `others open the journal ${this.#place.name} at the same time`,
          'only one process may run an actor',
        );
      }
      await this.#options.clock.sleep(RETRY_MS);
    }
  }

  async load(): Promise<Loaded> {
    const loaded = this.#loaded ?? (await this.#read()).loaded;
    this.#loaded = undefined;
    return loaded;
  }

  append(expectedSequence: number, data: unknown): Promise<AppendResult> {
    if (this.#waiting.length >= WAITING_MAX) {
      return Promise.reject(
        new PalimpsestError('unavailable', `${WAITING_MAX} appends wait for the journal ${this.#place.name}`),
      );
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ expected: expectedSequence, data, resolve, reject });
      this.#working ??= this.#work();
    });
  }

  async snapshot(sequence: number, data: unknown): Promise<void> {
    if (this.#fenced || this.#closed || this.#broken) return;
    const entry = this.#positions.find((position) => position.sequence === sequence);
    // A snapshot of an entry that is not known here any more has been replaced by a newer one.
    if (!entry) return;
    await this.#snapshots.keep(this.#place.name, { sequence, at: entry.at, data });
    // The entries behind the snapshot before this one stay, should this one be damaged.
    if (this.#snapshotAt !== undefined) {
      await this.#options.jetstream.purge(this.#place.stream, this.#place.subject, this.#snapshotAt);
    }
    this.#snapshotAt = entry.at;
    this.#positions = this.#positions.filter((position) => position.sequence > sequence);
  }

  async close(): Promise<void> {
    await this.#working;
    this.#closed = true;
  }

  async #work(): Promise<void> {
    while (this.#waiting.length > 0) {
      const next = this.#waiting.shift()!;
      try {
        next.resolve(await this.#append(next));
      } catch (error) {
        next.reject(error);
      }
    }
    this.#working = undefined;
  }

  async #append({ expected, data }: Waiting): Promise<AppendResult> {
    if (this.#closed || this.#broken)
      return { status: 'unknown', reason: this.#broken ?? 'the journal is closed' };
    if (this.#fenced || expected !== this.#sequence) return { status: 'conflict', actual: this.#sequence };
    const time = this.#options.clock.now();
    const sequence = this.#sequence + 1;
    const body = encodeFrame({ sequence, time, data });
    if (body.length > MESSAGE_BYTES_MAX) {
      throw new PalimpsestError(
        'invalid-argument',
        `a decision of ${body.length} bytes; at most ${MESSAGE_BYTES_MAX} fit into a message`,
      );
    }
    const stored = await this.#store(String(sequence), body);
    if (stored.status === 'conflict') return { status: 'conflict', actual: this.#sequence };
    if (stored.status === 'unknown') return stored;
    this.#sequence = sequence;
    this.#positions.push({ sequence, at: stored.at });
    return { status: 'ok', sequence, time };
  }

  /** Stores one message behind the last one that is known, whatever it takes; see rules 2 and 3. */
  async #store(sequence: string, body: Uint8Array): Promise<Stored> {
    const { jetstream, clock, random, log } = this.#options;
    const { subject, name } = this.#place;
    const event = Buffer.from(random.bytes(16)).toString('hex');
    const headers = {
      'Nats-Expected-Last-Subject-Sequence': String(this.#lastAt),
      [EPOCH]: String(this.#epoch),
      [EVENT]: event,
      [SEQUENCE]: sequence,
    };
    const deadline = clock.monotonic() + (this.#options.outcomeTimeoutMs ?? OUTCOME_TIMEOUT_MS);
    let reason = '';
    for (let attempt = 0; attempt === 0 || clock.monotonic() < deadline; attempt++) {
      if (attempt > 0) await clock.sleep(RETRY_MS);
      const timeoutMs = this.#options.publishTimeoutMs ?? PUBLISH_TIMEOUT_MS;
      const result = await jetstream.publish(subject, body, { headers, timeoutMs });
      if (result.status === 'ok') {
        this.#lastAt = result.sequence;
        return { status: 'ok', at: result.sequence };
      }
      if (result.status === 'refused' && !isWrongSequence(result.errCode)) {
        if (isFull(result.errCode)) throw full(name, result.description);
        reason = result.description;
        continue;
      }
      reason = result.status === 'unknown' ? result.reason : result.description;
      const found = await this.#look(event);
      if (found.status === 'stored') {
        this.#lastAt = found.at;
        return { status: 'ok', at: found.at };
      }
      if (found.status === 'other') {
        this.#fenced = true;
        return { status: 'conflict' };
      }
      if (result.status === 'refused')
        log.warn({ journal: name, reason }, 'an append was refused for nothing; again');
    }
    this.#broken = `JetStream does not tell whether it was stored: ${reason}`;
    log.error({ journal: name, reason }, 'an append to a journal has no known outcome');
    return { status: 'unknown', reason: this.#broken };
  }

  /** What the leader has as the subject's last message: ours, another's, or still the one before. */
  async #look(
    event: string,
  ): Promise<{ status: 'stored'; at: number } | { status: 'other' | 'before' | 'unknown' }> {
    let last: StoredMessage | undefined;
    try {
      last = await this.#options.jetstream.lastOfNow(this.#place.stream, this.#place.subject);
    } catch {
      return { status: 'unknown' };
    }
    if (last?.headers[EVENT] === event) return { status: 'stored', at: last.sequence };
    if ((last?.sequence ?? 0) === this.#lastAt) return { status: 'before' };
    // A journal that is gone was removed by its owner. An older last message comes from a leader that has just been elected.
    if (last && last.sequence < this.#lastAt) return { status: 'unknown' };
    return { status: 'other' };
  }

  async #isEmpty(): Promise<boolean> {
    return (await this.#options.jetstream.lastOf(this.#place.stream, this.#place.subject)) === undefined;
  }

  async #read(): Promise<{
    loaded: Loaded;
    lastAt: number;
    epoch: number;
    snapshotAt: number | undefined;
    positions: { sequence: number; at: number }[];
    idleTakes: number[];
  }> {
    const { stream, subject, name } = this.#place;
    const kept = await this.#snapshots.read(name);
    const entries: JournalEntry[] = [];
    const positions: { sequence: number; at: number }[] = [];
    let idleTakes: number[] = [];
    let lastAt = 0;
    let epoch = 0;
    let sequence = kept?.sequence ?? 0;
    for await (const message of this.#options.jetstream.all(stream, subject, kept?.at ?? 1)) {
      epoch = Math.max(epoch, Number(message.headers[EPOCH] ?? 0));
      lastAt = message.sequence;
      if (message.headers[SEQUENCE] === TAKE) {
        idleTakes.push(message.sequence);
        continue;
      }
      idleTakes = [];
      const entry = decodeEntry(`${stream} at ${message.sequence}`, message.data);
      if (entry.sequence <= sequence) continue;
      if (entry.sequence !== sequence + 1) throw missing(name, sequence + 1, entry.sequence - 1);
      sequence = entry.sequence;
      entries.push(entry);
      positions.push({ sequence, at: message.sequence });
    }
    const loaded: Loaded = {
      ...(kept && { snapshot: { sequence: kept.sequence, data: kept.data } }),
      entries,
    };
    return { loaded, lastAt, epoch, snapshotAt: kept?.at, positions, idleTakes };
  }

  /** Restarts of an actor that decides nothing would otherwise leave a message each. */
  #dropIdleTakes(idle: number[]): void {
    if (idle.length <= IDLE_TAKES_MAX) return;
    const { jetstream, log } = this.#options;
    const drop = async () => {
      for (const at of idle) await jetstream.deleteMessage(this.#place.stream, at);
    };
    void drop().catch((error) =>
      log.warn({ error, journal: this.#place.name }, 'old openings of a journal could not be removed'),
    );
  }
}

function isWrongSequence(code: number): boolean {
  return code === JetStreamCode.wrongLastSequence || code === JetStreamCode.wrongLastSequenceConstant;
}

function isFull(code: number): boolean {
  return (
    code === JetStreamCode.storageExceeded ||
    code === JetStreamCode.maximumBytes ||
    code === JetStreamCode.insufficientResources
  );
}

function full(name: string, reason: string): PalimpsestError {
  return new PalimpsestError(
    'disk-full',
    `the NATS cluster has no room for the journal ${name}: ${reason}`,
    'free space on the NATS servers',
  );
}

function missing(name: string, from: number, to: number): PalimpsestError {
  return new PalimpsestError(
    'corrupt',
    `journal ${name} of the NATS cluster lacks entries ${from} to ${to}`,
    'restore its stream from a backup',
  );
}
