/**
 * A cluster of NATS servers with JetStream, as its clients see it: streams with a leader each, whose messages are stored by a
 * majority before they are acknowledged.
 *
 * What a client must live with, and what happens here, too:
 * 1. An acknowledgement is lost: the message is stored or not, and nobody tells.
 * 2. A leader changes. Nothing is answered meanwhile; of what was about to be stored the new leader has the first part, or none.
 * 3. A leader that has just been elected does not show the newest messages for a while, and refuses expectations that are right.
 * 4. Reads of many messages come from any replica, which may lag behind.
 */
import { subjectMatches } from '../../protocols/subjects.ts';
import { JetStreamCode } from '../../runtime/adapters/nats-jetstream.ts';
import type { NatsHeaders, NatsMessage } from '../../runtime/adapters/nats-messages.ts';
import { streamDefinitions } from '../../runtime/adapters/nats-streams.ts';
import { EPOCH_MS } from './clock.ts';
import type { SimRandom } from './random.ts';
import { type SimMessage, SimStream } from './stream.ts';
import type { World } from './world.ts';

export interface JetStreamLimits {
  /** Mean time until a majority has stored a message. */
  commitMs: number;
  /** Share of messages that are stored, and whose acknowledgement is lost. */
  lostAckShare: number;
  /** Share of right expectations that are refused for nothing. */
  refusedShare: number;
  /** How far replicas lag behind, on average, when they do. */
  lagMs: number;
}

export const CALM_JETSTREAM: JetStreamLimits = { commitMs: 0.3, lostAckShare: 0, refusedShare: 0, lagMs: 0 };

/** One message to a client; `code` is 0 for one with content. */
export type JetStreamAnswer = Pick<NatsMessage, 'code' | 'description' | 'headers' | 'data'>;

/** Code of an error of the API while there is no leader. */
const TEMPORARILY_UNAVAILABLE = 10_008;
const REPLICAS = 3;
/** How long a new leader does not show everything, on average, and how much it does not show at most. */
const CATCH_UP_MS = 150;
const HIDDEN_MAX = 3;
/** How much of the time replicas lag behind. */
const LAG_SHARE = 0.5;
/** What servers that do not sync lose with a leader. */
const UNSYNCED_MS = 1000;

export class SimJetStream {
  limits: JetStreamLimits;
  readonly #world: World;
  readonly #random: SimRandom;
  readonly #streams: Map<string, SimStream>;
  /** Servers that do not sync what they acknowledge: the product refuses to run on them. Their crash takes the newest messages. */
  losesUnsynced = false;

