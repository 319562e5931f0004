/**
 * What a timeline does to the world: creates its replicas on safekeepers, attaches it to a pageserver, removes both.
 * Every effect may run twice: all commands sent here are idempotent.
 */
import { everyMember, majorityOf } from '../../protocols/consensus/membership.ts';
import { PalimpsestError, toWireError, type WireError } from '../../protocols/errors.ts';
import type { NodeId } from '../../protocols/ids.ts';
import type { EffectContext } from '../../runtime/host/definition.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import { findBranchPoint, rememberCommitted, type Send } from './branch-point.ts';
import type { Origin, TimelineCommand, TimelineEvent, TimelineStart } from './events.ts';
import type { TimelineContext, TimelineEffectParams } from './machine.ts';
import { membershipOf, safekeepersOf } from './membership.ts';
import { bringUp, installJoint, spread } from './membership-effects.ts';
import {
  attachShards,
  copyAncestors,
  deleteAllShards,
  detachShards,
  dropShards,
  flushShards,
  prepareShards,
  retireShards,
} from './shard-effects.ts';

export interface TimelineServices {
  send: Send;
  /** Resolves when the pageserver has this timeline (an ancestor) attached. */
  attached(timeline: string): Promise<void>;
  /** Resolves when the pageserver takes commands: it may just be starting. */
  pageserverReady(): Promise<void>;
  /** Resolves when object storage knows the timeline as it is now. */
  recorded?(timeline: string): Promise<void>;
  /** Resolves when nobody waits any more to hear that the timeline is created. */
  answered?(timeline: string): Promise<void>;
}

const CREATE_TIMEOUT_MS = 10_000;
const DELETE_TIMEOUT_MS = 30_000;
/** For all pages of the ancestor; a larger one goes on and is asked about again. */
const COPY_TIMEOUT_MS = 600_000;
/** How long the last replicas may take before the timeline is used without them. */
const STRAGGLER_MS = 30;

/** Answers of a pageserver that another try would not change. */
const HOPELESS = new Set<string>(['corrupt', 'unsupported', 'conflict']);

/** Answers that another try may change. */
const RETRIED = new Set<string>(['unavailable', 'timeout', 'disk-full']);

type Context = EffectContext<TimelineCommand>;
type TimelineEffect = (params: TimelineEffectParams, effect: Context) => Promise<TimelineEvent[]>;

/** The effects by their names in the machine. */
export function timelineEffects(services: TimelineServices): Record<string, TimelineEffect> {
  const makings = new Makings();
  return {
    resolve: ({ context }, effect) => resolve(services, context, effect),
    place: makings.counted(async (_, effect) => {
      await services.answered?.(effect.id);
      return place(services, effect);
    }),
    completeReplicas: makings.counted(async ({ context }, effect) => {
      await Promise.all(context.missing.map((member) => completeReplica(services, member, effect)));
      return [{ type: 'replicas.completed' }];
    }),
    attach: makings.counted(async ({ context }, effect) => {
      const { generation } = context;
      if (generationNow(effect) !== generation) return [];
      try {
        await attachShards(services, context);
      } catch (error) {
        if (!(error instanceof PalimpsestError && HOPELESS.has(error.code))) throw error;
        return [{ type: 'attach.failed', generation, error: error.toWire() }];
      }
      return [{ type: 'attach.completed', generation }];
    }),
    archive: async ({ context }, effect) => {
      if (isBeingDeleted(effect)) return [];
      await archive(services, context, effect);
      return [{ type: 'timeline.archived' }];
    },
    detachAncestor: async ({ context }, effect) => {
      const state = effect.snapshot().value;
      if (state !== 'active') {
        return [{ type: 'ancestor.detach-failed', error: { code: 'conflict', message: `it is ${state}` } }];
      }
      try {
        await services.attached(context.id);
        const now = effect.snapshot().context as TimelineContext;
        const templates = await copyAncestors(services, now, COPY_TIMEOUT_MS);
        const event = { type: 'ancestor.detached' as const, template: templates[0]! };
        const each = templates.length > 1 ? { templates } : {};
        return [{ ...event, ...each, generation: generationNow(effect) + 1 }];
      } catch (error) {
        // The copy goes on in the shard; asking again finds what it has made.
        if (error instanceof PalimpsestError && RETRIED.has(error.code)) throw error;
        return [{ type: 'ancestor.detach-failed', error: toWireError(error) }];
      }
    },
    releaseAncestor: async ({ context }, effect) => {
      // Only when the pageserver reads the copy: until then it still needs the ancestor.
      if (!isBeingDeleted(effect)) await attachShards(services, effect.snapshot().context as TimelineContext);
      if (context.ancestor) await release(services, context.ancestor.timeline, context.id);
      return [];
    },
    installJoint: (params, effect) => installJoint(services.send, params, effect),
    bringUp: (params, effect) => bringUp(services.send, params, effect),
    spread: async (params, effect) => {
      if (isBeingDeleted(effect)) return [];
      const events = await spread(services.send, params, effect);
      const now = effect.snapshot();
      // The pageserver follows the WAL at those that are there now.
      const context = now.context as TimelineContext;
      if (now.value === 'active' && context.attached) await attachShards(services, context);
      return events;
    },
    prepareShards: makings.counted((_, effect) => prepareShards(services, effect)),
    retireShards: makings.counted((_, effect) => retireShards(services, effect)),
    dropShards: makings.counted(({ context }, effect) => dropShards(services, context, effect)),
    dismantle: async (_, effect) => {
      const context = effect.snapshot().context as TimelineContext;
      await makings.ended();
      await dismantle(services, context);
      return [{ type: 'timeline.deleted' }];
    },
  };
}

