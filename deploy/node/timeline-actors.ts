/**
 * The timelines of one installation: their actors, and what their projects have done with them.
 *
 * 1. A timeline is created when its beginning is durable (it is `placing`): what is made of it then on safekeepers and the pageserver is
 *    made again after any crash. Whoever wants to use it waits for that (`Attachments.attached`).
 * 2. Nothing else is begun with a timeline that is still being placed.
 */
import type { TimelineOutcome } from '../../actors/tenant/effects.ts';
import { timelineStatus } from '../../actors/timeline/decide.ts';
import { findStart, type TimelineServices } from '../../actors/timeline/effects.ts';
import type { TimelineCommand, TimelineSpec, TimelineStart } from '../../actors/timeline/events.ts';
import type { ShardPlaces } from '../../actors/timeline/shards.ts';
import { TIMELINE_KIND, timelineDefinition } from '../../actors/timeline/timeline.ts';
import type { WireError } from '../../protocols/errors.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import type { ActorHandle } from '../../runtime/host/definition.ts';
import type { Attachments } from './attachments.ts';
import { matchBranchPoints } from './branch-points.ts';
import type { ControlActorsOptions } from './control-options.ts';
import { inParallel, JOURNALS_AT_A_TIME } from './in-parallel.ts';
import {
  timelineArchived,
  timelineCreated,
  timelineDeleted,
  timelineDetached,
  timelineNotSplitting,
  timelineSplit,
  timelineSwitched,
} from './outcomes.ts';
import { untilPlaced, waitForState } from './wait-for-state.ts';

/** The slowest honest step: a timeline whose storage processes are just being started again. */
export const TIMELINE_TIMEOUT_MS = 60_000;
export const ARCHIVE_TIMEOUT_MS = 180_000;
/** All pages of the ancestor are copied. */
export const DETACH_TIMEOUT_MS = 3_600_000;
/** All layers are written again. */
const SPLIT_TIMEOUT_MS = 24 * 3_600_000;
/** For so long an answer that somebody waits for goes before what nobody waits for yet. */
const ANSWER_MS_MAX = 50;

export interface TimelineActorsOptions extends ControlActorsOptions {
  attachments: Attachments;
  /** A timeline of this project has its beginning. */
  onCreated(tenant: string): void;
  /** Resolves when object storage knows what was decided about the project. */
  record(tenant: string): Promise<void>;
}

export class TimelineActors {
  /** Those that run, by timeline. */
  readonly all = new Map<string, ActorHandle<TimelineCommand>>();
  readonly #options: TimelineActorsOptions;
  readonly #services: TimelineServices;
  readonly #spawning = new Map<string, Promise<ActorHandle<TimelineCommand>>>();
  /** Those whose creation somebody is just waiting for. */
  readonly #answering = new Map<string, PromiseWithResolvers<void>>();
  /** Resolves when every timeline is there again: until then an effect that goes on after a crash would miss some. */
  readonly #loaded = Promise.withResolvers<void>();

