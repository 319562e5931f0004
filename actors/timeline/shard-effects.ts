/**
 * What a timeline has its pageservers do: attach its shards, make new ones of them, and give up what was.
 * Every step may run twice, and be ended by a crash: all commands sent here are idempotent.
 */
import { PalimpsestError, toWireError } from '../../protocols/errors.ts';
import { type ShardTag, splitFrom } from '../../protocols/shard-layout.ts';
import type { EffectContext } from '../../runtime/host/definition.ts';
import { rememberIngested, type Send } from './branch-point.ts';
import type { TimelineCommand, TimelineEvent } from './events.ts';
import { shardsOfTimeline, type TimelineContext } from './machine.ts';
import { safekeepersOf } from './membership.ts';
import { pointsKept } from './retention.ts';
import { areSame, layoutOf, placesOf, type ShardPlace, type ShardPlaces, splitFailed } from './shards.ts';

export interface ShardServices {
  send: Send;
  attached(timeline: string): Promise<void>;
  pageserverReady(): Promise<void>;
  /** Resolves when object storage knows the timeline as it is now, so that it can be recovered from there. */
  recorded?(timeline: string): Promise<void>;
}

const ATTACH_TIMEOUT_MS = 20_000;
const DELETE_TIMEOUT_MS = 30_000;
/** For the last WAL to be in layers and in objects. */
const FLUSH_TIMEOUT_MS = 60_000;
/** A split goes on at its pageserver and is asked about again, so often: a node that dies with it does not answer. */
const SPLIT_ASK_MS = 10_000;
const SPLIT_ASKS_MAX = 4_000;
/** A new shard may lag behind by the WAL of so long when it takes over. */
const CATCH_UP_MS = 120_000;
const LOOK_MS = 100;
/** Who is asked to give something up may be gone for good. */
const LEAVE_TIMEOUT_MS = 3_000;

/** Answers that another try would not change. */
const HOPELESS = new Set<string>(['corrupt', 'unsupported', 'invalid-argument']);

type Context = EffectContext<TimelineCommand>;

/** The shards that serve the timeline now. */
export function currentPlaces(context: TimelineContext): ShardPlace[] {
  return placesOf(context.id, shardsOfTimeline(context));
}

/** Attaches all shards: those that serve, and those that are about to. */
export async function attachShards(services: ShardServices, context: TimelineContext): Promise<void> {
  await services.pageserverReady();
  if (context.ancestor) await services.attached(context.ancestor.timeline);
  const { next } = context;
  const coming = next?.isReady ? placesOf(context.id, next.to) : [];
  await Promise.all([
    ...currentPlaces(context).map((place) => attachShard(services, context, place)),
    ...coming.map((place) => attachShard(services, context, place, COMING)),
  ]);
}

const COMING = { isComing: true };

async function attachShard(
  services: ShardServices,
  context: TimelineContext,
  place: ShardPlace,
  role: { isFace?: boolean; isComing?: boolean } = place.shard?.number === 0 ? { isFace: true } : {},
): Promise<void> {
  const command = { type: 'attach', ...specOf(context, place), ...role };
  await services.send('pageserver-node', place.pageserver, command, { timeoutMs: ATTACH_TIMEOUT_MS });
}

/** What a pageserver is told of a shard. */
function specOf(context: TimelineContext, { shard }: ShardPlace) {
  const spec = context.spec!;
  return {
    tenant: spec.tenant,
    timeline: context.id,
    ...(shard ? { shard } : {}),
    pgVersion: spec.pgVersion,
    systemId: spec.systemId,
    startLsn: context.startLsn,
    ...(context.ancestor ? { ancestor: context.ancestor } : {}),
    ...templateOf(context, shard?.number ?? 0),
    safekeepers: safekeepersOf(context),
    generation: context.generation,
    retained: pointsKept(context),
  };
}

function templateOf({ base, bases, spec }: TimelineContext, shard: number): { template?: string } {
  // Of shards that were split since, each reads the copy of the one that it comes from.
  if (bases) return { template: bases[shard % bases.length]! };
  if (base !== undefined) return { template: base };
  return spec!.origin.kind === 'template' ? { template: spec!.origin.key } : {};
}

/** Has everything that the pageservers have taken put into objects. */
export async function flushShards(services: ShardServices, context: TimelineContext): Promise<number> {
  const places = currentPlaces(context);
  const answers = await Promise.all(
    places.map(({ id }) =>
      services.send('pageserver', id, { type: 'flush' }, { timeoutMs: FLUSH_TIMEOUT_MS }),
    ),
  );
  return Math.max(...answers.map((answer) => (answer as { lastLsn: number }).lastLsn));
}

