/**
 * The picture of one branch's layers: keys from left to right, LSNs from bottom to top, each layer a rectangle. Below the branch
 * point lie the ancestors' layers, paler; at the right a column of the WAL objects.
 */
import type { LayerDescriptor } from '../../actors/pageserver/layer-descriptor.ts';
import { formatLsn, PAGE_BYTES } from '../../protocols/lsn.ts';
import { bytesText } from './figures.ts';
import { type AxisStretch, KeyAxis } from './key-axis.ts';
import { keyText } from './layer-text.ts';
import { escapeHtml } from './markup.ts';
import type { BranchStorage } from './report.ts';

const WIDTH = 1080;
const LEFT = 118;
const RIGHT = 176;
const TOP = 34;
const BOTTOM = 46;
const WAL_WIDTH = 34;
/** State layers hold no pages: they stand in a narrow column of their own. */
const STATE_WIDTH = 8;
const PLOT = WIDTH - LEFT - RIGHT;
const HEIGHT_MIN = 170;
const HEIGHT_MAX = 430;
const PIXELS_PER_LAYER = 13;
const TICKS = 6;
/** Relations that are named below the axis. */
const NAMED_SHARE = 0.12;
const FORKS = ['', ' fsm', ' vm', ' init'];

/** A branch's layer, or one that it shares with an ancestor. */
interface DrawnLayer {
  layer: LayerDescriptor;
  owner: string;
  isOwn: boolean;
}

/** The SVG; every shape carries its details in `data-t`, line by line. */
export function branchPanel(branch: BranchStorage, byTimeline: Map<string, BranchStorage>): string {
  const drawn = layersOf(branch, byTimeline);
  const low = Math.min(branch.startLsn, ...drawn.map(({ layer }) => layer.startLsn));
  const high = Math.max(branch.headLsn, branch.layersEndLsn);
  if (high === low) return '<p>nothing was written yet</p>';
  const keys = drawn.flatMap(({ layer }) => [layer.firstKey, layer.lastKey]);
  const axis = new KeyAxis(branch.relations, keys);
  const height = Math.min(HEIGHT_MAX, Math.max(HEIGHT_MIN, drawn.length * PIXELS_PER_LAYER));
  const y = (lsn: number) =>
    TOP + height - ((Math.min(Math.max(lsn, low), high) - low) / (high - low)) * height;
  const parts = [
    `<rect class="plot" x="${LEFT}" y="${TOP}" width="${PLOT}" height="${height}"/>`,
    ...ticks(low, high, y),
    ...axisStretches(axis.stretches, height),
    ...drawn.map((item) => layerShape(item, axis, y)),
    ...openParts(branch, byTimeline, y),
    ...walColumn(branch, low, y),
    ...marks(branch, low, y, height),
  ];
  const full = TOP + height + BOTTOM;
  return `<svg viewBox="0 0 ${WIDTH} ${full}" role="img" aria-label="layers of ${escapeHtml(branch.branch)}">${parts.join('\n')}</svg>`;
}

function layersOf(branch: BranchStorage, byTimeline: Map<string, BranchStorage>): DrawnLayer[] {
  const drawn: DrawnLayer[] = lineage(branch, byTimeline).flatMap(({ owner, limit }) =>
    owner.layers
      .filter(({ startLsn }) => startLsn < limit)
      .map((layer) => ({
        layer: { ...layer, endLsn: Math.min(layer.endLsn, limit) },
        owner: owner.branch,
        isOwn: owner === branch,
      })),
  );
  // The larger first, so that the smaller lie on top and can be pointed at.
  return drawn.sort((a, b) => Number(a.isOwn) - Number(b.isOwn) || rank(a.layer) - rank(b.layer));
}

function rank({ kind, level }: LayerDescriptor): number {
  if (kind === 'state') return 0;
  return kind === 'image' ? 3 : level + 1;
}

