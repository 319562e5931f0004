/**
 * What every branch of a running system takes: its size as Postgres sees it, and the objects behind it.
 */
import { decodeIndex, type ShardIndex } from '../../actors/pageserver/index-object.ts';
import type { LayerDescriptor } from '../../actors/pageserver/layer-descriptor.ts';
import { PageClient } from '../../actors/pageserver/page-client.ts';
import type { TimelineStatus } from '../../actors/timeline/events.ts';
import { placesOf } from '../../actors/timeline/shards.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { LATEST_LSN, PAGE_BYTES, ZERO_LSN } from '../../protocols/lsn.ts';
import { parseWalObjectKey } from '../../protocols/object-keys.ts';
import type { RelationEntry } from '../../protocols/pages/types.ts';
import type { ObjectInfo, Objects } from '../../runtime/ports/objects.ts';
import type { BranchView, StatusView } from '../client/index.ts';
import type { SystemConnection } from '../client/system-connection.ts';
import { inParallel } from '../node/in-parallel.ts';
import { type Catalog, readCatalog, type TimelineObjects } from './catalog.ts';
import { walRange } from './wal-objects.ts';

const TIMEOUT_MS = 20_000;
const PARALLEL_BRANCHES = 4;

export interface BranchStorage {
  project: string;
  branch: string;
  timeline: string;
  parent?: string;
  /** Whether the pageserver has it; if not, its logical size is not known. */
  isServed: boolean;
  /** Where its own history begins; before it, it is its parent's. */
  startLsn: number;
  headLsn: number;
  /** Layers in objects have everything up to here. */
  layersEndLsn: number;
  /** Where the history window begins; the moment is 0 when it was found by bytes alone. */
  window: { fromLsn: number; fromTimeMs: number };
  /** As Postgres sees it now: all databases with their catalogs. */
  logicalBytes: number;
  layers: LayerDescriptor[];
  layerBytes: number;
  wal: { objects: number; bytes: number; ranges: { from: number; to: number; bytes: number }[] };
  /** Bytes of ancestors' layers, and of the template, that it reads too. */
  sharedBytes: number;
  /** Relations now, in the order of their keys. */
  relations: RelationEntry[];
  /** Branches that begin in its history. */
  children: { branch: string; lsn: number }[];
  ancestor?: { timeline: string; lsn: number };
  /** Key of the template that it begins with. */
  template?: string;
  leases: number;
}

export interface StorageReport {
  place: string;
  objects: number;
  bytes: number;
  templateBytes: number;
  projects: { name: string; pgVersion: number; branches: BranchStorage[] }[];
}

export interface ReportOptions {
  system: SystemConnection;
  status: StatusView;
  objects: Objects;
  place: string;
  /** Only this project; all when absent. */
  project?: string;
  onProgress(done: number, all: number): void;
}

export async function readStorage(options: ReportOptions): Promise<StorageReport> {
  const { status, objects, project, onProgress } = options;
  if (project !== undefined && !status.projects.some(({ name }) => name === project)) {
    const names = status.projects.map(({ name }) => name).join(', ');
    throw new PalimpsestError('not-found', `project "${project}" does not exist`, `projects: ${names}`);
  }
  const catalog = await readCatalog(objects);
  const wanted = status.branches.filter(({ state }) => state !== 'creating' && state !== 'deleting');
  const found = new Map<string, BranchStorage>();
  const read = async (view: (typeof wanted)[number]) => {
    found.set(view.timeline, await readBranch(options, catalog, view));
    onProgress(found.size, wanted.length);
  };
  await inParallel(wanted, read, PARALLEL_BRANCHES);
  const templateBytes = catalog.templates.reduce((sum, { bytes }) => sum + bytes, 0);
  const branches = wanted.map(({ timeline }) => found.get(timeline)!);
  branches.push(...(await readNamelessAncestors(options, catalog, found)));
  for (const branch of branches) {
    branch.sharedBytes = sharedBytes(branch, found, catalog.templates);
    const parent = branch.ancestor && found.get(branch.ancestor.timeline);
    parent?.children.push({ branch: branch.branch, lsn: branch.ancestor!.lsn });
  }
  return {
    place: options.place,
    objects: catalog.objects,
    bytes: catalog.bytes,
    templateBytes,
    projects: status.projects
      .filter(({ name }) => project === undefined || name === project)
      .map(({ name, pgVersion }) => ({
        name,
        pgVersion,
        branches: branches.filter((branch) => branch.project === name),
      })),
  };
}

/** Timelines that lost their name in a restore, and are kept for the branches that grow from them. */
async function readNamelessAncestors(
  options: ReportOptions,
  catalog: Catalog,
  found: Map<string, BranchStorage>,
): Promise<BranchStorage[]> {
  const nameless: BranchStorage[] = [];
  // Reading one may bring another ancestor, which the loop then comes to.
  for (const { ancestor, project } of found.values()) {
    if (!ancestor || found.has(ancestor.timeline)) continue;
    const view = { project, name: `(former ${ancestor.timeline.slice(0, 8)})`, timeline: ancestor.timeline };
    const read = await readBranch(options, catalog, view);
    found.set(ancestor.timeline, read);
    nameless.push(read);
  }
  return nameless;
}

