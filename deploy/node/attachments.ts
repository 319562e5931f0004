/**
 * Keeps timelines attached to the pageserver, which forgets them when it ends.
 *
 * Each life of the pageserver process is an epoch. In every epoch each timeline is attached once: at once when somebody
 * needs it, otherwise in the background, a few at a time, ancestors before their descendants.
 */
import type { AnyMachineSnapshot } from 'xstate';
import { timelineStatus } from '../../actors/timeline/decide.ts';
import type { AttachPlaces, TimelineCommand, TimelineStatus } from '../../actors/timeline/events.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { ActorHandle } from '../../runtime/host/definition.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import type { Log } from '../../runtime/ports/log.ts';
import { isElsewhere } from './shard-places.ts';
import { untilPlaced, type WaitLimits, waitForState } from './wait-for-state.ts';

const ATTACH_TIMEOUT_MS = 60_000;
const CONCURRENT_MAX = 8;

/** What is attached in one life of the pageserver. */
export type Epoch = ReadonlyMap<string, Promise<void>>;

export interface AttachmentOptions {
  clock: Clock;
  log: Log;
  find(timeline: string): ActorHandle<TimelineCommand> | undefined;
  /** The pageservers that are to serve a timeline from now on, where there are several. */
  placesFor?(timeline: string): AttachPlaces;
}

export class Attachments {
  readonly #options: AttachmentOptions;
  #current = new Map<string, Promise<void>>();
  #untilReady: () => Promise<void> = () => Promise.resolve();
  #ready: Promise<void> | undefined;

  constructor(options: AttachmentOptions) {
    this.#options = options;
  }

  /** The pageserver starts anew: nothing is attached. `untilReady` resolves when it takes commands. */
  beginEpoch(untilReady: () => Promise<void>): void {
    this.#current = new Map();
    this.#untilReady = untilReady;
    this.#ready = undefined;
  }

  /** Resolves when the pageserver takes commands; after a failure, asking again tries again. */
  pageserverReady(): Promise<void> {
    if (this.#ready) return this.#ready;
    const ready = this.#untilReady();
    this.#ready = ready;
    ready.catch(() => {
      if (this.#ready === ready) this.#ready = undefined;
    });
    return ready;
  }

  /** The present life of the pageserver, for `created`. */
  get epoch(): Epoch {
    return this.#current;
  }

  /** A timeline is just being placed, which attaches it, too; that began in `epoch`. */
  created(timeline: string, epoch: Epoch): void {
    if (epoch === this.#current) void this.#keep(timeline, this.#created(timeline)).catch(() => {});
  }

  forget(timeline: string): void {
    this.#current.delete(timeline);
  }

  /** Resolves when the timeline is attached in this epoch. */
  attached(timeline: string): Promise<void> {
    return this.#current.get(timeline) ?? this.#keep(timeline, this.#attach(timeline));
  }

  #keep(timeline: string, attempt: Promise<void>): Promise<void> {
    const epoch = this.#current;
    epoch.set(timeline, attempt);
    attempt.catch(() => {
      if (epoch.get(timeline) === attempt) epoch.delete(timeline);
    });
    return attempt;
  }

  /** Attaches all of them in the background, in the order given. */
  async attachAll(timelines: string[]): Promise<void> {
    const epoch = this.#current;
    const queue = timelines[Symbol.iterator]();
    const work = async () => {
      for (const timeline of queue) {
        if (this.#current !== epoch) return;
        await this.attached(timeline).catch((error) =>
          this.#options.log.warn({ timeline, error }, 'a timeline could not be attached yet'),
        );
      }
    };
    await Promise.all(Array.from({ length: CONCURRENT_MAX }, work));
  }

  async #created(timeline: string): Promise<void> {
    const actor = this.#actorOf(timeline);
    await this.#placed(timeline, actor);
    const hasMoved = isElsewhere(timelineStatus(actor.snapshot()), this.#placesFor(timeline));
    if (hasMoved || !isAttached(actor.snapshot())) await this.#attach(timeline);
  }

  /** Where it was to be placed, there may be nobody any more: its project may have moved since that was decided. */
  async #placed(timeline: string, actor: ActorHandle<TimelineCommand>): Promise<void> {
    if (timelineStatus(actor.snapshot()).state !== 'placing') return;
    // Asked for the places that it has already, or is about to have, it changes nothing.
    await actor.dispatch({ type: 'attach', ...this.#placesFor(timeline) });
    await untilPlaced(actor, this.#limits('creating a timeline'));
  }

  #placesFor(timeline: string): AttachPlaces {
    return this.#options.placesFor?.(timeline) ?? {};
  }

  async #attach(timeline: string): Promise<void> {
    const actor = this.#actorOf(timeline);
    await this.#placed(timeline, actor);
    // The pageserver refuses it before its ancestor, and then it is a while until the next try.
    const { ancestor } = timelineStatus(actor.snapshot());
    if (ancestor && this.#options.find(ancestor.timeline)) {
      await this.attached(ancestor.timeline).catch(() => {});
    }
    // Now, because its project may have moved while this waited.
    await actor.dispatch({ type: 'attach', ...this.#placesFor(timeline) });
    await waitForState(actor, isAttached, this.#limits('attaching a timeline'));
  }

  #actorOf(timeline: string): ActorHandle<TimelineCommand> {
    const actor = this.#options.find(timeline);
    if (!actor) throw new PalimpsestError('not-found', `timeline ${timeline} does not exist`);
    return actor;
  }

  #limits(what: string): WaitLimits {
    return { clock: this.#options.clock, timeoutMs: ATTACH_TIMEOUT_MS, what };
  }
}

function isAttached(snapshot: AnyMachineSnapshot): true | undefined {
  const { state, attached, attachError } = timelineStatus(snapshot);
  if (attachError) throw PalimpsestError.fromWire(attachError);
  if (state !== 'active') {
    throw new PalimpsestError('conflict', `the timeline is ${state}`);
  }
  return attached || undefined;
}

/**
 * The timelines to attach: those that are `needed` first, then ancestors before their descendants. One that is just being placed may have
 * been attached in the pageserver's last life only, so it is among them; at the end, because it may take long until it is placed.
 */
export function attachOrder(all: TimelineStatus[], needed: (timeline: string) => boolean): string[] {
  const wanted = all.filter(({ state }) => state === 'active' || state === 'placing');
  const byId = new Map(wanted.map((status) => [status.timeline, status]));
  const depth = (status: TimelineStatus): number => {
    let steps = 0;
    for (let at = byId.get(status.ancestor?.timeline ?? ''); at; at = byId.get(at.ancestor?.timeline ?? ''))
      steps++;
    return steps;
  };
  const rank = (status: TimelineStatus): number => {
    if (status.state === 'placing') return Number.MAX_VALUE;
    return needed(status.timeline) ? -1 : depth(status);
  };
  return wanted
    .map((status) => ({ timeline: status.timeline, rank: rank(status) }))
    .sort((a, b) => a.rank - b.rank)
    .map(({ timeline }) => timeline);
}
