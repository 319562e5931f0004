/**
 * pg_control: reading it, and making one that says "cleanly shut down at this checkpoint", from which an unmodified
 * Postgres starts without recovery.
 *
 *   0 system id u64, 8 control version u32, 12 catalog version u32, 16 state u32, 24 time i64, 32 checkpoint LSN u64,
 *   40 CheckPoint (88 bytes), 128 unlogged LSN u64, 136..168 minimum recovery point and backup fields,
 *   172 wal_level i32, 176 wal_log_hints u8, 180 max_connections, 184 max_worker_processes, 188 max_wal_senders,
 *   192 max_prepared_transactions, 196 max_locks_per_transaction (i32 each), 200 track_commit_timestamp u8,
 *   204..252 build constants, 252 data checksum version u32, 15 to 17: 256 nonce, 288 CRC; 18: 256 default char
 *   signedness u8, 257 nonce, 292 CRC.
 *
 * Source: catalog/pg_control.h.
 */
import { PalimpsestError } from '../errors.ts';
import { formatLsn, type Lsn } from '../lsn.ts';
import type { CheckpointFields, ControlParameters } from '../pages/types.ts';
import { readBigU64, readI32, readI64, readU32, readU64, writeU32, writeU64 } from './bytes.ts';
import { decodeCheckpoint, encodeCheckpoint } from './checkpoint.ts';
import { crc32c } from './crc32c.ts';
import type { PgVersion } from './versions.ts';

export const CONTROL_FILE_BYTES = 8192;
/** States of a cluster that matter here. */
export const STATE_SHUT_DOWN = 1;
export const STATE_IN_PRODUCTION = 6;

const CATALOG_VERSION_16 = 202307071;
/** The LSN that unlogged relations begin with (FirstNormalUnloggedLSN). */
const FIRST_UNLOGGED_LSN = 1000;

export interface ControlFile {
  systemId: bigint;
  /** Major version that wrote it. */
  pgVersion: PgVersion;
  catalogVersion: number;
  state: number;
  /** Seconds since 1970. */
  time: number;
  checkpointLsn: Lsn;
  checkpoint: CheckpointFields;
  parameters: ControlParameters;
  pageBytes: number;
  walPageBytes: number;
  segmentBytes: number;
  dataChecksums: boolean;
}

/** Parses pg_control. Throws PalimpsestError when its checksum or version is not understood. */
export function parseControlFile(bytes: Uint8Array): ControlFile {
  const pgVersion = versionOf(bytes);
  const crcAt = crcOffset(pgVersion);
  if (bytes.length < crcAt + 4 || crc32c(bytes, 0, crcAt) !== readU32(bytes, crcAt)) {
    throw new PalimpsestError('corrupt', 'pg_control has a wrong checksum');
  }
  return {
    systemId: readBigU64(bytes, 0),
    pgVersion,
    catalogVersion: readU32(bytes, 12),
    state: readU32(bytes, 16),
    time: readI64(bytes, 24),
    checkpointLsn: readU64(bytes, 32) as Lsn,
    checkpoint: decodeCheckpoint(bytes, 40, pgVersion),
    parameters: readParameters(bytes),
    pageBytes: readU32(bytes, 216),
    walPageBytes: readU32(bytes, 224),
    segmentBytes: readU32(bytes, 228),
    dataChecksums: readU32(bytes, 252) !== 0,
  };
}

export interface SynthesiseOptions {
  /** pg_control of the same cluster at any time; initdb's will do. */
  template: Uint8Array;
  /** Start of the CHECKPOINT_SHUTDOWN record. */
  checkpointLsn: number;
  checkpoint: CheckpointFields;
  /** As the WAL says; undefined keeps the template's. */
  parameters?: ControlParameters | undefined;
}

/** Makes a sealed pg_control of a cluster that was shut down at `checkpointLsn`. */
export function synthesiseControlFile(options: SynthesiseOptions): Uint8Array {
  const pgVersion = versionOf(options.template);
  const bytes = new Uint8Array(CONTROL_FILE_BYTES);
  bytes.set(options.template.subarray(0, crcOffset(pgVersion)));
  writeU32(bytes, 16, STATE_SHUT_DOWN);
  writeU64(bytes, 24, options.checkpoint.time);
  writeU64(bytes, 32, options.checkpointLsn);
  encodeCheckpoint(options.checkpoint, pgVersion, bytes, 40);
  writeU64(bytes, 128, FIRST_UNLOGGED_LSN);
  bytes.fill(0, 136, 169);
  if (options.parameters !== undefined) writeParameters(bytes, options.parameters);
  return sealControlFile(bytes);
}

/** Sets the cluster's state and seals again, in place. */
export function setControlState(bytes: Uint8Array, state: number): Uint8Array {
  writeU32(bytes, 16, state);
  return sealControlFile(bytes);
}

/** Computes and stores the checksum after a change, in place; returns the same bytes. */
export function sealControlFile(bytes: Uint8Array): Uint8Array {
  const at = crcOffset(versionOf(bytes));
  writeU32(bytes, at, crc32c(bytes, 0, at));
  return bytes;
}

function versionOf(bytes: Uint8Array): PgVersion {
  const control = readU32(bytes, 8);
  if (control === 1300) return readU32(bytes, 12) >= CATALOG_VERSION_16 ? 16 : 15;
  if (control === 1700) return 17;
  if (control === 1800) return 18;
  throw new PalimpsestError(
    'unsupported',
    `pg_control has version ${control}`,
    'Only Postgres 15 to 18 are supported.',
  );
}

function crcOffset(pgVersion: PgVersion): number {
  return pgVersion >= 18 ? 292 : 288;
}

function readParameters(bytes: Uint8Array): ControlParameters {
  return {
    walLevel: readI32(bytes, 172),
    walLogHints: bytes[176] === 1,
    maxConnections: readI32(bytes, 180),
    maxWorkerProcesses: readI32(bytes, 184),
    maxWalSenders: readI32(bytes, 188),
    maxPreparedTransactions: readI32(bytes, 192),
    maxLocksPerTransaction: readI32(bytes, 196),
    trackCommitTimestamp: bytes[200] === 1,
  };
}

function writeParameters(bytes: Uint8Array, parameters: ControlParameters): void {
  writeU32(bytes, 172, parameters.walLevel);
  bytes[176] = parameters.walLogHints ? 1 : 0;
  writeU32(bytes, 180, parameters.maxConnections);
  writeU32(bytes, 184, parameters.maxWorkerProcesses);
  writeU32(bytes, 188, parameters.maxWalSenders);
  writeU32(bytes, 192, parameters.maxPreparedTransactions);
  writeU32(bytes, 196, parameters.maxLocksPerTransaction);
  bytes[200] = parameters.trackCommitTimestamp ? 1 : 0;
}

/** One line for logs: where and how the cluster was left. */
export function describeControlFile(control: ControlFile): string {
  return `Postgres ${control.pgVersion}, state ${control.state}, checkpoint ${formatLsn(control.checkpointLsn)}`;
}
