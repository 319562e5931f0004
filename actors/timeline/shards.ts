/**
 * On which pageservers a timeline's pages are: on one, or spread over shards (protocols/shard-layout.ts), and while they are split on the
 * new shards beside the old ones.
 *
 *   shards.split-requested    the new shards get their layers and catch up        prepare
 *   shards.prepared           they serve, and nobody asks them yet
 *   shards.switched           they are the timeline's; the old ones go            retire
 *   shards.retired
 *   shards.split-given-up     instead of the switch                               drop
 *   shards.split-abandoned    the new ones are gone
 *
 * Another split can be asked for only when nothing is left of one that was given up, as far as anybody can tell: what was to be done for
 * that may still be carried out late. So its shards have other names.
 */
import { toWireError, type WireError } from '../../protocols/errors.ts';
import {
  ONE_SHARD,
  type ShardLayout,
  type ShardTag,
  shardId,
  shardsOf,
} from '../../protocols/shard-layout.ts';
import type { ActorEvent } from '../../runtime/host/definition.ts';

/** Shards and their pageservers, one for each number; one alone has everything. */
export interface ShardPlaces {
  stripeBlocks: number;
  pageservers: string[];
  /** Of the layout: by it the shards have names that no shards before them had. */
  attempt?: number;
}

export type ShardsEvent = ActorEvent &
  (
    | { type: 'shards.split-requested'; to: ShardPlaces }
    | { type: 'shards.prepared'; count: number }
    /** The new shards are to go: nobody wants them any more, or making them would fail again. */
    | { type: 'shards.split-given-up'; error?: WireError }
    /** They are gone. Of earlier versions: they are to go, without another event for it. */
    | { type: 'shards.split-abandoned' }
    /** Of earlier versions: given up because of an error, and abandoned. */
    | { type: 'shards.split-failed'; error: WireError }
    /** `generation`: of the attachment that tells the new ones that they are it. */
    | { type: 'shards.switched'; generation: number }
    | { type: 'shards.retired' }
  );

/** The part of a timeline's state that is about them. */
export interface Sharded {
  /** Absent: one, on the timeline's pageserver. */
  shards?: ShardPlaces | undefined;
  /** Those that are being made. */
  next?: { to: ShardPlaces; isReady: boolean; isGivenUp?: boolean } | undefined;
  /** Those that there were. */
  retiring?: ShardPlaces | undefined;
  splitError?: WireError | undefined;
}

/** One shard and its pageserver. */
export interface ShardPlace {
  id: string;
  shard: ShardTag | undefined;
  pageserver: string;
}

export function layoutOf(places: ShardPlaces | undefined): ShardLayout {
  if (!places || places.pageservers.length === 1) return ONE_SHARD;
  const { pageservers, ...layout } = places;
  return { count: pageservers.length, ...layout };
}

/** Whether both are the same shards at the same pageservers. */
export function areSame(a: ShardPlaces, b: ShardPlaces): boolean {
  return a.attempt === b.attempt && String(a.pageservers) === String(b.pageservers);
}

/** The shards of a timeline one by one, by their numbers. */
export function placesOf(timeline: string, places: ShardPlaces): ShardPlace[] {
  return shardsOf(layoutOf(places)).map((shard, number) => {
    return { id: shardId(timeline, shard), shard, pageserver: places.pageservers[number]! };
  });
}

/** The next state after one of these events; what is not among the keys stays. */
export function foldShards(before: ShardPlaces, context: Sharded, event: ActorEvent): Sharded {
  const known = event as ShardsEvent;
  switch (known.type) {
    case 'shards.split-requested':
      return { next: { to: known.to, isReady: false }, splitError: undefined };
    case 'shards.prepared':
      return context.next && !context.next.isGivenUp ? { next: { ...context.next, isReady: true } } : {};
    case 'shards.split-given-up': {
      const error = known.error === undefined ? {} : { splitError: known.error };
      return context.next ? { next: { ...context.next, isReady: false, isGivenUp: true }, ...error } : {};
    }
    case 'shards.split-failed':
      return { next: undefined, splitError: known.error };
    case 'shards.split-abandoned':
      return { next: undefined };
    case 'shards.switched':
      return context.next ? { shards: context.next.to, next: undefined, retiring: before } : {};
    case 'shards.retired':
      return { retiring: undefined };
    default:
      return {};
  }
}

/** Why an attempt failed, in the form of an event. */
export function splitFailed(error: unknown): ShardsEvent {
  return { type: 'shards.split-given-up', error: toWireError(error) };
}
