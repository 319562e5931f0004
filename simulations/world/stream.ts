/** One stream of a simulated JetStream: its log, what is about to be stored, and its leader. */
import { subjectMatches } from '../../protocols/subjects.ts';
import type { NatsHeaders } from '../../runtime/adapters/nats-messages.ts';
import type { StreamDefinition } from '../../runtime/adapters/nats-streams.ts';

export interface SimMessage {
  subject: string;
  sequence: number;
  storedUs: number;
  headers: NatsHeaders;
  data: Uint8Array;
}

/** A message that no majority has stored yet. */
export interface WaitingMessage {
  message: SimMessage;
  onStored: (sequence: number) => void;
}

export interface LeaderChange {
  nowUs: number;
  /** How many of so many waiting messages the new leader has. */
  kept(waiting: number): number;
  electedUs: number;
  /** From then on the new leader shows everything. */
  shownUs: number;
  /** So many of the newest messages it does not show until then. */
  hidden: number;
  /** What was stored after this is lost with the leader. */
  syncedUs: number;
}

export class SimStream {
  readonly definition: StreamDefinition;
  lastSequence = 0;
  #messages: SimMessage[] = [];
  #waiting: WaitingMessage[] = [];
  #electedUs = 0;
  #shownUs = 0;
  #shownThrough = 0;

  constructor(definition: StreamDefinition) {
    this.definition = definition;
  }

  get name(): string {
    return this.definition.name;
  }

  /** All that is stored, oldest first. */
  get messages(): readonly SimMessage[] {
    return this.#messages;
  }

  takes(subject: string): boolean {
    return this.definition.subjects.some((pattern) => subjectMatches(pattern, subject));
  }

  isElecting(nowUs: number): boolean {
    return nowUs < this.#electedUs;
  }

  /** Last sequence that the leader shows. */
  shownThrough(nowUs: number): number {
    return nowUs < this.#shownUs ? this.#shownThrough : this.lastSequence;
  }

  /** The newest message of a subject, of those up to a sequence. */
  lastOf(subject: string, through = this.lastSequence): SimMessage | undefined {
    return this.#messages.findLast((message) => message.sequence <= through && message.subject === subject);
  }

  /** Whether a message of the subject is about to be stored. */
  isAwaited(subject: string): boolean {
    return this.#waiting.some(({ message }) => message.subject === subject);
  }

  wait(
    message: Pick<SimMessage, 'subject' | 'data' | 'headers'>,
    onStored: WaitingMessage['onStored'],
  ): WaitingMessage {
    const waiting = { message: { ...message, sequence: 0, storedUs: 0 }, onStored };
    this.#waiting.push(waiting);
    return waiting;
  }

  /** A majority has stored a message and all before it; none when it was lost, or is stored already. */
  storeThrough(last: WaitingMessage, nowUs: number): WaitingMessage[] {
    const stored = this.#waiting.splice(0, this.#waiting.indexOf(last) + 1);
    for (const { message } of stored) this.#store(message, nowUs);
    return stored;
  }

  remove(isRemoved: (message: SimMessage) => boolean): void {
    this.#messages = this.#messages.filter((message) => !isRemoved(message));
  }

  changeLeader({ nowUs, kept, electedUs, shownUs, hidden, syncedUs }: LeaderChange): {
    kept: number;
    lost: number;
  } {
    this.remove(({ storedUs }) => storedUs > syncedUs);
    if (syncedUs < nowUs) this.lastSequence = this.#messages.at(-1)?.sequence ?? 0;
    const left = this.#waiting.splice(0);
    const stored = left.slice(0, kept(left.length));
    for (const { message } of stored) this.#store(message, nowUs);
    this.#electedUs = electedUs;
    this.#shownUs = shownUs;
    this.#shownThrough = this.lastSequence - hidden;
    return { kept: stored.length, lost: left.length - stored.length };
  }

  #store(message: SimMessage, nowUs: number): void {
    message.sequence = ++this.lastSequence;
    message.storedUs = nowUs;
    this.#messages.push(message);
    const most = this.definition.max_msgs_per_subject as number;
    if (most < 0) return;
    const same = this.#messages.filter(({ subject }) => subject === message.subject);
    if (same.length > most) this.#messages.splice(this.#messages.indexOf(same[0]!), 1);
  }
}
