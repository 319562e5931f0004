/**
 * Makes a timeline independent of its ancestor: all that it sees where it starts is written as a template of its own, one image
 * layer with all pages and the small state, and can take the ancestor's place from then on.
 *
 * The index of the template is stored last: as long as it is not there, nothing was copied; once it is there, it never changes,
 * because the state at one LSN never does. So this may be done again after any crash.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { NO_CUT } from '../../protocols/layers/format.ts';
import { compareKeys, type PageKey } from '../../protocols/layers/key.ts';
import { PAGE_BYTES } from '../../protocols/lsn.ts';
import type { RelationTag } from '../../protocols/pages/types.ts';
import { encodeTimelineState } from '../../protocols/postgres/state/snapshot.ts';
import { ownedRanges, type ShardTag, shardId } from '../../protocols/shard-layout.ts';
import { isZeroPage } from './image-writer.ts';
import { LayerFileWriter } from './layer-file-writer.ts';
import type { Shard } from './shard.ts';
import { TEMPLATE_FORMAT, type TemplateIndex } from './template.ts';
import type { ShardTools } from './tools.ts';

const BATCH_PAGES = 64;

/** Folder of the objects of a shard's own template. */
export function ownTemplatePrefix(timeline: string, shard?: ShardTag): string {
  return `templates/branches/${shardId(timeline, shard)}`;
}

/** Copies the state where the timeline starts; returns the key of the template's index. */
export async function copyAncestor(shard: Shard, tools: ShardTools): Promise<string> {
  const { spec } = shard;
  const { objects, store, disk } = tools;
  const prefix = ownTemplatePrefix(spec.timeline, spec.shard);
  const indexKey = `${prefix}/index.json`;
  if ((await objects.head(indexKey)) !== undefined) return indexKey;
  const written = await writeImageOfAll(shard, tools);
  const key = `${prefix}/${spec.startLsn.toString(16).padStart(16, '0')}.layer`;
  await objects.putFile(key, store.pathOf(written.key));
  const index: TemplateIndex = {
    format: TEMPLATE_FORMAT,
    pgVersion: spec.pgVersion,
    systemId: spec.systemId,
    startLsn: spec.startLsn,
    layer: { ...written, key },
  };
  await objects.put(indexKey, new TextEncoder().encode(JSON.stringify(index, undefined, 1)));
  await disk.remove(store.pathOf(written.key));
  return indexKey;
}

async function writeImageOfAll(shard: Shard, tools: ShardTools) {
  const { spec, reader } = shard;
  const lsn = spec.startLsn;
  const view = await shard.view(lsn);
  const fold = await shard.foldAt(lsn);
  if (fold.lastRecordEnd !== lsn) {
    throw new PalimpsestError('corrupt', `timeline ${spec.timeline} does not start at the end of a record`);
  }
  const relations: (RelationTag & { relation: number; blocks: number })[] = [];
  view.forEachSize((relation, blocks) => {
    if (blocks >= 0) relations.push({ relation, blocks, ...tools.relations.tag(relation) });
  });
  relations.sort((a, b) => compareKeys(firstKeyOf(a), firstKeyOf(b)));
  const place = {
    disk: tools.disk,
    store: tools.store,
    spec,
    isTaken: (key: string) => shard.history.files.get(key) !== undefined,
  };
  const file = await LayerFileWriter.open(place, { kind: 'image', level: 0, startLsn: lsn, endLsn: lsn });
  try {
    for (const { relation, blocks, spc, db, rel, fork } of relations) {
      file.writer.relation({ spc, db, rel, fork });
      for (const { first, count } of batchesOf(ownedRanges(spec.shard, { spc, rel }, 0, blocks))) {
        const pages = new Uint8Array(count * PAGE_BYTES);
        const batch = {
          relations: new Int32Array(count).fill(relation),
          blocks: Float64Array.from({ length: count }, (_, i) => first + i),
        };
        await reader.read(batch, lsn, pages, { keepsPages: false });
        for (let i = 0; i < count; i++) {
          const page = pages.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
          file.writer.image(first + i, lsn, isZeroPage(page) ? undefined : page);
        }
        await file.drain();
      }
      file.writer.size(lsn, blocks, NO_CUT);
    }
    for (const [key, data] of [...view.values()].sort(([a], [b]) => (a < b ? -1 : 1))) {
      file.writer.value(key, lsn, data);
    }
    file.writer.waypoint(lsn, encodeTimelineState(fold, spec.pgVersion));
  } catch (error) {
    await file.abandon();
    throw error;
  }
  return file.finish();
}

function* batchesOf(ranges: { from: number; to: number }[]): Iterable<{ first: number; count: number }> {
  for (const { from, to } of ranges) {
    for (let first = from; first < to; first += BATCH_PAGES) {
      yield { first, count: Math.min(BATCH_PAGES, to - first) };
    }
  }
}

function firstKeyOf({ spc, db, rel, fork }: RelationTag): PageKey {
  return { spc, db, rel, fork, block: 0 };
}