/** Has each shard copy what the ancestor has for it; returns the keys of the copies' indexes. */
export async function copyAncestors(
  services: ShardServices,
  context: TimelineContext,
  timeoutMs: number,
): Promise<string[]> {
  const answers = await Promise.all(
    currentPlaces(context).map(({ id }) =>
      services.send('pageserver', id, { type: 'copy-ancestor' }, { timeoutMs }),
    ),
  );
  return answers.map((answer) => (answer as { template: string }).template);
}

/** The new shards get the layers of those that there are, are attached beside them, and catch up with them. */
export async function prepareShards(services: ShardServices, effect: Context): Promise<TimelineEvent[]> {
  const now = () => effect.snapshot().context as TimelineContext;
  const isOver = () => {
    const { next } = now();
    return effect.snapshot().value !== 'active' || !next || next.isReady || next.isGivenUp === true;
  };
  if (isOver()) return [];
  try {
    await services.attached(effect.id);
    if (now().ancestor) await services.attached(now().ancestor!.timeline);
    const flushedLsn = await flushShards(services, now());
    // The new ones have to get as far by themselves; after a crash of all safekeepers nobody may be there to tell these what is committed.
    const point = { timeline: effect.id, lsn: flushedLsn };
    await rememberIngested({ send: services.send, clock: effect.clock }, point);
    const context = now();
    if (isOver()) return [];
    const before = layoutOf(shardsOfTimeline(context));
    const places = placesOf(context.id, context.next!.to);
    const hasMoved = () => isOver() || !areSame(now().next!.to, context.next!.to);
    await Promise.all(
      places.map((place) => {
        const from = splitFrom(place.shard!, before);
        const command = { ...specOf(context, place), type: 'split', ...(from ? { from } : {}) };
        return made(services, place.pageserver, command, hasMoved);
      }),
    );
    // A generation belongs to one place: that of a later move is for the places that were chosen with it.
    if (hasMoved()) throw elsewhere();
    await Promise.all(places.map((place) => attachShard(services, now(), place, COMING)));
    for (const { id } of places) await caughtUp(services, effect, { id, lsn: flushedLsn });
    if (isOver()) return [];
    // Somewhere else meanwhile: what was made is not there.
    if (hasMoved()) throw elsewhere();
    return [{ type: 'shards.prepared', count: places.length }];
  } catch (error) {
    if (!(error instanceof PalimpsestError && HOPELESS.has(error.code))) throw error;
    return isOver() ? [] : [splitFailed(error)];
  }
}

/** Resolves when a pageserver has made the objects of a new shard, however long it takes, as long as it is to be there. */
async function made(
  { send }: ShardServices,
  pageserver: string,
  command: { type: string },
  hasMoved: () => boolean,
): Promise<void> {
  for (let asks = 1; ; asks++) {
    try {
      await send('pageserver-node', pageserver, command, { timeoutMs: SPLIT_ASK_MS });
      return;
    } catch (error) {
      const isUnderWay = error instanceof PalimpsestError && error.code === 'timeout';
      if (!isUnderWay || asks === SPLIT_ASKS_MAX) throw error;
      if (hasMoved()) throw elsewhere();
    }
  }
}

function elsewhere(): PalimpsestError {
  return new PalimpsestError('unavailable', 'the new shards have been given to other pageservers meanwhile');
}

async function caughtUp(
  services: ShardServices,
  effect: Context,
  { id, lsn }: { id: string; lsn: number },
): Promise<void> {
  const deadline = effect.clock.monotonic() + CATCH_UP_MS;
  while (effect.clock.monotonic() < deadline) {
    const answer = await services.send(
      'pageserver',
      id,
      { type: 'status' },
      { timeoutMs: ATTACH_TIMEOUT_MS },
    );
    if ((answer as { lastLsn: number }).lastLsn >= lsn) return;
    await effect.clock.sleep(LOOK_MS);
  }
  throw new PalimpsestError('unavailable', `shard ${id} does not catch up with the WAL`);
}

