/**
 * Walks through all objects: what indexes list must be there and be what was written, and nothing must be there that nobody
 * will ever ask for. Changes nothing.
 *
 * 1. The newest index of a timeline counts, as it does for a pageserver that takes the timeline over.
 * 2. A layer that no index of any timeline lists is an orphan once an index of a newer generation than its writer's is there:
 *    no pageserver can list it any more. Until then it may just not be listed yet.
 * 3. Of a layout of shards that is over nothing is left (layout-check.ts).
 * 4. The system may be at work meanwhile. What looks wrong is looked at again, from the list on, and told only if it
 *    still does.
 */
import { decodeIndex, type ShardIndex } from '../../actors/pageserver/index-object.ts';
import { generationOf, type LayerDescriptor } from '../../actors/pageserver/layer-descriptor.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { formatLsn } from '../../protocols/lsn.ts';
import type { Objects } from '../../runtime/ports/objects.ts';
import { inParallel } from '../node/in-parallel.ts';
import { type Catalog, readCatalog, readTimeline, type TimelineObjects } from './catalog.ts';
import { findGaps } from './coverage.ts';
import { type Finding, sameFinding } from './findings.ts';
import { inspectLayer, type LayerSource, openLayer } from './layer-inspection.ts';
import { objectSource } from './layer-source.ts';
import { leftOvers } from './layout-check.ts';
import type { LocalCopies } from './local-copies.ts';

import { checkManifests, listManifests } from './manifest-check.ts';
import { checkTemplates } from './template-check.ts';
import { checkWal } from './wal-check.ts';
import { checkWalObjects } from './wal-objects.ts';

const PARALLEL_LAYERS = 8;
/** Times that a suspicion is looked at again, with a pause before each. */
const SECOND_LOOKS = 2;

export interface ScrubOptions {
  objects: Objects;
  /** Read and check every block of every layer, not only the indexes. */
  deep: boolean;
  /** What the data directory has; absent when there is only the bucket. */
  local?: LocalCopies;
  /** Milliseconds before a second look. */
  pauseMs: number;
  sleep(ms: number): Promise<void>;
  onProgress?(doneBytes: number, allBytes: number): void;
}

export interface ScrubReport {
  timelines: number;
  objects: number;
  bytes: number;
  layers: number;
  findings: Finding[];
}

/** Throws what keeps it from looking at all, for example `not-found` when there are no objects. */
export async function scrub(options: ScrubOptions): Promise<ScrubReport> {
  const catalog = await readCatalog(options.objects);
  const walk = new ScrubWalk(options, catalog);
  await walk.readIndexes();
  const findings: Finding[] = [];
  for (const timeline of catalog.timelines.values()) {
    findings.push(...(await walk.confirmed((again) => walk.checkTimeline(timeline, again))));
  }
  findings.push(...(await walk.confirmed((again) => walk.checkTemplates(again))));
  findings.push(...(await walk.confirmed((again) => walk.checkUnknown(again))));
  findings.push(...(await walk.confirmed((again) => walk.checkManifests(again))));
  return {
    timelines: catalog.timelines.size,
    objects: catalog.objects,
    bytes: catalog.bytes,
    layers: walk.layersChecked,
    findings,
  };
}

interface ReadIndexes {
  newest: ShardIndex | undefined;
  /** Keys that any index of the timeline lists. */
  listed: Set<string>;
  findings: Finding[];
  /** An index could not be read: what it lists is not known. */
  incomplete: boolean;
}

class ScrubWalk {
  readonly #options: ScrubOptions;
  readonly #catalog: Catalog;
  readonly #indexes = new Map<string, ReadIndexes>();
  readonly #seen = new Set<string>();
  #left = new Map<string, Set<string>>();
  #doneBytes = 0;

  constructor(options: ScrubOptions, catalog: Catalog) {
    this.#options = options;
    this.#catalog = catalog;
  }

  get layersChecked(): number {
    return this.#seen.size;
  }

