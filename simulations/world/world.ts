/**
 * The simulated world: one queue of events, one virtual time, one seed.
 *
 * Production code runs unchanged in it. It waits by promises, and everything that it waits for comes through ports, whose
 * simulated forms put events into this queue. One event is one turn: its callback runs, then every promise that it settled
 * runs to rest, and only then the next event is taken. So a run is a function of its seed.
 *
 * Invariants
 * 1. Events happen in the order (time, priority, sequence); virtual time never goes back.
 * 2. Nothing that a dead process left in the queue ever happens; what comes to a paused one happens when it goes on.
 * 3. After the first broken invariant nothing more happens: it is what the run reports.
 */
import { type EventOwner, EventQueue, type SimEvent } from './event-queue.ts';
import { type Entropy, SimRandom } from './random.ts';
import { RareSites } from './rare-sites.ts';
import type { RunRecorder } from './recorder.ts';
import { Trace } from './trace.ts';

/** Runs `step` once per turn of the event loop, with all promises at rest in between, until it returns false. */
export type TakeTurns = (step: () => boolean, onUncaught: (error: unknown) => void) => Promise<void>;

/** A turn is not taken because the run has lasted too long on the wall's clock, which whoever takes the turns may watch. */
export class TooLong extends Error {}

export interface Violation {
  /** Name of the invariant that does not hold. */
  invariant: string;
  detail: string;
  timeUs: number;
  event: number;
}

export interface WorldOptions {
  seed: number;
  takeTurns: TakeTurns;
  /** Keep what is needed to compare this run with another. */
  record?: boolean;
  /** More events than this are taken for a livelock; five million by default. */
  eventsMax?: number;
  /** Of no interest is what happens after this virtual time: the run ends then, as if it had done too much. */
  endMs?: number;
  /** Takes note of what a picture of the run needs. */
  recorder?: RunRecorder;
  /** From this event on the run takes another future than the seed's own. */
  fork?: Fork;
}

export interface Fork {
  event: number;
  /** 1 and above; each is a run of its own. */
  future: number;
}

/** The one invariant that does not follow from the seed. */
export const BOUNDED_TIME = 'bounded time';

const EVENTS_MAX = 5_000_000;
/** No simulated second takes more work than this: the busiest, six clients with long records and five safekeepers, take three quarters of it. */
const EVENTS_PER_SECOND_MAX = 200_000;
/** Whether a run is done is looked at once in this time: it may take longer than an event. */
const LOOK_US = 2_000;

export class World {
  readonly seed: number;
  readonly trace: Trace;
  readonly recorder: RunRecorder | undefined;
  /** How often each named thing happened: coverage marks and faults. */
  readonly marks = new Map<string, number>();
  /** What hardly ever happens, and may. */
  readonly rare = new RareSites((name) => this.mark(name));
  readonly #queue = new EventQueue();
  readonly #takeTurns: TakeTurns;
  readonly #eventsMax: number;
  readonly #endUs: number;
  readonly #checks: (() => void)[] = [];
  readonly #entropy: Entropy;
  readonly #fork: Fork | undefined;
  readonly #forkHandlers: (() => void)[] = [];
  /** The simulated second, and what has happened in it. */
  #second = 0;
  #secondEvents = 0;
  #nowUs = 0;
  #sequence = 0;
  #violation: Violation | undefined;

  constructor(options: WorldOptions) {
    this.seed = options.seed;
    this.trace = new Trace({ record: options.record ?? false });
    this.recorder = options.recorder;
    this.#entropy = { seed: options.seed, future: 0 };
    this.#fork = options.fork;
    this.#takeTurns = options.takeTurns;
    this.#eventsMax = options.eventsMax ?? EVENTS_MAX;
    this.#endUs = (options.endMs ?? Number.POSITIVE_INFINITY) * 1000;
  }

  /** Virtual microseconds since the beginning. */
  get nowUs(): number {
    return this.#nowUs;
  }

  /** Virtual milliseconds since the beginning. */
  get nowMs(): number {
    return this.#nowUs / 1000;
  }

  get violation(): Violation | undefined {
    return this.#violation;
  }

