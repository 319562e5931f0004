/**
 * What a compute and a pageserver say to each other, as values. The frames are in messages.ts.
 */
import type { Lsn } from '../lsn.ts';

/** Fork numbers as in Postgres. */
export const FORK_MAIN = 0;
export const FORK_FSM = 1;
export const FORK_VM = 2;
export const FORK_INIT = 3;

export interface RelationTag {
  /** Tablespace oid: 1663 pg_default, 1664 pg_global. */
  spc: number;
  /** Database oid; 0 for shared relations. */
  db: number;
  /** Relfilenumber. */
  rel: number;
  fork: number;
}

export interface RelationEntry extends RelationTag {
  blocks: number;
}

/**
 * At which moment to read. The server waits (bounded) until it has ingested `notModifiedSince`, then reads at
 * min(its last LSN, `lsn`); `lsn` = LATEST_LSN reads the newest.
 */
export interface ReadPoint {
  lsn: Lsn;
  notModifiedSince: Lsn;
}

/** The fields of a checkpoint that a start needs; names as in Postgres' CheckPoint struct. */
export interface CheckpointFields {
  redo: Lsn;
  timelineId: number;
  previousTimelineId: number;
  fullPageWrites: boolean;
  walLevel: number;
  /** 64 bits with the epoch; exact as a number. */
  nextXid: number;
  nextOid: number;
  nextMulti: number;
  nextMultiOffset: number;
  oldestXid: number;
  oldestXidDb: number;
  oldestMulti: number;
  oldestMultiDb: number;
  /** Seconds since 1970. */
  time: number;
  oldestCommitTsXid: number;
  newestCommitTsXid: number;
  oldestActiveXid: number;
}

/** The settings that pg_control repeats; from PARAMETER_CHANGE records. */
export interface ControlParameters {
  walLevel: number;
  walLogHints: boolean;
  maxConnections: number;
  maxWorkerProcesses: number;
  maxWalSenders: number;
  maxPreparedTransactions: number;
  maxLocksPerTransaction: number;
  trackCommitTimestamp: boolean;
}

/** Everything that a data directory at `lsn` needs, except relation files. */
export interface Basebackup {
  lsn: Lsn;
  /** Start of the record that ends at `lsn`: xl_prev of the next one. */
  lastRecordStart: Lsn;
  /** Major version, e.g. 17. */
  pgVersion: number;
  systemId: bigint;
  /** pg_control as initdb wrote it (8192 bytes), to be filled by the compute. */
  controlTemplate: Uint8Array;
  checkpoint: CheckpointFields;
  parameters: ControlParameters | undefined;
  /** Set when the record that ends at `lsn` is a CHECKPOINT_SHUTDOWN: then no new one is appended. */
  shutdownCheckpointStart: Lsn | undefined;
  /**
   * Paths below PGDATA and contents: pg_xact/…, pg_multixact/…, pg_commit_ts/…, pg_twophase/…, base/N/PG_VERSION,
   * base/N/pg_filenode.map, global/pg_filenode.map, pg_logical/replorigin_checkpoint, and what was shipped at a clean
   * stop (pg_stat/pgstat.stat, postgresql.auto.conf).
   */
  files: { path: string; data: Uint8Array }[];
  /** Oids of all databases. */
  databases: number[];
}
