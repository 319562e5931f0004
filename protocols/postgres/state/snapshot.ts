/**
 * The fold's state as bytes: what storage keeps at waypoints of the log.
 *
 *   0 format u32, 4 major version u32, 8 last record start u64, 16 its end u64, 24 newest commit f64, 32 flags u8 (1 the
 *   last record is a shutdown checkpoint), 40 CheckPoint (88), 128 parameters (32), 160 wal_level of the checkpoint
 *   fields i32, 164 origin count u32, 168 origins (id u32, remote LSN u64 each).
 */
import { PalimpsestError } from '../../errors.ts';
import { readI32, readU32, readU64, writeU32, writeU64 } from '../bytes.ts';
import { decodeCheckpoint, encodeCheckpoint } from '../checkpoint.ts';
import { type TimelineStateFields, TimelineStateFold } from './fold.ts';

const FORMAT = 1;
const FIXED_BYTES = 168;
const ORIGIN_BYTES = 12;

/** Encodes a fold's whole state. */
export function encodeTimelineState(fold: TimelineStateFold, pgVersion: number): Uint8Array {
  const state = fold.snapshot();
  const origins = [...state.origins];
  const bytes = new Uint8Array(FIXED_BYTES + origins.length * ORIGIN_BYTES);
  const view = new DataView(bytes.buffer);
  writeU32(bytes, 0, FORMAT);
  writeU32(bytes, 4, pgVersion);
  writeU64(bytes, 8, state.lastRecordStart);
  writeU64(bytes, 16, state.lastRecordEnd);
  view.setFloat64(24, state.newestCommitTime, true);
  bytes[32] = state.lastWasShutdownCheckpoint ? 1 : 0;
  encodeCheckpoint(state.checkpoint, pgVersion, bytes, 40);
  const p = state.parameters;
  writeU32(bytes, 128, p.maxConnections);
  writeU32(bytes, 132, p.maxWorkerProcesses);
  writeU32(bytes, 136, p.maxWalSenders);
  writeU32(bytes, 140, p.maxPreparedTransactions);
  writeU32(bytes, 144, p.maxLocksPerTransaction);
  writeU32(bytes, 148, p.walLevel);
  bytes[152] = p.walLogHints ? 1 : 0;
  bytes[153] = p.trackCommitTimestamp ? 1 : 0;
  writeU32(bytes, 160, state.checkpoint.walLevel);
  writeU32(bytes, 164, origins.length);
  origins.forEach(([origin, remoteLsn], index) => {
    writeU32(bytes, FIXED_BYTES + index * ORIGIN_BYTES, origin);
    writeU64(bytes, FIXED_BYTES + index * ORIGIN_BYTES + 4, remoteLsn);
  });
  return bytes;
}

/** Makes a fold that goes on from encoded state. Throws PalimpsestError when the bytes are not such a state. */
export function decodeTimelineState(bytes: Uint8Array): TimelineStateFold {
  const count = bytes.length >= FIXED_BYTES ? readU32(bytes, 164) : -1;
  if (readU32(bytes, 0) !== FORMAT || bytes.length !== FIXED_BYTES + count * ORIGIN_BYTES) {
    throw new PalimpsestError('corrupt', 'timeline state is damaged or of another format');
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const checkpoint = decodeCheckpoint(bytes, 40, readU32(bytes, 4));
  const fields: TimelineStateFields = {
    checkpoint: { ...checkpoint, walLevel: readI32(bytes, 160) },
    parameters: {
      maxConnections: readI32(bytes, 128),
      maxWorkerProcesses: readI32(bytes, 132),
      maxWalSenders: readI32(bytes, 136),
      maxPreparedTransactions: readI32(bytes, 140),
      maxLocksPerTransaction: readI32(bytes, 144),
      walLevel: readI32(bytes, 148),
      walLogHints: bytes[152] === 1,
      trackCommitTimestamp: bytes[153] === 1,
    },
    lastRecordStart: readU64(bytes, 8),
    lastRecordEnd: readU64(bytes, 16),
    newestCommitTime: view.getFloat64(24, true),
    lastWasShutdownCheckpoint: bytes[32] === 1,
    origins: decodeOrigins(bytes, count),
  };
  return new TimelineStateFold(fields);
}

function decodeOrigins(bytes: Uint8Array, count: number): Map<number, number> {
  const origins = new Map<number, number>();
  for (let i = 0; i < count; i++) {
    const at = FIXED_BYTES + i * ORIGIN_BYTES;
    origins.set(readU32(bytes, at), readU64(bytes, at + 4));
  }
  return origins;
}
