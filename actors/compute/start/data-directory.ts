/**
 * Writes what a start needs below the data directory: the plan's WAL segments and pg_control, and the basebackup's files.
 */
import { type Lsn, WAL_SEGMENT_BYTES } from '../../../protocols/lsn.ts';
import type { Basebackup } from '../../../protocols/pages/types.ts';
import type { RelationFiles } from '../relation-files.ts';
import { FIRST_PAGES_FILE } from './first-pages.ts';
import { INIT_FILES_MARK, isInitFile } from './init-files.ts';
import type { DataFiles } from './ports.ts';
import type { StartPlan } from './start-plan.ts';

export interface DataDirectoryContent {
  files: DataFiles;
  relations: RelationFiles;
  basebackup: Basebackup;
  plan: StartPlan;
  startLsn: Lsn;
}

/** Whether a file of a basebackup is Palimpsest's own, or comes into the data directory only once Postgres runs. */
export function isForLater(path: string): boolean {
  return isInitFile(path) || path === INIT_FILES_MARK || path === FIRST_PAGES_FILE;
}

/** Resolves when Postgres may start on it. */
export async function writeDataDirectory(content: DataDirectoryContent): Promise<void> {
  const { files, relations, basebackup, plan, startLsn } = content;
  for (const { name, pieces } of plan.segments)
    files.writeSparse(`pg_wal/${name}`, WAL_SEGMENT_BYTES, pieces);
  relations.open({ startLsn, databases: basebackup.databases });
  for (const { path, data } of basebackup.files) {
    if (isForLater(path)) continue;
    if (path.startsWith('base/') || path.startsWith('global/')) relations.writeLocalFile(path, data);
    else files.write(path, data);
  }
  relations.writeLocalFile('global/pg_control', plan.controlFile);
  await relations.ready();
}
