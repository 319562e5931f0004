/**
 * Which layers of a shard may go, and which images would let more of them go. Pure decisions over descriptors.
 *
 * Readable must stay every LSN from the cutoff on, and below it the retained points. It is enough to look at the cutoff and at the
 * retained points: what is needed after the cutoff and ends before it is needed at the cutoff.
 *
 * 1. A delta is needed at a point that it reaches, unless images hold all of its keys: as of its end or later, up to the
 *    point; or as of the point itself, when it goes on after that.
 * 2. An image is needed at a point from its LSN on, unless newer images up to the point hold all of its keys.
 * 3. Of the layers with the small state only the oldest go, one after the other, so that they never have a gap. Those between a
 *    retained point and the cutoff become one that tells the retained points alone.
 * 4. Level 0 stays: it is merged first, which is worth it where the merged layers could go.
 */
import { formatKey, parseKey } from '../../protocols/layers/key.ts';
import { FIRST_KEY_TEXT, LAST_KEY_TEXT, type LayerDescriptor } from './layer-descriptor.ts';
import { keyAfter } from './layer-map.ts';

/** What must stay readable. */
export interface GcPoints {
  cutoffLsn: number;
  /** Points below the cutoff, in any order. */
  retained: readonly number[];
}

/** An image at so many points is made in one round at most. */
const IMAGES_MAX = 2;

/** When work for a collection is worth it. */
export interface GcWorth {
  /** What images of all keys at an LSN would take, about. */
  imageBytes(lsn: number): number;
  /** An image or a merge is made for no less than this. */
  gainBytesMin: number;
}

/** The layers that nothing needs any more. */
export function removableLayers(layers: readonly LayerDescriptor[], points: GcPoints): LayerDescriptor[] {
  const needed = neededPoints(points);
  const images = layers.filter(({ kind }) => kind === 'image').sort(byFirstKey);
  const pages = layers.filter((layer) => hasOnlyPages(layer) && isRemovable(layer, images, needed));
  return [...removableStates(layers, needed), ...pages];
}

/** Whether merging the level 0 deltas before the cutoff lets enough of them go, at once or with images. */
export function isMergeWanted(layers: readonly LayerDescriptor[], points: GcPoints, worth: GcWorth): boolean {
  const open = new Set(layers.filter((layer) => isOpen(layer) && layer.endLsn <= points.cutoffLsn));
  if (bytesOf([...open]) < worth.gainBytesMin) return false;
  const merged = layers.map((layer) => (open.has(layer) ? { ...layer, level: 1 } : layer));
  const keys = new Set([...open].map(({ key }) => key));
  const gone = removableLayers(merged, points).filter(({ key }) => keys.has(key));
  return bytesOf(gone) >= worth.gainBytesMin || imagesWanted(merged, points, worth).length > 0;
}

/**
 * The state layers, oldest first, of which only `retained` is needed any more, and the retained points that they tell: those that
 * are wholly before the cutoff. None when there are no such points.
 */
export function sparseStates(
  layers: readonly LayerDescriptor[],
  points: GcPoints,
): { layers: LayerDescriptor[]; retained: number[] } {
  const chain = layers
    .filter(({ kind, endLsn }) => kind === 'state' && endLsn <= points.cutoffLsn)
    .sort((a, b) => a.startLsn - b.startLsn);
  const [first, last] = [chain[0], chain.at(-1)];
  if (!first || !last) return { layers: [], retained: [] };
  const retained = neededPoints(points).filter(
    (lsn) => lsn < points.cutoffLsn && lsn > first.startLsn && lsn <= last.endLsn,
  );
  return retained.length === 0 ? { layers: [], retained } : { layers: chain, retained };
}

