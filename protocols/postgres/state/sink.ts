/**
 * Where the fold of a timeline's WAL tells what changes besides pages: existence, truncation and small values. Forks grow with the pages
 * that records change (`forEachTouchedPage`), which the fold does not look at.
 */
export interface StateSink {
  /** The fork has exactly `blocks` blocks or fewer; what was beyond is gone for good. */
  truncateRelation(spc: number, db: number, rel: number, fork: number, blocks: number): void;
  /** The fork exists and is empty; anything that had this name before is gone. */
  createRelation(spc: number, db: number, rel: number, fork: number): void;
  /** All forks are gone. */
  dropRelation(spc: number, db: number, rel: number): void;
  createDatabase(db: number, spc: number): void;
  /** The database with all its relations in the given tablespaces is gone, and its relation map with it. */
  dropDatabase(db: number): void;
  /**
   * All relations of `sourceDb` in tablespace `sourceSpc`, and `relmap/<sourceDb>`, appear as `targetDb`'s in `targetSpc`.
   * The database itself is announced by createDatabase before.
   */
  copyDatabase(sourceDb: number, targetDb: number, sourceSpc: number, targetSpc: number): void;
  /**
   * A small value changes; null removes it. Keys: `relmap/<db>` (0: shared), `twophase/<xid>` (the file's content with
   * its checksum), `file/<path>`, `origin/<id>` (remote LSN, 8 bytes), `tablespace/<oid>` (its path). The bytes are the
   * receiver's.
   */
  putValue(key: string, value: Uint8Array | null): void;
  /**
   * Pages of a transaction status log (SLRU_* in redo/slru.ts) before `cutoffPage`, in circular order, are not needed any
   * more. Postgres removes the segments that lie wholly before it.
   */
  truncateSlru(slru: number, cutoffPage: number): void;
}