  constructor(options: TimelineActorsOptions) {
    this.#options = options;
    const { bus, clock, attachments } = options;
    this.#services = {
      send: (kind, target, command, limits) =>
        sendCommand(bus, kind, target, command, { ...limits, watch: options }),
      attached: async (timeline) => {
        await this.#loaded.promise;
        await attachments.attached(timeline);
      },
      pageserverReady: () => attachments.pageserverReady(),
      recorded: async (timeline) => {
        await this.#loaded.promise;
        const actor = await this.#actor(timeline);
        await options.record(timelineStatus(actor.snapshot()).tenant);
      },
      answered: async (timeline) => {
        const answer = this.#answering.get(timeline);
        if (answer) await Promise.race([answer.promise, clock.sleep(ANSWER_MS_MAX)]);
      },
    };
  }

  get(id: string): ActorHandle<TimelineCommand> | undefined {
    return this.all.get(id);
  }

  /** Brings back every timeline from its journal. Those that go on with something wait for `isComplete`. */
  async load(): Promise<void> {
    const { journals, log } = this.#options;
    const load = async (id: string) => {
      const { state } = timelineStatus((await this.#actor(id)).snapshot());
      if (state === 'rejected' || state === 'deleted') await this.#remove(id);
    };
    await inParallel(await journals.list(TIMELINE_KIND), load, JOURNALS_AT_A_TIME);
    await matchBranchPoints(this.all, log);
  }

  /** Brings timelines of a project to life whose journals were written by somebody else. */
  async adopt(ids: readonly string[]): Promise<void> {
    await inParallel(ids, (id) => this.#actor(id), JOURNALS_AT_A_TIME);
  }

  /** All that can be asked for is there. */
  isComplete(): void {
    this.#loaded.resolve();
  }

  /** Creates a timeline, or finds it; resolves when its beginning is durable, or it is rejected. */
  async create(id: string, spec: TimelineSpec): Promise<TimelineOutcome> {
    const { attachments, clock, onCreated } = this.#options;
    const actor = await this.#actor(id);
    const { epoch } = attachments;
    // After a crash in the middle it may have been attached in an earlier life of the pageserver.
    const isNew = timelineStatus(actor.snapshot()).state === 'absent';
    let held: TimelineStart['ancestor'];
    if (isNew) {
      const found = await findStart(this.#services, clock, { child: id, origin: spec.origin });
      if ('error' in found) return this.#rejected(id, found.error);
      held = found.start.ancestor;
      await actor.dispatch({ type: 'create', spec: this.#placedSpec(spec), start: found.start });
    }
    const outcome = await waitForState(actor, timelineCreated, this.#limits(`creating timeline ${id}`));
    if (outcome.status === 'rejected') return this.#rejected(id, outcome.error);
    if (isNew) attachments.created(id, epoch);
    // Another attempt may have decided, while this one, or one of an earlier life of this process, held a point of its own.
    if (outcome.ancestor && !isSamePoint(outcome.ancestor, held)) await this.#hold(id, outcome.ancestor);
    onCreated(spec.tenant);
    return outcome;
  }

  /** Asked again for the same point, it changes nothing. */
  async #hold(child: string, { timeline, lsn }: { timeline: string; lsn: number }): Promise<void> {
    const command = { type: 'hold-branch-point', child, lsn };
    await this.#services.send(TIMELINE_KIND, timeline, command, { timeoutMs: TIMELINE_TIMEOUT_MS });
  }

  /** Nothing of it exists but its actor. */
  async #rejected(id: string, error: WireError): Promise<TimelineOutcome> {
    await this.#remove(id);
    return { status: 'rejected', error };
  }

  /** With the nodes that are to have it now. */
  #placedSpec(spec: TimelineSpec): TimelineSpec {
    const { pageserverOf, placesOf, safekeepersOf } = this.#options;
    const { shards } = spec;
    const { pageservers } = (shards && placesOf?.(spec.tenant, shards.pageservers.length)) ?? {};
    const pageserver =
      pageservers?.[0] ?? (shards ? undefined : pageserverOf?.(spec.tenant)) ?? spec.pageserver;
    const placed = shards && pageservers ? { shards: { ...shards, pageservers } } : {};
    return { ...spec, ...placed, pageserver, members: safekeepersOf?.(spec.tenant) ?? spec.members };
  }

  /** Somebody waits for the creation of a timeline, until the function that this returns is called. */
  answering(id: string): () => void {
    const answer = Promise.withResolvers<void>();
    this.#answering.set(id, answer);
    return () => {
      this.#answering.delete(id);
      answer.resolve();
    };
  }

  /** Resolves when nothing of it is left. */
  async delete(id: string): Promise<void> {
    const actor = await this.#actor(id);
    await actor.dispatch({ type: 'delete' });
    await waitForState(actor, timelineDeleted, this.#limits(`deleting timeline ${id}`));
    await this.#remove(id);
  }

  /** Resolves when nothing of the timeline is on the pageserver's disk. */
  async archive(id: string): Promise<void> {
    const actor = await this.#placed(id);
    await actor.dispatch({ type: 'archive' });
    const limits = this.#limits(`archiving timeline ${id}`, ARCHIVE_TIMEOUT_MS);
    await waitForState(actor, timelineArchived, limits);
    this.#options.attachments.forget(id);
  }

  /** Resolves when it can be read again. */
  async unarchive(id: string): Promise<void> {
    await (await this.#actor(id)).dispatch({ type: 'unarchive' });
    await this.#options.attachments.attached(id);
  }

  /** Resolves when the timeline needs its ancestor no more, or with the reason why that is not to be. */
  async detach(id: string): Promise<WireError | undefined> {
    const actor = await this.#placed(id);
    await actor.dispatch({ type: 'detach-ancestor' });
    const limits = this.#limits(`detaching timeline ${id}`, DETACH_TIMEOUT_MS);
    const outcome = await waitForState(actor, timelineDetached, limits);
    return outcome.error;
  }

  /** Makes new shards; resolves when they serve, or with the reason why they never will. */
  async split(id: string, to: ShardPlaces): Promise<WireError | undefined> {
    const actor = await this.#placed(id);
    // Since it was decided, some may have moved: new shards of this timeline are where those of its ancestor are.
    const { tenant } = timelineStatus(actor.snapshot());
    const placed = { ...to, ...this.#options.placesOf?.(tenant, to.pageservers.length) };
    await actor.dispatch({ type: 'split', to: placed });
    const limits = this.#limits(`splitting timeline ${id}`, SPLIT_TIMEOUT_MS);
    return (await waitForState(actor, timelineSplit(to.pageservers.length), limits)).error;
  }

  /** The new shards take over; resolves when nothing is left of the old ones. */
  async switchShards(id: string): Promise<void> {
    const actor = await this.#placed(id);
    await actor.dispatch({ type: 'switch-shards' });
    await waitForState(actor, timelineSwitched, this.#limits(`switching timeline ${id}`, SPLIT_TIMEOUT_MS));
  }

  /** Resolves when nothing is left of the new shards. */
  async abandonSplit(id: string): Promise<void> {
    const actor = await this.#actor(id);
    await actor.dispatch({ type: 'abandon-split' });
    await waitForState(
      actor,
      timelineNotSplitting,
      this.#limits(`giving up a split of timeline ${id}`, SPLIT_TIMEOUT_MS),
    );
  }

  async #placed(id: string): Promise<ActorHandle<TimelineCommand>> {
    const actor = await this.#actor(id);
    await untilPlaced(actor, this.#limits(`placing timeline ${id}`));
    return actor;
  }

  #limits(what: string, timeoutMs = TIMELINE_TIMEOUT_MS) {
    return { clock: this.#options.clock, timeoutMs, what };
  }

  /** The actor of a timeline, started when it does not run yet. */
  #actor(id: string): Promise<ActorHandle<TimelineCommand>> {
    const running = this.#spawning.get(id);
    if (running) return running;
    const spawning = this.#options.spawner.spawn(timelineDefinition(this.#services), id).then((actor) => {
      this.all.set(id, actor);
      return actor;
    });
    this.#spawning.set(id, spawning);
    spawning.catch(() => this.#spawning.delete(id));
    return spawning;
  }

  /** Its journal goes too: what it was about is gone, and its project's journal tells that it was. */
  async #remove(id: string): Promise<void> {
    const actor = this.all.get(id);
    this.#options.attachments.forget(id);
    this.all.delete(id);
    this.#spawning.delete(id);
    await actor?.stop();
    await this.#options.journals.remove(TIMELINE_KIND, id);
  }
}

function isSamePoint(
  point: NonNullable<TimelineStart['ancestor']>,
  other: TimelineStart['ancestor'],
): boolean {
  return point.timeline === other?.timeline && point.lsn === other.lsn;
}