/** What is being made of a timeline; none of it may come after a deletion. */
class Makings {
  readonly #underWay = new Set<Promise<unknown>>();

  /** The effect, which does nothing once the timeline is being deleted. */
  counted(run: TimelineEffect): TimelineEffect {
    return async (params, effect) => {
      if (isBeingDeleted(effect)) return [];
      const making = run(params, effect);
      this.#underWay.add(making);
      try {
        const events = await making;
        return isBeingDeleted(effect) ? [] : events;
      } finally {
        this.#underWay.delete(making);
      }
    };
  }

  /** Resolves when the attempts that had begun are over. */
  async ended(): Promise<void> {
    await Promise.allSettled(this.#underWay);
  }
}

/** The timeline is being deleted: nothing of it may be made any more. */
function isBeingDeleted(effect: Context): boolean {
  const state = effect.snapshot().value as string;
  return state === 'deleting' || state === 'deleted';
}

function generationNow(effect: Context): number {
  return (effect.snapshot().context as TimelineContext).generation;
}

async function resolve(
  services: TimelineServices,
  context: TimelineContext,
  effect: Context,
): Promise<TimelineEvent[]> {
  const found = await findStart(services, effect.clock, { child: effect.id, origin: context.spec!.origin });
  if ('error' in found) return [{ type: 'timeline.rejected', error: found.error }];
  return [{ type: 'timeline.resolved', ...found.start }];
}

/**
 * Finds where a timeline begins, and sees to it that this stays readable; or tells why it cannot begin there. Asked again, it may find
 * another place.
 */
export async function findStart(
  services: TimelineServices,
  clock: Clock,
  { child, origin }: { child: string; origin: Origin },
): Promise<{ start: TimelineStart } | { error: WireError }> {
  if (origin.kind === 'template') return { start: { startLsn: origin.startLsn } };
  const { timeline, point } = origin;
  try {
    await services.attached(timeline);
    const found = await findBranchPoint({ send: services.send, clock, timeline, point });
    const ancestor = found.point;
    // Both before anybody may count on it. From now on garbage collection keeps the point.
    const steps = await Promise.allSettled([
      rememberCommitted({ send: services.send, clock }, ancestor, found.witness),
      send(services, ancestor.timeline, { type: 'hold-branch-point', child, lsn: ancestor.lsn }),
    ]);
    for (const step of steps) if (step.status === 'rejected') throw step.reason;
    return { start: { startLsn: ancestor.lsn, ancestor } };
  } catch (error) {
    // An earlier attempt that a crash ended may have held a point.
    await release(services, timeline, child).catch(() => {});
    // Somebody waits for this answer: a clear refusal now is worth more than an attempt that succeeds later.
    return { error: toWireError(error) };
  }
}

/** A quorum of replicas and the pageserver, at the same time. */
async function place(services: TimelineServices, effect: Context): Promise<TimelineEvent[]> {
  // As it is now: it may have been given to another pageserver since the last try.
  const context = effect.snapshot().context as TimelineContext;
  const { generation } = context;
  const members = context.spec!.members;
  const quorum = majorityOf(members);
  const missing = new Set(members);
  const creations = members.map((member) =>
    createReplica(services, context, member).then(() => {
      missing.delete(member);
    }),
  );
  const [failures] = await Promise.all([
    quorumOf(creations, quorum, effect.clock),
    attachShards(services, context),
  ]);
  if (missing.size > 0 && members.length - missing.size < quorum) throw failures[0];
  return [{ type: 'timeline.activated', missing: [...missing], generation }];
}

/** Waits until all have settled, or `quorum` have succeeded and the rest took too long. Returns the failures so far. */
function quorumOf(attempts: Promise<void>[], quorum: number, clock: Clock): Promise<unknown[]> {
  return new Promise((resolve) => {
    const failures: unknown[] = [];
    let succeeded = 0;
    const settle = () => {
      if (succeeded + failures.length === attempts.length) resolve(failures);
      else if (succeeded === quorum) clock.setTimer(STRAGGLER_MS, () => resolve(failures));
    };
    for (const attempt of attempts) {
      attempt.then(
        () => {
          succeeded++;
          settle();
        },
        (error: unknown) => {
          failures.push(error);
          settle();
        },
      );
    }
  });
}

async function createReplica(
  services: TimelineServices,
  context: TimelineContext,
  member: string,
  origin: { complete?: { lacking: string[] } } = {},
): Promise<void> {
  const spec = context.spec!;
  await services.send(
    'safekeeper-node',
    member,
    {
      type: 'create',
      tenant: spec.tenant,
      timeline: context.id,
      startLsn: context.startLsn,
      pgVersion: spec.pgVersion,
      systemId: spec.systemId,
      ...membershipOf(context),
      ...origin,
    },
    { timeoutMs: CREATE_TIMEOUT_MS },
  );
}

/**
 * Makes the replica of a member that did not answer when the timeline was placed. An earlier attempt may have succeeded unheard: then it
 * has voted, and its disk may be lost since. So it joins as one that lost its disk does (actors/safekeeper/rejoin.ts).
 */
async function completeReplica(services: TimelineServices, member: string, effect: Context): Promise<void> {
  const context = effect.snapshot().context as TimelineContext;
  // Another may have taken its place.
  const isMember = everyMember(membershipOf(context)).includes(member as NodeId);
  if (!context.missing.includes(member) || !isMember) return;
  try {
    await createReplica(services, context, member, { complete: { lacking: [] } });
  } catch (error) {
    if (!(error instanceof PalimpsestError && error.code === 'unavailable')) throw error;
    const lacking = await membersWithout(services, context, member);
    if (lacking.length === 0) throw error;
    await createReplica(services, context, member, { complete: { lacking } });
  }
}

/** The other members that run, and have no replica of the timeline. */
async function membersWithout(
  services: TimelineServices,
  context: TimelineContext,
  member: string,
): Promise<string[]> {
  const others = membershipOf(context).members.filter((other) => other !== member);
  const lists = await Promise.allSettled(
    others.map((node) =>
      services.send('safekeeper-node', node, { type: 'list' }, { timeoutMs: CREATE_TIMEOUT_MS }),
    ),
  );
  return others.filter((_, n) => {
    const list = lists[n]!;
    return list.status === 'fulfilled' && !(list.value as string[]).includes(context.id);
  });
}

/** Asks another timeline. */
async function send(
  services: TimelineServices,
  timeline: string,
  command: TimelineCommand & Record<string, unknown>,
): Promise<void> {
  await services.send('timeline', timeline, command, { timeoutMs: CREATE_TIMEOUT_MS });
}

/** An ancestor need not keep a timeline's branch point any more. */
function release(services: TimelineServices, ancestor: string, child: string): Promise<void> {
  return unlessUnknown(send(services, ancestor, { type: 'release-branch-point', child }));
}

/** Compute first; then what the pageserver has goes to objects, and its local files go. Safekeepers give up theirs when idle. */
async function archive(services: TimelineServices, context: TimelineContext, effect: Context): Promise<void> {
  const timeline = context.id;
  await unlessUnknown(
    services.send('compute', timeline, { type: 'forget' }, { timeoutMs: DELETE_TIMEOUT_MS }),
  );
  await services.pageserverReady();
  await flushShards(services, context).catch((error) =>
    // Nothing is lost: what is not in objects is ingested again from the WAL.
    effect.log.info(
      { timeline, error: toWireError(error) },
      'a timeline is archived without its last layers',
    ),
  );
  await detachShards(services, context);
}

/** Compute first, so that nothing writes any more; then pages, then WAL; then the ancestor may forget the branch point. */
async function dismantle(services: TimelineServices, context: TimelineContext): Promise<void> {
  const options = { timeoutMs: DELETE_TIMEOUT_MS };
  await unlessUnknown(services.send('compute', context.id, { type: 'forget' }, options));
  if (context.spec === undefined || context.generation === 0) return;
  await unlessUnknown(deleteAllShards(services, context));
  await Promise.all(
    safekeepersOf(context).map((member) => {
      const command = { type: 'delete', timeline: context.id, tenant: context.spec!.tenant };
      return unlessUnknown(services.send('safekeeper-node', member, command, options));
    }),
  );
  if (context.ancestor) await release(services, context.ancestor.timeline, context.id);
}

/** What is not there need not be removed. */
async function unlessUnknown(request: Promise<unknown>): Promise<void> {
  try {
    await request;
  } catch (error) {
    if (!(error instanceof PalimpsestError && error.code === 'not-found')) throw error;
  }
}
