/** Virtual time and seeded randomness: everything of a run happens in one order that its seed decides. */
import type { Clock, Timer } from '../../../runtime/ports/clock.ts';

interface Entry {
  time: number;
  order: number;
  fire: (() => void) | undefined;
}

/** A small, fast generator (mulberry32): good enough to scatter faults. */
export class Seeded {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0;
  }

  float(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  int(bound: number): number {
    return Math.floor(this.float() * bound);
  }

  between(low: number, high: number): number {
    return low + this.float() * (high - low);
  }

  chance(probability: number): boolean {
    return this.float() < probability;
  }

  pick<T>(items: readonly T[]): T {
    return items[this.int(items.length)]!;
  }
}

export class Scheduler {
  now = 0;
  #order = 0;
  #heap: Entry[] = [];

  at(delayMs: number, fire: () => void): Entry {
    return this.atTime(this.now + Math.max(0, delayMs), fire);
  }

  /** Things due at the same time happen in the order in which they were asked for. */
  atTime(time: number, fire: () => void): Entry {
    const entry = { time: Math.max(this.now, time), order: this.#order++, fire };
    this.#push(entry);
    return entry;
  }

  /** Lets everything due within `durationMs` of virtual time happen. */
  async run(durationMs: number): Promise<void> {
    const until = this.now + durationMs;
    await settle();
    while (this.#heap.length > 0 && this.#heap[0]!.time <= until) {
      const entry = this.#pop();
      if (!entry.fire) continue;
      this.now = entry.time;
      entry.fire();
      await settle();
    }
    this.now = until;
  }

  /** Lets virtual time pass until `promise` is settled; at most `limitMs`. */
  async until<T>(promise: Promise<T>, limitMs: number): Promise<T> {
    let settled = false;
    promise.then(
      () => (settled = true),
      () => (settled = true),
    );
    const limit = this.now + limitMs;
    while (!settled) {
      if (this.now >= limit) throw new Error(`nothing came of it within ${limitMs} virtual ms`);
      await this.run(1);
    }
    return promise;
  }

  #push(entry: Entry): void {
    const heap = this.#heap;
    let i = heap.push(entry) - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (before(heap[parent]!, entry)) break;
      heap[i] = heap[parent]!;
      i = parent;
    }
    heap[i] = entry;
  }

  #pop(): Entry {
    const heap = this.#heap;
    const top = heap[0]!;
    const last = heap.pop()!;
    if (heap.length === 0) return top;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++;
      if (before(last, heap[child]!)) break;
      heap[i] = heap[child]!;
      i = child;
    }
    heap[i] = last;
    return top;
  }
}

function before(a: Entry, b: Entry): boolean {
  return a.time < b.time || (a.time === b.time && a.order < b.order);
}

/** Lets all promise reactions run. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** The clock of one incarnation of a process: when the process dies, its timers never fire. */
export class WorldClock implements Clock {
  readonly #scheduler: Scheduler;
  #dead = false;

  constructor(scheduler: Scheduler) {
    this.#scheduler = scheduler;
  }

  die(): void {
    this.#dead = true;
  }

  get isDead(): boolean {
    return this.#dead;
  }

  now(): number {
    return this.#scheduler.now;
  }

  monotonic(): number {
    return this.#scheduler.now;
  }

  setTimer(delayMs: number, fire: () => void): Timer {
    const entry = this.#scheduler.at(delayMs, () => {
      if (!this.#dead) fire();
    });
    return { cancel: () => void (entry.fire = undefined) };
  }

  sleep(delayMs: number): Promise<void> {
    return new Promise((resolve) => void this.setTimer(delayMs, resolve));
  }
}
