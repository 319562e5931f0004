/**
 * What a picture of a run is drawn from: every message with its way, what each machine and actor was at every moment, what was
 * journaled, and the faults. A run without a recorder takes note of nothing.
 *
 * Bounded: of the messages and journal entries the newest are kept, because a failing run ends with what matters.
 */
const MESSAGES_MAX = 60_000;
const ENTRIES_MAX = 20_000;
const ENTRY_TEXT_MAX = 400;

export interface RecordedMessage {
  from: string;
  to: string;
  /** A frame's type as `frame N`, or what kind of bus message it is and its subject. */
  what: string;
  bytes: number;
  sentUs: number;
  /** When it arrived, or was given up. */
  endUs: number;
  isLost: boolean;
}

/** What something was from a moment on, until its next state. */
export interface RecordedState {
  timeUs: number;
  machine: string;
  /** An actor on the machine; undefined for the machine itself (up, down, paused). */
  actor: string | undefined;
  state: string;
}

export interface RecordedEntry {
  timeUs: number;
  machine: string;
  journal: string;
  sequence: number;
  text: string;
}

export interface RecordedFault {
  fromUs: number;
  /** Undefined while it lasts; an instant when equal to `fromUs`. */
  toUs: number | undefined;
  index: number;
  text: string;
  machines: string[];
}

export class RunRecorder {
  readonly messages: RecordedMessage[] = [];
  readonly states: RecordedState[] = [];
  readonly entries: RecordedEntry[] = [];
  readonly faults: RecordedFault[] = [];
  /** Messages and entries that were given up for newer ones. */
  dropped = 0;

  message(message: RecordedMessage): void {
    this.#keep(this.messages, message, MESSAGES_MAX);
  }

  state(timeUs: number, machine: string, actor: string | undefined, state: string): void {
    this.states.push({ timeUs, machine, actor, state });
  }

  /** An entry became durable; `data` is shown as text, long values cut off. */
  entry(timeUs: number, machine: string, journal: string, sequence: number, data: unknown): void {
    const text = describeEntry(data);
    this.#keep(this.entries, { timeUs, machine, journal, sequence, text }, ENTRIES_MAX);
  }

  faultBegins(fault: RecordedFault): void {
    this.faults.push(fault);
  }

  faultEnds(index: number, timeUs: number): void {
    const fault = this.faults.findLast((each) => each.index === index);
    if (fault && fault.toUs === undefined) fault.toUs = timeUs;
  }

  /** All faults that still last are over. */
  healed(timeUs: number): void {
    for (const fault of this.faults) fault.toUs ??= timeUs;
  }

  #keep<T>(list: T[], item: T, limit: number): void {
    list.push(item);
    if (list.length <= limit) return;
    const surplus = Math.floor(limit / 10);
    list.splice(0, surplus);
    this.dropped += surplus;
  }
}

/** A journal entry's data in words; bytes by their number, big integers in decimal. */
export function describeEntry(data: unknown): string {
  const { events } = (data ?? {}) as { events?: unknown };
  // One decision is a list of events, and mostly of one.
  const shown = Array.isArray(events) && events.length === 1 ? events[0] : (events ?? data);
  const text = JSON.stringify(shown, (_key, value: unknown) => {
    if (typeof value === 'bigint') return String(value);
    if (value instanceof Uint8Array) return `${value.length} bytes`;
    return value;
  });
  return text.length > ENTRY_TEXT_MAX ? `${text.slice(0, ENTRY_TEXT_MAX - 3)}...` : text;
}
