/**
 * The table of a broker's subscriptions: who wants a subject. Literal patterns, which almost all are, cost one look-up;
 * patterns with wildcards are few and tried one by one.
 */
import { subjectMatches } from '../../protocols/subjects.ts';

const TOKENS = /^[^\s.*>]+(\.[^\s.*>]+)*$/;
const PATTERN = /^([^\s.*>]+|\*)(\.([^\s.*>]+|\*))*(\.>)?$|^>$/;
const SUBJECT_CHARACTERS_MAX = 512;

/** Throws a RangeError unless `subject` is made of tokens without wildcards. */
export function checkSubject(subject: string): void {
  if (subject.length > SUBJECT_CHARACTERS_MAX || !TOKENS.test(subject))
    throw new RangeError(`not a subject: ${subject}`);
}

/** Throws a RangeError unless `pattern` is a subject that may hold `*` and a last `>`. */
export function checkPattern(pattern: string): void {
  if (pattern.length > SUBJECT_CHARACTERS_MAX || !PATTERN.test(pattern))
    throw new RangeError(`not a pattern: ${pattern}`);
}

export class SubscriptionTable<T> {
  readonly #literal = new Map<string, Set<T>>();
  readonly #wildcard = new Map<T, string>();

  add(pattern: string, subscriber: T): void {
    if (/[*>]/.test(pattern)) {
      this.#wildcard.set(subscriber, pattern);
      return;
    }
    const set = this.#literal.get(pattern);
    if (set) set.add(subscriber);
    else this.#literal.set(pattern, new Set([subscriber]));
  }

  remove(pattern: string, subscriber: T): void {
    this.#wildcard.delete(subscriber);
    const set = this.#literal.get(pattern);
    if (!set?.delete(subscriber)) return;
    if (set.size === 0) this.#literal.delete(pattern);
  }

  /** All subscribers of `subject`, as they are now. */
  match(subject: string): T[] {
    const found = [...(this.#literal.get(subject) ?? [])];
    for (const [subscriber, pattern] of this.#wildcard) {
      if (subjectMatches(pattern, subject)) found.push(subscriber);
    }
    return found;
  }
}
