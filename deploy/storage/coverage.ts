/**
 * Whether a timeline's layers hold all of its history, from where reads may begin up to where the index says that layers end.
 *
 * Level 0 deltas and state layers have the small state of their LSNs, and together they follow one another without a gap. What
 * merges and images make of pages holds a range of keys each, and where nothing changed there is nothing: so the chain of
 * the small state tells whether something is missing. Below the cutoff of garbage collection it may have gaps.
 */

export interface CoveringLayer {
  kind: 'delta' | 'image' | 'state';
  level: number;
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
  /** Nothing is known of what changed from here … */
  fromLsn: number;
  /** … to here. */
  toLsn: number;
}

/** All gaps, the newest first. */
export function findGaps(layers: CoveringLayer[], bounds: CoverageBounds): HistoryGap[] {
  const { startLsn, endLsn, gcCutoff } = bounds;
  const begin = Math.max(startLsn, gcCutoff);
  const chain = layers
    .filter(({ kind, level }) => kind === 'state' || (kind === 'delta' && level === 0))
    .sort((a, b) => b.endLsn - a.endLsn || a.startLsn - b.startLsn);
  const gaps: HistoryGap[] = [];
  let position = endLsn;
  for (const layer of chain) {
    if (position <= begin) break;
    if (layer.endLsn < position) gaps.push({ fromLsn: Math.max(begin, layer.endLsn), toLsn: position });
    position = Math.min(position, layer.startLsn);
  }
  if (position > begin) gaps.push({ fromLsn: begin, toLsn: position });
  return gaps;
}