async function readBranch(
  { system, objects }: ReportOptions,
  catalog: Catalog,
  view: Pick<BranchView, 'project' | 'name' | 'timeline' | 'parent'>,
): Promise<BranchStorage> {
  const { timeline } = view;
  const own = await system.command<TimelineStatus>('timeline', timeline, { type: 'status' });
  const stored = catalog.timelines.get(timeline);
  const ids = own.shards ? placesOf(timeline, own.shards).map(({ id }) => id) : [timeline];
  const indexes = await Promise.all(ids.map((id) => readIndex(objects, catalog.timelines.get(id))));
  const layers = indexes.flatMap((index) => index?.layers ?? []);
  const { template } = indexes[0]?.spec ?? {};
  const served = await readServed(system, timeline);
  const { relations } = served;
  return {
    project: view.project,
    branch: view.name,
    timeline,
    ...(view.parent === undefined ? {} : { parent: view.parent }),
    startLsn: own.startLsn,
    isServed: served.isServed,
    headLsn: Math.max(own.startLsn, served.lastLsn, ...layers.map(({ endLsn }) => endLsn)),
    // Of several shards what all of them have.
    layersEndLsn: Math.min(...indexes.map((index) => index?.diskConsistentLsn ?? own.startLsn)),
    window: { fromLsn: Math.max(own.cutoffLsn, own.startLsn), fromTimeMs: own.cutoffTimeMs },
    logicalBytes: relations.reduce((sum, { blocks }) => sum + Math.max(0, blocks), 0) * PAGE_BYTES,
    layers,
    layerBytes: layers.reduce((sum, { bytes }) => sum + bytes, 0),
    wal: walOf(stored),
    sharedBytes: 0,
    relations,
    children: [],
    ...(own.ancestor ? { ancestor: own.ancestor } : {}),
    ...(template === undefined ? {} : { template }),
    leases: Object.keys(own.leases).length,
  };
}

/** What the pageserver knows of a timeline; of an archived one it knows nothing. */
async function readServed(
  system: SystemConnection,
  timeline: string,
): Promise<{ isServed: boolean; lastLsn: number; relations: RelationEntry[] }> {
  try {
    const [{ lastLsn }, relations] = await Promise.all([
      system.command<{ lastLsn: number }>('pageserver', timeline, { type: 'status' }),
      readRelations(system, timeline),
    ]);
    return { isServed: true, lastLsn, relations };
  } catch (error) {
    if (!(error instanceof PalimpsestError)) throw error;
    return { isServed: false, lastLsn: 0, relations: [] };
  }
}

async function readRelations(system: SystemConnection, timeline: string): Promise<RelationEntry[]> {
  const channel = await system.openPages(timeline);
  const client = new PageClient({ clock: system.clock, channel, timeoutMs: TIMEOUT_MS });
  try {
    const newest = { lsn: LATEST_LSN, notModifiedSince: ZERO_LSN };
    const { databases } = await client.getBasebackup(LATEST_LSN);
    const all = await Promise.all([0, ...databases].map((db) => client.getDirectory({ ...newest, db })));
    return all.flat().sort((a, b) => a.spc - b.spc || a.db - b.db || a.rel - b.rel || a.fork - b.fork);
  } finally {
    client.close();
  }
}

/** The newest index; undefined when nothing was uploaded yet. */
async function readIndex(
  objects: Objects,
  stored: TimelineObjects | undefined,
): Promise<ShardIndex | undefined> {
  const newest = stored?.indexes.at(-1);
  return newest && decodeIndex(newest.key, await objects.get(newest.key));
}

function walOf(stored: TimelineObjects | undefined): BranchStorage['wal'] {
  const wal = stored?.wal ?? [];
  const ranges = wal.flatMap(({ key, bytes }) => {
    const name = parseWalObjectKey(key);
    return name ? [{ ...walRange(name), bytes }] : [];
  });
  return { objects: wal.length, bytes: wal.reduce((sum, { bytes }) => sum + bytes, 0), ranges };
}

function sharedBytes(
  branch: BranchStorage,
  all: Map<string, BranchStorage>,
  templates: ObjectInfo[],
): number {
  let sum = 0;
  let root = branch;
  const seen = new Set<string>();
  for (let at = branch.ancestor; at && !seen.has(at.timeline); ) {
    seen.add(at.timeline);
    const ancestor = all.get(at.timeline);
    if (!ancestor) break;
    const { lsn } = at;
    for (const layer of ancestor.layers) if (layer.startLsn < lsn) sum += layer.bytes;
    root = ancestor;
    at = ancestor.ancestor;
  }
  // Without an index it is not known which one: then it is most likely the only one.
  const folder = root.template?.slice(0, root.template.lastIndexOf('/') + 1) ?? '';
  for (const { key, bytes } of templates) if (key.startsWith(folder)) sum += bytes;
  return sum;
}