function layerShape({ layer, owner, isOwn }: DrawnLayer, axis: KeyAxis, y: (lsn: number) => number): string {
  const from = axis.place(layer.firstKey);
  const to = Math.max(from, axis.place(layer.lastKey));
  const isImage = layer.kind === 'image';
  const top = y(layer.endLsn);
  const height = isImage ? 5 : Math.max(3, y(layer.startLsn) - top);
  const kind = isImage ? 'image' : layer.kind === 'state' ? 'state' : `l${Math.min(1, layer.level)}`;
  const range = isImage
    ? `pages as of ${formatLsn(layer.endLsn)}`
    : `${formatLsn(layer.startLsn)} to ${formatLsn(layer.endLsn)} (${bytesText(layer.endLsn - layer.startLsn)} of WAL)`;
  const details = [
    `${kindText(layer)} of ${owner}${isOwn ? '' : ', shared'}`,
    range,
    `keys ${keyText(layer.firstKey)} to ${keyText(layer.lastKey)}`,
    `${bytesText(layer.bytes)}, generation ${layer.generation}`,
    layer.key.slice(layer.key.lastIndexOf('/') + 1),
  ];
  return shape(`layer ${kind}${isOwn ? '' : ' shared'}`, {
    x: kind === 'state' ? LEFT + PLOT + 5 : LEFT + from * PLOT,
    y: isImage ? top - 2.5 : top,
    width: kind === 'state' ? STATE_WIDTH : Math.max(2, (to - from) * PLOT),
    height,
    details,
  });
}

function kindText({ kind, level }: LayerDescriptor): string {
  if (kind === 'image') return 'image layer';
  if (kind === 'state') return 'state layer';
  return level === 0 ? 'L0 delta layer' : `L${level} delta layer`;
}

/** What is not in objects yet: the pageserver has it in memory or on its disk, safekeepers have its WAL. */
function openParts(
  branch: BranchStorage,
  byTimeline: Map<string, BranchStorage>,
  y: (lsn: number) => number,
): string[] {
  return lineage(branch, byTimeline).flatMap(({ owner, limit }) => {
    const { layersEndLsn } = owner;
    const end = Math.min(owner.headLsn, limit);
    const top = y(end);
    const height = y(layersEndLsn) - top;
    if (end <= layersEndLsn || height < 1) return [];
    const isOwn = owner === branch;
    const details = [
      `not in layers yet, of ${owner.branch}${isOwn ? '' : ', shared'}`,
      `${formatLsn(layersEndLsn)} to ${formatLsn(end)} (${bytesText(end - layersEndLsn)} of WAL)`,
      'safekeepers have it; pages come from memory',
    ];
    return [shape(isOwn ? 'open' : 'open shared', { x: LEFT, y: top, width: PLOT, height, details })];
  });
}

/** A branch and its ancestors, each with the LSN up to which its history is read. */
function lineage(
  branch: BranchStorage,
  byTimeline: Map<string, BranchStorage>,
): { owner: BranchStorage; limit: number }[] {
  const line = [{ owner: branch, limit: Number.POSITIVE_INFINITY }];
  const seen = new Set([branch.timeline]);
  for (let at = branch.ancestor; at && !seen.has(at.timeline); ) {
    seen.add(at.timeline);
    const owner = byTimeline.get(at.timeline);
    if (!owner) break;
    line.push({ owner, limit: at.lsn });
    at = owner.ancestor;
  }
  return line;
}

function walColumn(branch: BranchStorage, low: number, y: (lsn: number) => number): string[] {
  const x = LEFT + PLOT + 22;
  const label = `<text class="label" x="${x + WAL_WIDTH / 2}" y="${TOP - 16}" text-anchor="middle">WAL</text>`;
  const boxes = branch.wal.ranges
    .filter(({ to }) => to > low)
    .map(({ from, to, bytes }) => {
      const begin = Math.max(from, branch.startLsn, low);
      const end = Math.min(to, Math.max(branch.headLsn, begin));
      const details = [
        'WAL object',
        `${formatLsn(begin)} to ${formatLsn(to)}`,
        `${bytesText(bytes)} in objects`,
      ];
      const top = y(end);
      return shape('wal', { x, y: top, width: WAL_WIDTH, height: Math.max(2, y(begin) - top), details });
    });
  return [label, ...boxes];
}

