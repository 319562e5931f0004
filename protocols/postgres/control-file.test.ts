import { expect, test } from 'vitest';
import type { Lsn } from '../lsn.ts';
import type { CheckpointFields, ControlParameters } from '../pages/types.ts';
import { writeBigU64, writeU32 } from './bytes.ts';
import {
  parseControlFile,
  STATE_IN_PRODUCTION,
  STATE_SHUT_DOWN,
  sealControlFile,
  setControlState,
  synthesiseControlFile,
} from './control-file.ts';

const CHECKPOINT: CheckpointFields = {
  redo: 0x1000028 as Lsn,
  timelineId: 1,
  previousTimelineId: 1,
  fullPageWrites: false,
  walLevel: 0,
  nextXid: 2 ** 33 + 5,
  nextOid: 30_000,
  nextMulti: 77,
  nextMultiOffset: 88,
  oldestXid: 730,
  oldestXidDb: 1,
  oldestMulti: 2,
  oldestMultiDb: 5,
  time: 1_760_000_123,
  oldestCommitTsXid: 4,
  newestCommitTsXid: 5,
  oldestActiveXid: 0,
};

const PARAMETERS: ControlParameters = {
  walLevel: 2,
  walLogHints: true,
  maxConnections: 42,
  maxWorkerProcesses: 3,
  maxWalSenders: 4,
  maxPreparedTransactions: 5,
  maxLocksPerTransaction: 6,
  trackCommitTimestamp: true,
};

/** A pg_control with the given versions and nothing else of interest. */
function template(controlVersion: number, catalogVersion: number): Uint8Array {
  const bytes = new Uint8Array(8192);
  writeBigU64(bytes, 0, 7_300_000_000_000_000_001n);
  writeU32(bytes, 8, controlVersion);
  writeU32(bytes, 12, catalogVersion);
  writeU32(bytes, 16, STATE_IN_PRODUCTION);
  writeU32(bytes, 136, 99);
  return sealControlFile(bytes);
}

test.each([
  [15, 1300, 202209061],
  [16, 1300, 202307071],
  [17, 1700, 202406281],
  [18, 1800, 202506291],
])('a control file of version %i is made and read back', (pgVersion, controlVersion, catalogVersion) => {
  const made = synthesiseControlFile({
    template: template(controlVersion, catalogVersion),
    checkpointLsn: CHECKPOINT.redo,
    checkpoint: CHECKPOINT,
    parameters: PARAMETERS,
  });
  const control = parseControlFile(made);
  expect(control).toMatchObject({
    pgVersion,
    systemId: 7_300_000_000_000_000_001n,
    state: STATE_SHUT_DOWN,
    checkpointLsn: CHECKPOINT.redo,
    checkpoint: CHECKPOINT,
    parameters: PARAMETERS,
  });
  expect(made[136]).toBe(0);
});

test('a flipped byte is noticed', () => {
  const bytes = template(1700, 202406281);
  bytes[60]! ^= 1;
  expect(() => parseControlFile(bytes)).toThrow(/checksum/);
});

test('an unknown version is refused by name', () => {
  const bytes = template(1700, 202406281);
  writeU32(bytes, 8, 1400);
  expect(() => parseControlFile(bytes)).toThrow(/version 1400/);
});

test('setting the state keeps the file valid', () => {
  expect(parseControlFile(setControlState(template(1800, 202506291), STATE_SHUT_DOWN)).state).toBe(
    STATE_SHUT_DOWN,
  );
});