/** After the switch: the old shards are left, shard 0 answers for the timeline, and the old ones' objects go once nobody needs them. */
export async function retireShards(services: ShardServices, effect: Context): Promise<TimelineEvent[]> {
  const context = () => effect.snapshot().context as TimelineContext;
  const { retiring } = context();
  if (!retiring || isBeingDeleted(effect)) return [];
  const old = placesOf(effect.id, retiring);
  await leave(services, context(), old);
  await attachShards(services, context());
  await services.recorded?.(effect.id);
  // Safekeepers may do without WAL as far as the objects of the old ones reach.
  await flushShards(services, context());
  await deleteShards(services, context(), retiring, currentPlaces(context()));
  return [{ type: 'shards.retired' }];
}

/**
 * The split is given up: the new shards go, with what they have. `before`: the state when that was decided, which in journals of earlier
 * versions is the only one that knows of them.
 */
export async function dropShards(
  services: ShardServices,
  before: TimelineContext,
  effect: Context,
): Promise<TimelineEvent[]> {
  const now = effect.snapshot().context as TimelineContext;
  const isGivenUp = now.next?.isGivenUp === true;
  const isAnotherOne = now.next !== undefined && !isGivenUp;
  const next = now.next ?? before.next;
  if (!next || isAnotherOne || isBeingDeleted(effect)) return [];
  await leave(services, now, placesOf(now.id, next.to));
  await deleteShards(services, now, next.to);
  return isGivenUp ? [{ type: 'shards.split-abandoned' }] : [];
}

/** Which shard of which timeline a pageserver is told something of. */
function nameOf(
  { id, spec }: TimelineContext,
  shard: ShardTag | undefined,
): { timeline: string; tenant: string; shard?: ShardTag } {
  return { timeline: id, tenant: spec!.tenant, ...(shard ? { shard } : {}) };
}

/** A node that is gone serves nothing; should it come back, it is told then. */
async function leave(
  { send }: ShardServices,
  context: TimelineContext,
  places: readonly ShardPlace[],
): Promise<void> {
  await Promise.all(
    places.map(({ shard, pageserver }) => {
      const command = { type: 'detach', ...nameOf(context, shard), dropLocal: true };
      return send('pageserver-node', pageserver, command, { timeoutMs: LEAVE_TIMEOUT_MS }).catch((error) => {
        const { code } = toWireError(error);
        if (code !== 'unavailable' && code !== 'timeout' && code !== 'not-found') throw error;
      });
    }),
  );
}

/** Their objects are deleted by the pageserver that answers for the timeline, which is there. */
async function deleteShards(
  { send }: ShardServices,
  context: TimelineContext,
  places: ShardPlaces,
  replacing: readonly ShardPlace[] = [],
): Promise<void> {
  const { pageserver } = currentPlaces(context)[0]!;
  const replacedBy = replacing.flatMap(({ shard }) => shard ?? []);
  for (const { shard } of placesOf(context.id, places)) {
    const others = replacedBy.length > 0 ? { replacedBy } : {};
    const command = { type: 'delete-shard', ...nameOf(context, shard), ...others };
    await send('pageserver-node', pageserver, command, { timeoutMs: DELETE_TIMEOUT_MS });
  }
}

/** Takes all shards off their pageservers' disks; objects stay. */
export async function detachShards({ send }: ShardServices, context: TimelineContext): Promise<void> {
  for (const { shard, pageserver } of currentPlaces(context)) {
    const command = { type: 'detach', ...nameOf(context, shard), dropLocal: true };
    await send('pageserver-node', pageserver, command, { timeoutMs: DELETE_TIMEOUT_MS });
  }
}

/** Deletes everything that pageservers have of the timeline, the objects of the timeline as a whole last. */
export async function deleteAllShards(services: ShardServices, context: TimelineContext): Promise<void> {
  const { tenant } = context.spec!;
  const { next, retiring } = context;
  const current = shardsOfTimeline(context);
  const several = [current, next?.to, retiring].filter(
    (places) => places !== undefined && places.pageservers.length > 1,
  ) as ShardPlaces[];
  for (const places of several) await leave(services, context, placesOf(context.id, places));
  if (retiring?.pageservers.length === 1) await leave(services, context, placesOf(context.id, retiring));
  for (const places of several) await deleteShards(services, context, places);
  const command = { type: 'delete', timeline: context.id, tenant };
  const options = { timeoutMs: DELETE_TIMEOUT_MS };
  await services.send('pageserver-node', current.pageservers[0]!, command, options);
}

function isBeingDeleted(effect: Context): boolean {
  const state = effect.snapshot().value as string;
  return state === 'deleting' || state === 'deleted';
}
