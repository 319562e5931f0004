/**
 * Index objects: the snapshot of a shard's layer map in object storage, from which any pageserver takes it over. JSON, so
 * that an operator can read it, with a checksum. One key per generation; the highest one not above the own generation counts.
 *
 *   { "format": 2, "crc32c": "8 hex digits", "content": ShardIndex }
 *
 * The checksum is over the UTF-8 bytes of the content as JSON.stringify writes it without spaces. Format 1 was the content alone,
 * with fewer fields, and no checksum.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { shardPrefix } from '../../protocols/object-keys.ts';
import { crc32c } from '../../protocols/postgres/crc32c.ts';
import type { Objects } from '../../runtime/ports/objects.ts';
import type { ShardSpec } from './events.ts';
import { type LayerDescriptor, upcastDescriptor } from './layer-descriptor.ts';
import { OwnObject } from './own-object.ts';

const FORMAT = 2;

export interface ShardIndex {
  /** As the writer was attached: with its generation, and the ancestor if there is one. */
  spec: ShardSpec;
  generation: number;
  diskConsistentLsn: number;
  /** Before this nothing needs to be readable; 0 while all of history is kept. */
  gcCutoff: number;
  ancestor: { timeline: string; lsn: number } | null;
  layers: LayerDescriptor[];
}

/** Eight hexadecimal digits of a key. */
const GENERATION_MAX = 2 ** 32 - 1;

/** Whose index it is. */
export type IndexOwner = Pick<ShardSpec, 'tenant' | 'timeline' | 'shard' | 'generation'>;

export function indexKey(spec: IndexOwner): string {
  return `${shardPrefix(spec)}/index-${spec.generation.toString(16).padStart(8, '0')}`;
}

/** What an index of these layers says, which object storage must have already. */
export function makeIndex(spec: ShardSpec, layers: LayerDescriptor[], gcCutoff: number): ShardIndex {
  return {
    spec,
    generation: spec.generation,
    diskConsistentLsn: layers.reduce((end, layer) => Math.max(end, layer.endLsn), spec.startLsn),
    gcCutoff,
    ancestor: spec.ancestor ?? null,
    layers: layers.map(({ key, kind, level, firstKey, lastKey, startLsn, endLsn, bytes, generation }) => ({
      key,
      kind,
      level,
      firstKey,
      lastKey,
      startLsn,
      endLsn,
      bytes,
      generation,
    })),
  };
}

/** Stores the first index of a generation under its key, and returns that. */
export async function putIndex(objects: Objects, index: ShardIndex): Promise<string> {
  const object = new OwnObject(objects, indexKey(index.spec));
  await object.replace(encodeIndex(index));
  return object.key;
}

/** The newest index of a shard that generation `spec.generation` may take over, if there is one. */
export async function findIndex(objects: Objects, spec: IndexOwner): Promise<ShardIndex | undefined> {
  const prefix = `${shardPrefix(spec)}/index-`;
  const highest = indexKey(spec);
  let found: string | undefined;
  for await (const { key } of objects.list(prefix)) if (key <= highest) found = key;
  if (found === undefined) return undefined;
  return decodeIndex(found, await objects.get(found));
}

/** The newest index of a shard, of whatever generation. */
export function newestIndex(
  objects: Objects,
  { tenant, timeline, shard }: Omit<IndexOwner, 'generation'>,
): Promise<ShardIndex | undefined> {
  const owner = { tenant, timeline, ...(shard ? { shard } : {}) };
  return findIndex(objects, { ...owner, generation: GENERATION_MAX });
}

export function encodeIndex(index: ShardIndex): Uint8Array {
  const sum = checksum(index);
  return new TextEncoder().encode(
    JSON.stringify({ format: FORMAT, crc32c: sum, content: index }, undefined, 1),
  );
}

/** Throws `corrupt` when the bytes are not what was written, `unsupported` when a newer Palimpsest wrote them. */
export function decodeIndex(key: string, bytes: Uint8Array): ShardIndex {
  let stored: { format?: number; crc32c?: string; content?: ShardIndex } & Partial<ShardIndex>;
  try {
    stored = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    throw corruptIndex(key, 'cannot be read', error);
  }
  if (stored?.format === 1 && Array.isArray(stored.layers) && stored.spec) return upcastFormat1(stored);
  if (typeof stored?.format === 'number' && stored.format > FORMAT) {
    throw new PalimpsestError(
      'unsupported',
      `index object ${key} has format ${stored.format}, newer than ${FORMAT}`,
      'It was written by a newer Palimpsest: use that one.',
    );
  }
  const { content } = stored ?? {};
  if (stored?.format !== FORMAT || !content || stored.crc32c !== checksum(content)) {
    throw corruptIndex(key, 'does not match its checksum');
  }
  return content;
}

function upcastFormat1(stored: Partial<ShardIndex>): ShardIndex {
  return makeIndex(stored.spec!, stored.layers!.map(upcastDescriptor), 0);
}

function checksum(content: ShardIndex): string {
  return crc32c(new TextEncoder().encode(JSON.stringify(content)))
    .toString(16)
    .padStart(8, '0');
}

function corruptIndex(key: string, what: string, cause?: unknown): PalimpsestError {
  return new PalimpsestError(
    'corrupt',
    `index object ${key} ${what}`,
    'Restore the object from a copy of the bucket; `palimpsest scrub` names all objects that are damaged.',
    cause,
  );
}
