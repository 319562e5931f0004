/**
 * What clients did to registers, and what they were told: there must be one order of all operations that explains it, in which
 * each takes its place between its call and its return. An operation whose outcome nobody told may have taken place at any time
 * after its call, or never.
 *
 * The order is searched for, register by register: Wing and Gong's search with Lowe's memory of what was tried ("Testing for
 * linearizability", 2017). Every written value is written once, so a write without an outcome that nobody has read may be left
 * out: leaving it out of an order that explains everything gives another one.
 */
import type { World } from '../world/world.ts';

export type OperationKind =
  | 'read'
  | 'write'
  /** Reads, and writes in the same moment. */
  | 'swap';

export interface Operation {
  readonly key: string;
  readonly kind: OperationKind;
  /** What is written; 0 for a read. */
  readonly value: number;
  readonly calledAt: number;
  /** Infinity as long as the outcome is not known. */
  returnedAt: number;
  /** What was read; undefined for a write, and as long as the outcome is not known. */
  seen: number | undefined;
}

/** What a register holds before anything is written. */
export const NOTHING_WRITTEN = 0;
/** A search that takes more steps is given up, and a mark says so. */
const STEPS_MAX = 500_000;
const SHOWN_MAX = 8;

export class OperationHistory {
  readonly #operations: Operation[] = [];
  #moments = 0;
  #values = NOTHING_WRITTEN;

  get length(): number {
    return this.#operations.length;
  }

  /** Operations with a known outcome. */
  get known(): number {
    return this.#operations.filter(({ returnedAt }) => Number.isFinite(returnedAt)).length;
  }

  /** A client begins an operation; it writes a value that no other one writes. */
  call(kind: OperationKind, key: string): Operation {
    const operation = {
      key,
      kind,
      value: kind === 'read' ? NOTHING_WRITTEN : ++this.#values,
      calledAt: this.#moments++,
      returnedAt: Number.POSITIVE_INFINITY,
      seen: undefined,
    };
    this.#operations.push(operation);
    return operation;
  }

  /** A client was told the outcome. */
  returned(operation: Operation, seen?: number): void {
    operation.returnedAt = this.#moments++;
    operation.seen = operation.kind === 'write' ? undefined : seen;
  }

  /** Fails the world where no order explains what was told. */
  check(world: World): void {
    const unknown = this.length - this.known;
    if (unknown > 0) world.mark('oracle: an outcome stayed unknown', unknown);
    const keys = new Set(this.#operations.map(({ key }) => key));
    for (const key of keys) {
      const found = explain(this.#operations.filter((each) => each.key === key));
      if (found === 'undecided') world.mark('oracle: linearizability was not decided');
      else if (found === 'explained') world.mark('oracle: a register was linearizable');
      else world.fail('client transactions are linearizable', `register ${key}: no order explains ${found}`);
    }
  }
}

/** `explained`, `undecided`, or the operations at which the best order ends. */
export function explain(operations: readonly Operation[]): string {
  const seen = new Set(operations.map((each) => each.seen));
  const isOpen = ({ returnedAt }: Operation) => returnedAt === Number.POSITIVE_INFINITY;
  const relevant = operations.filter(
    (each) => !isOpen(each) || (each.kind !== 'read' && seen.has(each.value)),
  );
  return new Search(relevant).run();
}

class Search {
  readonly #operations: readonly Operation[];
  readonly #done: Uint8Array;
  readonly #tried = new Set<string>();
  /** Operations before this one have all taken place. */
  #first = 0;
  #best = 0;
  #stuck = '';

  constructor(operations: readonly Operation[]) {
    this.#operations = [...operations].sort((a, b) => a.calledAt - b.calledAt);
    this.#done = new Uint8Array(operations.length);
  }

  run(): string {
    // A stack instead of a recursion: histories are long.
    const stack: { at: number; state: number; candidates: number[] }[] = [];
    let state = NOTHING_WRITTEN;
    let candidates = this.#candidates();
    this.#note(0, state, candidates);
    for (let steps = 0; steps < STEPS_MAX; steps++) {
      if (this.#isExplained()) return 'explained';
      const at = candidates.shift();
      if (at === undefined) {
        const before = stack.pop();
        if (!before) return this.#stuck;
        this.#done[before.at] = 0;
        this.#first = Math.min(this.#first, before.at);
        ({ state, candidates } = before);
        continue;
      }
      const operation = this.#operations[at]!;
      if (!isLegal(operation, state)) continue;
      const next = operation.kind === 'read' ? state : operation.value;
      this.#done[at] = 1;
      const first = this.#first;
      while (this.#done[this.#first] === 1) this.#first++;
      if (this.#isNew(next)) {
        stack.push({ at, state, candidates });
        state = next;
        candidates = this.#candidates();
        this.#note(stack.length, state, candidates);
      } else {
        this.#done[at] = 0;
        this.#first = first;
      }
    }
    return 'undecided';
  }

  /** All with an outcome have taken place. */
  #isExplained(): boolean {
    for (let at = this.#first; at < this.#operations.length; at++) {
      if (this.#done[at] === 0 && Number.isFinite(this.#operations[at]!.returnedAt)) return false;
    }
    return true;
  }

  /** Those that may take place next: called before the first return of all that have not. */
  #candidates(): number[] {
    const found: number[] = [];
    let firstReturn = Number.POSITIVE_INFINITY;
    for (let at = this.#first; at < this.#operations.length; at++) {
      const { calledAt, returnedAt } = this.#operations[at]!;
      if (calledAt > firstReturn) break;
      if (this.#done[at] === 1) continue;
      found.push(at);
      firstReturn = Math.min(firstReturn, returnedAt);
    }
    return found;
  }

  /** Remembers what has taken place with which outcome; false when that was tried before. */
  #isNew(state: number): boolean {
    let end = this.#operations.length;
    while (end > this.#first && this.#done[end - 1] === 0) end--;
    const name = `${this.#first}:${this.#done.subarray(this.#first, end).join('')}:${state}`;
    if (this.#tried.has(name)) return false;
    this.#tried.add(name);
    return true;
  }

  #note(depth: number, state: number, candidates: number[]): void {
    if (depth < this.#best) return;
    this.#best = depth;
    const left = candidates.slice(0, SHOWN_MAX).map((at) => describe(this.#operations[at]!));
    this.#stuck = `${left.join(', ')} after ${depth} operations, when it holds ${state}`;
  }
}

function isLegal({ kind, seen }: Operation, state: number): boolean {
  return kind === 'write' || seen === undefined || seen === state;
}

function describe({ kind, value, seen, returnedAt }: Operation): string {
  const told = Number.isFinite(returnedAt) ? '' : ' (outcome unknown)';
  if (kind === 'read') return `a read of ${seen}`;
  return kind === 'write' ? `a write of ${value}${told}` : `a swap of ${seen} for ${value}${told}`;
}
