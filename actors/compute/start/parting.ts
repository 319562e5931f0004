/**
 * What a compute leaves behind at a clean stop: things that Postgres keeps without WAL, appended as WAL after its
 * shutdown checkpoint, so that the next compute finds them.
 *
 * - Pages of free space maps that were written: without them, tables would grow on inserts that fit.
 * - Cumulative statistics: without them, autovacuum would forget what it has to do.
 * - Settings made by ALTER SYSTEM.
 * - Relation cache files: see init-files.ts.
 */
import type { Lsn } from '../../../protocols/lsn.ts';
import { FORK_FSM } from '../../../protocols/pages/types.ts';
import { parseControlFile } from '../../../protocols/postgres/control-file.ts';
import { type PageToLog, WalBuilder } from '../../../protocols/postgres/wal/record-builder.ts';
import type { FreeSpaceMap } from '../relation-files.ts';
import { INIT_FILES_MARK, initFilesMark } from './init-files.ts';

/** Free space map pages that are taken along at most: 32 MiB of WAL, the maps of 128 GiB of changed tables. */
const FSM_PAGES_MAX = 4096;
/** Files above this are left behind. */
const FILE_BYTES_MAX = 16 * 1024 * 1024;

/** Paths below the data directory. */
export const KEPT_FILES = ['pg_stat/pgstat.stat', 'postgresql.auto.conf'] as const;

export interface PartingOptions {
  /** pg_control after the shutdown. */
  controlFile: Uint8Array;
  /** End of the WAL: where the shutdown checkpoint ended. */
  endLsn: Lsn;
  pgVersion: number;
  systemId: bigint;
  freeSpaceMaps: Iterable<FreeSpaceMap>;
  /** Files to keep that are not kept already. */
  files: { path: string; data: Uint8Array }[];
  /** Whether relation cache files are kept, now or from before. */
  withInitFiles: boolean;
}

/** The WAL to append at `endLsn`; empty when there is nothing to leave. */
export function partingWal(options: PartingOptions): Uint8Array {
  const builder = new WalBuilder({
    lsn: options.endLsn,
    previousStart: parseControlFile(options.controlFile).checkpointLsn,
    pgVersion: options.pgVersion,
    systemId: options.systemId,
  });
  builder.fullPageImages(collectPages(options.freeSpaceMaps));
  for (const { path, data } of options.files) {
    if (data.length <= FILE_BYTES_MAX) builder.file(path, data);
  }
  // The last record: it is true as long as none follows.
  if (options.withInitFiles) builder.file(INIT_FILES_MARK, initFilesMark(builder.nextStart));
  return builder.bytes;
}

function collectPages(maps: Iterable<FreeSpaceMap>): PageToLog[] {
  const pages: PageToLog[] = [];
  for (const { spc, db, rel, content } of maps) {
    content.forEachWrittenPage((block, page) => {
      if (pages.length < FSM_PAGES_MAX)
        pages.push({ spc, db, rel, fork: FORK_FSM, block, page: page.slice() });
    });
  }
  return pages;
}
