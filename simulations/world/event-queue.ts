/**
 * The queue of everything that will happen: a binary heap in the total order (time, priority, sequence).
 *
 * Times are whole microseconds, so that no rounding can make two machines disagree about an order.
 */

/** Whoever an event happens to: a process that may be paused or dead by then. */
export interface EventOwner {
  readonly label: string;
  readonly isDead: boolean;
  readonly isPaused: boolean;
  /** Takes an event that came while paused, to be scheduled again later. */
  hold(event: SimEvent): void;
}

export interface SimEvent {
  timeUs: number;
  /** Among events of one time, the lower goes first. */
  priority: number;
  sequence: number;
  owner: EventOwner | undefined;
  /** What kind of event it is; part of the trace. */
  label: string;
  fire: () => void;
  isCancelled: boolean;
}

export class EventQueue {
  readonly #heap: SimEvent[] = [];
  #live = 0;

  get size(): number {
    return this.#heap.length;
  }

  /** Events that have not been cancelled. */
  get live(): number {
    return this.#live;
  }

  push(event: SimEvent): void {
    const heap = this.#heap;
    this.#live++;
    let at = heap.length;
    heap.push(event);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(event, heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = event;
  }

  cancel(event: SimEvent): void {
    if (event.isCancelled) return;
    event.isCancelled = true;
    this.#live--;
  }

  /** The next event that was not cancelled, without taking it. */
  peek(): SimEvent | undefined {
    while (this.#heap[0]?.isCancelled) this.#take();
    return this.#heap[0];
  }

  pop(): SimEvent | undefined {
    const event = this.peek();
    if (!event) return undefined;
    this.#take();
    this.#live--;
    // A late cancel of an event that has fired must not count again.
    event.isCancelled = true;
    return event;
  }

  #take(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = at * 2 + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++;
      if (!isBefore(heap[child]!, last)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
  }
}

function isBefore(a: SimEvent, b: SimEvent): boolean {
  if (a.timeUs !== b.timeUs) return a.timeUs < b.timeUs;
  if (a.priority !== b.priority) return a.priority < b.priority;
  return a.sequence < b.sequence;
}