function ticks(low: number, high: number, y: (lsn: number) => number): string[] {
  const lines: string[] = [
    `<text class="label" x="${LEFT - 10}" y="${TOP - 16}" text-anchor="end">LSN</text>`,
  ];
  for (let i = 0; i <= TICKS; i++) {
    const lsn = Math.round(low + ((high - low) * i) / TICKS);
    const at = y(lsn);
    lines.push(`<line class="grid" x1="${LEFT - 4}" x2="${LEFT + PLOT}" y1="${at}" y2="${at}"/>`);
    lines.push(
      `<text class="tick" x="${LEFT - 10}" y="${at + 4}" text-anchor="end">${formatLsn(lsn)}</text>`,
    );
  }
  return lines;
}

/** Below the plot: the relations, with the largest by name. */
function axisStretches(stretches: AxisStretch[], height: number): string[] {
  const at = TOP + height + 5;
  const parts: string[] = [];
  for (const [i, { spc, db, rel, fork, blocks, from, to }] of stretches.entries()) {
    const name = `${db === 0 ? 'shared' : `database ${db}`}, relation ${rel}${FORKS[fork] ?? ''}`;
    const details = [
      name,
      `${blocks} pages, ${bytesText(Math.max(0, blocks) * PAGE_BYTES)}`,
      `tablespace ${spc}`,
    ];
    const width = (to - from) * PLOT;
    parts.push(shape(`stretch s${i % 2}`, { x: LEFT + from * PLOT, y: at, width, height: 9, details }));
    if (to - from < NAMED_SHARE) continue;
    const middle = LEFT + ((from + to) / 2) * PLOT;
    const label = `${rel}${FORKS[fork] ?? ''} (${bytesText(blocks * PAGE_BYTES)})`;
    parts.push(`<text class="tick" x="${middle}" y="${at + 23}" text-anchor="middle">${label}</text>`);
  }
  parts.push(
    `<text class="label" x="${LEFT + PLOT}" y="${at + 38}" text-anchor="end">pages in the order of their keys; each relation as wide as it is large</text>`,
  );
  return parts;
}

/** Lines across: where the branch begins, where history may be given up, where other branches begin. */
function marks(branch: BranchStorage, low: number, y: (lsn: number) => number, height: number): string[] {
  const lines: { lsn: number; text: string; kind: string }[] = [];
  const { window, startLsn, ancestor, parent } = branch;
  if (ancestor) lines.push({ lsn: startLsn, text: `from ${parent ?? 'its parent'}`, kind: 'start' });
  if (window.fromLsn > startLsn) lines.push({ lsn: window.fromLsn, text: 'history window', kind: 'window' });
  for (const child of branch.children) lines.push({ lsn: child.lsn, text: child.branch, kind: 'child' });
  lines.sort((a, b) => b.lsn - a.lsn);
  let last = Number.NEGATIVE_INFINITY;
  return lines
    .filter(({ lsn }) => lsn >= low)
    .map(({ lsn, text, kind }) => {
      const at = y(lsn);
      // Names that would lie on one another move down.
      const label = Math.min(Math.max(at, last + 13), TOP + height + BOTTOM - 4);
      last = label;
      const x = LEFT + PLOT + WAL_WIDTH + 30;
      return [
        `<line class="mark ${kind}" x1="${LEFT}" x2="${x - 4}" y1="${at}" y2="${at}"/>`,
        `<text class="marktext ${kind}" x="${x}" y="${label + 4}">${escapeHtml(shortened(text))}</text>`,
      ].join('');
    });
}

function shortened(text: string): string {
  return text.length > 16 ? `${text.slice(0, 15)}…` : text;
}

function shape(
  kind: string,
  place: { x: number; y: number; width: number; height: number; details: string[] },
): string {
  const number = (value: number) => Number(value.toFixed(2));
  const { x, y, width, height, details } = place;
  const text = escapeHtml(details.join('\n'));
  return `<rect class="${kind}" x="${number(x)}" y="${number(y)}" width="${number(width)}" height="${number(height)}" data-t="${text}"/>`;
}
