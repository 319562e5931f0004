/**
 * Whether a timeline's WAL is there, from where its layers end to its newest byte: in objects, or in a safekeeper's segments.
 */
import { formatLsn, segmentFileName, segmentNumber, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import type { Finding } from './findings.ts';

export interface WalPlaces {
  timeline: string;
  /** Layers have everything up to here. */
  layersEndLsn: number;
  /** Ranges that objects have. */
  objects: { from: number; to: number }[];
  /** Numbers of the segments that safekeepers have; undefined when their disks cannot be seen from here. */
  local: Set<number> | undefined;
}

/** Segments that nobody has although somebody has later ones, and WAL that layers lack and nobody has. */
export function checkWal(places: WalPlaces): Finding[] {
  const { timeline, layersEndLsn, objects, local } = places;
  const stored = new Set<number>();
  for (const { from, to } of objects) {
    for (let number = segmentNumber(from); number <= segmentNumber(to - 1); number++) stored.add(number);
  }
  const all = new Set([...stored, ...(local ?? [])]);
  if (all.size === 0) return [];
  const findings: Finding[] = [];
  const needed = segmentNumber(layersEndLsn);
  const first = Math.min(...all);
  const last = Math.max(...all);
  // Old WAL is given up from its beginning on, so it may begin anywhere up to the layers' end. State between two waypoints
  // of layers is worked out from it, so there may be no hole in what is left.
  for (const [from, to] of missingRanges(all, first, last)) {
    findings.push({
      severity: 'problem',
      kind: 'gap',
      timeline,
      message: gapText(from, to, local !== undefined),
    });
  }
  if (first > needed) {
    findings.push({
      severity: 'problem',
      kind: 'gap',
      timeline,
      message: `layers end at ${formatLsn(layersEndLsn)}, but the oldest WAL that is left begins at ${formatLsn(first * WAL_SEGMENT_BYTES)}`,
    });
  }
  return findings;
}

function missingRanges(all: Set<number>, first: number, last: number): [number, number][] {
  const ranges: [number, number][] = [];
  for (let number = first; number <= last; number++) {
    if (all.has(number)) continue;
    const open = ranges.at(-1);
    if (open && open[1] === number - 1) open[1] = number;
    else ranges.push([number, number]);
  }
  return ranges;
}

function gapText(from: number, to: number, localSeen: boolean): string {
  const names = from === to ? segmentFileName(from) : `${segmentFileName(from)} to ${segmentFileName(to)}`;
  const where = localSeen ? 'neither in objects nor on a safekeeper' : 'not in objects';
  return `WAL ${names} (${formatLsn(from * WAL_SEGMENT_BYTES)} on) is ${where}, although later WAL is`;
}
