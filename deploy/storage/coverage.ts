/**
 * Whether a timeline's layers hold all of its history: for every page, everything that changed from where reads may begin
 * up to where the index says that layers end.
 *
 * History below an image is not needed: for each range of keys the chain of deltas is followed down from the end until it
 * reaches the timeline's beginning, or an image at or below the cutoff of garbage collection.
 */

export interface CoveringLayer {
  kind: 'delta' | 'image' | 'state';
  /** First and last key, both within the range, in an order that their texts have too. */
  firstKey: string;
  lastKey: string;
  startLsn: number;
  endLsn: number;
}

export interface CoverageBounds {
  startLsn: number;
  endLsn: number;
  /** Before this nothing needs to be readable; 0 while all of history is kept. */
  gcCutoff: number;
}

export interface HistoryGap {
  firstKey: string;
  /** Nothing is known of what changed from here … */
  fromLsn: number;
  /** … to here. */
  toLsn: number;
}

/** Finds the first gap in every range of keys between two borders of layers. */
export function findGaps(layers: CoveringLayer[], bounds: CoverageBounds): HistoryGap[] {
  const pages = layers.filter(({ kind }) => kind !== 'state');
  const gaps: HistoryGap[] = [];
  for (const firstKey of borders(pages)) {
    const here = pages.filter((layer) => layer.firstKey <= firstKey && layer.lastKey >= firstKey);
    const gap = gapIn(here, bounds, firstKey);
    if (gap && !gaps.some(({ fromLsn, toLsn }) => fromLsn === gap.fromLsn && toLsn === gap.toLsn))
      gaps.push(gap);
  }
  return gaps;
}

/** The first key of every layer; what begins after a layer's end is new ground as well. */
function borders(layers: CoveringLayer[]): string[] {
  const keys = new Set<string>();
  for (const { firstKey } of layers) keys.add(firstKey);
  return [...keys].sort();
}

function gapIn(layers: CoveringLayer[], bounds: CoverageBounds, firstKey: string): HistoryGap | undefined {
  const { startLsn, endLsn, gcCutoff } = bounds;
  let position = endLsn;
  for (;;) {
    const isImaged = layers.some(
      (layer) => layer.kind === 'image' && layer.endLsn >= position && layer.endLsn <= gcCutoff,
    );
    if (position <= startLsn || isImaged) return undefined;
    const below = layers.filter(
      (layer) => layer.kind === 'delta' && layer.endLsn >= position && layer.startLsn < position,
    );
    if (below.length === 0) break;
    position = Math.min(...below.map((layer) => layer.startLsn));
  }
  const next = layers.filter((layer) => layer.kind === 'delta' && layer.endLsn < position);
  const fromLsn = Math.max(startLsn, ...next.map((layer) => layer.endLsn));
  return { firstKey, fromLsn, toLsn: position };
}
