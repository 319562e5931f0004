/**
 * Relation cache files (`pg_internal.init`), kept from one compute to the next: building them anew is most of the time
 * that a first connection takes.
 *
 * Such a file is true only for the catalogs it was made from. So it is kept together with a mark that names the mark's own
 * place in the WAL, and used only when that is still the last record: nothing has changed since. After a crash, or
 * behind any newer record, they are made anew, as Postgres does at every start.
 */
import type { Basebackup } from '../../../protocols/pages/types.ts';

export const INIT_FILE_NAME = 'pg_internal.init';
/** Path of the mark among the kept files. */
export const INIT_FILES_MARK = 'palimpsest.init-files';

/** Where the relation cache files of these databases are; the first is for the shared catalogs. */
export function initFilePaths(databases: Iterable<number>): string[] {
  const paths = [`global/${INIT_FILE_NAME}`];
  for (const db of databases) paths.push(`base/${db}/${INIT_FILE_NAME}`);
  return paths;
}

export function isInitFile(path: string): boolean {
  return path.endsWith(`/${INIT_FILE_NAME}`);
}

/** The content of the mark whose record will start at `recordStart`. */
export function initFilesMark(recordStart: number): Uint8Array {
  return new TextEncoder().encode(String(recordStart));
}

/** Those kept files that are true at the basebackup's LSN. */
export function usableInitFiles(basebackup: Basebackup): Basebackup['files'] {
  const mark = basebackup.files.find(({ path }) => path === INIT_FILES_MARK);
  if (!mark || Number(new TextDecoder().decode(mark.data)) !== basebackup.lastRecordStart) return [];
  const known = new Set(initFilePaths(basebackup.databases));
  return basebackup.files.filter(({ path }) => known.has(path));
}
