/** What storage takes, as people read it. */
import { formatLsn } from '../../protocols/lsn.ts';
import { table } from '../cli/output.ts';
import { bytesText } from './figures.ts';
import { keyText } from './layer-text.ts';
import type { BranchStorage, StorageReport } from './report.ts';

const LAYERS_SHOWN = 20;

/** With `allLayers` every layer of every branch, else the newest of each. */
export function storageText(report: StorageReport, allLayers: boolean): string {
  const lines = [
    `${report.objects} objects, ${bytesText(report.bytes)}, in ${report.place}`,
    `templates that branches begin with: ${bytesText(report.templateBytes)}`,
  ];
  for (const { name, pgVersion, branches } of report.projects) {
    lines.push('', `project ${name} (Postgres ${pgVersion})`, branchTable(branches));
    for (const branch of branches) {
      if (branch.layers.length > 0) lines.push('', ...layerMap(branch, allLayers));
    }
  }
  return lines.join('\n');
}

function branchTable(branches: BranchStorage[]): string {
  return table(
    ['BRANCH', 'LOGICAL SIZE', 'LAYERS', 'WAL', 'OBJECTS / LOGICAL', 'SHARED', 'HISTORY FROM', 'TO'],
    branches.map((branch) => [
      branch.branch,
      logicalText(branch),
      `${bytesText(branch.layerBytes)} in ${branch.layers.length}`,
      `${bytesText(branch.wal.bytes)} in ${branch.wal.objects}`,
      ratio(branch.layerBytes + branch.wal.bytes, branch.logicalBytes),
      sharedText(branch),
      windowText(branch),
      formatLsn(branch.headLsn),
    ]),
    'no branches',
  );
}

function ratio(bytes: number, logical: number): string {
  return logical === 0 ? '-' : `${(bytes / logical).toFixed(2)}x`;
}

export function logicalText({ isServed, logicalBytes }: BranchStorage): string {
  return isServed ? bytesText(logicalBytes) : 'not served';
}

/** What it reads of others: its parent's layers, and the template at the bottom of all. */
export function sharedText({ sharedBytes, parent }: BranchStorage): string {
  return `${bytesText(sharedBytes)} with ${parent ?? 'the template'}`;
}

export function windowText({ window: { fromLsn, fromTimeMs } }: BranchStorage): string {
  const time =
    fromTimeMs > 0 ? ` (${new Date(fromTimeMs).toISOString().replace('T', ' ').slice(0, 19)})` : '';
  return `${formatLsn(fromLsn)}${time}`;
}

function layerMap({ branch, layers }: BranchStorage, all: boolean): string[] {
  const newestFirst = [...layers].sort((a, b) => b.endLsn - a.endLsn || (a.firstKey < b.firstKey ? -1 : 1));
  const shown = all ? newestFirst : newestFirst.slice(0, LAYERS_SHOWN);
  const lines = [
    `layers of ${branch}, newest first`,
    table(
      ['KIND', 'LEVEL', 'FROM', 'TO', 'FIRST KEY', 'LAST KEY', 'SIZE', 'GENERATION'],
      shown.map(({ kind, level, startLsn, endLsn, firstKey, lastKey, bytes, generation }) => [
        kind,
        String(level),
        kind === 'image' ? '-' : formatLsn(startLsn),
        formatLsn(endLsn),
        keyText(firstKey),
        keyText(lastKey),
        bytesText(bytes),
        String(generation),
      ]),
      '',
    ),
  ];
  const more = newestFirst.length - shown.length;
  if (more > 0) lines.push(`and ${more} more (--layers shows all)`);
  return lines;
}