  /** All of them first: a layer of one timeline may be listed by another. */
  async readIndexes(): Promise<void> {
    for (const timeline of this.#catalog.timelines.values()) {
      this.#indexes.set(timeline.timeline, await this.#readIndexesOf(timeline));
    }
    this.#left = await leftOvers(this.#options.objects, this.#catalog.timelines.values());
  }

  /** Looks; when there is a problem, looks again after a pause, and keeps what is still there. */
  async confirmed(look: (again: boolean) => Promise<Finding[]>): Promise<Finding[]> {
    let findings = await look(false);
    for (let i = 0; i < SECOND_LOOKS; i++) {
      if (!findings.some(({ severity }) => severity === 'problem')) break;
      await this.#options.sleep(this.#options.pauseMs);
      const now = await look(true);
      findings = now.filter(
        (finding) => finding.severity === 'note' || findings.some((before) => sameFinding(before, finding)),
      );
    }
    return findings;
  }

  async checkTimeline(first: TimelineObjects, again: boolean): Promise<Finding[]> {
    let timeline = first;
    if (again) {
      timeline = await readTimeline(this.#options.objects, first);
      this.#indexes.set(timeline.timeline, await this.#readIndexesOf(timeline));
    }
    if (this.#left.has(timeline.timeline)) return this.#checkLeft(timeline, again);
    const { newest, findings } = this.#indexes.get(timeline.timeline)!;
    const all = [...findings];
    if (newest) {
      all.push(...(await this.#checkLayers(timeline, newest)));
      all.push(...checkCoverage(timeline.timeline, newest), ...this.#checkAncestor(newest));
    }
    all.push(...this.#checkUnlisted(timeline, newest), ...(await this.#checkWal(timeline, newest)));
    for (const { key } of timeline.other) {
      all.push({
        severity: 'note',
        kind: 'unknown',
        timeline: timeline.timeline,
        key,
        message: 'an object of an unknown kind',
      });
    }
    return all;
  }

  /** A folder that no shard of the timeline's layout has; the timeline's own has its WAL all the same. */
  async #checkLeft(folder: TimelineObjects, again: boolean): Promise<Finding[]> {
    const { timeline, owner } = folder;
    const { objects } = this.#options;
    let left = this.#left;
    if (again) {
      const own = [...this.#catalog.timelines.values()].filter((each) => each.owner === owner);
      left = await leftOvers(objects, await Promise.all(own.map((each) => readTimeline(objects, each))));
    }
    const others = [...this.#indexes].filter(([name]) => !this.#left.has(name));
    const keys = [...(left.get(timeline) ?? [])];
    const unlisted = keys.filter((key) => !others.some(([, { listed }]) => listed.has(key)));
    const wal = timeline === owner ? await this.#checkWal(folder, undefined) : [];
    const findings = unlisted.map(
      (key): Finding => ({
        severity: 'problem',
        kind: 'orphan',
        timeline,
        key,
        message: 'the pages of this timeline are on other shards',
        repair: { action: 'delete' },
      }),
    );
    return [...findings, ...wal];
  }

  async checkTemplates(again: boolean): Promise<Finding[]> {
    const { objects } = this.#options;
    let templates = this.#catalog.templates;
    if (again) {
      templates = [];
      for await (const info of objects.list('templates/')) templates.push(info);
    }
    const wanted = new Set<string>();
    for (const { newest } of this.#indexes.values())
      if (newest?.spec.template) wanted.add(newest.spec.template);
    return checkTemplates(objects, templates, wanted, (source) => this.#checkContent(source));
  }

  async checkManifests(again: boolean): Promise<Finding[]> {
    const { objects, local } = this.#options;
    const others = again ? await listManifests(objects) : this.#catalog.other;
    const known = local?.knownTimelines();
    const timelines = [];
    for (const timeline of this.#catalog.timelines.values()) {
      // One that nobody knows is told already.
      if (known && !known.has(timeline.owner)) continue;
      if (!again || !(await isEmpty(objects, timeline.prefix))) timelines.push(timeline);
    }
    return checkManifests(objects, others, timelines);
  }

  /** Timelines that this installation does not know. */
  async checkUnknown(again: boolean): Promise<Finding[]> {
    const findings: Finding[] = [];
    for (const timeline of this.#catalog.timelines.values()) {
      const known = this.#options.local?.knownTimelines();
      if (known === undefined || known.has(timeline.owner)) continue;
      // One that is being deleted loses its objects first, but they were listed before.
      if (again && (await isEmpty(this.#options.objects, timeline.prefix))) continue;
      findings.push({
        severity: 'problem',
        kind: 'orphan',
        timeline: timeline.timeline,
        key: timeline.prefix,
        message:
          'this data directory knows no such timeline; it was deleted, or belongs to another installation',
      });
    }
    return findings;
  }

  async #readIndexesOf(timeline: TimelineObjects): Promise<ReadIndexes> {
    const read: ReadIndexes = { newest: undefined, listed: new Set(), findings: [], incomplete: false };
    for (const [i, { key }] of timeline.indexes.entries()) {
      const isNewest = i === timeline.indexes.length - 1;
      try {
        const index = decodeIndex(key, await this.#options.objects.get(key));
        for (const layer of index.layers) read.listed.add(layer.key);
        if (isNewest) read.newest = index;
      } catch (error) {
        const { code, message } = asPalimpsest(error);
        // A superseded index may be removed at any time.
        if (code === 'not-found' && !isNewest) continue;
        read.incomplete = true;
        const kind = code === 'not-found' ? 'missing' : code === 'corrupt' ? 'corrupt' : 'unknown';
        read.findings.push({
          severity: isNewest ? 'problem' : 'note',
          kind,
          timeline: timeline.timeline,
          key,
          message: isNewest ? message : `${message} (a newer index has taken its place)`,
        });
      }
    }
    return read;
  }

  async #checkLayers(timeline: TimelineObjects, index: ShardIndex): Promise<Finding[]> {
    const check = async (layer: ShardIndex['layers'][number]): Promise<Finding[]> => {
      const finding = await this.#checkLayer(timeline, layer);
      if (!finding) return [];
      const path = await this.#options.local?.healthyLayer(layer.key, layer.bytes);
      return [path === undefined ? finding : { ...finding, repair: { action: 'upload', path } }];
    };
    return (await inParallel(index.layers, check, PARALLEL_LAYERS)).flat();
  }

  async #checkLayer(timeline: TimelineObjects, layer: LayerDescriptor): Promise<Finding | undefined> {
    const about = { severity: 'problem', timeline: timeline.timeline, key: layer.key } as const;
    // A layer that another timeline has written is in that one's folder.
    const info = timeline.layers.get(layer.key) ?? (await this.#options.objects.head(layer.key));
    if (!info)
      return {
        ...about,
        kind: 'missing',
        message: 'the index lists this layer, but there is no such object',
      };
    if (info.bytes !== layer.bytes) {
      const message = `the object has ${info.bytes} bytes, the index says ${layer.bytes}`;
      return { ...about, kind: 'corrupt', message };
    }
    try {
      await this.#checkContent(objectSource(this.#options.objects, info), layer);
      return undefined;
    } catch (error) {
      const { code, message } = asPalimpsest(error);
      if (code === 'not-found') return { ...about, kind: 'missing', message };
      if (code === 'unavailable' || code === 'timeout') throw error;
      return { ...about, kind: code === 'unsupported' ? 'unknown' : 'corrupt', message };
    }
  }

  async #checkContent(source: LayerSource, layer?: LayerDescriptor): Promise<void> {
    const { deep, onProgress } = this.#options;
    const { startLsn, endLsn } = deep ? await inspectLayer(source) : (await openLayer(source)).footer;
    if (layer && (startLsn !== layer.startLsn || endLsn !== layer.endLsn)) {
      throw new PalimpsestError(
        'corrupt',
        `the file is of ${formatLsn(startLsn)} to ${formatLsn(endLsn)}, the index says ${formatLsn(layer.startLsn)} to ${formatLsn(layer.endLsn)}`,
      );
    }
    if (this.#seen.has(source.name)) return;
    this.#seen.add(source.name);
    this.#doneBytes += source.bytes;
    onProgress?.(this.#doneBytes, this.#catalog.bytes);
  }

  #checkUnlisted(timeline: TimelineObjects, newest: ShardIndex | undefined): Finding[] {
    const all = [...this.#indexes.values()];
    const isKnown = !all.some(({ incomplete }) => incomplete);
    const findings: Finding[] = [];
    for (const key of timeline.layers.keys()) {
      if (all.some(({ listed }) => listed.has(key))) continue;
      const about = { timeline: timeline.timeline, key };
      if (!newest || generationOf(key) >= newest.generation) {
        findings.push({
          ...about,
          severity: 'note',
          kind: 'unknown',
          message: 'no index lists this layer yet, or it is about to be removed',
        });
        continue;
      }
      findings.push({
        ...about,
        severity: 'problem',
        kind: 'orphan',
        message: `no index lists this layer of generation ${generationOf(key)}; the newest is of generation ${newest.generation}`,
        ...(isKnown ? { repair: { action: 'delete' } as const } : {}),
      });
    }
    return findings;
  }

  #checkAncestor({ spec }: ShardIndex): Finding[] {
    const { ancestor, timeline } = spec;
    if (!ancestor) return [];
    const isThere =
      [...this.#catalog.timelines.values()].some(({ owner }) => owner === ancestor.timeline) ||
      this.#options.local?.timelines().has(ancestor.timeline);
    if (isThere) return [];
    const message = `its history before ${formatLsn(ancestor.lsn)} is that of timeline ${ancestor.timeline}, of which there is nothing`;
    return [{ severity: 'problem', kind: 'missing', timeline, message }];
  }

  async #checkWal(
    { timeline, owner, ...own }: TimelineObjects,
    newest: ShardIndex | undefined,
  ): Promise<Finding[]> {
    const { objects, deep } = this.#options;
    // A shard goes on with the WAL of its timeline, which is looked at there.
    const isShard = owner !== timeline;
    const wal = isShard ? (this.#catalog.timelines.get(owner)?.wal ?? []) : own.wal;
    const { ranges, findings: all } = await checkWalObjects({
      objects,
      timeline,
      wal,
      deep: deep && !isShard,
    });
    const findings = isShard ? [] : all;
    const local = this.#options.local?.segments(owner);
    const begin = Math.min(...ranges.map(({ from }) => from));
    // Without layers all of the timeline's own WAL is needed, which objects have from its beginning on.
    const layersEndLsn = newest?.diskConsistentLsn ?? begin;
    if (!Number.isFinite(layersEndLsn)) return findings;
    return [...findings, ...checkWal({ timeline, layersEndLsn, objects: ranges, local })];
  }
}

function checkCoverage(timeline: string, index: ShardIndex): Finding[] {
  const { spec, diskConsistentLsn, gcCutoff, layers } = index;
  const bounds = { startLsn: spec.startLsn, endLsn: diskConsistentLsn, gcCutoff };
  return findGaps(layers, bounds).map(({ fromLsn, toLsn }) => ({
    severity: 'problem',
    kind: 'gap',
    timeline,
    message: `no layer holds what changed between ${formatLsn(fromLsn)} and ${formatLsn(toLsn)}`,
  }));
}

async function isEmpty(objects: Objects, prefix: string): Promise<boolean> {
  for await (const _ of objects.list(prefix)) return false;
  return true;
}

function asPalimpsest(error: unknown): PalimpsestError {
  if (error instanceof PalimpsestError) return error;
  return new PalimpsestError('corrupt', error instanceof Error ? error.message : String(error));
}
