/**
 * The table record type x version -> times compared, which coverage.md keeps: a type that was once reached must stay reached.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import type { RecordTally } from '../../deploy/wal/replay.ts';
import { recordNames } from '../../protocols/postgres/wal/names.ts';

export const VERSIONS = [15, 16, 17, 18] as const;

const FILE = new URL('coverage.md', import.meta.url);

/** Types that no workload reaches, each with the reason. */
export const UNREACHABLE: Readonly<Record<string, string>> = {
  'XLOG/NOOP': 'no Postgres of these versions writes it',
  'XLOG/END_OF_RECOVERY': 'written by a promoted standby only; a compute never recovers',
  'XLOG/OVERWRITE_CONTRECORD':
    'written after a crash in the middle of a record only; safekeepers keep whole records',
  'Tablespace/CREATE': 'tablespaces of users are refused',
  'Tablespace/DROP': 'tablespaces of users are refused',
  'Gist/ASSIGN_LSN': 'written with wal_level=minimal only, which computes do not allow',
};

/** Images compared, and records of types that only the recovered directory shows. */
export interface Reached {
  images: number;
  records: number;
}

export type Coverage = Map<string, Map<number, Reached>>;

export function addTallies(coverage: Coverage, version: number, tallies: Record<string, RecordTally>): void {
  for (const [name, tally] of Object.entries(tallies)) {
    const plain = name.replace('+INIT', '');
    const row = coverage.get(plain) ?? new Map<number, Reached>();
    const reached = row.get(version) ?? { images: 0, records: 0 };
    reached.images += tally.equal;
    reached.records += tally.records;
    row.set(version, reached);
    coverage.set(plain, row);
  }
}

/** What is wrong with this run's coverage beside the kept one: types lost, and types neither reached nor explained. */
export function complaintsAbout(coverage: Coverage, versions: readonly number[]): string[] {
  const kept = readCoverage();
  const complaints: string[] = [];
  for (const version of versions) {
    for (const name of recordNames(version)) {
      const reached = coverage.get(name)?.get(version);
      const before = kept.get(name)?.get(version);
      if (before && before.records > 0 && !reached)
        complaints.push(`${name} of ${version} is not reached any more`);
      else if (before && before.images > 0 && reached?.images === 0) {
        complaints.push(`${name} of ${version} is reached, but no longer compared with an image`);
      } else if (!reached && !UNREACHABLE[name]) complaints.push(`${name} of ${version} is not reached`);
    }
  }
  return complaints;
}

/** The table as it is kept: `n` images were compared; `(n)` records left no image, only the recovered directory shows them. */
export function coverageTable(coverage: Coverage): string {
  const names = [...new Set(VERSIONS.flatMap((version) => recordNames(version)))].sort();
  const rows = names.map((name) => {
    const cells = VERSIONS.map((version) => {
      if (!recordNames(version).includes(name)) return '';
      const reached = coverage.get(name)?.get(version);
      if (!reached) return '-';
      return reached.images > 0 ? String(reached.images) : `(${reached.records})`;
    });
    return `| ${[name, ...cells, UNREACHABLE[name] ?? ''].join(' | ')} |`;
  });
  return [
    '# How often redo was compared',
    '',
    'Written by `npm run test:redo -- --write`. `n`: page images that redo reproduced. `(n)`: records whose effect only the',
    "directory that stock Postgres recovered shows, which is compared page by page. Empty: that version doesn't have it.",
    '',
    `| record type | ${VERSIONS.join(' | ')} | why not |`,
    `| --- | ${VERSIONS.map(() => '---:').join(' | ')} | --- |`,
    ...rows,
    '',
  ].join('\n');
}

/** Keeps the table; versions that were not run stay as they were. */
export function writeCoverage(coverage: Coverage, versions: readonly number[]): void {
  for (const [name, row] of readCoverage()) {
    const merged = coverage.get(name) ?? new Map<number, Reached>();
    for (const [version, reached] of row) if (!versions.includes(version)) merged.set(version, reached);
    if (merged.size > 0) coverage.set(name, merged);
  }
  writeFileSync(FILE, coverageTable(coverage));
}

function readCoverage(): Coverage {
  const coverage: Coverage = new Map();
  if (!existsSync(FILE)) return coverage;
  for (const line of readFileSync(FILE, 'utf8').split('\n')) {
    const [name, ...cells] = line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim());
    if (!name?.includes('/')) continue;
    const row = new Map<number, Reached>();
    VERSIONS.forEach((version, index) => {
      const match = /^(\()?(\d+)\)?$/.exec(cells[index] ?? '');
      if (match) row.set(version, { images: match[1] ? 0 : Number(match[2]), records: Number(match[2]) });
    });
    coverage.set(name, row);
  }
  return coverage;
}
