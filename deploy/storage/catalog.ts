/**
 * What object storage holds, sorted by what it belongs to. Keys alone are looked at, no content.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { parseShardId } from '../../protocols/shard-layout.ts';
import type { ObjectInfo, Objects } from '../../runtime/ports/objects.ts';

export interface IndexObject extends ObjectInfo {
  generation: number;
}

/** The folder of a timeline, or of one of its shards where there are several. */
export interface TimelineObjects {
  tenant: string;
  /** Of the folder: with the shard's number, if it is a shard's. */
  timeline: string;
  /** The timeline itself. */
  owner: string;
  /** What all its keys begin with, slash included. */
  prefix: string;
  /** By generation, the newest last. */
  indexes: IndexObject[];
  layers: Map<string, ObjectInfo>;
  wal: ObjectInfo[];
  /** Keys that mean nothing to this version. */
  other: ObjectInfo[];
}

export interface Catalog {
  timelines: Map<string, TimelineObjects>;
  templates: ObjectInfo[];
  /** Outside of the folders of timelines and templates. */
  other: ObjectInfo[];
  objects: number;
  bytes: number;
}

const TIMELINE_KEY = /^(tenants\/([0-9a-f]{32})\/timelines\/([0-9a-f]{32}(?:-[0-7]of[248])?)\/)(.+)$/;
const INDEX_NAME = /^index-([0-9a-f]{8})$/;

/** Lists everything; `onObject` is told the number of objects so far. Throws `not-found` when nothing is there. */
export async function readCatalog(
  objects: Objects,
  onObject: (count: number) => void = () => {},
): Promise<Catalog> {
  const catalog: Catalog = { timelines: new Map(), templates: [], other: [], objects: 0, bytes: 0 };
  for await (const info of objects.list('')) {
    catalog.objects++;
    catalog.bytes += info.bytes;
    onObject(catalog.objects);
    const match = TIMELINE_KEY.exec(info.key);
    if (match) addTo(timelineIn(catalog, match), match[4]!, info);
    else if (info.key.startsWith('templates/')) catalog.templates.push(info);
    else catalog.other.push(info);
  }
  if (catalog.objects > 0) return catalog;
  throw new PalimpsestError(
    'not-found',
    'there are no objects',
    'name the place of the objects with --objects, or the data directory with --data',
  );
}

/** Lists one timeline's objects anew. */
export async function readTimeline(
  objects: Objects,
  { tenant, timeline, prefix }: Pick<TimelineObjects, 'tenant' | 'timeline' | 'prefix'>,
): Promise<TimelineObjects> {
  const found = emptyTimeline(tenant, timeline, prefix);
  for await (const info of objects.list(prefix)) addTo(found, info.key.slice(prefix.length), info);
  return found;
}

function timelineIn(catalog: Catalog, match: RegExpExecArray): TimelineObjects {
  const [, prefix, tenant, timeline] = match;
  let found = catalog.timelines.get(timeline!);
  if (!found) catalog.timelines.set(timeline!, (found = emptyTimeline(tenant!, timeline!, prefix!)));
  return found;
}

function emptyTimeline(tenant: string, timeline: string, prefix: string): TimelineObjects {
  const owner = parseShardId(timeline)?.timeline ?? timeline;
  return { tenant, timeline, owner, prefix, indexes: [], layers: new Map(), wal: [], other: [] };
}

function addTo(timeline: TimelineObjects, name: string, info: ObjectInfo): void {
  const index = INDEX_NAME.exec(name);
  if (index) timeline.indexes.push({ ...info, generation: Number.parseInt(index[1]!, 16) });
  else if (name.startsWith('wal/')) timeline.wal.push(info);
  else if (name.endsWith('.layer')) timeline.layers.set(info.key, info);
  else timeline.other.push(info);
}
