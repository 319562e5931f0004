/**
 * Golden objects: for each format of an object that outlives the version that wrote it, how today's code writes one, and how it reads
 * one of any version into plain data.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ShardSpec } from '../../actors/pageserver/events.ts';
import { decodeIndex, encodeIndex, makeIndex } from '../../actors/pageserver/index-object.ts';
import type { LayerDescriptor } from '../../actors/pageserver/layer-descriptor.ts';
import { type ManifestSource, Manifests, readManifest } from '../../deploy/node/manifests.ts';
import { claimObjects, MARK_KEY, readMark } from '../../deploy/node/objects-mark.ts';
import { decodeFooter } from '../../protocols/layers/footer.ts';
import { FOOTER_BYTES, KIND_DELTA, NO_CUT } from '../../protocols/layers/format.ts';
import { LayerIndex, openIndexSections } from '../../protocols/layers/reader.ts';
import { openSectionsVersion1 } from '../../protocols/layers/version-1.ts';
import { LayerWriter } from '../../protocols/layers/writer.ts';
import { LocalObjects } from '../../runtime/adapters/local-objects.ts';
import { createLog } from '../../runtime/adapters/pino-log.ts';
import type { ActorEvent } from '../../runtime/host/definition.ts';
import type { Objects } from '../../runtime/ports/objects.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { PAGESERVER_EVENTS } from './events-pageserver.ts';
import { foldAll, fullHistory, GOLDEN_ID, GOLDEN_KINDS } from './kinds.ts';
import { GOLDEN_MESSAGES, type GoldenFormat } from './messages.ts';

const TENANT = 'a'.repeat(32);
const MANIFEST_KEY = `projects/${TENANT}/project.json`;

export const GOLDEN_FORMATS: GoldenFormat[] = [
  ...GOLDEN_MESSAGES,
  { name: 'layer', version: 2, write: async () => writeLayer(), read: async (bytes) => readLayer(bytes) },
  {
    name: 'index',
    version: 2,
    async write() {
      const { shard: _, isFace: __, isComing: ___, ...spec } = PAGESERVER_EVENTS['attach.requested'].spec;
      return writeIndex(spec as ShardSpec);
    },
    read: async (bytes) => decodeIndex('golden', bytes),
  },
  {
    // The same format with what only a shard of several has; the second file with what one has that was made after a split was given up.
    name: 'shard-index',
    version: 2,
    write: async () => writeIndex(PAGESERVER_EVENTS['attach.requested'].spec as ShardSpec),
    read: async (bytes) => decodeIndex('golden', bytes),
  },
  {
    name: 'manifest',
    version: 1,
    write: () =>
      withObjects(async (objects) => {
        await manifestsOf(objects, withoutShards).save(TENANT);
        return objects.get(MANIFEST_KEY);
      }),
    read: readFromObjects,
  },
  {
    name: 'shards-manifest',
    version: 2,
    write: () =>
      withObjects(async (objects) => {
        await manifestsOf(objects, (history) => history).save(TENANT);
        return objects.get(MANIFEST_KEY);
      }),
    read: readFromObjects,
  },
  {
    name: 'mark',
    version: 1,
    write: () =>
      withObjects(async (objects) => {
        const claim = { installation: GOLDEN_ID, epoch: 2, place: 'here', isNew: true, isPrivate: true };
        await claimObjects(objects, claim);
        return objects.get(MARK_KEY);
      }),
    read: (bytes) =>
      withObjects(async (objects) => {
        await objects.put(MARK_KEY, bytes);
        return readMark(objects, 'here');
      }),
  },
];

async function withObjects<T>(work: (objects: Objects) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'pal-golden-'));
  try {
    return await work(await LocalObjects.open(folder));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function writeIndex(spec: ShardSpec): Uint8Array {
  const { layers } = PAGESERVER_EVENTS['attach.completed'];
  return encodeIndex(makeIndex(spec, layers as LayerDescriptor[], 0x1500000));
}

function readFromObjects(bytes: Uint8Array): Promise<unknown> {
  return withObjects(async (objects) => {
    await objects.put(MANIFEST_KEY, bytes);
    return readManifest(objects, MANIFEST_KEY);
  });
}

/** Of a project with one shard, as every project was once. */
function withoutShards(history: readonly ActorEvent[]): ActorEvent[] {
  return history
    .filter(({ type }) => !type.startsWith('project.split'))
    .map((event) => {
      if (event.type !== 'project.created') return event;
      const { spec } = event as unknown as { spec: Record<string, unknown> };
      const { shards: _, ...one } = spec;
      return { ...event, spec: one } as ActorEvent;
    });
}

function manifestsOf(
  objects: Objects,
  choose: (history: readonly ActorEvent[]) => readonly ActorEvent[],
): Manifests {
  const tenant = GOLDEN_KINDS.find(({ definition }) => definition.kind === 'tenant')!;
  const state = foldAll(tenant.definition, choose(fullHistory(tenant))).keep();
  const source = (): ManifestSource => ({ state, timelines: [] });
  return new Manifests({ objects, clock: new ManualClock(), log: createLog({ level: 'silent' }), source });
}

/** A relation of which one page has a run of records and an image. */
function writeLayer(): Uint8Array {
  const pieces: { position: number; bytes: Uint8Array }[] = [];
  const writer = new LayerWriter({ kind: KIND_DELTA, level: 0, pgVersion: 17, startLsn: 400, endLsn: 900 });
  const keep = ({ position, bytes }: { position: number; bytes: Uint8Array }) =>
    pieces.push({ position, bytes: bytes.slice() });
  writer.relation({ spc: 1663, db: 5, rel: 16384, fork: 0 });
  writer.size(400, 9, NO_CUT);
  writer.record(4, { startLsn: 500, endLsn: 600, initialises: false }, new Uint8Array(88).fill(1), 0, 88);
  writer.image(4, 800, new Uint8Array(8192).fill(2));
  keep(writer.take());
  keep(writer.finish());
  const last = pieces.at(-1)!;
  const file = new Uint8Array(last.position + last.bytes.length);
  for (const { position, bytes } of pieces) file.set(bytes, position);
  return file;
}

/** What the layer says of itself, and the bytes of page 4 of its first relation at some LSNs. */
function readLayer(file: Uint8Array): unknown {
  const footer = decodeFooter('golden', file.subarray(-FOOTER_BYTES));
  const open = footer.version === 1 ? openSectionsVersion1 : openIndexSections;
  const index = new LayerIndex(footer, open('golden', footer, file, 0));
  const { version, kind, level, pgVersion, startLsn, endLsn } = footer;
  const pages = [600, 799, 899].map((lsn) => {
    const number = index.findBlock(0, 4, lsn);
    const from = index.blockOffset[number]!;
    const block = index.openBlock('golden', number, file.slice(from, from + index.blockStored[number]!));
    const entry = block.find(0, 4, lsn);
    const bytes = entry < 0 ? new Uint8Array(0) : block.bytes(entry);
    const flags = entry < 0 ? 0 : block.flags[entry];
    return { lsn, flags, length: bytes.length, first: bytes[0] ?? null };
  });
  return { version, kind, level, pgVersion, startLsn, endLsn, pages };
}
