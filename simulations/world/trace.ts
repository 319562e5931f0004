/**
 * The trace of a run: a rolling hash over every event, its place in time and what it carried. Two runs of one seed must
 * have the same hash; when they do not, the first event that differs is named.
 *
 * Beside it stands the story: the few things that a person wants to read (faults, elections, crashes).
 */
import { hashText } from './random.ts';

/** Story lines kept; the oldest go first. */
const STORY_LINES_MAX = 5000;

export interface StoryLine {
  timeUs: number;
  actor: string;
  text: string;
}

/** What is kept of each event to compare two runs. */
export interface RecordedEvents {
  hashes: number[];
  labels: string[];
}

export class Trace {
  readonly story: StoryLine[] = [];
  readonly recorded: RecordedEvents | undefined;
  /** Every event in words, when somebody wants to read them all. */
  onEvent: ((event: { timeUs: number; label: string; owner: string; hash: string }) => void) | undefined;
  #high = 0x2545f491;
  #low = 0x9e3779b9;
  #events = 0;
  readonly #labelHashes = new Map<string, number>();

  constructor(options: { record: boolean }) {
    this.recorded = options.record ? { hashes: [], labels: [] } : undefined;
  }

  get events(): number {
    return this.#events;
  }

  get hash(): string {
    const hex = (value: number) => (value >>> 0).toString(16).padStart(8, '0');
    return hex(this.#high) + hex(this.#low);
  }

  /** An event happens. */
  event(timeUs: number, label: string, owner: string): void {
    this.#events++;
    this.mix(timeUs % 2 ** 32);
    this.mix(Math.floor(timeUs / 2 ** 32));
    this.mix(this.#labelHash(label));
    this.mix(this.#labelHash(owner));
    if (this.recorded) {
      this.recorded.hashes.push(this.#low);
      this.recorded.labels.push(`${label} of ${owner || 'the world'}`);
    }
    this.onEvent?.({ timeUs, label, owner, hash: this.hash });
  }

  /** Something that an event carries or decides becomes part of the hash. */
  mix(value: number): void {
    this.#low = Math.imul(this.#low ^ value, 0x01000193);
    this.#high = Math.imul(this.#high ^ (this.#low >>> 15), 0x85ebca6b) + this.#low;
    this.#low ^= this.#low >>> 13;
  }

  tell(timeUs: number, actor: string, text: string): void {
    this.story.push({ timeUs, actor, text });
    if (this.story.length > STORY_LINES_MAX) this.story.splice(0, STORY_LINES_MAX / 10);
  }

  #labelHash(label: string): number {
    let hash = this.#labelHashes.get(label);
    if (hash === undefined) this.#labelHashes.set(label, (hash = hashText(label)));
    return hash;
  }
}

/** Names the first event in which two runs differ; undefined when there is none. */
export function firstDifference(a: RecordedEvents, b: RecordedEvents): string | undefined {
  const count = Math.max(a.hashes.length, b.hashes.length);
  for (let at = 0; at < count; at++) {
    if (a.hashes[at] === b.hashes[at]) continue;
    const first = a.labels[at] ?? 'nothing';
    const second = b.labels[at] ?? 'nothing';
    return first === second
      ? `event ${at}: ${first}, with different content before or in it`
      : `event ${at}: ${first} in one run, ${second} in the other`;
  }
  return undefined;
}