  constructor(world: World, limits: JetStreamLimits = CALM_JETSTREAM) {
    this.#world = world;
    this.limits = limits;
    this.#random = world.random('jetstream');
    this.#streams = new Map(
      streamDefinitions(REPLICAS).map((definition) => [definition.name, new SimStream(definition)]),
    );
  }

  /** From now on nothing is lost, refused for nothing, or late. */
  heal(): void {
    this.limits = { ...this.limits, lostAckShare: 0, refusedShare: 0, lagMs: 0 };
  }

  /** The leaders of some streams are gone, and others are elected in `forMs`. */
  changeLeaders(forMs: number): void {
    const random = this.#random;
    const { nowUs } = this.#world;
    const changing = [...this.#streams.values()].filter(() => random.chance(0.6));
    for (const stream of changing) {
      const { kept, lost } = stream.changeLeader({
        nowUs,
        kept: (waiting) => random.int(waiting + 1),
        electedUs: nowUs + Math.round(forMs * 1000),
        shownUs: nowUs + Math.round((forMs + random.exponential(CATCH_UP_MS)) * 1000),
        hidden: random.int(HIDDEN_MAX + 1),
        syncedUs: this.losesUnsynced ? nowUs - UNSYNCED_MS * 1000 : nowUs,
      });
      if (kept > 0) this.#world.mark('jetstream: stored by a new leader, and not acknowledged', kept);
      if (lost > 0) this.#world.mark('jetstream: lost with a leader, and not acknowledged', lost);
    }
    if (changing.length > 0) this.#world.mark('jetstream: a leader changed');
  }

  /** Takes one request; answers come now or later, one, several or none. */
  take(
    subject: string,
    data: Uint8Array,
    headers: NatsHeaders,
    answer: (message: JetStreamAnswer) => void,
  ): void {
    const api =
      /^\$JS\.API\.(STREAM\.INFO|STREAM\.PURGE|STREAM\.MSG\.GET|STREAM\.MSG\.DELETE|DIRECT\.GET)\.(\w+)$/.exec(
        subject,
      );
    if (!api) {
      const stream = [...this.#streams.values()].find((each) => each.takes(subject));
      if (stream) this.#publish(stream, { subject, data, headers }, answer);
      else answer(status(503, 'No Responders'));
      return;
    }
    const [, name, streamName] = api;
    const stream = this.#streams.get(streamName!);
    const body = data.length === 0 ? {} : (JSON.parse(Buffer.from(data).toString('utf8')) as Request);
    if (!stream) answer(failure(404, JetStreamCode.streamNotFound, 'stream not found'));
    else if (name === 'DIRECT.GET') for (const message of this.#directGet(stream, body)) answer(message);
    else answer(this.#askLeader(stream, name!, body));
  }

  #askLeader(stream: SimStream, name: string, body: Request): JetStreamAnswer {
    if (stream.isElecting(this.#world.nowUs)) {
      return failure(503, TEMPORARILY_UNAVAILABLE, 'JetStream system temporarily unavailable');
    }
    const { filter = '>', seq = Number.POSITIVE_INFINITY } = body;
    switch (name) {
      case 'STREAM.INFO':
        return json(infoOf(stream, body));
      case 'STREAM.PURGE':
        stream.remove((message) => subjectMatches(filter, message.subject) && message.sequence < seq);
        return json({ success: true });
      case 'STREAM.MSG.DELETE':
        stream.remove(({ sequence }) => sequence === seq);
        return json({ success: true });
      default:
        return this.#leaderGet(stream, body.last_by_subj!);
    }
  }

  #publish(
    stream: SimStream,
    message: Pick<SimMessage, 'subject' | 'data' | 'headers'>,
    answer: (message: JetStreamAnswer) => void,
  ): void {
    const world = this.#world;
    const { nowUs } = world;
    const { commitMs, lostAckShare, refusedShare } = this.limits;
    // Without a leader nobody listens for the subject; the request is lost.
    if (stream.isElecting(nowUs)) {
      world.mark('jetstream: a message met no leader');
      return;
    }
    const expectation = message.headers['Nats-Expected-Last-Subject-Sequence'];
    if (expectation !== undefined) {
      const expected = Number(expectation);
      const last = stream.lastOf(message.subject)?.sequence ?? 0;
      const shown = stream.lastOf(message.subject, stream.shownThrough(nowUs))?.sequence ?? 0;
      const isRight = expected === last && !stream.isAwaited(message.subject);
      const isRefusedForNothing = isRight && (shown !== last || this.#random.chance(refusedShare));
      if (isRefusedForNothing) world.mark('jetstream: refused for nothing');
      if (!isRight || isRefusedForNothing) {
        answer(failure(400, JetStreamCode.wrongLastSequence, `wrong last sequence: ${shown}`));
        return;
      }
    }
    const acknowledge = (sequence: number) => {
      if (this.#random.chance(lostAckShare)) world.mark('jetstream: an acknowledgement was lost');
      else answer(json({ stream: stream.name, seq: sequence }));
    };
    const waiting = stream.wait(message, acknowledge);
    world.after(commitMs * this.#random.between(0.5, 1.5), undefined, 'jetstream stores', () => {
      // All that waited before is stored with it: a log has no gaps.
      for (const { message: stored, onStored } of stream.storeThrough(waiting, world.nowUs))
        onStored(stored.sequence);
    });
  }

  #leaderGet(stream: SimStream, subject: string): JetStreamAnswer {
    const { nowUs } = this.#world;
    const found = stream.lastOf(subject, stream.shownThrough(nowUs));
    if (found !== stream.lastOf(subject)) this.#world.mark('jetstream: a new leader showed an older message');
    if (!found) return failure(404, JetStreamCode.messageNotFound, 'no message found');
    const lines = Object.entries(found.headers).map(([name, value]) => `${name}: ${value}\r\n`);
    return json({
      message: {
        subject,
        seq: found.sequence,
        time: timeOf(found),
        hdrs: base64(Buffer.from(`NATS/1.0\r\n${lines.join('')}\r\n`)),
        data: base64(found.data),
      },
    });
  }

  #directGet(stream: SimStream, body: Request): JetStreamAnswer[] {
    const messages = this.#replicaView(stream);
    if (body.multi_last) {
      const newest = new Map<string, SimMessage>();
      for (const message of messages) {
        if (body.multi_last.some((pattern) => subjectMatches(pattern, message.subject))) {
          newest.set(message.subject, message);
        }
      }
      const found = [...newest.values()].map(direct);
      return [...found, found.length === 0 ? status(404, 'No Results') : status(204, 'EOB')];
    }
    const fromUs = body.start_time ? (Date.parse(body.start_time) - EPOCH_MS) * 1000 : 0;
    const matching = messages.filter(
      ({ subject, sequence, storedUs }) =>
        sequence >= (body.seq ?? 1) && storedUs >= fromUs && subjectMatches(body.next_by_subj!, subject),
    );
    if (matching.length === 0) return [status(404, 'Message Not Found')];
    const batch = matching.slice(0, body.batch ?? 1);
    const pending = String(matching.length - batch.length);
    return [...batch.map(direct), { ...status(204, 'EOB'), headers: { 'Nats-Num-Pending': pending } }];
  }

  /** What one of the replicas has of a stream. */
  #replicaView(stream: SimStream): readonly SimMessage[] {
    const random = this.#random;
    if (this.limits.lagMs === 0 || !random.chance(LAG_SHARE)) return stream.messages;
    const horizonUs = this.#world.nowUs - random.exponential(this.limits.lagMs) * 1000;
    const view = stream.messages.filter(({ storedUs }) => storedUs <= horizonUs);
    if (view.length < stream.messages.length) this.#world.mark('jetstream: a replica lagged behind');
    return view;
  }
}

