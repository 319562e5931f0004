/** Where a timeline's shards are to be now, as far as that is another place than where they are. */
import type { AttachPlaces, TimelineStatus } from '../../actors/timeline/events.ts';
import type { ControlActorsOptions } from './control-options.ts';

type Places = Pick<ControlActorsOptions, 'pageserverOf' | 'placesOf'>;

/** What to attach a timeline with. */
export function placesFor(status: TimelineStatus, { pageserverOf, placesOf }: Places): AttachPlaces {
  const { tenant, shards, nextShards } = status;
  const count = shards?.pageservers.length ?? 1;
  const one = count === 1 ? pageserverOf?.(tenant) : undefined;
  const several = count > 1 ? placesOf?.(tenant, count) : undefined;
  const next = nextShards && placesOf?.(tenant, nextShards.pageservers.length);
  return {
    ...(one === undefined ? {} : { pageserver: one }),
    ...(several ? { pageservers: several.pageservers } : {}),
    ...(next ? { next: next.pageservers } : {}),
  };
}

/** Whether the timeline is to be attached elsewhere than until now. */
export function isElsewhere(
  { pageserver, shards, nextShards }: TimelineStatus,
  places: AttachPlaces,
): boolean {
  const differs = (to: string[] | undefined, from: string[] | undefined) =>
    to !== undefined && from !== undefined && String(to) !== String(from);
  return (
    (places.pageserver !== undefined && places.pageserver !== pageserver) ||
    differs(places.pageservers, shards?.pageservers) ||
    differs(places.next, nextShards?.pageservers)
  );
}