  /** The stream of random numbers called `name`. */
  random(name: string): SimRandom {
    return new SimRandom(this.#entropy, name);
  }

  /** Schedules `fire` in `delayMs`; dropped if `owner` is dead by then, held while it is paused. */
  after(
    delayMs: number,
    owner: EventOwner | undefined,
    label: string,
    fire: () => void,
    priority = 0,
  ): SimEvent {
    const timeUs = this.#nowUs + Math.max(0, Math.round(delayMs * 1000));
    const event: SimEvent = {
      timeUs,
      priority,
      sequence: this.#sequence++,
      owner,
      label,
      fire,
      isCancelled: false,
    };
    this.#queue.push(event);
    return event;
  }

  /** Schedules an event again that was held. */
  again(event: SimEvent): void {
    this.after(0, event.owner, event.label, event.fire, event.priority);
  }

  cancel(event: SimEvent): void {
    this.#queue.cancel(event);
  }

  /** Calls back when the run is forked: what was drawn for the time after it may be drawn anew. */
  onFork(handle: () => void): void {
    this.#forkHandlers.push(handle);
  }

  /** Checked after every event; must be cheap, and calls `fail`. */
  addCheck(check: () => void): void {
    this.#checks.push(check);
  }

  /** Counts that something named happened. */
  mark(name: string, count = 1): void {
    this.marks.set(name, (this.marks.get(name) ?? 0) + count);
  }

  /** Adds a line to the story. */
  tell(actor: string, text: string): void {
    this.trace.tell(this.#nowUs, actor, text);
  }

  /** An invariant does not hold: the run ends after this event. The first one counts. */
  fail(invariant: string, detail: string): void {
    if (this.#violation) return;
    this.#violation = { invariant, detail, timeUs: this.#nowUs, event: this.trace.events };
    this.tell('oracle', `${invariant}: ${detail}`);
  }

  /** Runs until `isDone`, or virtual time `untilMs`, or a violation, or nothing is left to happen. */
  async run(options: { untilMs: number; isDone?: () => boolean }): Promise<void> {
    const untilUs = Math.round(options.untilMs * 1000);
    // The first turn lets everything rest that was begun outside of an event.
    let isFirst = true;
    let lookUs = this.#nowUs;
    const isDone = () => {
      if (!options.isDone || this.#nowUs < lookUs) return false;
      lookUs = this.#nowUs + LOOK_US;
      return options.isDone();
    };
    await this.#takeTurns(
      () => {
        if (isFirst) {
          isFirst = false;
          return !this.#violation;
        }
        this.#check();
        if (this.#violation || isDone()) return false;
        const next = this.#queue.peek();
        if (!next || next.timeUs > untilUs) {
          this.#nowUs = Math.max(this.#nowUs, untilUs);
          return false;
        }
        this.#turn();
        return true;
      },
      (error) => {
        if (error instanceof TooLong) this.fail(BOUNDED_TIME, error.message);
        else this.fail('no uncaught error', describe(error));
      },
    );
  }

  #turn(): void {
    const event = this.#queue.pop()!;
    this.#nowUs = event.timeUs;
    const { owner } = event;
    if (owner?.isDead) return;
    if (owner?.isPaused) {
      owner.hold(event);
      return;
    }
    this.trace.event(event.timeUs, event.label, owner?.label ?? '');
    if (this.trace.events === this.#fork?.event) this.#takeFuture(this.#fork.future);
    if (this.#isTooMuch()) {
      this.fail('bounded work', `the last event was ${event.label} of ${owner?.label ?? 'the world'}`);
      return;
    }
    try {
      event.fire();
    } catch (error) {
      this.fail('no uncaught error', `${event.label} of ${owner?.label ?? 'the world'}: ${describe(error)}`);
    }
  }

  /** Whether so much happens that it must be a livelock: in all, or in one simulated second. */
  #isTooMuch(): boolean {
    const second = Math.floor(this.#nowUs / 1_000_000);
    if (second !== this.#second) {
      this.#second = second;
      this.#secondEvents = 0;
    }
    return (
      ++this.#secondEvents > EVENTS_PER_SECOND_MAX ||
      this.trace.events > this.#eventsMax ||
      this.#nowUs > this.#endUs
    );
  }

  #takeFuture(future: number): void {
    this.#entropy.future = future;
    this.mark('forked');
    this.tell('fork', `future ${future} begins`);
    for (const handle of this.#forkHandlers) handle();
  }

  #check(): void {
    for (const check of this.#checks) check();
  }
}

function describe(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