/** What requests to the API hold. */
interface Request {
  filter?: string;
  seq?: number;
  last_by_subj?: string;
  next_by_subj?: string;
  multi_last?: string[];
  batch?: number;
  start_time?: string;
  subjects_filter?: string;
  offset?: number;
}

function infoOf(stream: SimStream, { subjects_filter: pattern, offset = 0 }: Request): object {
  const counts = new Map<string, number>();
  for (const { subject } of stream.messages) {
    if (pattern !== undefined && subjectMatches(pattern, subject))
      counts.set(subject, (counts.get(subject) ?? 0) + 1);
  }
  return {
    config: stream.definition,
    total: counts.size,
    state: {
      messages: stream.messages.length,
      bytes: stream.messages.reduce((sum, { data }) => sum + data.length, 0),
      first_seq: stream.messages[0]?.sequence ?? stream.lastSequence + 1,
      last_seq: stream.lastSequence,
      subjects: Object.fromEntries([...counts].slice(offset)),
    },
  };
}

function direct(message: SimMessage): JetStreamAnswer {
  const headers = {
    ...message.headers,
    'Nats-Subject': message.subject,
    'Nats-Sequence': String(message.sequence),
    'Nats-Time-Stamp': timeOf(message),
  };
  return { code: 0, description: '', headers, data: message.data };
}

function status(code: number, description: string): JetStreamAnswer {
  return { code, description, headers: {}, data: new Uint8Array(0) };
}

function json(value: object): JetStreamAnswer {
  return { code: 0, description: '', headers: {}, data: Buffer.from(JSON.stringify(value)) };
}

function failure(code: number, errCode: number, description: string): JetStreamAnswer {
  return json({ error: { code, err_code: errCode, description } });
}

function timeOf({ storedUs }: SimMessage): string {
  return new Date(EPOCH_MS + storedUs / 1000).toISOString();
}

function base64(data: Uint8Array): string {
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('base64');
}
