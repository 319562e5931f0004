/**
 * Bounds checks on what a record carries, so that a malformed record is a typed error and never a wild read.
 */
import { CorruptWalError } from '../wal/errors.ts';
import type { DecodedRecord } from '../wal/record.ts';

/** Throws CorruptWalError unless the record's main data has at least `length` bytes. */
export function requireMain(record: DecodedRecord, length: number): void {
  if (record.mainLength < length) throw new CorruptWalError(record.lsn, 'main data is too short');
}

/** Throws CorruptWalError unless block `id` carries at least `length` bytes of data. */
export function requireBlockData(record: DecodedRecord, id: number, length: number): void {
  if (record.dataLength[id]! < length)
    throw new CorruptWalError(record.lsn, `data of block ${id} is too short`);
}
