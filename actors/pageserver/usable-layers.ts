/**
 * Which layers of a timeline can be gone on from, when some of them are lost, or history beyond a point is not to count.
 */
import type { LayerDescriptor } from './layer-descriptor.ts';

/**
 * The layers that leave no gap. `lost` are keys of layers whose bytes are nowhere. Where what is left ends, WAL will be read again:
 * no layer that is kept reaches beyond it, or changes would be in two layers and be applied twice.
 */
export function layersWithoutGap<L extends LayerDescriptor>(
  layers: readonly L[],
  { startLsn, gcCutoff, lost }: { startLsn: number; gcCutoff: number; lost: ReadonlySet<string> },
): L[] {
  const chain = layers
    .filter(({ level, kind }) => level === 0 || kind === 'state')
    .sort((a, b) => a.startLsn - b.startLsn);
  // Garbage collection takes layers away from the beginning on, up to the last one that begins before the cutoff.
  const first = chain[0]?.startLsn ?? startLsn;
  let end = first <= gcCutoff ? Math.max(startLsn, first) : startLsn;
  const broken = new Set<string>();
  for (const { key, startLsn: begin, endLsn } of chain) {
    if (begin === end && !lost.has(key)) end = endLsn;
    else broken.add(key);
  }
  return layersUpTo(
    layers.filter(({ key }) => !broken.has(key) && !lost.has(key)),
    end,
  );
}

/** The layers that hold nothing beyond `end`, without those that come after one which does. */
export function layersUpTo<L extends LayerDescriptor>(layers: readonly L[], end: number): L[] {
  let kept = [...layers];
  for (let limit = end; ; ) {
    const beyond = kept.filter((layer) => layer.endLsn > limit);
    if (beyond.length === 0) return kept;
    kept = kept.filter((layer) => layer.endLsn <= limit);
    // From where the first of them began, history is read from WAL: what is built on later points goes, too.
    limit = Math.min(limit, ...beyond.map((layer) => layer.startLsn));
  }
}
