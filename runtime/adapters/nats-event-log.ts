/**
 * The durable log of lifecycle events on a NATS cluster: the stream keeps what is published on `pal.evt.>` by itself, so it
 * misses nothing while no process of Palimpsest looks. The cursor of a reader is the place in the stream.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { EventEnvelope } from '../../protocols/events.ts';
import { unpackMessage } from '../bus/command.ts';
import { checkPattern } from '../bus/subscriptions.ts';
import type { EventPage } from '../event-log/event-log.ts';
import type { JetStream } from './nats-jetstream.ts';
import { EVENT_STREAM } from './nats-streams.ts';

const LIMIT_DEFAULT = 500;
const ANSWER_BYTES_MAX = 640 * 1024;

export interface EventQuery {
  pattern?: string;
  after?: number;
  sinceMs?: number;
  limit?: number;
}

export class NatsEventLog {
  readonly #jetstream: JetStream;

  constructor(jetstream: JetStream) {
    this.#jetstream = jetstream;
  }

  /** Events behind the cursor `after`, or from a time on, whose subject matches. Throws `invalid-argument` for a bad pattern. */
  async query({
    pattern = 'pal.evt.>',
    after,
    sinceMs,
    limit = LIMIT_DEFAULT,
  }: EventQuery): Promise<EventPage> {
    const subject = subjectOf(pattern);
    const from =
      after === undefined && sinceMs ? { fromTimeMs: sinceMs } : { fromSequence: (after ?? 0) + 1 };
    const { messages, more } = await this.#jetstream.batch(EVENT_STREAM, { subject, ...from, limit });
    const events: EventEnvelope[] = [];
    let next = after ?? 0;
    let bytes = 0;
    for (const { sequence, data } of messages) {
      bytes += data.length;
      if (events.length > 0 && bytes > ANSWER_BYTES_MAX) return { events, next, more: true };
      next = sequence;
      try {
        events.push(unpackMessage<EventEnvelope>(data));
      } catch {
        // Whoever may publish here may publish nonsense; it is no event.
      }
    }
    // A reader from a time on that has found nothing goes on from that time.
    if (messages.length === 0 && after === undefined) next = await this.#before(sinceMs);
    return { events, next, more };
  }

  /** For the actor host: the newest entry of an actor's journal of which an event is here, and its place within the entry. */
  async publishedThrough(kind: string, id: string): Promise<number> {
    // An actor's id stands in its events' subject as tenant or timeline; a replica's begins with its timeline.
    const [timeline] = id.split('-');
    const patterns = new Set([
      `pal.evt.*.${id}.${kind}.>`,
      `pal.evt.${id}.*.${kind}.>`,
      `pal.evt.*.${timeline}.${kind}.>`,
    ]);
    const found = await this.#jetstream.lastOfEach(EVENT_STREAM, [...patterns]);
    return found
      .map(({ data }) => unpackMessage<EventEnvelope>(data))
      .filter(({ actor }) => actor.kind === kind && actor.id === id)
      .reduce((newest, { sequence }) => Math.max(newest, sequence), 0);
  }

  /** The place after which everything that comes now will be. */
  async #before(sinceMs: number | undefined): Promise<number> {
    if (!sinceMs) return 0;
    const info = await this.#jetstream.api<{ state: { last_seq: number } }>(`STREAM.INFO.${EVENT_STREAM}`);
    // What came between the question and this answer must not be skipped: ask from the time again.
    const { messages } = await this.#jetstream.batch(EVENT_STREAM, {
      subject: 'pal.evt.>',
      fromTimeMs: sinceMs,
      limit: 1,
    });
    return messages[0] ? messages[0].sequence - 1 : info.state.last_seq;
  }
}

function subjectOf(pattern: string): string {
  try {
    checkPattern(pattern);
  } catch {
    const hint = 'tokens are separated by dots; `*` stands for one, a last `>` for all that follow';
    throw new PalimpsestError('invalid-argument', `not a pattern of events: ${pattern}`, hint);
  }
  return pattern === '>' ? 'pal.evt.>' : pattern;
}
