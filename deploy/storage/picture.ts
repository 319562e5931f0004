/**
 * A page with the picture of all branches' layers: one file, everything in it, no request to anywhere (its policy forbids
 * them).
 */
import { formatLsn } from '../../protocols/lsn.ts';
import { bytesText } from './figures.ts';
import { escapeHtml } from './markup.ts';
import { branchPanel } from './picture-panel.ts';
import { SCRIPT, STYLE } from './picture-style.ts';
import type { BranchStorage, StorageReport } from './report.ts';
import { logicalText, sharedText, windowText } from './report-text.ts';

const LEGEND: [string, string][] = [
  ['l0', 'L0 delta: all that changed, of all pages'],
  ['l1', 'L1 delta: changes of a range of pages'],
  ['image', 'image: whole pages at one LSN'],
  ['state', 'state: sizes and small values'],
  ['open', 'not in layers yet'],
  ['wal', 'WAL objects'],
  ['layer l0 shared', 'paler: shared with an ancestor'],
];

export function storagePicture(report: StorageReport, atMs: number): string {
  const branches = report.projects.flatMap((project) => project.branches);
  const byTimeline = new Map(branches.map((branch) => [branch.timeline, branch]));
  const time = new Date(atMs).toISOString().replace('T', ' ').slice(0, 19);
  const body = [
    '<header>',
    '<h1>Palimpsest storage</h1>',
    `<p>${escapeHtml(report.place)}, ${time} UTC</p>`,
    '</header>',
    tiles(report, branches),
    legend(),
    ...report.projects.map((project) => projectSection(project, byTimeline)),
  ].join('\n');
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Palimpsest storage</title>
<style>${STYLE}</style>
</head>
<body>
<main>
${body}
</main>
<div id="tip" hidden></div>
<script>${SCRIPT}</script>
</body>
</html>
`;
}

function tiles(report: StorageReport, branches: BranchStorage[]): string {
  const sum = (of: (branch: BranchStorage) => number) =>
    branches.reduce((total, branch) => total + of(branch), 0);
  const logical = sum(({ logicalBytes }) => logicalBytes);
  const items: [string, string][] = [
    [bytesText(report.bytes), `in ${report.objects} objects`],
    [bytesText(sum(({ layerBytes }) => layerBytes)), `in ${sum(({ layers }) => layers.length)} layers`],
    [bytesText(sum(({ wal }) => wal.bytes)), `in ${sum(({ wal }) => wal.objects)} WAL objects`],
    [bytesText(report.templateBytes), 'in templates, with which branches begin'],
    [
      bytesText(logical),
      `logical size of ${branches.length} ${branches.length === 1 ? 'branch' : 'branches'}`,
    ],
    [logical === 0 ? '-' : `${(report.bytes / logical).toFixed(2)}x`, 'objects / logical size'],
  ];
  const tile = ([value, text]: [string, string]) =>
    `<div class="tile"><b>${value}</b><span>${text}</span></div>`;
  return `<section class="tiles">${items.map(tile).join('')}</section>`;
}

function legend(): string {
  const item = ([kind, text]: [string, string]) =>
    `<span><svg width="22" height="12"><rect class="${kind}" x="1" y="1" width="20" height="10"/></svg>${text}</span>`;
  return `<section class="legend">${LEGEND.map(item).join('')}</section>`;
}

function projectSection(
  { name, pgVersion, branches }: StorageReport['projects'][number],
  byTimeline: Map<string, BranchStorage>,
): string {
  const most = Math.max(1, ...branches.map((branch) => Math.max(branch.logicalBytes, ownBytes(branch))));
  return [
    `<section><h2>project ${escapeHtml(name)} <small>Postgres ${pgVersion}</small></h2>`,
    '<table><thead><tr><th>branch</th><th>logical size</th><th>layers</th><th>WAL</th><th>shared</th><th>history from</th><th>to</th><th></th></tr></thead><tbody>',
    ...branches.map((branch) => branchRow(branch, most)),
    '</tbody></table></section>',
    ...branches.map((branch) => branchSection(branch, byTimeline)),
  ].join('\n');
}

function branchRow(branch: BranchStorage, most: number): string {
  const width = (bytes: number) => `${((bytes / most) * 100).toFixed(1)}%`;
  const cells = [
    `<a href="#${branch.timeline}">${escapeHtml(branch.branch)}</a>`,
    logicalText(branch),
    `${bytesText(branch.layerBytes)} in ${branch.layers.length}`,
    `${bytesText(branch.wal.bytes)} in ${branch.wal.objects}`,
    escapeHtml(sharedText(branch)),
    windowText(branch),
    formatLsn(branch.headLsn),
    `<div class="bars" data-t="upper: logical size&#10;lower: its own objects"><i style="width:${width(branch.logicalBytes)}"></i><i class="own" style="width:${width(ownBytes(branch))}"></i></div>`,
  ];
  return `<tr>${cells.map((cell) => `<td>${cell}</td>`).join('')}</tr>`;
}

function branchSection(branch: BranchStorage, byTimeline: Map<string, BranchStorage>): string {
  const of = branch.parent === undefined ? '' : ` <small>of ${escapeHtml(branch.parent)}</small>`;
  const leases =
    branch.leases === 0
      ? ''
      : `, ${branch.leases} ${branch.leases === 1 ? 'reader' : 'readers'} of past moments`;
  const facts = `${logicalText(branch)}, ${branch.layers.length} ${branch.layers.length === 1 ? 'layer' : 'layers'}, ${bytesText(ownBytes(branch))} in objects${leases}`;
  return [
    `<section class="panel" id="${branch.timeline}">`,
    `<h3>${escapeHtml(branch.branch)}${of}</h3><p>${facts}; timeline ${branch.timeline}</p>`,
    branchPanel(branch, byTimeline),
    '</section>',
  ].join('\n');
}

function ownBytes({ layerBytes, wal }: BranchStorage): number {
  return layerBytes + wal.bytes;
}
