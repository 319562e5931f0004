/**
 * The two ways in which WAL can be refused: bytes that are not a valid log, and valid records that redo does not
 * know. Both carry the LSN, because that is what an operator looks up.
 */
import { PalimpsestError } from '../../errors.ts';
import { formatLsn, type Lsn } from '../../lsn.ts';

/** The WAL at `lsn` is not what Postgres writes; `reason` says in a few words what is wrong. */
export class CorruptWalError extends PalimpsestError {
  readonly lsn: Lsn;
  readonly reason: string;

  constructor(lsn: number, reason: string) {
    super('corrupt', `WAL at ${formatLsn(lsn)} is corrupt: ${reason}`);
    this.name = 'CorruptWalError';
    this.lsn = lsn as Lsn;
    this.reason = reason;
  }
}

/** A valid record that cannot be applied to a page; names the resource manager and the record's type. */
export class UnsupportedRecordError extends PalimpsestError {
  readonly lsn: Lsn;
  readonly recordName: string;

  constructor(lsn: number, recordName: string) {
    super(
      'unsupported',
      `WAL record ${recordName} at ${formatLsn(lsn)} cannot be applied`,
      'The index or extension that wrote it is not supported by page redo yet.',
    );
    this.name = 'UnsupportedRecordError';
    this.lsn = lsn as Lsn;
    this.recordName = recordName;
  }
}
