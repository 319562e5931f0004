/**
 * The CheckPoint struct, 88 bytes in versions 15 to 18: inside checkpoint records and inside pg_control.
 *
 *   0 redo u64, 8 timeline u32, 12 previous timeline u32, 16 full-page writes u8, 20 wal_level i32 (17 and later),
 *   24 next xid with epoch u64, 32 next oid, 36 next multixact, 40 next multixact offset, 44 oldest xid, 48 its
 *   database, 52 oldest multixact, 56 its database, 64 time i64 (seconds since 1970), 72 oldest and 76 newest xid with
 *   a commit timestamp, 80 oldest active xid.
 *
 * Source: catalog/pg_control.h.
 */
import type { Lsn } from '../lsn.ts';
import type { CheckpointFields } from '../pages/types.ts';
import { readI32, readI64, readU32, readU64, writeU32, writeU64 } from './bytes.ts';

export const CHECKPOINT_BYTES = 88;
const FIRST_VERSION_WITH_WAL_LEVEL = 17;

/** Reads a CheckPoint struct; `walLevel` is 0 in versions 15 and 16, which do not store it. */
export function decodeCheckpoint(bytes: Uint8Array, offset: number, pgVersion: number): CheckpointFields {
  return {
    redo: readU64(bytes, offset) as Lsn,
    timelineId: readU32(bytes, offset + 8),
    previousTimelineId: readU32(bytes, offset + 12),
    fullPageWrites: bytes[offset + 16] === 1,
    walLevel: pgVersion >= FIRST_VERSION_WITH_WAL_LEVEL ? readI32(bytes, offset + 20) : 0,
    nextXid: readU64(bytes, offset + 24),
    nextOid: readU32(bytes, offset + 32),
    nextMulti: readU32(bytes, offset + 36),
    nextMultiOffset: readU32(bytes, offset + 40),
    oldestXid: readU32(bytes, offset + 44),
    oldestXidDb: readU32(bytes, offset + 48),
    oldestMulti: readU32(bytes, offset + 52),
    oldestMultiDb: readU32(bytes, offset + 56),
    time: readI64(bytes, offset + 64),
    oldestCommitTsXid: readU32(bytes, offset + 72),
    newestCommitTsXid: readU32(bytes, offset + 76),
    oldestActiveXid: readU32(bytes, offset + 80),
  };
}

/** Writes the 88 bytes at `offset`; all padding becomes zero, as Postgres writes it. */
export function encodeCheckpoint(
  fields: CheckpointFields,
  pgVersion: number,
  target: Uint8Array = new Uint8Array(CHECKPOINT_BYTES),
  offset = 0,
): Uint8Array {
  target.fill(0, offset, offset + CHECKPOINT_BYTES);
  writeU64(target, offset, fields.redo);
  writeU32(target, offset + 8, fields.timelineId);
  writeU32(target, offset + 12, fields.previousTimelineId);
  target[offset + 16] = fields.fullPageWrites ? 1 : 0;
  if (pgVersion >= FIRST_VERSION_WITH_WAL_LEVEL) writeU32(target, offset + 20, fields.walLevel);
  writeU64(target, offset + 24, fields.nextXid);
  writeU32(target, offset + 32, fields.nextOid);
  writeU32(target, offset + 36, fields.nextMulti);
  writeU32(target, offset + 40, fields.nextMultiOffset);
  writeU32(target, offset + 44, fields.oldestXid);
  writeU32(target, offset + 48, fields.oldestXidDb);
  writeU32(target, offset + 52, fields.oldestMulti);
  writeU32(target, offset + 56, fields.oldestMultiDb);
  writeU64(target, offset + 64, fields.time);
  writeU32(target, offset + 72, fields.oldestCommitTsXid);
  writeU32(target, offset + 76, fields.newestCommitTsXid);
  writeU32(target, offset + 80, fields.oldestActiveXid);
  return target;
}
