/**
 * What the layer map and the index object keep of a layer, and how layers are named.
 *
 *   <first key>-<last key>__<start LSN>-<end LSN>-<generation>.layer     delta; image and state layers with their kind before
 *
 * Keys are 34 hex digits, LSNs 16, the writer's generation 8. A name is never used twice for different layers of a
 * timeline: when one would be, a number is put behind the generation.
 */
import { FIRST_KEY, formatKey, LAST_KEY } from '../../protocols/layers/key.ts';
import { shardPrefix } from '../../protocols/object-keys.ts';
import type { ShardTag } from '../../protocols/shard-layout.ts';

/** Whose layers they are: a timeline's, or those of one of its shards. */
export interface ShardOwner {
  tenant: string;
  timeline: string;
  shard?: ShardTag;
}

export type LayerKind = 'delta' | 'image' | 'state';

export interface LayerDescriptor {
  /** Key of the object; also the path of the local file below the folder of layers. */
  key: string;
  kind: LayerKind;
  /** 0: all keys, with the small state; 1: pages of a range of keys, or (kind state) the small state alone. */
  level: number;
  /** First and last key of the range, both within it, as formatKey writes them. */
  firstKey: string;
  lastKey: string;
  startLsn: number;
  endLsn: number;
  bytes: number;
  /** Generation of the writer. */
  generation: number;
}

export const FIRST_KEY_TEXT = formatKey(FIRST_KEY);
export const LAST_KEY_TEXT = formatKey(LAST_KEY);

/** The key of a new layer, which `isTaken` does not know. */
export function layerKey(
  spec: ShardOwner,
  layer: Omit<LayerDescriptor, 'key' | 'bytes'>,
  isTaken: (key: string) => boolean,
): string {
  const kind = layer.kind === 'delta' ? '' : `${layer.kind}-`;
  const lsns = `${hex(layer.startLsn, 16)}-${hex(layer.endLsn, 16)}`;
  const stem = `${shardPrefix(spec)}/${kind}${layer.firstKey}-${layer.lastKey}__${lsns}-${hex(layer.generation, 8)}`;
  for (let number = 0; ; number++) {
    const key = number === 0 ? `${stem}.layer` : `${stem}-${number}.layer`;
    if (!isTaken(key)) return key;
  }
}

/** The generation in a layer's name; 1 when it has none. */
export function generationOf(key: string): number {
  const match = /-([0-9a-f]{8})(?:-\d+)?\.layer$/.exec(key);
  return match ? Number.parseInt(match[1]!, 16) : 1;
}

/** Lifts a descriptor as journals and indexes of earlier versions have it: all keys, level 0. */
export function upcastDescriptor<T extends { key: string }>(layer: T): T & LayerDescriptor {
  const known = layer as T & LayerDescriptor;
  if (known.level !== undefined) return known;
  return {
    ...known,
    level: 0,
    firstKey: FIRST_KEY_TEXT,
    lastKey: LAST_KEY_TEXT,
    generation: generationOf(layer.key),
  };
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, '0');
}