/** The points at which images are worth their bytes: they let more than that go. */
export function imagesWanted(
  layers: readonly LayerDescriptor[],
  points: GcPoints,
  { imageBytes, gainBytesMin }: GcWorth,
): number[] {
  const wanted: number[] = [];
  const base = layers.find(({ kind, level }) => kind === 'delta' && level === 1);
  if (!base) return wanted;
  let now = bytesOf(removableLayers(layers, points));
  let candidates = neededPoints(points);
  const withImage = (lsns: number[]) => [...layers, ...lsns.map(imageOfAll)];
  while (wanted.length < IMAGES_MAX) {
    let best: { lsn: number; bytes: number; worth: number } | undefined;
    for (const lsn of candidates) {
      const bytes = bytesOf(removableLayers(withImage([...wanted, lsn]), points));
      const gain = bytes - now;
      const worth = gain - imageBytes(lsn);
      if (gain >= gainBytesMin && worth > (best?.worth ?? 0)) best = { lsn, bytes, worth };
    }
    if (!best) break;
    const { lsn, bytes } = best;
    wanted.push(lsn);
    now = bytes;
    candidates = candidates.filter((candidate) => candidate !== lsn);
  }
  return wanted;
}

/** The cutoff and the points below it, ascending. */
function neededPoints({ cutoffLsn, retained }: GcPoints): number[] {
  const below = retained.filter((lsn) => lsn < cutoffLsn);
  return [...new Set([...below, cutoffLsn])].sort((a, b) => a - b);
}

function isRemovable(layer: LayerDescriptor, images: LayerDescriptor[], needed: number[]): boolean {
  const { kind, startLsn, endLsn } = layer;
  if (endLsn > needed.at(-1)!) return false;
  if (kind === 'image') {
    // What newer images cover at the first point they cover at all later ones.
    const point = needed.find((lsn) => lsn >= endLsn)!;
    return isCovered(layer, images, endLsn + 1, point);
  }
  for (const point of needed) {
    if (point <= startLsn) continue;
    // Of a delta that goes on after the point only the part up to it is needed there.
    if (!isCovered(layer, images, Math.min(endLsn, point), point)) return false;
    if (point >= endLsn) break;
  }
  return true;
}

/** Whether images with from <= LSN <= to hold all keys of a layer. `images` are sorted by their first key. */
function isCovered(layer: LayerDescriptor, images: LayerDescriptor[], from: number, to: number): boolean {
  let next = layer.firstKey;
  for (const image of images) {
    if (image.firstKey > next) return false;
    if (image.endLsn < from || image.endLsn > to || image.lastKey < next) continue;
    if (image.lastKey >= layer.lastKey) return true;
    next = formatKey(keyAfter(parseKey(image.lastKey))!);
  }
  return false;
}

function removableStates(layers: readonly LayerDescriptor[], needed: number[]): LayerDescriptor[] {
  const chain = layers
    .filter((layer) => layer.kind === 'state' || isOpen(layer))
    .sort((a, b) => a.startLsn - b.startLsn);
  const removable: LayerDescriptor[] = [];
  // The last one stays in any case: it says up to where the files reach.
  for (const layer of chain.slice(0, -1)) {
    if (layer.kind !== 'state' || layer.endLsn >= needed[0]!) break;
    removable.push(layer);
  }
  return removable;
}

function isOpen({ kind, level }: LayerDescriptor): boolean {
  return kind === 'delta' && level === 0;
}

function hasOnlyPages({ kind, level }: LayerDescriptor): boolean {
  return kind === 'image' || (kind === 'delta' && level > 0);
}

function byFirstKey(a: LayerDescriptor, b: LayerDescriptor): number {
  return a.firstKey < b.firstKey ? -1 : a.firstKey > b.firstKey ? 1 : 0;
}

function bytesOf(layers: readonly LayerDescriptor[]): number {
  return layers.reduce((total, { bytes }) => total + bytes, 0);
}

/** What an image of all keys at an LSN would be. */
function imageOfAll(lsn: number): LayerDescriptor {
  return {
    key: '',
    kind: 'image',
    level: 1,
    firstKey: FIRST_KEY_TEXT,
    lastKey: LAST_KEY_TEXT,
    startLsn: lsn,
    endLsn: lsn,
    bytes: 0,
    generation: 0,
  };
}
