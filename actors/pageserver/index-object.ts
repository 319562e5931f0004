/**
 * Index objects: the snapshot of a shard's layer map in object storage, from which any pageserver takes it over. JSON, so
 * that an operator can read it. One key per generation; the highest one not above the own generation counts.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Objects } from '../../runtime/ports/objects.ts';
import type { ShardSpec } from './events.ts';
import type { LayerDescriptor } from './file-layer.ts';

const FORMAT = 1;

export interface ShardIndex {
  format: number;
  spec: ShardSpec;
  diskConsistentLsn: number;
  layers: LayerDescriptor[];
}

/** Folder of a timeline's objects. */
export function timelinePrefix(spec: { tenant: string; timeline: string }): string {
  return `tenants/${spec.tenant}/timelines/${spec.timeline}`;
}

export function indexKey(spec: ShardSpec): string {
  return `${timelinePrefix(spec)}/index-${hex(spec.generation, 8)}`;
}

/** Key of a delta layer's object; also its path below the folder of layers. */
export function deltaKey(spec: ShardSpec, startLsn: number, endLsn: number): string {
  return `${timelinePrefix(spec)}/${hex(startLsn, 16)}-${hex(endLsn, 16)}-${hex(spec.generation, 8)}.layer`;
}

/** Stores the index of the layers that object storage has. */
export async function putIndex(
  objects: Objects,
  spec: ShardSpec,
  layers: LayerDescriptor[],
): Promise<string> {
  const key = indexKey(spec);
  const last = layers.at(-1);
  const index: ShardIndex = {
    format: FORMAT,
    spec,
    diskConsistentLsn: last ? last.endLsn : spec.startLsn,
    layers: layers.map(({ key: layerKey, kind, startLsn, endLsn, bytes }) => ({
      key: layerKey,
      kind,
      startLsn,
      endLsn,
      bytes,
    })),
  };
  await objects.put(key, new TextEncoder().encode(JSON.stringify(index, undefined, 1)));
  return key;
}

/** The newest index of a timeline that generation `spec.generation` may take over, if there is one. */
export async function findIndex(objects: Objects, spec: ShardSpec): Promise<ShardIndex | undefined> {
  const prefix = `${timelinePrefix(spec)}/index-`;
  const highest = indexKey(spec);
  let found: string | undefined;
  for await (const { key } of objects.list(prefix)) if (key <= highest) found = key;
  if (found === undefined) return undefined;
  return parseIndex(found, await objects.get(found));
}

function parseIndex(key: string, bytes: Uint8Array): ShardIndex {
  let index: ShardIndex;
  try {
    index = JSON.parse(new TextDecoder().decode(bytes)) as ShardIndex;
  } catch (error) {
    throw new PalimpsestError('corrupt', `index object ${key} cannot be read`, undefined, error);
  }
  if (index.format !== FORMAT || !Array.isArray(index.layers)) {
    throw new PalimpsestError('unsupported', `index object ${key} has format ${index.format}`);
  }
  return index;
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, '0');
}
